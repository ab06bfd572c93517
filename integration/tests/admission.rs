//! The admission policy of `manifests/kubernetes/admission`, evaluated by the API server's own plug-in.
//!
//! There is no API server: the plug-in, its CEL and its matching are the real ones, in a program of ours
//! (`integration/policy`). What a server does before and after is not shown: storing a policy (validation, defaults),
//! other plug-ins, authorization.

use anyhow::{Context, Result, ensure};
use integration::policy::{self, NEEDS, Outcome, rendered};
use integration::{Scene, Trials, place};
use serde_json::{Value, json};
use std::fs;
use std::process::Command;

/// A namespace about which the policy says nothing.
const NAMESPACE: &str = "shop";

pub(crate) fn register(trials: &mut Trials) {
    trials.subject("admission");
    let mut add = |name: &str, run: fn(&Scene) -> Result<()>| trials.add_with(name, NEEDS, run);
    add("pods_that_ask_get_the_sidecar", asking);
    add("other_pods_stay_as_they_are", others);
    add("namespaces_are_left_out_and_let_in", namespaces);
    add("settings_reach_the_sidecar", settings);
    add("an_error_in_the_policy_keeps_no_pod_back", mistakes);
    add("inject_adds_the_same", injected);
    add("older_servers_get_the_same_policy", older);
}

/// Whatever else is in the pod, the sidecar of the one definition is added, and that once.
fn asking(scene: &Scene) -> Result<()> {
    // Debian's newest, whatever that is when the tree is made.
    eprintln!("evaluated by {}", policy::library()?);
    let outcomes = decide(scene, &rendered("base")?, &pods_that_ask())?;
    for outcome in &outcomes {
        outcome.must_have_the_sidecar()?;
    }
    let again: Vec<Value> = outcomes.into_iter().map(|outcome| outcome.after).collect();
    for outcome in decide(scene, &rendered("base")?, &again)? {
        outcome.must_be_unchanged()?;
    }
    Ok(())
}

fn pods_that_ask() -> Vec<Value> {
    let web = web();
    let shell =
        json!([{ "name": "wait", "image": "busybox", "ports": [{ "containerPort": 9465 }] }]);
    let disk = json!([{ "name": "disk", "emptyDir": {} }]);
    vec![
        pod("plain", "true", json!({ "containers": web })),
        pod("white-space", " true\n", json!({ "containers": web })),
        pod("one-listed", "web", json!({ "containers": web })),
        pod("some-listed", "db, web", json!({ "containers": web })),
        pod(
            "init-listed",
            "wait",
            json!({ "containers": web, "initContainers": shell }),
        ),
        pod(
            "init-containers",
            "true",
            json!({ "containers": web, "initContainers": shell }),
        ),
        pod(
            "volumes",
            "true",
            json!({ "containers": web, "volumes": disk }),
        ),
        pod(
            "everything",
            "true",
            json!({
                "containers": web,
                "initContainers": shell,
                "volumes": disk,
                "shareProcessNamespace": true,
                "hostUsers": true,
                "hostPID": false,
                "os": { "name": "linux" },
                "nodeSelector": { "kubernetes.io/os": "linux", "disk": "fast" },
                "securityContext": { "runAsUser": 1000, "fsGroup": 1000 },
            }),
        ),
        pod(
            "empty-lists",
            "true",
            json!({ "containers": web, "initContainers": [], "volumes": [] }),
        ),
        pod(
            "host-network",
            "true",
            json!({ "containers": web, "hostNetwork": true }),
        ),
    ]
}

/// Pods that do not ask, have it, or cannot have it.
fn others(scene: &Scene) -> Result<()> {
    let outcomes = decide(scene, &rendered("base")?, &other_pods())?;
    for outcome in outcomes {
        outcome.must_be_unchanged()?;
    }
    Ok(())
}

