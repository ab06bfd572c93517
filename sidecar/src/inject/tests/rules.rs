//! Who gets it, who does not, and why.

use super::*;

fn pod(lines: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: web\nspec:\n  containers:\n  - name: web\n    image: web\n{lines}"
    )
}

fn refusal(text: &str) -> Refusal {
    let filtered = injected(text);
    assert_eq!(filtered.text, text, "a refused object stays as it is");
    match outcomes(&filtered).as_slice() {
        [Outcome::Refused(refusal)] => refusal.clone(),
        other => panic!("{text}: {other:?}"),
    }
}

#[test]
fn pods_that_cannot_have_it_are_refused() {
    let port = Refusal::PortTaken {
        container: "proxy".to_owned(),
        port: 9464,
    };
    for (lines, expected) in [
        ("  hostPID: true\n", Refusal::HostPid),
        ("  hostPID: yes\n", Refusal::HostPid),
        ("  hostPID: 'true'\n", Refusal::Type("hostPID")),
        ("  hostUsers: false\n", Refusal::UserNamespace),
        ("  shareProcessNamespace: false\n", Refusal::ProcessesApart),
        ("  os: {name: windows}\n", Refusal::Windows),
        (
            "  securityContext: {windowsOptions: {hostProcess: true}}\n",
            Refusal::Windows,
        ),
        (
            "  nodeSelector: {beta.kubernetes.io/os: windows}\n",
            Refusal::Windows,
        ),
        (
            "  nodeSelector:\n    kubernetes.io/os: windows\n",
            Refusal::Windows,
        ),
        ("  - name: pilotfish\n    image: mine\n", Refusal::NameTaken),
        (
            "  initContainers:\n  - name: pilotfish\n    image: mine\n",
            Refusal::NameTaken,
        ),
        (
            "  ephemeralContainers:\n  - name: pilotfish\n",
            Refusal::NameTaken,
        ),
        (
            "  volumes:\n  - name: pilotfish-podinfo\n    emptyDir: {}\n",
            Refusal::VolumeTaken,
        ),
        (
            "  - name: proxy\n    ports: [{containerPort: 9464}]\n",
            port.clone(),
        ),
        (
            "  initContainers:\n  - {name: proxy, restartPolicy: Always, ports: [{containerPort: 9464}]}\n",
            port,
        ),
        ("  volumes: none\n", Refusal::Type("volumes")),
        ("  initContainers: {}\n", Refusal::Type("initContainers")),
        (
            "  dnsPolicy: Default\n  dnsPolicy: None\n",
            Refusal::DuplicateKey("dnsPolicy".to_owned()),
        ),
    ] {
        assert_eq!(refusal(&pod(lines)), expected, "{lines}");
    }
}

#[test]
fn what_is_no_pod_is_refused() {
    for text in [
        "apiVersion: v1\nkind: Pod\n",
        "apiVersion: v1\nkind: Pod\nspec: {}\n",
        "apiVersion: v1\nkind: Pod\nspec:\n  containers: []\n",
        "apiVersion: apps/v1\nkind: Deployment\nspec:\n  template: {}\n",
        "apiVersion: apps/v1\nkind: Deployment\nspec: web\n",
    ] {
        assert_eq!(refusal(text), Refusal::NoPod, "{text}");
    }
}

#[test]
fn what_is_shared_is_refused() {
    let twice = "a: &pod\n  containers: [{name: web}]\napiVersion: v1\nkind: Pod\nspec: *pod\n";
    assert_eq!(refusal(twice), Refusal::Shared);
    let source = "apiVersion: v1\nkind: Pod\nspec: &pod\n  containers: [{name: web}]\nb: *pod\n";
    assert_eq!(refusal(source), Refusal::Shared);
    let list = pod("  volumes: &volumes\n  - name: a\n  other: *volumes\n");
    assert_eq!(refusal(&list), Refusal::Shared);
    let merged = "a: &pod {hostPID: true}\napiVersion: v1\nkind: Pod\nspec:\n  <<: *pod\n  containers: [{name: web}]\n";
    assert_eq!(refusal(merged), Refusal::Merged);
}

#[test]
fn what_cannot_have_it_has_none_to_take_out() {
    for text in [
        "apiVersion: apps/v1\nkind: Deployment\nspec: web\n".to_owned(),
        pod("  - name: pilotfish\n    image: mine\n"),
        pod("  hostPID: true\n"),
        pod("  dnsPolicy: Default\n  dnsPolicy: None\n"),
        "apiVersion: v1\nkind: Pod\nspec: &pod\n  containers: [{name: web}]\nb: *pod\n".to_owned(),
    ] {
        let filtered = uninject(&text).expect("manifests");
        assert_eq!(outcomes(&filtered), [&Outcome::Unchanged], "{text}");
        assert_eq!(filtered.text, text);
    }
}

