//! Head sampling, by the names and rules of the OpenTelemetry specification.

use crate::model::TraceId;
use std::fmt;

/// Decides at the start of a trace whether its spans are exported. Measurements are never sampled.
#[derive(Clone, Debug, PartialEq)]
pub enum Sampler {
    /// Every span.
    AlwaysOn,
    /// No span.
    AlwaysOff,
    /// This share of traces, 0 to 1, decided by the trace id alone, so that every observer agrees.
    TraceIdRatio(f64),
    /// As the parent was decided, and by the inner sampler for a trace that begins here.
    ParentBased(Box<Sampler>),
}

/// Why `OTEL_TRACES_SAMPLER` or `OTEL_TRACES_SAMPLER_ARG` cannot be obeyed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SamplerError {
    /// A sampler that does not exist, or that needs a service.
    #[error(
        "OTEL_TRACES_SAMPLER={0:?} is not a known sampler: use always_on, always_off, traceidratio, \
         parentbased_always_on, parentbased_always_off or parentbased_traceidratio"
    )]
    UnknownName(String),
    /// Not a number between 0 and 1.
    #[error("OTEL_TRACES_SAMPLER_ARG={0:?} is not a ratio: use a number from 0 to 1, such as 0.25")]
    BadRatio(String),
}

impl Default for Sampler {
    /// `parentbased_always_on`, the specification's default.
    fn default() -> Self {
        Self::ParentBased(Box::new(Self::AlwaysOn))
    }
}

impl Sampler {
    /// Reads the values of `OTEL_TRACES_SAMPLER` and `OTEL_TRACES_SAMPLER_ARG`; an empty value counts as unset and
    /// a missing ratio as 1.
    pub fn from_env_values(name: Option<&str>, arg: Option<&str>) -> Result<Self, SamplerError> {
        let arg = arg.map(str::trim).filter(|value| !value.is_empty());
        let Some(name) = name.map(str::trim).filter(|value| !value.is_empty()) else {
            return Ok(Self::default());
        };
        let (parent_based, root) = match name.strip_prefix("parentbased_") {
            Some(root) => (true, root),
            None => (false, name),
        };
        let sampler = match root {
            "always_on" => Self::AlwaysOn,
            "always_off" => Self::AlwaysOff,
            "traceidratio" => Self::TraceIdRatio(ratio(arg)?),
            _ => return Err(SamplerError::UnknownName(name.to_owned())),
        };
        Ok(if parent_based {
            Self::ParentBased(Box::new(sampler))
        } else {
            sampler
        })
    }

    /// The decision for a span of this trace; `parent` is the parent's decision, `None` for a root.
    pub(crate) fn samples(&self, trace_id: TraceId, parent: Option<bool>) -> bool {
        match self {
            Self::AlwaysOn => true,
            Self::AlwaysOff => false,
            Self::TraceIdRatio(ratio) => below_ratio(trace_id, *ratio),
            Self::ParentBased(root) => parent.unwrap_or_else(|| root.samples(trace_id, None)),
        }
    }

    /// True if every ratio in it lies between 0 and 1.
    pub(crate) fn is_valid(&self) -> bool {
        match self {
            Self::AlwaysOn | Self::AlwaysOff => true,
            Self::TraceIdRatio(ratio) => (0.0..=1.0).contains(ratio),
            Self::ParentBased(root) => root.is_valid(),
        }
    }
}

impl fmt::Display for Sampler {
    /// The specification's name, with the argument after `=` where there is one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AlwaysOn => f.write_str("always_on"),
            Self::AlwaysOff => f.write_str("always_off"),
            Self::TraceIdRatio(ratio) => write!(f, "traceidratio={ratio}"),
            Self::ParentBased(root) => write!(f, "parentbased_{root}"),
        }
    }
}

