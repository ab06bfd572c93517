//! Annotations: precedence, what is relevant of everything that there is, and hostile input.

mod pairs;

use std::collections::BTreeMap;

use pairs::{ATTRIBUTE, map, one};
use pilotfish_workload::Identity;
use pilotfish_workload::annotations::{
    KEYS, MAX_ATTRIBUTES, MAX_KEYS, MAX_ROUTES, MAX_TOTAL, MAX_VALUE, MAX_WARNINGS, Wishes,
    relevant, resolve,
};
use pilotfish_workload::announcement::{Announcement, Request, encode};
use proptest::prelude::*;

#[test]
fn a_containers_own_key_overrules_the_pods() {
    let annotations = map([
        ("pilotfish.dev/instrument", "true"),
        ("api.pilotfish.dev/instrument", "false"),
        ("pilotfish.dev/sample-ratio", "0.5"),
        ("web.pilotfish.dev/sample-ratio", "0.1"),
        ("web.pilotfish.dev/routes", "/web/{id}"),
        ("api.pilotfish.dev/routes", "broken"),
    ]);
    let web = resolve(&annotations, Some("web"));
    assert_eq!(
        web,
        Wishes {
            instrument: Some(true),
            sample_ratio: Some(0.1),
            routes: vec!["/web/{id}".to_owned()],
            ..Wishes::default()
        }
    );
    let api = resolve(&annotations, Some("api"));
    assert_eq!(
        (
            api.instrument,
            api.sample_ratio,
            api.routes,
            api.warnings.len()
        ),
        (Some(false), Some(0.5), Vec::new(), 1)
    );
    let unknown = resolve(&annotations, None);
    assert_eq!(
        (unknown.instrument, unknown.sample_ratio),
        (Some(true), Some(0.5))
    );
    assert_eq!(unknown.warnings.len(), 1);
    assert!(unknown.warnings[0].contains("CONTAINER.pilotfish.dev/KEY"));
}

#[test]
fn a_bad_value_for_one_container_does_not_bring_the_pods_back() {
    let annotations = map([
        ("pilotfish.dev/instrument", "true"),
        ("web.pilotfish.dev/instrument", "flase!"),
    ]);
    let wishes = resolve(&annotations, Some("web"));
    assert_eq!((wishes.instrument, wishes.warnings.len()), (None, 1));
}

#[test]
fn what_is_bad_leaves_the_rest_as_it_is() {
    let wishes = resolve(
        &map([
            ("pilotfish.dev/ports", "http"),
            ("pilotfish.dev/sample-ratio", "0.5"),
            ("pilotfish.dev/capture-byte", "64"),
            ("example.com/anything", "else"),
        ]),
        Some("web"),
    );
    assert_eq!((wishes.sample_ratio, wishes.ports), (Some(0.5), None));
    assert_eq!(wishes.warnings.len(), 2);
}

#[test]
fn an_unknown_key_is_answered_with_the_nearest() {
    for (name, nearest) in [
        ("route", "routes"),
        ("Instrument", "instrument"),
        ("instrumnet", "instrument"),
        ("sample_ratio", "sample-ratio"),
        ("captur-bytes", "capture-bytes"),
        ("ignore-path", "ignore-paths"),
    ] {
        for key in [
            format!("pilotfish.dev/{name}"),
            format!("web.pilotfish.dev/{name}"),
        ] {
            let wishes = one(&key, "x");
            assert_eq!(
                wishes.warnings,
                [format!(
                    "annotation \"{key}\" is unknown: did you mean pilotfish.dev/{nearest}?"
                )]
            );
        }
        assert_eq!(
            one(&format!("api.pilotfish.dev/{name}"), "x"),
            Wishes::default(),
            "of another container"
        );
    }
    for name in ["", "otlp-endpoint", "ATTRIBUTE", &"routes".repeat(50)] {
        let wishes = one(&format!("pilotfish.dev/{name}"), "x");
        assert_eq!(wishes.warnings.len(), 1);
        assert!(
            wishes.warnings[0].contains("pilotfish.dev has instrument, protocols,"),
            "{:?}",
            wishes.warnings
        );
    }
    let wishes = one("a.b.pilotfish.dev/routes", "/a");
    assert!(wishes.warnings[0].contains("not the name of a container"));
}

