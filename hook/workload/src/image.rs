//! Image references.

use serde::{Deserialize, Serialize};

use crate::syntax::is_generated_id;

/// Longest name of an image, bytes (grammar of references).
const MAX_NAME: usize = 255;

/// Longest tag, bytes (grammar of references).
const MAX_TAG: usize = 128;

/// Fewest and most hexadecimal digits of a digest: the grammar's lower bound, and SHA-512.
const DIGEST_DIGITS: std::ops::RangeInclusive<usize> = 32..=128;

/// Where a container's files come from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Image {
    /// Name without tag and digest (`container.image.name`).
    pub name: Option<String>,
    /// Tags (`container.image.tags`).
    pub tags: Vec<String>,
    /// `name@sha256:...` (`container.image.repo_digests`).
    pub repo_digests: Vec<String>,
}

impl Image {
    /// Reads `NAME[:TAG][@DIGEST]`, the reference grammar of the distribution project
    /// (`distribution/reference`, `reference.go`). The name stays as it is written: nothing is put before a short
    /// one. An image's *id* (`sha256:...`, or 64 hexadecimal digits), which runtimes show when they know no name, is
    /// no reference.
    pub fn parse(reference: &str) -> Option<Self> {
        let (rest, digest) = match reference.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (reference, None),
        };
        let (name, tag) = match rest.rsplit_once(':') {
            // A colon before a slash belongs to a port.
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        let is_id = is_generated_id(name) || (name == "sha256" && tag.is_some_and(is_generated_id));
        if is_id || !is_name(name) || !tag.is_none_or(is_tag) || !digest.is_none_or(is_digest) {
            return None;
        }
        Some(Self {
            name: Some(name.to_owned()),
            tags: tag.map(str::to_owned).into_iter().collect(),
            repo_digests: digest
                .map(|digest| format!("{name}@{digest}"))
                .into_iter()
                .collect(),
        })
    }
}

/// `[DOMAIN[:PORT]/]PATH`, the path in lower case.
fn is_name(name: &str) -> bool {
    if name.len() > MAX_NAME {
        return false;
    }
    match name.split_once('/') {
        // The first component is a host only if it cannot be part of a path.
        Some((host, path)) if !is_path(host) => is_host(host) && is_path(path),
        _ => is_path(name),
    }
}

fn is_path(path: &str) -> bool {
    path.split('/').all(|component| {
        let separators = component
            .split(|letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit())
            .filter(|separator| !separator.is_empty());
        let edge = |byte: Option<&u8>| {
            byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        };
        edge(component.as_bytes().first())
            && edge(component.as_bytes().last())
            && separators.into_iter().all(|separator| {
                matches!(separator, "." | "_" | "__") || separator.bytes().all(|byte| byte == b'-')
            })
    })
}

fn is_host(host: &str) -> bool {
    let (host, port) = match host.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (host, None),
    };
    let digits = |port: &str| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    let label = |label: &str| {
        let bytes = label.as_bytes();
        bytes.first().is_some_and(u8::is_ascii_alphanumeric)
            && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
            && bytes
                .iter()
                .all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-')
    };
    let is_host = match host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
    {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => host.split('.').all(label),
    };
    is_host && port.is_none_or(digits)
}

fn is_tag(tag: &str) -> bool {
    let word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    tag.len() <= MAX_TAG
        && tag.as_bytes().first().is_some_and(word)
        && tag
            .bytes()
            .all(|byte| word(&byte) || byte == b'.' || byte == b'-')
}

fn is_digest(digest: &str) -> bool {
    digest.split_once(':').is_some_and(|(algorithm, hash)| {
        algorithm
            .split(['+', '.', '-', '_'])
            .all(|part| part.as_bytes().first().is_some_and(u8::is_ascii_alphabetic))
            && algorithm
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"+.-_".contains(&byte))
            && DIGEST_DIGITS.contains(&hash.len())
            && hash.bytes().all(|byte| byte.is_ascii_hexdigit())
    })
}
