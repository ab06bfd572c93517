//! The one table of annotations: reader, warnings and documentation come from it.

use std::fmt::Write as _;

use super::values::{self, Refused};
use super::warnings::shown;
use super::{DOMAIN, RESOURCE_DOMAIN, Wishes};

/// Farthest edit distance (optimal string alignment) at which a known key is suggested.
const NEAR: usize = 3;

/// Longest name that is compared with the known ones, bytes: Kubernetes' own limit.
const MAX_NAME: usize = 63;

/// Reads the value of a setting for the container with this name in its pod.
pub(super) type Setting = fn(&str, Option<&str>, &mut Wishes) -> Result<(), Refused>;

/// One annotation.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// What follows the domain; of the attributes' row a placeholder.
    pub name: &'static str,
    /// The form of the value, with its bounds.
    pub form: &'static str,
    /// What it does.
    pub meaning: &'static str,
    /// A value that is understood.
    pub example: &'static str,
    read: Reader,
}

#[derive(Clone, Copy, Debug)]
enum Reader {
    /// `pilotfish.dev/NAME`.
    Setting(Setting),
    /// Every key of [`RESOURCE_DOMAIN`]; the reader gets what follows the domain, and the value.
    Attribute(fn(&str, &str, &mut Wishes) -> Result<(), Refused>),
}

/// All annotations.
pub static KEYS: &[Key] = &[
    Key {
        name: "instrument",
        form: "`true`, `false`, or a comma list of at most 64 container names",
        meaning: "observe all containers of the pod, none, or those listed. The OCI hook and NRI observe a container only if this says so; a sidecar observes all unless this says otherwise",
        example: "web,api",
        read: Reader::Setting(values::instrument),
    },
    Key {
        name: "protocols",
        form: "comma list of at most 32 names out of the protocol table",
        meaning: "protocols to recognise, of those that the operator allows",
        example: "http1",
        read: Reader::Setting(values::protocols),
    },
    Key {
        name: "sample-ratio",
        form: "number from 0 to 1",
        meaning: "share of new traces that is kept, at most the operator's; metrics count everything",
        example: "0.1",
        read: Reader::Setting(values::sample_ratio),
    },
    Key {
        name: "routes",
        form: "`;`-separated patterns, at most 100 of 256 bytes each, beginning with `/`",
        meaning: "route patterns, tried in front of the operator's and before the heuristic",
        example: "/users/{id};/files/{*path}",
        read: Reader::Setting(values::routes),
    },
    Key {
        name: "ignore-paths",
        form: "`;`-separated paths, at most 100 of 256 bytes each, beginning with `/`; a `*` at the end for a prefix",
        meaning: "paths without spans and metrics, in addition to the operator's",
        example: "/healthz;/metrics;/internal/*",
        read: Reader::Setting(values::ignore_paths),
    },
    Key {
        name: "ports",
        form: "comma list of at most 64 ports from 1 to 65535",
        meaning: "only connections whose server listens on one of these ports",
        example: "8080,8443",
        read: Reader::Setting(values::ports),
    },
    Key {
        name: "capture-bytes",
        form: "number from 64 to 16384",
        meaning: "bytes read per socket operation, at most the operator's",
        example: "1024",
        read: Reader::Setting(values::capture_bytes),
    },
    Key {
        name: "tls",
        form: "`on` or `off`",
        meaning: "whether plaintext of TLS is seen, where the operator has it: `off` keeps every probe out of the container's processes",
        example: "off",
        read: Reader::Setting(values::tls),
    },
    Key {
        name: "service-name",
        form: "text of at most 255 bytes",
        meaning: "`service.name`; overrules `resource.opentelemetry.io/service.name`",
        example: "shop",
        read: Reader::Setting(values::service_name),
    },
    Key {
        name: "ATTRIBUTE",
        form: "text of at most 1024 bytes; at most 64 attributes",
        meaning: "resource attribute, such as `service.version` or `deployment.environment.name`; never `container.*`, `k8s.*`, `host.*`, `process.*`, `telemetry.*`, which pilotfish finds out itself",
        example: "1.4.2",
        read: Reader::Attribute(values::attribute),
    },
];

impl Key {
    /// The whole key, as it is written for a pod.
    pub fn full(&self) -> String {
        let domain = match self.read {
            Reader::Setting(_) => DOMAIN,
            Reader::Attribute(_) => RESOURCE_DOMAIN,
        };
        format!("{domain}/{}", self.name)
    }
}

/// The reader of `pilotfish.dev/NAME`.
pub(super) fn setting(
    name: &str,
) -> Option<impl Fn(&str, Option<&str>, &mut Wishes) -> Result<(), String>> {
    let key = settings().find(|(key, _)| key.name == name);
    key.map(|(key, read)| {
        move |value: &str, container: Option<&str>, wishes: &mut Wishes| {
            values::checked(value)
                .and_then(|value| read(value, container, wishes))
                .map_err(|refused| expected(key, &refused))
        }
    })
}

/// Reads `resource.opentelemetry.io/ATTRIBUTE`.
pub(super) fn read_attribute(
    attribute: &str,
    value: &str,
    wishes: &mut Wishes,
) -> Result<(), String> {
    let row = KEYS.iter().find_map(|key| match key.read {
        Reader::Attribute(read) => Some((key, read)),
        Reader::Setting(_) => None,
    });
    row.map_or(Ok(()), |(key, read)| {
        values::checked(value)
            .and_then(|value| read(attribute, value, wishes))
            .map_err(|refused| expected(key, &refused))
    })
}

fn settings() -> impl Iterator<Item = (&'static Key, Setting)> {
    KEYS.iter().filter_map(|key| match key.read {
        Reader::Setting(read) => Some((key, read)),
        Reader::Attribute(_) => None,
    })
}

fn expected(key: &Key, Refused(reason): &Refused) -> String {
    format!("{reason} (expected: {})", key.form)
}

/// The warning for a key that is not in the table.
pub(super) fn unknown(key: &str, name: &str) -> String {
    let nearest = settings()
        .filter(|_| name.len() <= MAX_NAME)
        .map(|(known, _)| (strsim::osa_distance(name, known.name), known))
        // A name that shares no letter with the known one is not near, however short that is.
        .filter(|(distance, known)| *distance <= NEAR.min(known.name.len().saturating_sub(1)))
        .min_by_key(|(distance, _)| *distance);
    let hint = if let Some((_, known)) = nearest {
        format!("did you mean {}?", known.full())
    } else {
        let names: Vec<_> = settings().map(|(known, _)| known.name).collect();
        format!("{DOMAIN} has {}", names.join(", "))
    };
    format!("annotation {} is unknown: {hint}", shown(key))
}

/// The table as Markdown.
pub fn documentation() -> String {
    let mut table = String::from("| annotation | value | meaning | example |\n|---|---|---|---|\n");
    for key in KEYS {
        let (full, form, meaning, example) = (key.full(), key.form, key.meaning, key.example);
        // Writing to a string cannot fail.
        let _ = writeln!(table, "| `{full}` | {form} | {meaning} | `{example}` |");
    }
    table
}
