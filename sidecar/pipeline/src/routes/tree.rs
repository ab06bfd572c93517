//! The heuristic's memory: a bounded tree of the segments seen so far.

use super::segment::placeholder;
use compact_str::CompactString;
use hashbrown::HashMap;

/// Segments of a path that count; the rest becomes one `*`.
const MAX_DEPTH: usize = 8;

/// Distinct words at one place of a path, above which they are taken for values.
const MAX_WORDS: usize = 50;

/// Nodes per distinct route that the tree may hold: inner nodes are not routes.
const NODES_PER_ROUTE: usize = MAX_DEPTH;

/// What was learned about one container's paths.
#[derive(Debug)]
pub(super) struct RouteTree {
    root: Node,
    nodes: usize,
    routes: usize,
    max_routes: usize,
}

#[derive(Debug, Default)]
struct Node {
    words: HashMap<CompactString, Node>,
    /// Words and placeholders that are not words: `{id}`, `*`.
    values: Vec<(&'static str, Node)>,
    /// New words are values here.
    saturated: bool,
    /// The route that ends here, once it was given out.
    route: Option<CompactString>,
}

impl RouteTree {
    pub(super) fn new(max_routes: usize) -> Self {
        Self {
            root: Node::default(),
            nodes: 0,
            routes: 0,
            max_routes,
        }
    }

    /// The route of a path, or `None` if that would be one too many.
    pub(super) fn route(&mut self, path: &str) -> Option<CompactString> {
        let path = path.strip_prefix('/')?;
        let mut budget = self
            .max_routes
            .saturating_mul(NODES_PER_ROUTE)
            .saturating_sub(self.nodes);
        let before = budget;
        let node = descend(&mut self.root, path, &mut budget);
        self.nodes = self.nodes.saturating_add(before.saturating_sub(budget));
        let (node, pattern) = node?;
        if node.route.is_none() {
            if self.routes >= self.max_routes {
                return None;
            }
            self.routes = self.routes.saturating_add(1);
            node.route = Some(pattern);
        }
        node.route.clone()
    }
}

/// Walks to the node of a path, making what is missing while `budget` lasts.
fn descend<'a>(
    root: &'a mut Node,
    path: &str,
    budget: &mut usize,
) -> Option<(&'a mut Node, CompactString)> {
    let mut node = root;
    let mut pattern = CompactString::default();
    for (depth, segment) in path.split('/').enumerate() {
        let value = if depth < MAX_DEPTH {
            placeholder(segment)
        } else {
            Some("*")
        };
        let word = match value {
            Some(_) => None,
            None => node.admit(segment, depth),
        };
        pattern.push('/');
        node = if let Some(word) = word {
            pattern.push_str(word);
            node.word(word, budget)?
        } else {
            let value = value.unwrap_or("*");
            pattern.push_str(value);
            node.value(value, budget)?
        };
        if depth >= MAX_DEPTH {
            break;
        }
    }
    Some((node, pattern))
}

impl Node {
    /// The segment, if it is a word here. One word too many shows that the words of this place are values. The
    /// first segment is different: there the known words stay words, so that a scanner that tries a thousand paths
    /// cannot take the names of the real ones away.
    fn admit<'s>(&mut self, segment: &'s str, depth: usize) -> Option<&'s str> {
        if self.words.contains_key(segment) {
            return Some(segment);
        }
        if !self.saturated && self.words.len() >= MAX_WORDS {
            self.saturated = true;
            if depth > 0 {
                self.words = HashMap::new();
            }
        }
        (!self.saturated).then_some(segment)
    }

    fn word(&mut self, word: &str, budget: &mut usize) -> Option<&mut Self> {
        if !self.words.contains_key(word) {
            *budget = budget.checked_sub(1)?;
        }
        Some(self.words.entry(word.into()).or_default())
    }

    fn value(&mut self, value: &'static str, budget: &mut usize) -> Option<&mut Self> {
        let known = self.values.iter().position(|(name, _)| *name == value);
        let index = if let Some(index) = known {
            index
        } else {
            *budget = budget.checked_sub(1)?;
            self.values.push((value, Self::default()));
            self.values.len().saturating_sub(1)
        };
        self.values.get_mut(index).map(|(_, node)| node)
    }
}

#[cfg(test)]
mod tests {
    use super::{MAX_WORDS, RouteTree};
    use proptest::prelude::*;
    use std::collections::HashSet;

    #[test]
    fn identifiers_become_placeholders() {
        let mut tree = RouteTree::new(100);
        for (path, expected) in [
            ("/", "/"),
            ("/users/42/orders/7", "/users/{id}/orders/{id}"),
            ("/users/", "/users/"),
            ("/users", "/users"),
            ("/a/b/c/d/e/f/g/h/i/j/k", "/a/b/c/d/e/f/g/h/*"),
        ] {
            assert_eq!(tree.route(path).as_deref(), Some(expected));
        }
        assert_eq!(tree.route("*"), None);
    }

    #[test]
    fn many_words_at_one_place_are_values() {
        let mut tree = RouteTree::new(1000);
        let name = |index: usize| {
            format!(
                "/people/{}{}",
                "a".repeat(index / 26),
                char::from(b'a' + (index % 26) as u8)
            )
        };
        for index in 0..MAX_WORDS {
            assert_eq!(
                tree.route(&format!("{}/mail", name(index))),
                Some(format!("{}/mail", name(index)).into())
            );
        }
        assert_eq!(
            tree.route("/people/zoe/mail").as_deref(),
            Some("/people/*/mail")
        );
        assert_eq!(
            tree.route(&format!("{}/mail", name(0))).as_deref(),
            Some("/people/*/mail")
        );
    }

    #[test]
    fn a_scanner_does_not_take_names_away() {
        let mut tree = RouteTree::new(1000);
        assert_eq!(
            tree.route("/checkout/42").as_deref(),
            Some("/checkout/{id}")
        );
        for index in 0..1000 {
            let junk: String = format!("{index:03}")
                .bytes()
                .map(|digit| char::from(digit - b'0' + b'a'))
                .collect();
            assert!(tree.route(&format!("/{junk}")).is_some());
        }
        assert_eq!(
            tree.route("/checkout/42").as_deref(),
            Some("/checkout/{id}")
        );
        assert_eq!(tree.route("/unknown").as_deref(), Some("/*"));
    }

    proptest! {
        #[test]
        fn any_paths_stay_under_the_cap(paths in proptest::collection::vec("(/[a-zA-Z0-9%.@\\PC-]{0,6}){0,12}", 0..300)) {
            let mut tree = RouteTree::new(20);
            let routes: HashSet<_> = paths.iter().filter_map(|path| tree.route(path)).collect();
            prop_assert!(routes.len() <= 20 && tree.nodes <= 160);
        }
    }
}
