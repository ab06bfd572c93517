//! Settings of the pipeline, and of one container; checked when they are given.

use crate::protocol::PROTOCOLS;
use crate::routes::Patterns;
use crate::sampling::Sampler;
use crate::settings::{IgnoredPath, Settings};
use std::collections::BTreeSet;

/// Default of [`Config::max_flows`].
pub const DEFAULT_MAX_FLOWS: usize = 65_536;

/// Default of [`Config::max_routes`].
pub const DEFAULT_MAX_ROUTES: usize = 200;

/// Settings of a [`crate::Pipeline`].
#[derive(Clone, Debug)]
pub struct Config {
    /// Seed of trace and span ids. Two pipelines with one seed give the same ids: take it from the system's
    /// randomness, except to replay.
    pub seed: [u8; 32],
    /// Most flows in the table; the least recently used one makes room.
    pub max_flows: usize,
    /// Most distinct routes that the heuristic gives per container; further ones share the overflow bucket.
    pub max_routes: usize,
    /// Settings of containers that were not given their own ([`crate::Pipeline::configure`]).
    pub defaults: SlotConfig,
}

impl Default for Config {
    /// Everything enabled, with the all-zero seed.
    fn default() -> Self {
        Self {
            seed: [0; 32],
            max_flows: DEFAULT_MAX_FLOWS,
            max_routes: DEFAULT_MAX_ROUTES,
            defaults: SlotConfig::default(),
        }
    }
}

/// Settings of one container; the default enables everything.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SlotConfig {
    /// Which traces give spans.
    pub sampler: Sampler,
    /// Route patterns in `/users/{id}` form (`{*rest}` for a tail), tried before the heuristic.
    pub routes: Vec<String>,
    /// Paths that give neither span nor measurement: exact, or a prefix with `*` at the end.
    pub ignore_paths: Vec<String>,
    /// Names of the enabled protocols; `None` enables all.
    pub protocols: Option<Vec<String>>,
    /// Server ports of the flows that are read, whichever role the container has; `None` for all flows. A unix socket
    /// has no port: if ports are listed, it is not read. Plaintext of a TLS connection is read from when its socket is
    /// known.
    pub ports: Option<BTreeSet<u16>>,
}

/// Why a [`Config`] or a [`SlotConfig`] is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A route pattern that cannot be read, or that contradicts an earlier one.
    #[error("route pattern {pattern:?} cannot be used: {reason}; write it as /users/{{id}}")]
    Route {
        /// As configured.
        pattern: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An ignored path that could never match.
    #[error("ignored path {0:?} cannot match: it must start with / and may end in *")]
    IgnorePath(String),
    /// A protocol that does not exist.
    #[error("protocol {name:?} is not known: choose from {known}")]
    Protocol {
        /// As configured.
        name: String,
        /// Names that exist, comma-separated.
        known: String,
    },
    /// A ratio outside 0 to 1.
    #[error("the sampling ratio must be a number from 0 to 1")]
    Sampler,
    /// A limit of zero.
    #[error("{0} must be at least 1")]
    Zero(&'static str),
}

impl Config {
    /// Checks what is not a container's.
    pub(crate) fn check_limits(&self) -> Result<(), ConfigError> {
        for (name, limit) in [
            ("max_flows", self.max_flows),
            ("max_routes", self.max_routes),
        ] {
            if limit == 0 {
                return Err(ConfigError::Zero(name));
            }
        }
        Ok(())
    }
}

impl SlotConfig {
    /// Tells whether a pipeline with [`PROTOCOLS`] will take it; costs as much as taking it.
    pub fn check(&self) -> Result<(), ConfigError> {
        Settings::compile(self.clone(), PROTOCOLS).map(drop)
    }
}

/// Checks one route pattern on its own. That two patterns contradict each other only [`SlotConfig::check`] tells.
pub fn check_route(pattern: &str) -> Result<(), ConfigError> {
    Patterns::new(&[pattern]).map(drop)
}

/// Checks one ignored path.
pub fn check_ignore_path(path: &str) -> Result<(), ConfigError> {
    IgnoredPath::parse(path).map(drop)
}

/// True if [`PROTOCOLS`] has a protocol of this name.
pub fn known_protocol(name: &str) -> bool {
    PROTOCOLS.iter().any(|protocol| protocol.name == name)
}

#[cfg(test)]
mod tests {
    use super::{Config, ConfigError, SlotConfig, check_ignore_path, check_route, known_protocol};
    use crate::protocol::PROTOCOLS;
    use crate::sampling::Sampler;

    #[test]
    fn limits_are_checked() {
        assert_eq!(Config::default().check_limits(), Ok(()));
        let config = Config {
            max_flows: 0,
            ..Config::default()
        };
        assert_eq!(config.check_limits(), Err(ConfigError::Zero("max_flows")));
    }

    #[test]
    fn every_part_of_a_container_is_checked() {
        assert_eq!(SlotConfig::default().check(), Ok(()));
        let sampler = SlotConfig {
            sampler: Sampler::TraceIdRatio(f64::NAN),
            ..SlotConfig::default()
        };
        assert_eq!(sampler.check(), Err(ConfigError::Sampler));
        let protocol = SlotConfig {
            protocols: Some(vec!["http9".into()]),
            ..SlotConfig::default()
        };
        assert!(matches!(
            protocol.check(),
            Err(ConfigError::Protocol { name, .. }) if name == "http9"
        ));
        let ignored = SlotConfig {
            ignore_paths: vec!["healthz".into()],
            ..SlotConfig::default()
        };
        assert_eq!(
            ignored.check(),
            Err(ConfigError::IgnorePath("healthz".into()))
        );
        let contradiction = SlotConfig {
            routes: vec!["/users/{id}".into(), "/users/{name}".into()],
            ..SlotConfig::default()
        };
        assert!(matches!(
            contradiction.check(),
            Err(ConfigError::Route { pattern, .. }) if pattern == "/users/{name}"
        ));
    }

    #[test]
    fn parts_are_checked_on_their_own() {
        assert_eq!(check_route("/users/{id}"), Ok(()));
        assert!(matches!(
            check_route("users"),
            Err(ConfigError::Route { pattern, .. }) if pattern == "users"
        ));
        assert_eq!(check_ignore_path("/health*"), Ok(()));
        assert_eq!(
            check_ignore_path("*"),
            Err(ConfigError::IgnorePath("*".into()))
        );
        assert!(PROTOCOLS.iter().all(|line| known_protocol(line.name)));
        assert!(!known_protocol("http9"));
    }
}
