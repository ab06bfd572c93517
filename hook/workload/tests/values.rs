//! The values of annotations: every key, every form, every bound, and the table in the README.

mod pairs;

use std::collections::BTreeSet;
use std::fs;

use pairs::{ATTRIBUTE, map, one};
use pilotfish_workload::annotations::{
    CAPTURE_BYTES, KEYS, MAX_ATTRIBUTE_VALUE, MAX_ATTRIBUTES, MAX_CONTAINERS, MAX_IGNORED,
    MAX_PATTERN, MAX_PORTS, MAX_PROTOCOLS, MAX_ROUTES, MAX_SERVICE_NAME, Wishes, documentation,
    resolve,
};

/// A value that is used, without any warning.
fn used(name: &str, value: &str) -> Wishes {
    let wishes = one(&format!("pilotfish.dev/{name}"), value);
    assert_eq!(wishes.warnings, [""; 0], "{name}={value}");
    wishes
}

/// A value that leaves everything at its default, with one warning that names key, value and form.
fn refused(name: &str, value: &str) -> String {
    let key = format!("pilotfish.dev/{name}");
    let wishes = one(&key, value);
    assert_defaults_but_warnings(&wishes);
    let [warning] = &wishes.warnings[..] else {
        panic!("{name}={value}: {:?}", wishes.warnings);
    };
    let form = KEYS.iter().find(|row| row.name == name).unwrap().form;
    assert!(warning.contains(&key), "{warning}");
    assert!(warning.contains(form), "{warning}");
    let start: String = value.chars().take(8).collect();
    let start = format!("{start:?}");
    assert!(warning.contains(start.trim_end_matches('"')), "{warning}");
    assert!(warning.len() < 700, "{warning}");
    warning.clone()
}

fn assert_defaults_but_warnings(wishes: &Wishes) {
    let silent = Wishes {
        warnings: Vec::new(),
        ..wishes.clone()
    };
    assert_eq!(silent, Wishes::default());
}

fn repeated(item: &str, separator: &str, times: usize) -> String {
    vec![item; times].join(separator)
}

#[test]
fn instrument_is_a_truth_value_or_a_list_of_names() {
    for (value, expected) in [
        ("true", true),
        ("false", false),
        (" true\n", true),
        ("web", true),
        ("api, web", true),
        ("api", false),
        ("api,webber", false),
        ("on,web", true),
    ] {
        let wishes = used("instrument", value);
        assert_eq!(wishes.instrument, Some(expected), "{value}");
    }
    for value in [
        "True", "TRUE", "yes", "1", "on", "off", "", ",", "web api", "-web", "web;api", "Web",
    ] {
        refused("instrument", value);
    }
    used("instrument", &repeated("web", ",", MAX_CONTAINERS));
    refused("instrument", &repeated("web", ",", MAX_CONTAINERS + 1));
}

#[test]
fn a_list_of_names_decides_nothing_about_a_container_without_one() {
    let wishes = resolve(&map([("pilotfish.dev/instrument", "web")]), None);
    assert_eq!(wishes.instrument, None);
    assert_eq!(wishes.warnings.len(), 1);
    assert!(wishes.warnings[0].contains("write true or false"));
    let wishes = resolve(&map([("pilotfish.dev/instrument", "true")]), None);
    assert_eq!(
        (wishes.instrument, wishes.warnings),
        (Some(true), Vec::new())
    );
}

#[test]
fn protocols_are_lower_case_names() {
    assert_eq!(
        used("protocols", "http1, Kafka,,http1").protocols,
        Some(BTreeSet::from(["http1".to_owned(), "kafka".to_owned()]))
    );
    used("protocols", &repeated("http1", ",", MAX_PROTOCOLS));
    refused("protocols", &repeated("http1", ",", MAX_PROTOCOLS + 1));
    used("protocols", &"p".repeat(32));
    for value in ["http/1", "http1;kafka", ",,", &"p".repeat(33)] {
        refused("protocols", value);
    }
}