fn other_pods() -> Vec<Value> {
    let answers = |name: &str, value: &str| pod(name, value, json!({ "containers": web() }));
    let with = |name: &str, key: &str, value: Value| {
        let mut pod = answers(name, "true");
        pod["spec"][key] = value;
        pod
    };
    let annotated = |name: &str, annotations: Value| {
        let mut pod = answers(name, "true");
        pod["metadata"]["annotations"] = annotations;
        pod
    };
    let ours = json!({ "name": "pilotfish", "image": "mine" });
    let clash = json!([{ "name": "one", "image": "one", "ports": [{ "containerPort": 9464 }] }]);
    vec![
        annotated("no-annotations", Value::Null),
        annotated("other-annotations", json!({ "other": "true" })),
        annotated(
            "mirror",
            json!({ "pilotfish.dev/instrument": "true", "kubernetes.io/config.mirror": "1" }),
        ),
        answers("declined", "false"),
        answers("empty", ""),
        answers("unknown-word", "yes"),
        answers("another-listed", "db,cache"),
        answers("truth-in-a-list", "db,true"),
        with("ours-in-init", "initContainers", json!([ours])),
        with("ours-beside", "containers", json!([ours])),
        with(
            "ours-volume",
            "volumes",
            json!([{ "name": "pilotfish-podinfo", "emptyDir": {} }]),
        ),
        with("host-pid", "hostPID", json!(true)),
        with("user-namespace", "hostUsers", json!(false)),
        with("apart", "shareProcessNamespace", json!(false)),
        with("windows", "os", json!({ "name": "windows" })),
        with(
            "windows-node",
            "nodeSelector",
            json!({ "kubernetes.io/os": "windows" }),
        ),
        with("port", "containers", clash.clone()),
        with("port-in-init", "initContainers", clash),
    ]
}

/// Labels of namespaces decide, in the policy (never there) and in its binding (as the operator likes).
fn namespaces(scene: &Scene) -> Result<()> {
    let labels = [
        ("kube-system", json!({})),
        ("pilotfish", json!({})),
        (
            "baseline",
            json!({ "pod-security.kubernetes.io/enforce": "baseline" }),
        ),
        (
            "restricted",
            json!({ "pod-security.kubernetes.io/enforce": "restricted" }),
        ),
        ("disabled", json!({ "pilotfish.dev/inject": "disabled" })),
        (
            "privileged",
            json!({ "pod-security.kubernetes.io/enforce": "privileged" }),
        ),
        (
            "warned",
            json!({ "pod-security.kubernetes.io/warn": "restricted" }),
        ),
        ("enabled", json!({ "pilotfish.dev/inject": "enabled" })),
    ];
    let spaces: Vec<Value> = labels
        .iter()
        .map(|(name, labels)| namespace(name, labels))
        .collect();
    let pods: Vec<Value> = labels
        .iter()
        .map(|(name, _)| {
            let mut pod = pod(name, "true", json!({ "containers": web() }));
            pod["metadata"]["namespace"] = json!(name);
            pod
        })
        .collect();
    for (overlay, let_in) in [
        ("base", &["privileged", "warned", "enabled"][..]),
        ("opt-in", &["enabled"]),
    ] {
        let outcomes = policy::evaluate(
            scene,
            &rendered(overlay)?,
            &[spaces.as_slice(), &pods].concat(),
        )?;
        for (outcome, (name, _)) in outcomes.iter().zip(&labels) {
            let verdict = if let_in.contains(name) {
                outcome.must_have_the_sidecar()
            } else {
                outcome.must_be_unchanged()
            };
            verdict.with_context(|| format!("overlay {overlay}"))?;
        }
    }
    Ok(())
}

/// The two variables are all that an installation has to change.
fn settings(scene: &Scene) -> Result<()> {
    let policy = replaced(
        &rendered("base")?,
        "\"pilotfish:0.1.0\"",
        "\"registry.example/pilotfish:1\"",
    )?;
    let policy = replaced(&policy, "'\"\"'", "'\"http://collector:4318\"'")?;
    for outcome in decide(scene, &policy, &pods_that_ask())? {
        let mut wanted = outcome.with_the_sidecar()?;
        let sidecar = &mut wanted["spec"]["initContainers"][0];
        sidecar["image"] = json!("registry.example/pilotfish:1");
        sidecar["env"]
            .as_array_mut()
            .context("the sidecar has an environment")?
            .push(
                json!({ "name": "OTEL_EXPORTER_OTLP_ENDPOINT", "value": "http://collector:4318" }),
            );
        outcome.must_be(&wanted)?;
    }
    Ok(())
}