#[test]
fn merge_keys_hide_no_port() {
    let text = pod(
        "  - &first\n    name: first\n    ports: [{containerPort: 9464}]\n  - <<: *first\n    name: second\n",
    );
    assert!(matches!(refusal(&text), Refusal::PortTaken { .. }));
    let text = text.replace(
        "  - &first\n    name: first\n",
        "  - <<: &first {name: a}\n    name: first\n",
    );
    assert!(matches!(refusal(&text), Refusal::PortTaken { .. }));
}

#[test]
fn notations_that_cannot_be_edited_are_refused() {
    for lines in [
        "  ? volumes\n  : []\n",
        "  volumes: !!seq []\n",
        "  volumes:\n    []\n",
    ] {
        assert!(
            matches!(refusal(&pod(lines)), Refusal::Notation { line: 9, .. }),
            "{lines}"
        );
    }
}

#[test]
fn a_volume_that_others_use_is_not_taken_out() {
    let text = injected(&pod("")).text.replace(
        "    image: web\n",
        "    image: web\n    volumeMounts: [{name: pilotfish-podinfo, mountPath: /labels}]\n",
    );
    let filtered = uninject(&text).expect("a pod");
    let used = Outcome::Refused(Refusal::VolumeUsed("web".to_owned()));
    assert_eq!(outcomes(&filtered), [&used]);
    assert_eq!(filtered.text, text);
}

#[test]
fn the_annotation_is_obeyed() {
    let says = |value: &str| {
        let with = format!("  name: web\n  annotations:\n    pilotfish.dev/instrument: {value}\n");
        let text = pod("").replace("  name: web\n", &with);
        injected(&text).objects.remove(0).outcome
    };
    assert_eq!(says("\"false\""), Outcome::LeftAlone);
    assert_eq!(says("\"true\""), Outcome::Injected);
    assert_eq!(says("web"), Outcome::Injected);
}

#[test]
fn only_kubernetes_own_kinds_have_pods() {
    let names = [
        ("v1", "Pod", true),
        ("apps/v1", "Deployment", true),
        ("apps/v1beta2", "StatefulSet", true),
        ("extensions/v1beta1", "DaemonSet", true),
        ("batch/v1beta1", "CronJob", true),
        ("apps.example.com/v1", "Deployment", false),
        ("batch.volcano.sh/v1alpha1", "Job", false),
        ("serving.knative.dev/v1", "Service", false),
        ("v1", "Deployment", false),
    ];
    for (version, kind, has_pods) in names {
        let spec = "{containers: [{name: web}]}";
        let body = match kind {
            "Pod" => spec.to_owned(),
            "CronJob" => format!("{{jobTemplate: {{spec: {{template: {{spec: {spec}}}}}}}}}"),
            _ => format!("{{template: {{spec: {spec}}}}}"),
        };
        let text = format!("apiVersion: {version}\nkind: {kind}\nspec: {body}\n");
        let filtered = injected(&text);
        let expected = if has_pods {
            Outcome::Injected
        } else {
            Outcome::NoPods
        };
        assert_eq!(outcomes(&filtered), [&expected], "{version} {kind}");
        assert_eq!(filtered.text == text, !has_pods, "{version} {kind}");
    }
}

#[test]
fn items_of_typed_lists_inherit_their_kind() {
    let text = r#"{"kind":"PodList","apiVersion":"v1","items":[{"metadata":{"name":"web"},"spec":{"containers":[{"name":"web"}]}}]}"#;
    let filtered = injected(text);
    assert_eq!(outcomes(&filtered), [&Outcome::Injected]);
    assert_eq!(uninjected(&filtered.text), text);
}

#[test]
fn every_object_is_reported() {
    let text = format!(
        "{}---\napiVersion: v1\nkind: Service\nmetadata:\n  name: \"a\\u0007\"\n---\nkind: Deployment\n---\nimage: web\n",
        pod("")
    );
    let reported: Vec<String> = injected(&text)
        .objects
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        reported,
        [
            "pod \"web\" injected",
            "service \"a\u{fffd}\" skipped: no kind with pods that inject knows",
            "deployment skipped: it has no apiVersion",
            "object without a kind skipped: no kind with pods that inject knows",
        ]
    );
}
