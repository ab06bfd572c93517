use super::*;
use pilotfish_workload::annotations::MAX_WARNINGS;

fn policy() -> Policy {
    Policy {
        defaults: SlotConfig::default(),
        capture: 1024,
        max_capture: None,
        max_sample_ratio: None,
        annotations: true,
        tls: true,
    }
}

fn owned(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    pairs.iter().map(owned).collect()
}

fn decide(policy: &Policy, annotations: &[(&str, &str)]) -> Decision {
    let identity = Identity {
        k8s_container_name: Some("web".to_owned()),
        ..Identity::default()
    };
    policy.decide(Asking {
        identity: &identity,
        annotations: &owned(annotations),
        labels: &BTreeMap::new(),
    })
}

fn parent_based(root: Sampler) -> Sampler {
    Sampler::ParentBased(Box::new(root))
}

#[test]
fn who_asks_for_nothing_gets_what_the_operator_has() {
    let mut policy = policy();
    policy.defaults.routes = vec!["/users/{id}".to_owned()];
    let decision = decide(&policy, &[]);
    assert!(decision.instrument && decision.warnings.is_empty());
    assert_eq!(decision.slot, policy.defaults);
    assert_eq!(
        decision.settings,
        Settings {
            enabled: 1,
            capture: 1024
        }
    );
    assert_eq!(decision.asked, owned(&[("service.name", "web")]));
}

#[test]
fn false_switches_the_container_off() {
    for (annotations, on) in [
        (&[("pilotfish.dev/instrument", "true")][..], true),
        (&[("pilotfish.dev/instrument", "false")], false),
        (&[("pilotfish.dev/instrument", "db, cache")], false),
        (&[("pilotfish.dev/instrument", "db, web")], true),
        (
            &[
                ("pilotfish.dev/instrument", "true"),
                ("web.pilotfish.dev/instrument", "false"),
            ],
            false,
        ),
        (&[("db.pilotfish.dev/instrument", "false")], true),
        (&[("pilotfish.dev/instrument", "not a name!")], true),
    ] {
        let decision = decide(&policy(), annotations);
        assert_eq!(decision.instrument, on, "{annotations:?}");
        assert_eq!(decision.settings.enabled, u32::from(on), "{annotations:?}");
    }
}

#[test]
fn tls_can_be_switched_off_but_not_on() {
    let off = Policy {
        tls: false,
        ..policy()
    };
    for (policy, annotations, seen, warnings) in [
        (&policy(), &[][..], true, 0),
        (&policy(), &[("pilotfish.dev/tls", "on")], true, 0),
        (&policy(), &[("pilotfish.dev/tls", "off")], false, 0),
        (
            &policy(),
            &[
                ("pilotfish.dev/tls", "off"),
                ("web.pilotfish.dev/tls", "on"),
            ],
            true,
            0,
        ),
        (&policy(), &[("db.pilotfish.dev/tls", "off")], true, 0),
        (&policy(), &[("pilotfish.dev/tls", "false")], true, 1),
        (
            &policy(),
            &[("pilotfish.dev/instrument", "false")],
            false,
            0,
        ),
        (&off, &[], false, 0),
        (&off, &[("pilotfish.dev/tls", "off")], false, 0),
        (&off, &[("pilotfish.dev/tls", "on")], false, 1),
    ] {
        let decision = decide(policy, annotations);
        assert_eq!(decision.tls, seen, "{annotations:?}");
        assert_eq!(decision.warnings.len(), warnings, "{annotations:?}");
    }
}

#[test]
fn the_operator_can_ignore_annotations() {
    let policy = Policy {
        annotations: false,
        ..policy()
    };
    let decision = decide(
        &policy,
        &[
            ("pilotfish.dev/instrument", "false"),
            ("pilotfish.dev/nonsense", "1"),
            ("pilotfish.dev/service-name", "forged"),
        ],
    );
    assert!(decision.instrument && decision.warnings.is_empty());
    assert_eq!(decision.asked["service.name"], "web");
}

#[test]
fn the_ratio_only_falls_and_the_kind_of_sampler_stays() {
    let ratio = Sampler::TraceIdRatio;
    for (operator, max, wish, expected) in [
        (Sampler::AlwaysOn, None, "0.25", ratio(0.25)),
        (Sampler::AlwaysOn, None, "1", Sampler::AlwaysOn),
        (Sampler::AlwaysOff, None, "1", Sampler::AlwaysOff),
        (ratio(0.1), None, "0.5", ratio(0.1)),
        (ratio(0.1), None, "0.05", ratio(0.05)),
        (ratio(0.1), Some(0.3), "0.5", ratio(0.3)),
        (Sampler::AlwaysOff, Some(0.3), "0.2", ratio(0.2)),
        (
            parent_based(Sampler::AlwaysOn),
            None,
            "0.25",
            parent_based(ratio(0.25)),
        ),
        (
            parent_based(Sampler::AlwaysOff),
            None,
            "0.25",
            parent_based(Sampler::AlwaysOff),
        ),
        (
            parent_based(ratio(0.1)),
            None,
            "0",
            parent_based(ratio(0.0)),
        ),
    ] {
        let mut policy = Policy {
            max_sample_ratio: max,
            ..policy()
        };
        policy.defaults.sampler = operator.clone();
        let decision = decide(&policy, &[("pilotfish.dev/sample-ratio", wish)]);
        assert_eq!(
            decision.slot.sampler, expected,
            "{operator:?} {max:?} {wish}"
        );
    }
}

