//! Admission policies, evaluated by the API server's own plug-in in the program `integration/policy`.
//!
//! ```text
//! let policy = policy::rendered("base")?;                    // manifests/kubernetes/admission/base, by kustomize
//! for outcome in policy::evaluate(scene, &policy, &[namespace, pod])? {
//!     outcome.must_have_the_sidecar()?;
//! }
//! ```
//!
//! The program is compiled with Go and libraries of the tree `apiserver` alone, without a network: some minutes the first
//! time, a second later.

use crate::place::{self, compiled, workspace};
use crate::runtime::Tree;
use crate::{Need, Scene};
use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::{Value, json};
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;

/// What trials with policies need.
pub const NEEDS: &[Need] = &[Need::Tree(Tree::Apiserver), Need::Tool("kustomize")];

/// The package of the tree that has the plug-in.
const LIBRARY: &str = "golang-k8s-apiserver-dev";

/// What became of a pod that was to be created.
#[derive(Debug, Deserialize)]
pub struct Outcome {
    /// As the API server's types hold it.
    pub before: Value,
    /// After the policy.
    pub after: Value,
    /// Why it is not created.
    pub refused: Option<String>,
    /// What went wrong in the policy, whether it fails open or not.
    pub failed: Option<String>,
}

impl Outcome {
    /// Fails unless the pod became this one and nothing went wrong.
    pub fn must_be(&self, wanted: &Value) -> Result<()> {
        ensure!(
            self.refused.is_none() && self.failed.is_none() && self.after == *wanted,
            "expected {wanted:#}\nof {self:#?}\n{}",
            library()?
        );
        Ok(())
    }

    /// Fails unless the policy left the pod alone.
    pub fn must_be_unchanged(&self) -> Result<()> {
        self.must_be(&self.before)
    }

    /// Fails unless the sidecar was added, and nothing else.
    pub fn must_have_the_sidecar(&self) -> Result<()> {
        self.must_be(&self.with_the_sidecar()?)
    }

    /// The pod as it was with what `sidecar/src/inject/sidecar.yaml` says, our container in front.
    pub fn with_the_sidecar(&self) -> Result<Value> {
        let definition = fs::read_to_string(workspace().join("sidecar/src/inject/sidecar.yaml"))?;
        let definition: Value = serde_saphyr::from_str(&definition)?;
        let mut pod = self.before.clone();
        let spec = &mut pod["spec"];
        spec["shareProcessNamespace"] = definition["shareProcessNamespace"].clone();
        let (ours, theirs) = (
            list(&definition["initContainers"]),
            list(&spec["initContainers"]),
        );
        spec["initContainers"] = json!([ours, theirs].concat());
        let (ours, theirs) = (list(&definition["volumes"]), list(&spec["volumes"]));
        spec["volumes"] = json!([theirs, ours].concat());
        Ok(pod)
    }
}

fn list(value: &Value) -> Vec<Value> {
    value.as_array().cloned().unwrap_or_default()
}

/// The manifests of a directory below `manifests/kubernetes/admission`, put together by kustomize.
pub fn rendered(directory: &str) -> Result<String> {
    let directory = workspace()
        .join("manifests/kubernetes/admission")
        .join(directory);
    output(place::command("kustomize")?.arg("build").arg(directory))
}

/// Puts the documents (a policy, its binding) and the objects (namespaces, pods) before the plug-in; one outcome for
/// each pod, in order.
pub fn evaluate(scene: &Scene, documents: &str, objects: &[Value]) -> Result<Vec<Outcome>> {
    let mut input = documents.to_owned();
    for object in objects {
        input.push_str("\n---\n");
        input.push_str(&object.to_string());
    }
    let file = scene.folder().join("admission.yaml");
    fs::write(&file, input)?;
    output(Command::new(program()?).stdin(File::open(&file)?))?
        .lines()
        .map(|line| serde_json::from_str(line).context("an outcome cannot be read"))
        .collect()
}

/// The version of the API server's library, as Debian names it.
pub fn library() -> Result<String> {
    let packages = fs::read_to_string(Tree::Apiserver.path().join("packages"))?;
    let line = packages.lines().find(|line| line.starts_with(LIBRARY));
    Ok(line.context("the tree has no API server")?.to_owned())
}

/// Go itself knows what of it is up to date, the libraries included.
fn program() -> Result<PathBuf> {
    let tree = Tree::Apiserver.path();
    let product = compiled()?.join("policy.bin");
    let mut build = Command::new(tree.join("usr/lib/go/bin/go"));
    build
        // Nobody debugs it.
        .args(["build", "-gcflags=all=-dwarf=false", "-ldflags=-s -w", "-o"])
        .arg(&product)
        .arg(workspace().join("integration/policy/main.go"))
        .env("GOROOT", tree.join("usr/lib/go"))
        .env("GOPATH", tree.join("usr/share/gocode"))
        .env("GOCACHE", compiled()?.join("go-cache"))
        .envs([
            ("GO111MODULE", "off"),
            ("GOPROXY", "off"),
            ("GOTOOLCHAIN", "local"),
            ("GOFLAGS", ""),
            ("CGO_ENABLED", "0"),
        ]);
    output(&mut build)?;
    Ok(product)
}

/// Runs a command to its end.
fn output(command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("cannot run {command:?}"))?;
    if !output.status.success() {
        bail!(
            "{command:?} failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(String::from_utf8(output.stdout)?)
}