/// Expressions that do not compile, or fail: the pod starts as it is. What is not covered, and said so in the policy: a
/// patch whose result is no pod. That the errors are seen at all shows that the other trials would fail.
fn mistakes(scene: &Scene) -> Result<()> {
    let policy = rendered("base")?;
    let (open, closed) = (true, false);
    for (right, wrong, starts, says) in [
        (
            "has(object.spec.volumes)",
            "has(object.spec.volumes",
            open,
            "Syntax error",
        ),
        (
            "object.spec.?hostUsers.orValue(true) == true",
            "object.spec.?hostUsers.orValue(true)",
            open,
            "must evaluate to bool",
        ),
        (
            "object.spec.?hostPID.orValue(false)",
            "object.spec.hostPID",
            open,
            "no such key",
        ),
        ("/spec/volumes/-", "/spec/volume/-", open, "missing path"),
        (
            "periodSeconds: 1",
            "periodSecond: 1",
            closed,
            "periodSecond",
        ),
        (
            "type: \"RuntimeDefault\"",
            "type: 7",
            closed,
            "cannot unmarshal number",
        ),
    ] {
        let broken = replaced(&policy, right, wrong)?;
        for outcome in decide(scene, &broken, &pods_that_ask()[..1])? {
            ensure!(
                outcome.after == outcome.before && outcome.refused.is_none() == starts,
                "with `{wrong}`: {outcome:#?}"
            );
            let failed = outcome.failed.unwrap_or_default();
            ensure!(failed.contains(says), "with `{wrong}`: {failed:?}");
        }
    }
    Ok(())
}

/// `pilotfish inject` makes of the pods what the policy makes of them.
fn injected(scene: &Scene) -> Result<()> {
    let pods = pods_that_ask();
    let manifest = scene.folder().join("pods.json");
    fs::write(
        &manifest,
        json!({ "apiVersion": "v1", "kind": "List", "items": pods }).to_string(),
    )?;
    let inject = Command::new(place::agent_binary()?)
        .args(["inject", "--filename"])
        .arg(&manifest)
        .output()?;
    ensure!(
        inject.status.success(),
        "{}",
        String::from_utf8_lossy(&inject.stderr)
    );
    let mut list: Value = serde_json::from_slice(&inject.stdout)?;
    let injected = list["items"].as_array_mut().context("a list of pods")?;
    injected.iter_mut().for_each(as_the_policy_has_it);

    let policy = rendered("base")?;
    let by_policy = decide(scene, &policy, &pods)?;
    let by_command = decide(scene, &policy, injected)?;
    ensure!(
        by_policy.len() == by_command.len(),
        "a pod is lost: {injected:#?}"
    );
    for (policy, command) in by_policy.iter().zip(&by_command) {
        policy.must_be(&command.before)?;
        command.must_be_unchanged()?;
    }
    Ok(())
}

/// The command puts the volume in front, and remembers in a variable what it took the place of; to a pod neither makes
/// a difference.
fn as_the_policy_has_it(pod: &mut Value) {
    if let Some(variables) = pod["spec"]["initContainers"][0]["env"].as_array_mut() {
        variables.retain(|variable| variable["name"] != "PILOTFISH_INJECT_KEPT");
    }
    if let Some(volumes) = pod["spec"]["volumes"].as_array_mut() {
        volumes.rotate_left(1);
    }
}

/// Nothing but the version differs.
fn older(_: &Scene) -> Result<()> {
    let stable = "apiVersion: admissionregistration.k8s.io/v1\n";
    let beta = "apiVersion: admissionregistration.k8s.io/v1beta1\n";
    let base = rendered("base")?;
    ensure!(
        base.matches(stable).count() == 2,
        "a policy and a binding:\n{base}"
    );
    ensure!(rendered("v1beta1")? == base.replace(stable, beta));
    Ok(())
}

fn web() -> Value {
    json!([{ "name": "web", "image": "nginx" }])
}

fn pod(name: &str, instrument: &str, spec: Value) -> Value {
    let mut pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": NAMESPACE,
            "annotations": { "pilotfish.dev/instrument": instrument },
        },
    });
    pod["spec"] = spec;
    pod
}

/// Every server labels its namespaces with their names.
fn namespace(name: &str, labels: &Value) -> Value {
    let mut labels = labels.clone();
    labels["kubernetes.io/metadata.name"] = json!(name);
    json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name, "labels": labels } })
}

/// What the policy makes of pods in [`NAMESPACE`].
fn decide(scene: &Scene, policy: &str, pods: &[Value]) -> Result<Vec<Outcome>> {
    let objects = [&[namespace(NAMESPACE, &json!({}))], pods].concat();
    let outcomes = policy::evaluate(scene, policy, &objects)?;
    ensure!(
        outcomes.len() == pods.len(),
        "{} outcomes for {} pods",
        outcomes.len(),
        pods.len()
    );
    Ok(outcomes)
}

/// A text with one thing in it changed.
fn replaced(text: &str, from: &str, to: &str) -> Result<String> {
    ensure!(text.contains(from), "there is no {from} in:\n{text}");
    Ok(text.replacen(from, to, 1))
}
