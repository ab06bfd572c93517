//! The ephemeral container: what a real `kubectl debug` makes of `manifests/kubernetes/debug/profile.yaml`.

use crate::manifests::definition;
use anyhow::{Context, Result, ensure};
use integration::process::wait_for;
use integration::trial::Need;
use integration::{Process, Scene, Trials, kubernetes, place};
use serde_json::{Value, json};
use std::fs;
use std::time::Duration;

/// Bound for a local server's start.
const START: Duration = Duration::from_secs(20);

pub(crate) fn register(trials: &mut Trials) {
    trials.subject("ephemeral");
    let needs = [
        Need::Tool("kubectl"),
        Need::Tool("python3"),
        Need::Tool("kubernetes-validate"),
    ];
    trials.add_with("has_the_sidecars_privileges", &needs, privileges);
}

fn privileges(scene: &Scene) -> Result<()> {
    let pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": "shop", "namespace": "default" },
        "spec": { "containers": [{ "name": "web", "image": "web:1" }] },
    });
    let patch = debug(scene, &pod)?;
    ensure!(
        patch["path"] == "/api/v1/namespaces/default/pods/shop/ephemeralcontainers",
        "{patch}"
    );
    let added = &patch["patch"]["spec"]["ephemeralContainers"];
    let container = &added[0];
    ensure!(
        added.as_array().is_some_and(|list| list.len() == 1),
        "{patch}"
    );
    ensure!(container["targetContainerName"] == "web", "{container}");

    let sidecar = &definition()?["initContainers"][0];
    for key in ["image", "securityContext"] {
        ensure!(container[key] == sidecar[key], "{key}: {container}");
    }
    // Its volumes are the pod's, so it has no files of the Downward API; its variables are all that the sidecar has.
    let mut expected = sidecar["env"].as_array().context("a list")?.clone();
    expected.retain(|variable| variable.get("valueFrom").is_some());
    expected.push(json!({ "name": "PILOTFISH_LISTEN", "value": "off" }));
    ensure!(container["env"] == json!(expected), "{container}");

    let mut with_it = pod;
    with_it["spec"]["ephemeralContainers"] = added.clone();
    kubernetes::validate_all(&with_it.to_string())
}

/// The request that the documented command makes, without its terminal.
fn debug(scene: &Scene, pod: &Value) -> Result<Value> {
    let file = scene.folder().join("pod.json");
    fs::write(&file, pod.to_string())?;
    let mut server = place::command("python3")?;
    server.arg(place::fixture("pod_server.py")).arg(&file);
    let server = Process::start("server", server, scene.folder())?;
    let port = wait_for("the server's port", START, || {
        Ok(server
            .log()
            .lines()
            .next()
            .and_then(|line| line.parse::<u16>().ok()))
    })?;

    let mut kubectl = place::command("kubectl")?;
    // What kubectl remembers of a server is kept in the user's home.
    kubectl
        .env("KUBECONFIG", "/dev/null")
        .env("HOME", scene.folder());
    kubectl.arg(format!("--server=http://127.0.0.1:{port}"));
    kubectl.args(["debug", "shop", "--target=web", "--profile=general"]);
    kubectl.arg(format!("--image=pilotfish:{}", env!("CARGO_PKG_VERSION")));
    let profile = kubernetes::manifests().join("debug/profile.yaml");
    kubectl.arg(format!("--custom={}", profile.display()));
    kubernetes::output(kubectl, "")?;
    let log = server.log();
    let request = log.lines().nth(1).context("kubectl has changed nothing")?;
    serde_json::from_str(request).with_context(|| format!("not a request: {request}"))
}
