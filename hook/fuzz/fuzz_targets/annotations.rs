//! Annotations: any Downward API file, and any pairs, keep every bound of what is taken from them.
//!
//! The input is read twice: as a Downward API file, and as lines `KEY VALUE`, since few files are well quoted.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pilotfish_workload::annotations::{
    CAPTURE_BYTES, MAX_ATTRIBUTES, MAX_IGNORED, MAX_KEYS, MAX_PATTERN, MAX_PORTS, MAX_PROTOCOLS,
    MAX_ROUTES, MAX_SERVICE_NAME, MAX_TOTAL, MAX_WARNINGS, Wishes, parse_downward, relevant,
    resolve,
};

fn check<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) {
    let (kept, left_out) = relevant(pairs);
    let bytes: usize = kept
        .iter()
        .map(|(key, value)| key.len() + value.len())
        .sum();
    assert!(kept.len() <= MAX_KEYS && bytes <= MAX_TOTAL);
    assert!(left_out.len() <= MAX_WARNINGS + 1);
    assert_eq!(relevant(&kept), (kept.clone(), Vec::new()));
    for container in [None, Some("web"), Some("a")] {
        check_wishes(&resolve(&kept, container));
    }
}

fn check_wishes(wishes: &Wishes) {
    let paths = |paths: &[String], most| {
        paths.len() <= most
            && paths
                .iter()
                .all(|path| path.starts_with('/') && path.len() <= MAX_PATTERN)
    };
    assert!(paths(&wishes.routes, MAX_ROUTES));
    assert!(paths(&wishes.ignore_paths, MAX_IGNORED));
    assert!(
        wishes
            .protocols
            .as_ref()
            .is_none_or(|names| (1..=MAX_PROTOCOLS).contains(&names.len()))
    );
    assert!(
        wishes
            .ports
            .as_ref()
            .is_none_or(|ports| (1..=MAX_PORTS).contains(&ports.len()) && !ports.contains(&0))
    );
    assert!(
        wishes
            .sample_ratio
            .is_none_or(|ratio| (0.0..=1.0).contains(&ratio))
    );
    assert!(
        wishes
            .capture_bytes
            .is_none_or(|bytes| CAPTURE_BYTES.contains(&bytes))
    );
    assert!(
        wishes
            .service_name
            .as_ref()
            .is_none_or(|name| (1..=MAX_SERVICE_NAME).contains(&name.len()))
    );
    assert!(wishes.resource.len() <= MAX_ATTRIBUTES);
    for reserved in ["container.", "k8s.", "host.", "process.", "telemetry."] {
        assert!(!wishes.resource.keys().any(|key| key.starts_with(reserved)));
    }
    assert!(wishes.warnings.len() <= MAX_WARNINGS + 1);
}

fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    let (pairs, warnings) = parse_downward(&text);
    assert!(warnings.len() <= MAX_WARNINGS + 1);
    check(
        pairs
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str())),
    );
    check(text.lines().filter_map(|line| line.split_once(' ')));
});
