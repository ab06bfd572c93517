//! The values of annotations: each form read whole, or refused with a reason.

use std::ops::RangeInclusive;

use super::Wishes;
use super::warnings::shown;
use crate::syntax::is_container_name;

/// Most names in `instrument`.
pub const MAX_CONTAINERS: usize = 64;
/// Most names in `protocols`.
pub const MAX_PROTOCOLS: usize = 32;
/// Most patterns in `routes`.
pub const MAX_ROUTES: usize = 100;
/// Most paths in `ignore-paths`.
pub const MAX_IGNORED: usize = 100;
/// Longest route pattern or path, bytes.
pub const MAX_PATTERN: usize = 256;
/// Most ports in `ports`.
pub const MAX_PORTS: usize = 64;
/// `capture-bytes`.
pub const CAPTURE_BYTES: RangeInclusive<u32> = 64..=16384;
/// Longest `service-name`, bytes.
pub const MAX_SERVICE_NAME: usize = 255;
/// Most resource attributes.
pub const MAX_ATTRIBUTES: usize = 64;
/// Longest value of a resource attribute, bytes.
pub const MAX_ATTRIBUTE_VALUE: usize = 1024;

/// Longest name of a protocol, bytes.
const MAX_PROTOCOL: usize = 32;

/// Longest name of an attribute, bytes: that of a Kubernetes annotation after its domain.
const MAX_ATTRIBUTE: usize = 63;

/// What pilotfish finds out itself, and what describes pilotfish: no pod overwrites it.
const RESERVED: &[&str] = &["container", "k8s", "host", "process", "telemetry"];

/// Single words that are meant as a truth value, not as the name of a container.
const TRUTH_VALUES: &[&str] = &[
    "0", "1", "yes", "no", "on", "off", "enabled", "disabled", "none", "all",
];

/// Why a value is not used; follows the value in a sentence.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refused(pub(super) String);

fn refuse(reason: impl Into<String>) -> Refused {
    Refused(reason.into())
}

/// A value without the white space around it (a YAML block ends in a line break); control characters are refused.
pub(super) fn checked(value: &str) -> Result<&str, Refused> {
    let value = value.trim();
    if value.is_empty() {
        return Err(refuse("is empty"));
    }
    if value.chars().any(char::is_control) {
        return Err(refuse("has control characters"));
    }
    Ok(value)
}

/// The items of a list that all pass `check`, empty ones skipped; one at least and `most` at most.
fn list(
    value: &str,
    separator: char,
    most: usize,
    check: impl Fn(&str) -> Result<(), Refused>,
) -> Result<Vec<&str>, Refused> {
    let items: Vec<_> = value
        .split(separator)
        .map(str::trim)
        .filter(|item| !item.is_empty())
        .take(most + 1)
        .collect();
    if items.is_empty() {
        return Err(refuse("lists nothing"));
    }
    if items.len() > most {
        return Err(refuse("lists too many"));
    }
    for item in &items {
        check(item)?;
    }
    Ok(items)
}

pub(super) fn instrument(
    value: &str,
    container: Option<&str>,
    wishes: &mut Wishes,
) -> Result<(), Refused> {
    wishes.instrument = match value {
        "true" => Some(true),
        "false" => Some(false),
        word if TRUTH_VALUES.contains(&word) => {
            return Err(refuse("is neither true nor false"));
        }
        _ => {
            let names = list(value, ',', MAX_CONTAINERS, |name| {
                if is_container_name(name) {
                    Ok(())
                } else {
                    Err(refuse(format!("has {}", shown(name))))
                }
            })?;
            let container = container.ok_or_else(|| {
                refuse("names containers, and the runtime does not tell this container's name in a pod: write true or false")
            })?;
            Some(names.contains(&container))
        }
    };
    Ok(())
}

pub(super) fn protocols(value: &str, _: Option<&str>, wishes: &mut Wishes) -> Result<(), Refused> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let names = list(value, ',', MAX_PROTOCOLS, |name| {
        if name.len() <= MAX_PROTOCOL && name.bytes().all(allowed) {
            Ok(())
        } else {
            Err(refuse(format!("has {}", shown(name))))
        }
    })?;
    wishes.protocols = Some(names.iter().map(|name| name.to_ascii_lowercase()).collect());
    Ok(())
}

