//! `service.*` by the order of precedence of the semantic conventions for Kubernetes.

use std::collections::BTreeMap;

use pilotfish_workload::annotations::Wishes;
use pilotfish_workload::{Identity, Image, naming_labels, service};

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

fn in_pod(pod: &str) -> Identity {
    Identity {
        container_name: Some("k8s_web".to_owned()),
        k8s_container_name: Some("web".to_owned()),
        pod_name: Some(pod.to_owned()),
        namespace: Some("prod".to_owned()),
        image: Image::parse("shop:1.4").unwrap(),
        ..Identity::default()
    }
}

fn named(identity: &Identity, labels: &[(&str, &str)]) -> Option<String> {
    service(identity, &Wishes::default(), &map(labels)).remove("service.name")
}

#[test]
fn everything_that_was_asked_for_comes_first() {
    let wishes = Wishes {
        service_name: Some("asked".to_owned()),
        resource: map(&[
            ("service.namespace", "space"),
            ("service.version", "9"),
            ("service.instance.id", "i-1"),
            ("team", "x"),
        ]),
        ..Wishes::default()
    };
    let labels = map(&[
        ("app.kubernetes.io/instance", "shop-prod"),
        ("app.kubernetes.io/version", "2"),
    ]);
    assert_eq!(
        service(&in_pod("shop-0"), &wishes, &labels),
        BTreeMap::from([
            ("service.instance.id", "i-1".to_owned()),
            ("service.name", "asked".to_owned()),
            ("service.namespace", "space".to_owned()),
            ("service.version", "9".to_owned()),
        ])
    );
}

#[test]
fn the_rest_is_found_in_order() {
    let labels = map(&[
        ("app.kubernetes.io/name", "shop"),
        ("app.kubernetes.io/version", "2"),
    ]);
    assert_eq!(
        service(&in_pod("shop-0"), &Wishes::default(), &labels),
        BTreeMap::from([
            ("service.instance.id", "prod.shop-0.web".to_owned()),
            ("service.name", "shop".to_owned()),
            ("service.namespace", "prod".to_owned()),
            ("service.version", "2".to_owned()),
        ])
    );
}

#[test]
fn names_from_labels_owners_pod_and_container() {
    const INSTANCE: (&str, &str) = ("app.kubernetes.io/instance", "shop-prod");
    const NAME: (&str, &str) = ("app.kubernetes.io/name", "shop");
    const HASH: (&str, &str) = ("pod-template-hash", "7d9f8c6b5");
    let of_deployment = in_pod("web-shop-7d9f8c6b5-x2x4z");
    for (labels, name) in [
        (&[INSTANCE, NAME, HASH][..], "shop-prod"),
        (&[NAME, HASH], "shop"),
        (&[HASH], "web-shop"),
        (&[], "web-shop-7d9f8c6b5-x2x4z"),
    ] {
        assert_eq!(named(&of_deployment, labels).as_deref(), Some(name));
    }
    let container = Identity {
        pod_name: None,
        ..in_pod("")
    };
    assert_eq!(named(&container, &[HASH]).as_deref(), Some("web"));
    let outside = Identity {
        container_name: Some("cache".to_owned()),
        ..Identity::default()
    };
    assert_eq!(named(&outside, &[]).as_deref(), Some("cache"));
    assert!(service(&Identity::default(), &Wishes::default(), &BTreeMap::new()).is_empty());
}

#[test]
fn an_owner_is_knowledge_or_nothing() {
    for (pod, label, owner) in [
        (
            "web-abc12-x2x4z",
            ("pod-template-hash", "abc12"),
            Some("web"),
        ),
        // Somebody else's hash; a name that was cut; a pod without a random part; no deployment before the hash.
        ("web-abc12-x2x4z", ("pod-template-hash", "abc13"), None),
        ("web-abcx2x4z", ("pod-template-hash", "abc12"), None),
        ("web-abc12", ("pod-template-hash", "abc12"), None),
        ("-abc12-x2x4z", ("pod-template-hash", "abc12"), None),
        (
            "db-0",
            ("statefulset.kubernetes.io/pod-name", "db-0"),
            Some("db"),
        ),
        (
            "db-a-12",
            ("statefulset.kubernetes.io/pod-name", "db-a-12"),
            Some("db-a"),
        ),
        ("db-0", ("statefulset.kubernetes.io/pod-name", "db-1"), None),
        ("db-x", ("statefulset.kubernetes.io/pod-name", "db-x"), None),
        (
            "load-x2x4z",
            ("batch.kubernetes.io/job-name", "load"),
            Some("load"),
        ),
        ("load-0-x2x4z", ("job-name", "load"), Some("load")),
        ("loader-x2x4z", ("job-name", "load"), None),
        ("web-x2x4z", ("controller-revision-hash", "x2x4z"), None),
    ] {
        assert_eq!(
            named(&in_pod(pod), &[label]).as_deref(),
            Some(owner.unwrap_or(pod)),
            "{pod} {label:?}"
        );
    }
}

#[test]
fn versions_from_tag_and_digest() {
    let digest = "sha256:6af79ae5de407283dcea8b00d5c37ace95441fd58a8b1d2aa1ed93f5511bb18c";
    for (reference, version) in [
        ("shop:1.4".to_owned(), Some("1.4".to_owned())),
        (format!("shop:1.4@{digest}"), Some(format!("1.4@{digest}"))),
        (format!("shop@{digest}"), Some(digest.to_owned())),
        ("shop".to_owned(), None),
    ] {
        let identity = Identity {
            image: Image::parse(&reference).unwrap(),
            ..Identity::default()
        };
        let mut found = service(&identity, &Wishes::default(), &BTreeMap::new());
        assert_eq!(found.remove("service.version"), version, "{reference}");
        assert!(found.is_empty());
    }
}

#[test]
fn an_instance_needs_all_three_names() {
    for missing in 0..3 {
        let mut identity = in_pod("shop-0");
        match missing {
            0 => identity.namespace = None,
            1 => identity.pod_name = None,
            _ => identity.k8s_container_name = None,
        }
        let found = service(&identity, &Wishes::default(), &BTreeMap::new());
        assert!(!found.contains_key("service.instance.id"), "{missing}");
    }
}

#[test]
fn labels_are_picked_and_bounded() {
    let long = "v".repeat(64);
    let picked = naming_labels([
        ("app.kubernetes.io/name", "shop"),
        ("app.kubernetes.io/instance", ""),
        ("app.kubernetes.io/version", long.as_str()),
        ("pod-template-hash", "a\nb"),
        ("app.kubernetes.io/part-of", "mall"),
        ("run", "shop"),
    ]);
    assert_eq!(picked, map(&[("app.kubernetes.io/name", "shop")]));
}