#[test]
fn only_our_keys_are_relevant() {
    let (kept, warnings) = relevant([
        ("pilotfish.dev/routes", " /a\n"),
        ("web.pilotfish.dev/instrument", "true"),
        ("resource.opentelemetry.io/team", "x"),
        ("pilotfish.dev/no-such-key", "is for resolve to warn of"),
        ("example.com/routes", "/a"),
        ("io.kubernetes.cri.container-name", "web"),
        ("pilotfish.dev", "no slash"),
    ]);
    assert_eq!(
        kept,
        map([
            ("pilotfish.dev/no-such-key", "is for resolve to warn of"),
            ("pilotfish.dev/routes", "/a"),
            ("resource.opentelemetry.io/team", "x"),
            ("web.pilotfish.dev/instrument", "true"),
        ])
    );
    assert_eq!(warnings, [""; 0]);
}

#[test]
fn what_is_left_out_is_named() {
    let long = "v".repeat(MAX_VALUE);
    let longer = "v".repeat(MAX_VALUE + 1);
    let (kept, warnings) = relevant([
        ("pilotfish.dev/a", long.as_str()),
        ("pilotfish.dev/b", longer.as_str()),
        ("pilotfish.dev/c", "\u{0}"),
        ("pilotfish.dev/d", "\t"),
        (&format!("pilotfish.dev/{}", "e".repeat(400)), "v"),
    ]);
    assert_eq!(kept, map([("pilotfish.dev/a", &long)]));
    assert_eq!(warnings.len(), 4);
    for (warning, key) in warnings.iter().zip(["b", "c", "d", "e"]) {
        assert!(
            warning.contains(&format!("\"pilotfish.dev/{key}")),
            "{warning}"
        );
    }
}

#[test]
fn the_bounds_hold_together() {
    let many = map((0..MAX_KEYS + 40).map(|n| (format!("pilotfish.dev/{n:04}"), "v")));
    let (kept, warnings) = relevant(&many);
    assert_eq!(kept.len(), MAX_KEYS);
    assert_eq!(warnings.len(), MAX_WARNINGS + 1);
    assert_eq!(warnings[MAX_WARNINGS], "and 8 more warnings");

    let large = map((0..6).map(|n| (format!("pilotfish.dev/{n}"), "v".repeat(MAX_VALUE))));
    let (kept, warnings) = relevant(&large);
    let bytes: usize = kept
        .iter()
        .map(|(key, value)| key.len() + value.len())
        .sum();
    assert!(bytes <= MAX_TOTAL);
    assert_eq!((kept.len(), warnings.len()), (3, 3));
    let after = large
        .into_iter()
        .chain([("pilotfish.dev/z".to_owned(), "small".to_owned())]);
    assert!(relevant(after).0.contains_key("pilotfish.dev/z"));
}

#[test]
fn the_longest_announcement_fits_a_frame() {
    // Each byte of the values takes two in JSON; each key that is left out is shown as long as can be.
    let mut pairs =
        map((0..4).map(|n| (format!("pilotfish.dev/{n}"), "\\".repeat(MAX_VALUE - 20))));
    pairs.extend((0..100).map(|n| {
        let key = "\u{10ffff}".repeat(70);
        (format!("pilotfish.dev/{n}{key}"), "\u{1}".to_owned())
    }));
    let (annotations, warnings) = relevant(&pairs);
    assert_eq!((annotations.len(), warnings.len()), (4, MAX_WARNINGS + 1));
    let announcement = Announcement {
        id: "a".repeat(128),
        pid: i32::MIN,
        identity: Identity::default(),
        annotations,
        labels: BTreeMap::new(),
        warnings,
        program: None,
    };
    let frame = encode(&Request::Attach(Box::new(announcement))).unwrap();
    assert!(frame.len() > 2 * (MAX_TOTAL - 256));
}

