//! Our keys out of everything that a runtime knows about a container.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserializer, MapAccess, Visitor};

use super::Subject;
use super::values::checked;
use super::warnings::{Warnings, shown};

/// Most annotations that are kept.
pub const MAX_KEYS: usize = 256;

/// Longest value, bytes.
pub const MAX_VALUE: usize = 16 * 1024;

/// Most bytes of keys and values together.
pub const MAX_TOTAL: usize = 64 * 1024;

/// Longest key, bytes: a Kubernetes annotation's prefix (253), the slash, and its name (63).
const MAX_KEY: usize = 317;

/// CRI-O's copy of the annotations that it got from the kubelet, a JSON object.
const CRIO_ANNOTATIONS: &str = "io.kubernetes.cri-o.Annotations";

/// The annotations that [`super::resolve`] reads, without the white space around their values, and warnings for
/// those that are left out: a value over [`MAX_VALUE`], empty or with control characters, and what exceeds
/// [`MAX_KEYS`] or [`MAX_TOTAL`]. Of a key that comes twice, the first counts.
///
/// Also looks into CRI-O's `io.kubernetes.cri-o.Annotations`. The work is linear in the input, and nothing of other
/// domains is copied.
pub fn relevant<K: AsRef<str>, V: AsRef<str>>(
    annotations: impl IntoIterator<Item = (K, V)>,
) -> (BTreeMap<String, String>, Vec<String>) {
    let mut collector = Collector::default();
    let mut nested = None;
    for (key, value) in annotations {
        if key.as_ref() == CRIO_ANNOTATIONS {
            nested = Some(value);
        } else {
            collector.add(key.as_ref(), value.as_ref());
        }
    }
    if let Some(text) = nested {
        let mut json = serde_json::Deserializer::from_str(text.as_ref());
        if let Err(error) = (&mut json).deserialize_any(&mut collector) {
            collector
                .warnings
                .push(|| format!("annotation {CRIO_ANNOTATIONS} cannot be read whole: {error}"));
        }
    }
    (collector.kept, collector.warnings.into_list())
}

#[derive(Default)]
struct Collector {
    kept: BTreeMap<String, String>,
    bytes: usize,
    warnings: Warnings,
}

impl Collector {
    fn add(&mut self, key: &str, value: &str) {
        if Subject::of(key).is_none() || self.kept.contains_key(key) {
            return;
        }
        match self.admit(key, value) {
            Ok(value) => {
                self.bytes += key.len() + value.len();
                self.kept.insert(key.to_owned(), value.to_owned());
            }
            Err(reason) => self
                .warnings
                .push(|| format!("annotation {} is left out: {reason}", shown(key))),
        }
    }

    fn admit<'v>(&self, key: &str, value: &'v str) -> Result<&'v str, String> {
        if key.len() > MAX_KEY {
            return Err(format!("its name is longer than {MAX_KEY} bytes"));
        }
        if value.len() > MAX_VALUE {
            return Err(format!(
                "its value has {} bytes, more than the {MAX_VALUE} allowed",
                value.len()
            ));
        }
        let value = checked(value).map_err(|refused| format!("its value {}", refused.0))?;
        if self.kept.len() >= MAX_KEYS {
            return Err(format!("there are more than {MAX_KEYS}"));
        }
        if self.bytes + key.len() + value.len() > MAX_TOTAL {
            return Err(format!("all together have more than {MAX_TOTAL} bytes"));
        }
        Ok(value)
    }
}

/// Reads a JSON object of texts entry by entry, so that a large one is never held.
impl<'de> Visitor<'de> for &mut Collector {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object of texts")
    }

    /// Go writes a map that is not there so.
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some((key, value)) = map.next_entry::<Cow<'de, str>, Cow<'de, str>>()? {
            self.add(&key, &value);
        }
        Ok(())
    }
}
