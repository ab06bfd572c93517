//! Annotations of tests.

use std::collections::BTreeMap;

use pilotfish_workload::annotations::{Wishes, resolve};

/// Domain of resource attributes, with the slash.
pub(crate) const ATTRIBUTE: &str = "resource.opentelemetry.io/";

pub(crate) fn map<K: ToString, V: ToString>(
    pairs: impl IntoIterator<Item = (K, V)>,
) -> BTreeMap<String, String> {
    pairs
        .into_iter()
        .map(|(key, value)| (key.to_string(), value.to_string()))
        .collect()
}

/// What the container `web` gets of one annotation.
pub(crate) fn one(key: &str, value: &str) -> Wishes {
    resolve(&map([(key, value)]), Some("web"))
}
