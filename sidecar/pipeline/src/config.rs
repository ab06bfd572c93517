//! Settings of the pipeline, checked once when it is made.

use crate::sampling::Sampler;

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
    /// Which traces give spans.
    pub sampler: Sampler,
    /// Route patterns in `/users/{id}` form (`{*rest}` for a tail), tried before the heuristic.
    pub routes: Vec<String>,
    /// Paths that give neither span nor measurement: exact, or a prefix with `*` at the end.
    pub ignore_paths: Vec<String>,
    /// Most flows in the table; the least recently used one makes room.
    pub max_flows: usize,
    /// Most distinct routes that the heuristic gives per container; further ones share the overflow bucket.
    pub max_routes: usize,
    /// Names of the enabled protocols; `None` enables all.
    pub protocols: Option<Vec<String>>,
}

impl Default for Config {
    /// Everything enabled, with the all-zero seed.
    fn default() -> Self {
        Self {
            seed: [0; 32],
            sampler: Sampler::default(),
            routes: Vec::new(),
            ignore_paths: Vec::new(),
            max_flows: DEFAULT_MAX_FLOWS,
            max_routes: DEFAULT_MAX_ROUTES,
            protocols: None,
        }
    }
}

/// Why a [`Config`] is refused.
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
    /// Checks what no other part checks on its own.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        if !self.sampler.is_valid() {
            return Err(ConfigError::Sampler);
        }
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

#[cfg(test)]
mod tests {
    use super::{Config, ConfigError};
    use crate::sampling::Sampler;

    #[test]
    fn limits_and_ratios_are_checked() {
        assert_eq!(Config::default().check(), Ok(()));
        let config = Config {
            max_flows: 0,
            ..Config::default()
        };
        assert_eq!(config.check(), Err(ConfigError::Zero("max_flows")));
        let config = Config {
            sampler: Sampler::TraceIdRatio(f64::NAN),
            ..Config::default()
        };
        assert_eq!(config.check(), Err(ConfigError::Sampler));
    }
}