#[test]
fn capture_is_capped() {
    for (max, wish, expected) in [
        (None, Some("512"), 512),
        (None, Some("4096"), 1024),
        (Some(2048), Some("4096"), 2048),
        (Some(2048), None, 1024),
        (Some(u32::MAX), Some("16384"), MAX_CAPTURE.min(16384)),
    ] {
        let policy = Policy {
            max_capture: max,
            ..policy()
        };
        let annotations: Vec<_> = wish
            .map(|bytes| ("pilotfish.dev/capture-bytes", bytes))
            .into_iter()
            .collect();
        let decision = decide(&policy, &annotations);
        assert_eq!(decision.settings.capture, expected, "{max:?} {wish:?}");
    }
}

#[test]
fn protocols_are_those_that_both_want() {
    let name = pilotfish_pipeline::protocol::PROTOCOLS[0].name;
    let wish = format!("{name},nonsense");
    let mut policy = policy();
    let decision = decide(&policy, &[("pilotfish.dev/protocols", &wish)]);
    assert_eq!(decision.slot.protocols, Some(vec![name.to_owned()]));
    assert_eq!(decision.warnings.len(), 1);
    assert!(decision.warnings[0].contains("nonsense"));

    let decision = decide(&policy, &[("pilotfish.dev/protocols", "nonsense")]);
    assert_eq!(decision.slot.protocols, policy.defaults.protocols);
    assert_eq!(decision.warnings.len(), 1);

    policy.defaults.protocols = Some(Vec::new());
    let decision = decide(&policy, &[("pilotfish.dev/protocols", name)]);
    assert_eq!(decision.slot.protocols, Some(Vec::new()));
    assert!(decision.warnings[0].contains("operator"));
    assert!(decision.warnings[1].contains("nothing is recognised"));
    assert_eq!(decision.slot.check(), Ok(()));
}

#[test]
fn ports_are_those_that_both_want() {
    let mut policy = policy();
    let wish = [("pilotfish.dev/ports", "80, 443")];
    assert_eq!(
        decide(&policy, &wish).slot.ports,
        Some(BTreeSet::from([80, 443]))
    );
    policy.defaults.ports = Some(BTreeSet::from([443, 8080]));
    assert_eq!(
        decide(&policy, &wish).slot.ports,
        Some(BTreeSet::from([443]))
    );
    assert_eq!(decide(&policy, &[]).slot.ports, policy.defaults.ports);
    let decision = decide(&policy, &[("pilotfish.dev/ports", "1")]);
    assert_eq!(decision.slot.ports, Some(BTreeSet::new()));
    assert_eq!(decision.warnings.len(), 1);
}

#[test]
fn the_containers_routes_come_first_and_contradictions_go() {
    let mut policy = policy();
    policy.defaults.routes = ["/users/{id}", "/orders/{id}"].map(str::to_owned).to_vec();
    policy.defaults.ignore_paths = vec!["/healthz".to_owned()];
    let decision = decide(
        &policy,
        &[
            (
                "pilotfish.dev/routes",
                "/users/{name};/items/{a};/items/{b};/bad/{",
            ),
            ("pilotfish.dev/ignore-paths", "/metrics;/healthz"),
        ],
    );
    assert_eq!(
        decision.slot.routes,
        ["/users/{name}", "/items/{a}", "/orders/{id}"]
    );
    assert_eq!(decision.slot.ignore_paths, ["/healthz", "/metrics"]);
    let warnings = decision.warnings.join("\n");
    assert_eq!(decision.warnings.len(), 2, "{warnings}");
    assert!(warnings.contains("/items/{b}") && warnings.contains("/bad/{"));
    assert_eq!(decision.slot.check(), Ok(()));
}

#[test]
fn names_and_attributes_are_asked_for() {
    let annotations = [
        ("pilotfish.dev/service-name", "shop"),
        ("resource.opentelemetry.io/team", "fish"),
        ("resource.opentelemetry.io/service.version", "1.2"),
        ("resource.opentelemetry.io/k8s.pod.name", "forged"),
    ];
    let decision = decide(&policy(), &annotations);
    assert_eq!(
        decision.asked,
        owned(&[
            ("service.name", "shop"),
            ("service.version", "1.2"),
            ("team", "fish")
        ])
    );
    assert_eq!(decision.warnings.len(), 1);
}

#[test]
fn one_decision_hundreds_of_wishes() {
    let many: Vec<String> = (0..2000).map(|n| format!("/r{n}/{{id}}")).collect();
    let decision = decide(&policy(), &[("pilotfish.dev/routes", &many.join(";"))]);
    assert!(decision.slot.routes.len() <= pilotfish_workload::annotations::MAX_ROUTES);
    assert_eq!(decision.slot.check(), Ok(()));
}

#[test]
fn what_cannot_be_obeyed_is_named_up_to_a_bound() {
    let same: Vec<String> = (0..MAX_WARNINGS + 10)
        .map(|number| format!("/same/{{name{number}}}"))
        .collect();
    let decision = decide(&policy(), &[("pilotfish.dev/routes", &same.join(";"))]);
    assert_eq!(decision.slot.routes, ["/same/{name0}"]);
    assert_eq!(decision.warnings.len(), MAX_WARNINGS + 1);
    assert_eq!(decision.warnings[MAX_WARNINGS], "and 9 more warnings");
}