#[test]
fn crios_copy_of_the_annotations_is_read_too() {
    let json = r#"{"kubernetes.io/config.source":"api","pilotfish.dev/routes":"/\u0061","pilotfish.dev/ports":"80"}"#;
    let (kept, warnings) = relevant([
        ("io.kubernetes.cri-o.Annotations", json),
        ("pilotfish.dev/ports", "8080"),
    ]);
    assert_eq!(
        kept,
        map([
            ("pilotfish.dev/ports", "8080"),
            ("pilotfish.dev/routes", "/a")
        ])
    );
    assert_eq!(warnings, [""; 0]);
    let nothing = (BTreeMap::new(), Vec::new());
    for json in ["null", "{}"] {
        assert_eq!(
            relevant([("io.kubernetes.cri-o.Annotations", json)]),
            nothing
        );
    }
    let deep = "[".repeat(100_000);
    for json in ["", "{", "[]", "1", r#"{"a":{}}"#, r#"{"a":1}"#, &deep] {
        let (kept, warnings) = relevant([("io.kubernetes.cri-o.Annotations", json)]);
        assert!(kept.is_empty());
        assert_eq!(warnings.len(), 1, "{json}");
        assert!(warnings[0].contains("io.kubernetes.cri-o.Annotations"));
    }
    // What stands before the damage counts.
    let cut = r#"{"pilotfish.dev/ports":"80","pilotfish.dev/rou"#;
    let (kept, warnings) = relevant([("io.kubernetes.cri-o.Annotations", cut)]);
    assert_eq!((kept.len(), warnings.len()), (1, 1));
}

#[test]
fn megabytes_of_routes_end_as_one_warning() {
    let routes = "/a;".repeat(4 << 20);
    let (kept, warnings) = relevant([("pilotfish.dev/routes", routes.as_str())]);
    assert_eq!((kept.len(), warnings.len()), (0, 1));
    let wishes = one("pilotfish.dev/routes", &routes);
    assert_eq!((wishes.routes.len(), wishes.warnings.len()), (0, 1));
    assert!(wishes.warnings[0].len() < 400);
}

fn key() -> impl Strategy<Value = String> {
    let domain = prop_oneof![
        Just("pilotfish.dev/".to_owned()),
        Just("web.pilotfish.dev/".to_owned()),
        Just(ATTRIBUTE.to_owned()),
        "\\PC{0,12}",
    ];
    let name = prop_oneof![
        proptest::sample::select(KEYS).prop_map(|key| key.name.to_owned()),
        "[a-z.]{0,12}",
        "\\PC{0,12}",
    ];
    (domain, name).prop_map(|(domain, name)| domain + &name)
}

fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        proptest::sample::select(KEYS).prop_map(|key| key.example.to_owned()),
        "[0-9a-z/;,.* -]{0,40}",
        "\\PC{0,40}",
        any::<String>(),
    ]
}

proptest! {
    #[test]
    fn any_annotations_keep_every_bound(
        pairs in proptest::collection::vec((key(), value()), 0..80),
        named in any::<bool>(),
    ) {
        let (kept, left_out) = relevant(pairs.iter().map(|(key, value)| (key, value)));
        prop_assert!(left_out.len() <= MAX_WARNINGS + 1);
        let (again, none) = relevant(&kept);
        prop_assert_eq!((&again, none.len()), (&kept, 0));

        let wishes = resolve(&kept, named.then_some("web"));
        prop_assert!(wishes.warnings.len() <= MAX_WARNINGS + 1);
        prop_assert!(wishes.resource.len() <= MAX_ATTRIBUTES);
        prop_assert!(wishes.routes.len() <= MAX_ROUTES);
        prop_assert!(wishes.sample_ratio.is_none_or(|ratio| (0.0..=1.0).contains(&ratio)));
        prop_assert!(!wishes.resource.keys().any(|key| key.starts_with("k8s.")));
    }
}
