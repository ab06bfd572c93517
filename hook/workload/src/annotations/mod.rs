//! What pods ask for: annotations, read per container. They only narrow what the operator allows.
//!
//! [`relevant`] picks our keys out of everything that a runtime or the Downward API knows, [`resolve`] reads them for
//! one container. Whoever may create a pod writes them, so both are bounded, linear, and answer nonsense with a
//! warning.

mod downward;
mod keys;
mod relevant;
mod values;
mod warnings;

use std::collections::{BTreeMap, BTreeSet};

use crate::syntax::is_container_name;

pub use downward::parse_downward;
pub use keys::{KEYS, Key, documentation};
pub use relevant::{MAX_KEYS, MAX_TOTAL, MAX_VALUE, relevant};
pub use values::{
    CAPTURE_BYTES, MAX_ATTRIBUTE_VALUE, MAX_ATTRIBUTES, MAX_CONTAINERS, MAX_IGNORED, MAX_PATTERN,
    MAX_PORTS, MAX_PROTOCOLS, MAX_ROUTES, MAX_SERVICE_NAME,
};
pub use warnings::MAX_WARNINGS;

use warnings::{Warnings, shown};

/// Domain of the keys; `CONTAINER.pilotfish.dev/KEY` is for one container of a pod.
pub const DOMAIN: &str = "pilotfish.dev";

/// Domain of OpenTelemetry resource attributes (semantic conventions, Kubernetes annotations).
pub const RESOURCE_DOMAIN: &str = "resource.opentelemetry.io";

/// What one container's annotations ask for. Absent means: as the operator has it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wishes {
    /// Observe it, or not.
    pub instrument: Option<bool>,
    /// Protocols to recognise, lower-case names; which ones exist is not known here.
    pub protocols: Option<BTreeSet<String>>,
    /// Share of traces kept, 0 to 1.
    pub sample_ratio: Option<f64>,
    /// Route patterns, in order.
    pub routes: Vec<String>,
    /// Paths without spans and metrics.
    pub ignore_paths: Vec<String>,
    /// Only flows with one of these server ports.
    pub ports: Option<BTreeSet<u16>>,
    /// Bytes captured per operation.
    pub capture_bytes: Option<u32>,
    /// See plaintext of TLS, or do not.
    pub tls: Option<bool>,
    /// `service.name`.
    pub service_name: Option<String>,
    /// Other resource attributes, never `container.*`, `k8s.*`, `host.*`, `process.*`, `telemetry.*`.
    pub resource: BTreeMap<String, String>,
    /// What could not be understood or is not allowed, for people; at most [`MAX_WARNINGS`] and a last one that
    /// counts the others.
    pub warnings: Vec<String>,
}

/// Reads annotations for the container called `container_name` in its pod (absent: not known, or no pod).
///
/// A key for this container overrules the same key for the pod, even if its value is bad: then the operator's
/// default holds. Keys for other containers are skipped.
pub fn resolve(annotations: &BTreeMap<String, String>, container_name: Option<&str>) -> Wishes {
    let mut wishes = Wishes::default();
    let mut warnings = Warnings::default();
    let mut settings: BTreeMap<&str, (&str, &str)> = BTreeMap::new();
    let mut unassigned = false;
    for (key, value) in annotations {
        match Subject::of(key) {
            None => {}
            Some(Subject::Resource(attribute)) => {
                if let Err(reason) = keys::read_attribute(attribute, value, &mut wishes) {
                    warnings.push(|| refused(key, value, &reason));
                }
            }
            Some(Subject::Pod(name)) => {
                settings.entry(name).or_insert((key, value));
            }
            Some(Subject::Container(container, name)) => {
                if !is_container_name(container) {
                    warnings.push(|| {
                        format!(
                            "annotation {} is not used: {} is not the name of a container",
                            shown(key),
                            shown(container)
                        )
                    });
                } else if container_name == Some(container) {
                    settings.insert(name, (key, value));
                }
                unassigned |= container_name.is_none();
            }
        }
    }
    for (name, (key, value)) in settings {
        let Some(read) = keys::setting(name) else {
            warnings.push(|| keys::unknown(key, name));
            continue;
        };
        if let Err(reason) = read(value, container_name, &mut wishes) {
            warnings.push(|| refused(key, value, &reason));
        }
    }
    if unassigned {
        warnings.push(|| {
            format!(
                "annotations CONTAINER.{DOMAIN}/KEY are not used: the runtime does not tell this container's name in a pod"
            )
        });
    }
    wishes.warnings = warnings.into_list();
    wishes
}

fn refused(key: &str, value: &str, reason: &str) -> String {
    format!(
        "annotation {} is not used: {} {reason}",
        shown(key),
        shown(value)
    )
}

/// What a key of one of our domains is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subject<'a> {
    /// `resource.opentelemetry.io/ATTRIBUTE`.
    Resource(&'a str),
    /// `pilotfish.dev/KEY`.
    Pod(&'a str),
    /// `CONTAINER.pilotfish.dev/KEY`.
    Container(&'a str, &'a str),
}

impl<'a> Subject<'a> {
    /// Nothing for a key of another domain.
    fn of(key: &'a str) -> Option<Self> {
        let (domain, name) = key.split_once('/')?;
        if domain == RESOURCE_DOMAIN {
            return Some(Self::Resource(name));
        }
        match domain.strip_suffix(DOMAIN)? {
            "" => Some(Self::Pod(name)),
            container => Some(Self::Container(container.strip_suffix('.')?, name)),
        }
    }
}

/// Whether a key says if to observe: `instrument`, for a pod or for one container of it.
pub fn asks(key: &str) -> bool {
    match Subject::of(key) {
        Some(Subject::Pod(name)) => name == "instrument",
        Some(Subject::Container(container, name)) => !container.is_empty() && name == "instrument",
        Some(Subject::Resource(_)) | None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_instrument_asks() {
        for key in ["pilotfish.dev/instrument", "a.b.pilotfish.dev/instrument"] {
            assert!(asks(key), "{key}");
        }
        for key in [
            "pilotfish.dev/routes",
            "pilotfish.dev/instrument2",
            ".pilotfish.dev/instrument",
            "a/pilotfish.dev/instrument",
            "notpilotfish.dev/instrument",
            "resource.opentelemetry.io/instrument",
        ] {
            assert!(!asks(key), "{key}");
        }
    }

    #[test]
    fn keys_of_our_domains_only() {
        for (key, subject) in [
            ("pilotfish.dev/routes", Some(Subject::Pod("routes"))),
            (
                "web.pilotfish.dev/routes",
                Some(Subject::Container("web", "routes")),
            ),
            (
                "a.b.pilotfish.dev/routes",
                Some(Subject::Container("a.b", "routes")),
            ),
            (
                "resource.opentelemetry.io/service.name",
                Some(Subject::Resource("service.name")),
            ),
            (
                ".pilotfish.dev/routes",
                Some(Subject::Container("", "routes")),
            ),
            ("pilotfish.dev/", Some(Subject::Pod(""))),
            ("pilotfish.dev", None),
            ("notpilotfish.dev/routes", None),
            ("pilotfish.dev.example/routes", None),
            ("web.resource.opentelemetry.io/service.name", None),
            ("", None),
            ("/", None),
        ] {
            assert_eq!(Subject::of(key), subject, "{key}");
        }
    }
}