fn ratio(arg: Option<&str>) -> Result<f64, SamplerError> {
    let Some(arg) = arg else { return Ok(1.0) };
    arg.parse()
        .ok()
        .filter(|ratio| (0.0..=1.0).contains(ratio))
        .ok_or_else(|| SamplerError::BadRatio(arg.to_owned()))
}

/// The SDKs' common algorithm: the low 63 bits of the id's second half against the ratio.
fn below_ratio(trace_id: TraceId, ratio: f64) -> bool {
    let low = u128::from_be_bytes(trace_id.0) as u64 >> 1;
    ratio >= 1.0 || low < (ratio.max(0.0) * (1_u64 << 63) as f64) as u64
}

#[cfg(test)]
mod tests {
    use super::{Sampler, SamplerError};
    use crate::model::TraceId;

    fn id(low: u64) -> TraceId {
        TraceId(((1_u128 << 64) | u128::from(low)).to_be_bytes())
    }

    #[test]
    fn environment_names() {
        let parent = |inner| Sampler::ParentBased(Box::new(inner));
        for (name, arg, expected) in [
            (None, None, Sampler::default()),
            (Some(""), Some("0.5"), Sampler::default()),
            (Some("always_on"), None, Sampler::AlwaysOn),
            (Some("always_off"), Some("nonsense"), Sampler::AlwaysOff),
            (
                Some("traceidratio"),
                Some(" 0.25 "),
                Sampler::TraceIdRatio(0.25),
            ),
            (Some("traceidratio"), None, Sampler::TraceIdRatio(1.0)),
            (
                Some("parentbased_always_on"),
                None,
                parent(Sampler::AlwaysOn),
            ),
            (
                Some("parentbased_always_off"),
                None,
                parent(Sampler::AlwaysOff),
            ),
            (
                Some("parentbased_traceidratio"),
                Some("0"),
                parent(Sampler::TraceIdRatio(0.0)),
            ),
        ] {
            assert_eq!(
                Sampler::from_env_values(name, arg),
                Ok(expected),
                "{name:?} {arg:?}"
            );
        }
    }

    #[test]
    fn shown_by_the_names_of_the_specification() {
        assert_eq!(Sampler::default().to_string(), "parentbased_always_on");
        let quarter = Sampler::ParentBased(Box::new(Sampler::TraceIdRatio(0.25)));
        assert_eq!(quarter.to_string(), "parentbased_traceidratio=0.25");
    }

    #[test]
    fn bad_values_say_what_to_use() {
        for name in [
            "jaeger_remote",
            "parentbased_",
            "parentbased_parentbased_always_on",
            "ALWAYS_ON",
        ] {
            let error = Sampler::from_env_values(Some(name), None).unwrap_err();
            assert_eq!(error, SamplerError::UnknownName(name.to_owned()));
        }
        for ratio in ["1.01", "-0.1", "NaN", "half"] {
            let error = Sampler::from_env_values(Some("traceidratio"), Some(ratio)).unwrap_err();
            assert_eq!(error, SamplerError::BadRatio(ratio.to_owned()));
        }
    }

    #[test]
    fn decisions() {
        let off = Sampler::ParentBased(Box::new(Sampler::AlwaysOff));
        assert!(
            off.samples(id(1), Some(true))
                && !off.samples(id(1), None)
                && !off.samples(id(1), Some(false))
        );
        assert!(!Sampler::default().samples(id(1), Some(false)));
        assert!(
            Sampler::AlwaysOn.samples(id(1), Some(false))
                && !Sampler::AlwaysOff.samples(id(1), Some(true))
        );
        let half = Sampler::TraceIdRatio(0.5);
        assert!(
            half.samples(id(u64::MAX / 2), Some(false))
                && !half.samples(id(u64::MAX / 2 + 2), Some(true))
        );
        assert!(!Sampler::TraceIdRatio(0.0).samples(id(0), None));
        assert!(Sampler::TraceIdRatio(1.0).samples(id(u64::MAX), None));
    }
}
