//! Routes: low-cardinality names for paths.
//!
//! Patterns of the configuration come first. Every other path goes through a heuristic that replaces what looks like
//! an identifier, learns which segments are words, and stops at a hard cap per container.

mod segment;
mod tree;

use crate::config::ConfigError;
use crate::model::Slot;
use crate::semconv;
use compact_str::CompactString;
use hashbrown::{HashMap, HashSet};
use tree::RouteTree;

/// The route of every path that no more distinct route is left for.
pub(crate) const OVERFLOW: CompactString = CompactString::const_new("/*");

/// The explicit patterns of one container's settings.
pub(crate) struct Patterns(matchit::Router<CompactString>);

impl Patterns {
    /// Checks the patterns, also against each other.
    pub(crate) fn new(patterns: &[impl AsRef<str>]) -> Result<Self, ConfigError> {
        let mut router = matchit::Router::new();
        for pattern in patterns.iter().map(AsRef::as_ref) {
            let refused = |reason: String| ConfigError::Route {
                pattern: pattern.to_owned(),
                reason,
            };
            if !pattern.starts_with('/') {
                return Err(refused("it does not start with /".to_owned()));
            }
            router
                .insert(pattern, CompactString::from(pattern))
                .map_err(|error| refused(error.to_string()))?;
        }
        Ok(Self(router))
    }
}

/// What was learned per container.
pub(crate) struct Routes {
    learned: HashMap<Slot, Learned>,
    limit: usize,
}

/// What was learned of one container.
struct Learned {
    tree: RouteTree,
    /// Names that stand for themselves.
    names: HashSet<CompactString>,
}

impl Routes {
    /// Gives each container at most `max_routes` distinct routes beside its patterns.
    pub(crate) fn new(max_routes: usize) -> Self {
        Self {
            learned: HashMap::new(),
            limit: max_routes,
        }
    }

    /// The route of a path without its query; `None` for the empty path. True with it if the cap was met.
    pub(crate) fn route(
        &mut self,
        slot: Slot,
        patterns: &Patterns,
        path: &str,
    ) -> Option<(CompactString, bool)> {
        if path.is_empty() {
            return None;
        }
        if let Ok(found) = patterns.0.at(path) {
            return Some((found.value.clone(), false));
        }
        let tree = &mut self.learned(slot).tree;
        Some(
            tree.route(path)
                .map_or((OVERFLOW, true), |route| (route, false)),
        )
    }

    /// A name that stands for itself, such as a method; `_OTHER` for the empty one, and for those of which there are too
    /// many. True with it if the cap was met.
    pub(crate) fn name(&mut self, slot: Slot, name: &str) -> (CompactString, bool) {
        let other = CompactString::const_new(semconv::OTHER);
        if name.is_empty() {
            return (other, false);
        }
        let limit = self.limit;
        let names = &mut self.learned(slot).names;
        if let Some(known) = names.get(name) {
            return (known.clone(), false);
        }
        if names.len() >= limit {
            return (other, true);
        }
        let name = CompactString::from(name);
        names.insert(name.clone());
        (name, false)
    }

    fn learned(&mut self, slot: Slot) -> &mut Learned {
        let limit = self.limit;
        self.learned.entry(slot).or_insert_with(|| Learned {
            tree: RouteTree::new(limit),
            names: HashSet::new(),
        })
    }

    /// Forgets what was learned for a container.
    pub(crate) fn forget(&mut self, slot: Slot) {
        self.learned.remove(&slot);
    }
}

#[cfg(test)]
mod tests {
    use super::{Patterns, Routes};
    use crate::config::ConfigError;
    use crate::model::Slot;

    #[test]
    fn patterns_win_over_the_heuristic() {
        let patterns = Patterns::new(&["/users/{id}", "/static/{*file}"]).unwrap();
        let mut routes = Routes::new(10);
        for (path, expected) in [
            ("/users/alice", "/users/{id}"),
            ("/static/a/b.css", "/static/{*file}"),
            ("/users/alice/x", "/users/alice/x"),
        ] {
            assert_eq!(routes.route(Slot(1), &patterns, path).unwrap().0, expected);
        }
        assert_eq!(routes.route(Slot(1), &patterns, ""), None);
    }

    #[test]
    fn bad_patterns_are_refused() {
        for bad in ["users", "/users/{", "/users/{a}{b}"] {
            assert!(
                matches!(Patterns::new(&[bad]), Err(ConfigError::Route { pattern, .. }) if pattern == bad),
                "{bad}"
            );
        }
        assert!(Patterns::new(&["/users/{id}", "/users/{name}"]).is_err());
    }

    #[test]
    fn the_cap_is_per_container_and_forgotten_with_it() {
        let (none, mut routes) = (Patterns::new(&[""; 0]).unwrap(), Routes::new(2));
        for path in ["/a", "/b"] {
            assert_eq!(
                routes.route(Slot(1), &none, path),
                Some((path.into(), false))
            );
        }
        for (slot, path, expected) in [
            (1, "/c", ("/*", true)),
            (1, "/a", ("/a", false)),
            (2, "/c", ("/c", false)),
        ] {
            let expected = (expected.0.into(), expected.1);
            assert_eq!(routes.route(Slot(slot), &none, path), Some(expected));
        }
        routes.forget(Slot(1));
        assert_eq!(
            routes.route(Slot(1), &none, "/c"),
            Some(("/c".into(), false))
        );
    }

    #[test]
    fn names_stand_for_themselves_up_to_the_cap() {
        let mut routes = Routes::new(2);
        for (slot, name, expected) in [
            (1, "", ("_OTHER", false)),
            (1, "a.B/C", ("a.B/C", false)),
            (1, "a.B/4711", ("a.B/4711", false)),
            (1, "a.B/D", ("_OTHER", true)),
            (1, "a.B/C", ("a.B/C", false)),
            (2, "a.B/D", ("a.B/D", false)),
        ] {
            let expected = (expected.0.into(), expected.1);
            assert_eq!(routes.name(Slot(slot), name), expected, "{name}");
        }
    }
}