#[test]
fn sample_ratio_is_from_0_to_1() {
    for (value, ratio) in [("0", 0.0), ("1", 1.0), ("0.25", 0.25), ("1e-3", 0.001)] {
        assert_eq!(used("sample-ratio", value).sample_ratio, Some(ratio));
    }
    for value in [
        "1.0001", "-0.1", "nan", "inf", "-inf", "10%", "0,5", "1e999", "true",
    ] {
        refused("sample-ratio", value);
    }
}

#[test]
fn routes_and_ignored_paths_are_bounded_lists_in_order() {
    let value = "/users/{id};/b ; /a;";
    let expected = ["/users/{id}", "/b", "/a"];
    assert_eq!(used("routes", value).routes, expected);
    assert_eq!(used("ignore-paths", value).ignore_paths, expected);
    for (name, most) in [("routes", MAX_ROUTES), ("ignore-paths", MAX_IGNORED)] {
        used(name, &repeated("/a", ";", most));
        refused(name, &repeated("/a", ";", most + 1));
        used(name, &format!("/{}", "a".repeat(MAX_PATTERN - 1)));
        refused(name, &format!("/{}", "a".repeat(MAX_PATTERN)));
        for value in ["users", "/a;b", "*", ";", "/a\u{7}b", "/a\n/b"] {
            refused(name, value);
        }
    }
}

#[test]
fn ports_are_from_1_to_65535() {
    assert_eq!(
        used("ports", "8080, 1,65535,1").ports,
        Some(BTreeSet::from([1, 8080, 65535]))
    );
    used("ports", &repeated("80", ",", MAX_PORTS));
    refused("ports", &repeated("80", ",", MAX_PORTS + 1));
    for value in ["0", "65536", "-1", "+80", "80-90", "http", "4294967376"] {
        refused("ports", value);
    }
}

#[test]
fn capture_bytes_has_both_bounds() {
    for bytes in [*CAPTURE_BYTES.start(), *CAPTURE_BYTES.end()] {
        assert_eq!(
            used("capture-bytes", &bytes.to_string()).capture_bytes,
            Some(bytes)
        );
    }
    for value in ["63", "16385", "+64", "4k", "99999999999999999999"] {
        refused("capture-bytes", value);
    }
}

#[test]
fn a_service_name_is_a_bounded_text() {
    assert_eq!(
        used("service-name", " Größe \"L\" ")
            .service_name
            .as_deref(),
        Some("Größe \"L\"")
    );
    used("service-name", &"s".repeat(MAX_SERVICE_NAME));
    refused("service-name", &"s".repeat(MAX_SERVICE_NAME + 1));
    refused("service-name", " \n ");
    refused("service-name", "a\u{1b}[31m");
}

#[test]
fn resource_attributes_are_bounded_and_never_overwrite_what_pilotfish_knows() {
    for attribute in [
        "service.version",
        "service.namespace",
        "service.instance.id",
        "deployment.environment.name",
        "os.type",
        "team",
        "x-1.Y_2",
    ] {
        let wishes = one(&format!("{ATTRIBUTE}{attribute}"), "v");
        assert_eq!(wishes.resource, map([(attribute, "v")]));
        assert_eq!(wishes.warnings, [""; 0]);
    }
    for attribute in [
        "container.id",
        "k8s.pod.name",
        "host.name",
        "process.pid",
        "telemetry.sdk.name",
        "K8S.pod.name",
        "container",
        "",
        ".a",
        "a..b",
        "a.",
        "1a",
        "a b",
        "a/b",
        &"a".repeat(64),
    ] {
        let wishes = one(&format!("{ATTRIBUTE}{attribute}"), "v");
        assert_defaults_but_warnings(&wishes);
        assert_eq!(wishes.warnings.len(), 1, "{attribute}");
        assert!(wishes.warnings[0].contains(ATTRIBUTE), "{attribute}");
    }
    let long = |length| {
        one(&format!("{ATTRIBUTE}a"), &"v".repeat(length))
            .resource
            .len()
    };
    assert_eq!(
        (long(MAX_ATTRIBUTE_VALUE), long(MAX_ATTRIBUTE_VALUE + 1)),
        (1, 0)
    );
    let many = map((0..=MAX_ATTRIBUTES).map(|n| (format!("{ATTRIBUTE}a{n}"), n)));
    let wishes = resolve(&many, None);
    assert_eq!(
        (wishes.resource.len(), wishes.warnings.len()),
        (MAX_ATTRIBUTES, 1)
    );
}

