//! Aliases and merge keys. They are never expanded: a look-up follows them one at a time, so that a nest of them costs
//! nothing.

use super::tree::{Node, Value};
use std::collections::{HashMap, HashSet};

/// Most aliases and merge keys that one look-up follows.
const MAX_HOPS: usize = 16;

/// What aliases of one document refer to.
pub(super) struct Anchors<'t, 'a> {
    targets: HashMap<usize, &'t Node<'a>>,
    used: HashSet<usize>,
}

impl<'t, 'a> Anchors<'t, 'a> {
    pub(super) fn of(document: &'t Node<'a>) -> Self {
        let mut anchors = Self {
            targets: HashMap::new(),
            used: HashSet::new(),
        };
        anchors.collect(document);
        anchors
    }

    fn collect(&mut self, node: &'t Node<'a>) {
        if node.anchor != 0 {
            self.targets.insert(node.anchor, node);
        }
        if let Value::Alias(id) = node.value {
            self.used.insert(id);
        }
        for child in node.children() {
            self.collect(child);
        }
    }

    /// Whether the node stands in the document more than once.
    pub(super) fn is_shared(&self, node: &Node<'_>) -> bool {
        matches!(node.value, Value::Alias(_))
            || (node.anchor != 0 && self.used.contains(&node.anchor))
    }

    /// What the node stands for.
    pub(super) fn resolve(&self, mut node: &'t Node<'a>) -> Option<&'t Node<'a>> {
        for _ in 0..MAX_HOPS {
            let Value::Alias(id) = node.value else {
                return Some(node);
            };
            node = self.targets.get(&id).copied()?;
        }
        None
    }

    /// The value at a key, also one that a merge key brings.
    pub(super) fn get(&self, node: &'t Node<'a>, key: &str) -> Option<&'t Node<'a>> {
        self.get_within(node, key, MAX_HOPS)
    }

    fn get_within(&self, node: &'t Node<'a>, key: &str, hops: usize) -> Option<&'t Node<'a>> {
        let node = self.resolve(node)?;
        if let Some(value) = node.own(key) {
            return self.resolve(value);
        }
        let merged = self.resolve(node.own("<<")?)?;
        let hops = hops.checked_sub(1)?;
        if merged.items().is_empty() {
            self.get_within(merged, key, hops)
        } else {
            // Each takes its share of the hops, so that merges of merges end.
            let hops = hops / merged.items().len();
            merged
                .items()
                .iter()
                .find_map(|item| self.get_within(item, key, hops))
        }
    }

    /// The items of the sequence at a key.
    pub(super) fn list(
        &self,
        node: &'t Node<'a>,
        key: &str,
    ) -> impl Iterator<Item = &'t Node<'a>> + use<'_, 't, 'a> {
        let items = self.get(node, key).map_or(&[][..], Node::items);
        items.iter().filter_map(|item| self.resolve(item))
    }

    /// The text at a key.
    pub(super) fn text(&self, node: &'t Node<'a>, key: &str) -> Option<&'t str> {
        self.get(node, key)?.as_text()
    }
}
