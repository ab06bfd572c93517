//! Routes: low-cardinality names for paths.
//!
//! Patterns of the configuration come first. Every other path goes through a heuristic that replaces what looks like
//! an identifier, learns which segments are words, and stops at a hard cap per container.

mod segment;
mod tree;

use crate::config::ConfigError;
use crate::model::Slot;
use compact_str::CompactString;
use hashbrown::HashMap;
use tree::RouteTree;

/// The route of every path that no more distinct route is left for.
pub(crate) const OVERFLOW: CompactString = CompactString::const_new("/*");

/// Explicit patterns, and what was learned per container.
pub(crate) struct Routes {
    patterns: matchit::Router<CompactString>,
    learned: HashMap<Slot, RouteTree>,
    limit: usize,
}

impl Routes {
    /// Checks the patterns.
    pub(crate) fn new(patterns: &[String], max_routes: usize) -> Result<Self, ConfigError> {
        let mut router = matchit::Router::new();
        for pattern in patterns {
            let refused = |reason: String| ConfigError::Route {
                pattern: pattern.clone(),
                reason,
            };
            if !pattern.starts_with('/') {
                return Err(refused("it does not start with /".to_owned()));
            }
            router
                .insert(pattern.as_str(), CompactString::from(pattern.as_str()))
                .map_err(|error| refused(error.to_string()))?;
        }
        Ok(Self {
            patterns: router,
            learned: HashMap::new(),
            limit: max_routes,
        })
    }

    /// The route of a path without its query; `None` for the empty path. True with it if the cap was met.
    pub(crate) fn route(&mut self, slot: Slot, path: &str) -> Option<(CompactString, bool)> {
        if path.is_empty() {
            return None;
        }
        if let Ok(found) = self.patterns.at(path) {
            return Some((found.value.clone(), false));
        }
        let tree = self
            .learned
            .entry(slot)
            .or_insert_with(|| RouteTree::new(self.limit));
        Some(
            tree.route(path)
                .map_or((OVERFLOW, true), |route| (route, false)),
        )
    }

    /// Forgets what was learned for a container.
    pub(crate) fn forget(&mut self, slot: Slot) {
        self.learned.remove(&slot);
    }
}

#[cfg(test)]
mod tests {
    use super::Routes;
    use crate::config::ConfigError;
    use crate::model::Slot;

    fn routes(patterns: &[&str], max: usize) -> Result<Routes, ConfigError> {
        let patterns: Vec<String> = patterns.iter().map(ToString::to_string).collect();
        Routes::new(&patterns, max)
    }

    #[test]
    fn patterns_win_over_the_heuristic() {
        let mut routes = routes(&["/users/{id}", "/static/{*file}"], 10).unwrap();
        for (path, expected) in [
            ("/users/alice", "/users/{id}"),
            ("/static/a/b.css", "/static/{*file}"),
            ("/users/alice/x", "/users/alice/x"),
        ] {
            assert_eq!(routes.route(Slot(1), path).unwrap().0, expected);
        }
        assert_eq!(routes.route(Slot(1), ""), None);
    }

    #[test]
    fn bad_patterns_are_refused() {
        for bad in ["users", "/users/{", "/users/{a}{b}"] {
            assert!(
                matches!(routes(&[bad], 10), Err(ConfigError::Route { pattern, .. }) if pattern == bad),
                "{bad}"
            );
        }
        assert!(routes(&["/users/{id}", "/users/{name}"], 10).is_err());
    }

    #[test]
    fn the_cap_is_per_container_and_forgotten_with_it() {
        let mut routes = routes(&[], 2).unwrap();
        for path in ["/a", "/b"] {
            assert_eq!(routes.route(Slot(1), path), Some((path.into(), false)));
        }
        assert_eq!(routes.route(Slot(1), "/c"), Some(("/*".into(), true)));
        assert_eq!(routes.route(Slot(1), "/a"), Some(("/a".into(), false)));
        assert_eq!(routes.route(Slot(2), "/c"), Some(("/c".into(), false)));
        routes.forget(Slot(1));
        assert_eq!(routes.route(Slot(1), "/c"), Some(("/c".into(), false)));
    }
}