pub(super) fn sample_ratio(
    value: &str,
    _: Option<&str>,
    wishes: &mut Wishes,
) -> Result<(), Refused> {
    let ratio = value.parse().map_err(|_| refuse("is no number"))?;
    if !(0.0..=1.0).contains(&ratio) {
        return Err(refuse("is out of bounds"));
    }
    wishes.sample_ratio = Some(ratio);
    Ok(())
}

pub(super) fn routes(value: &str, _: Option<&str>, wishes: &mut Wishes) -> Result<(), Refused> {
    wishes.routes = paths(value, MAX_ROUTES)?;
    Ok(())
}

pub(super) fn ignore_paths(
    value: &str,
    _: Option<&str>,
    wishes: &mut Wishes,
) -> Result<(), Refused> {
    wishes.ignore_paths = paths(value, MAX_IGNORED)?;
    Ok(())
}

fn paths(value: &str, most: usize) -> Result<Vec<String>, Refused> {
    let paths = list(value, ';', most, |path| {
        if !path.starts_with('/') {
            return Err(refuse(format!(
                "has {}, which does not begin with /",
                shown(path)
            )));
        }
        if path.len() > MAX_PATTERN {
            return Err(refuse(format!("has {}, which is too long", shown(path))));
        }
        Ok(())
    })?;
    Ok(paths.into_iter().map(str::to_owned).collect())
}

pub(super) fn ports(value: &str, _: Option<&str>, wishes: &mut Wishes) -> Result<(), Refused> {
    let port = |text: &str| decimal(text).and_then(|port| u16::try_from(port).ok());
    let ports = list(value, ',', MAX_PORTS, |text| match port(text) {
        Some(1..) => Ok(()),
        _ => Err(refuse(format!("has {}", shown(text)))),
    })?;
    wishes.ports = Some(ports.into_iter().filter_map(port).collect());
    Ok(())
}

pub(super) fn capture_bytes(
    value: &str,
    _: Option<&str>,
    wishes: &mut Wishes,
) -> Result<(), Refused> {
    let bytes = decimal(value).ok_or_else(|| refuse("is no number"))?;
    if !CAPTURE_BYTES.contains(&bytes) {
        return Err(refuse("is out of bounds"));
    }
    wishes.capture_bytes = Some(bytes);
    Ok(())
}

pub(super) fn tls(value: &str, _: Option<&str>, wishes: &mut Wishes) -> Result<(), Refused> {
    wishes.tls = match value {
        "on" => Some(true),
        "off" => Some(false),
        _ => return Err(refuse("is neither on nor off")),
    };
    Ok(())
}

/// Digits only: the standard library would take a `+`.
fn decimal(text: &str) -> Option<u32> {
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.parse().ok())?
}

pub(super) fn service_name(
    value: &str,
    _: Option<&str>,
    wishes: &mut Wishes,
) -> Result<(), Refused> {
    if value.len() > MAX_SERVICE_NAME {
        return Err(refuse("is too long"));
    }
    wishes.service_name = Some(value.to_owned());
    Ok(())
}

pub(super) fn attribute(attribute: &str, value: &str, wishes: &mut Wishes) -> Result<(), Refused> {
    if !is_attribute(attribute) {
        return Err(refuse(
            "cannot be an attribute: names are words of letters, digits, _ and -, joined by dots",
        ));
    }
    let namespace = attribute.split('.').next().unwrap_or_default();
    if RESERVED
        .iter()
        .any(|reserved| namespace.eq_ignore_ascii_case(reserved))
    {
        return Err(refuse(format!(
            "would overwrite {namespace}.*, which pods cannot set"
        )));
    }
    if attribute == "service.name" {
        return service_name(value, None, wishes);
    }
    if value.len() > MAX_ATTRIBUTE_VALUE {
        return Err(refuse("is too long"));
    }
    if wishes.resource.len() >= MAX_ATTRIBUTES {
        return Err(refuse("is one attribute too many"));
    }
    wishes
        .resource
        .insert(attribute.to_owned(), value.to_owned());
    Ok(())
}

/// A name as the semantic conventions make them, with the upper-case letters and dashes that older ones have.
fn is_attribute(name: &str) -> bool {
    let word = |word: &str| {
        !word.is_empty()
            && word
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
    };
    name.len() <= MAX_ATTRIBUTE
        && name.as_bytes().first().is_some_and(u8::is_ascii_alphabetic)
        && name.split('.').all(word)
}