#[test]
fn our_service_name_overrules_the_resource_attribute() {
    let attribute = ("resource.opentelemetry.io/service.name", "otel");
    let name = |pairs: &[(&str, &str)]| {
        let wishes = resolve(&map(pairs.iter().copied()), Some("web"));
        assert!(wishes.resource.is_empty());
        wishes.service_name
    };
    assert_eq!(name(&[attribute]).as_deref(), Some("otel"));
    assert_eq!(
        name(&[attribute, ("pilotfish.dev/service-name", "ours")]).as_deref(),
        Some("ours")
    );
    assert_eq!(
        name(&[attribute, ("web.pilotfish.dev/service-name", "ours")]).as_deref(),
        Some("ours")
    );
}

#[test]
fn tls_is_on_or_off() {
    for (value, expected) in [("on", true), ("off", false), (" off\n", false)] {
        assert_eq!(used("tls", value).tls, Some(expected), "{value:?}");
    }
    for value in ["true", "OFF", "on,off", "1"] {
        refused("tls", value);
    }
}

#[test]
fn every_example_of_the_table_is_understood_and_does_something() {
    for key in KEYS {
        let full = key.full().replace("ATTRIBUTE", "service.version");
        let wishes = one(&full, key.example);
        assert_eq!(wishes.warnings, [""; 0], "{full}");
        assert_ne!(wishes, Wishes::default(), "{full}");
    }
}

#[test]
fn the_forms_tell_the_bounds() {
    let bounds = [
        ("instrument", vec![MAX_CONTAINERS]),
        ("protocols", vec![MAX_PROTOCOLS]),
        ("sample-ratio", vec![0, 1]),
        ("routes", vec![MAX_ROUTES, MAX_PATTERN]),
        ("ignore-paths", vec![MAX_IGNORED, MAX_PATTERN]),
        ("ports", vec![MAX_PORTS, 1, 65535]),
        (
            "capture-bytes",
            vec![
                *CAPTURE_BYTES.start() as usize,
                *CAPTURE_BYTES.end() as usize,
            ],
        ),
        ("tls", vec![]),
        ("service-name", vec![MAX_SERVICE_NAME]),
        ("ATTRIBUTE", vec![MAX_ATTRIBUTE_VALUE, MAX_ATTRIBUTES]),
    ];
    assert_eq!(bounds.len(), KEYS.len());
    for (name, numbers) in bounds {
        let form = KEYS.iter().find(|key| key.name == name).unwrap().form;
        let told: BTreeSet<usize> = form
            .split(|letter: char| !letter.is_ascii_digit())
            .filter_map(|number| number.parse().ok())
            .collect();
        assert_eq!(told, BTreeSet::from_iter(numbers), "{form}");
    }
}

#[test]
fn the_readme_carries_the_table() {
    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../README.md"));
    let readme = readme.unwrap();
    let marker = "<!-- annotations -->\n";
    let parts: Vec<_> = readme.split(marker).collect();
    assert_eq!(parts.len(), 3, "README.md needs {marker} twice");
    assert_eq!(
        parts[1],
        documentation(),
        "README.md, between {marker}: put this table there\n{}",
        documentation()
    );
}
