//! Kubernetes manifests: built by kustomize, rendered by Helm, checked against the schemas of Kubernetes.
//!
//! ```text
//! let text = kubernetes::kustomize_build(&kubernetes::manifests().join("node"))?;
//! let text = kubernetes::helm_template(&["--set", "node.mode=hook"])?;
//! for version in kubernetes::VERSIONS {
//!     kubernetes::validate(&text, version)?;                 // how many objects; an error with every fault
//! }
//! let objects = kubernetes::objects(&text)?;                 // YAML or JSON, documents and items of lists
//! kubernetes::references::check(&objects)?;                  // what schemas cannot say
//! ```
//!
//! Trials say [`NEEDS`]. No cluster is asked: none of these tools talks to one.

pub mod references;

use crate::place;
use crate::trial::Need;
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What the functions of this module run.
pub const NEEDS: [Need; 3] = [
    Need::Tool("kubernetes-validate"),
    Need::Tool("kustomize"),
    Need::Tool("helm"),
];

/// The oldest version that the manifests are for, which is the first where native sidecars are on by default, and the
/// newest whose schemas there are.
pub const VERSIONS: [&str; 2] = ["1.29", "1.37"];

/// `manifests/kubernetes` of the checkout.
pub fn manifests() -> PathBuf {
    place::workspace().join("manifests/kubernetes")
}

/// The Helm chart.
pub fn chart() -> PathBuf {
    place::workspace().join("manifests/helm/pilotfish")
}

/// Checks every object of some YAML or JSON against the schemas of one Kubernetes version, `1.29` for example, and
/// gives back how many there were. Kinds and fields that this version does not have, and keys that stand twice, are
/// faults too; the error lists all of them.
pub fn validate(text: &str, version: &str) -> Result<usize> {
    let mut command = place::command("python3")?;
    command
        .arg(place::fixture("validate_manifests.py"))
        .arg(version);
    let count = output(command, text)
        .with_context(|| format!("not valid for Kubernetes {version}"))?
        .trim()
        .parse()?;
    ensure!(count > 0, "there is no object to validate");
    Ok(count)
}

/// The same against all of [`VERSIONS`].
pub fn validate_all(text: &str) -> Result<()> {
    for version in VERSIONS {
        validate(text, version)?;
    }
    Ok(())
}

/// What `kubectl apply --kustomize` would send.
pub fn kustomize_build(directory: &Path) -> Result<String> {
    let mut command = place::command("kustomize")?;
    command.arg("build").arg(directory);
    output(command, "")
}

/// What `helm install pilotfish --namespace pilotfish` would send, with these arguments.
pub fn helm_template(arguments: &[&str]) -> Result<String> {
    let mut command = helm()?;
    command
        .args(["template", "pilotfish"])
        .arg(chart())
        .args(["--namespace", "pilotfish"])
        // Without it this Helm would render for Kubernetes 1.20.
        .args(["--kube-version", VERSIONS[0]])
        .args(arguments);
    output(command, "")
}

/// `helm`, without a cluster and without the settings of whoever runs the tests.
pub fn helm() -> Result<Command> {
    let mut command = place::command("helm")?;
    command.env("KUBECONFIG", "/dev/null");
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("HELM_")) {
            command.env_remove(name);
        }
    }
    Ok(command)
}

/// Every object of some YAML or JSON, those in lists included.
pub fn objects(text: &str) -> Result<Vec<Value>> {
    let documents: Vec<Value> =
        serde_saphyr::from_multiple(text).context("these manifests are not YAML")?;
    Ok(documents.into_iter().flat_map(items).collect())
}

/// The template of the pods that a workload makes.
pub fn pod_template(object: &Value) -> Option<&Value> {
    let spec = &object["spec"];
    match object["kind"].as_str()? {
        "CronJob" => spec["jobTemplate"]["spec"].get("template"),
        _ => spec.get("template"),
    }
}

/// The `PodSpec` of a pod, or of the pods that a workload makes.
pub fn pod_spec(object: &Value) -> Option<&Value> {
    match object["kind"].as_str()? {
        "Pod" => object.get("spec"),
        _ => pod_template(object)?.get("spec"),
    }
}

fn items(mut document: Value) -> Vec<Value> {
    if document.is_null() {
        return Vec::new();
    }
    if document["kind"] != "List" {
        return vec![document];
    }
    let list = document["items"].as_array_mut().map(std::mem::take);
    list.into_iter().flatten().flat_map(items).collect()
}

/// Runs a command with `input` on its standard input; its standard error becomes part of the error.
pub fn output(mut command: Command, input: &str) -> Result<String> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {command:?}"))?;
    let mut stdin = child.stdin.take().context("a pipe was asked for")?;
    let input = input.to_owned();
    // From a thread: a program that writes before it has read all would wait for us, and we for it.
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output()?;
    // A program that failed early has closed its input, which is not the error to tell.
    let written = writer.join();
    if !output.status.success() {
        bail!(
            "{command:?} failed: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    ensure!(
        matches!(written, Ok(Ok(()))),
        "{command:?} did not read its input"
    );
    String::from_utf8(output.stdout).context("the output is not UTF-8")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_opened_and_empty_documents_skipped() {
        let text = "---\nkind: Pod\n---\n---\nkind: List\nitems:\n- kind: Service\n- kind: List\n  items: [{kind: Job}]\n";
        let kinds: Vec<_> = objects(text)
            .expect("YAML")
            .into_iter()
            .map(|object| object["kind"].clone())
            .collect();
        assert_eq!(kinds, ["Pod", "Service", "Job"]);
    }

    #[test]
    fn a_failed_command_says_why_although_its_input_was_not_read() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo no such luck >&2; exit 3"]);
        let error = output(command, &"x".repeat(1 << 20)).expect_err("exit code 3");
        assert!(error.to_string().ends_with("no such luck"), "{error}");
    }
}
