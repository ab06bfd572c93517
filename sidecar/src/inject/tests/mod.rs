mod corpus;
mod hostile;
mod notation;
mod options;
mod returned;
mod rules;
mod written;

use super::*;
use serde_json::Value;
use std::{fs, io, path::Path};

/// A file of the corpus and its text.
struct Shape {
    name: String,
    text: String,
}

/// All shapes of manifests, by name.
fn shapes() -> Vec<Shape> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/inject/tests/corpus");
    let mut shapes: Vec<Shape> = input::read(&[directory])
        .expect("the corpus can be read")
        .into_iter()
        .map(|source| Shape {
            name: source.name,
            text: source.text,
        })
        .collect();
    shapes.sort_by(|one, other| one.name.cmp(&other.name));
    shapes
}

fn injected(text: &str) -> Filtered {
    inject(text, &SidecarOptions::default()).expect("manifests")
}

fn uninjected(text: &str) -> String {
    uninject(text).expect("manifests").text
}

/// What was done, object by object.
fn outcomes(filtered: &Filtered) -> Vec<&Outcome> {
    filtered.objects.iter().map(|done| &done.outcome).collect()
}

/// The documents as another reader has them, which also follows aliases and merge keys.
fn values(text: &str) -> Vec<Value> {
    let json: Result<Vec<Value>, _> = serde_json::Deserializer::from_str(text)
        .into_iter()
        .collect();
    json.or_else(|_| serde_saphyr::from_multiple(text))
        .expect("YAML or JSON")
}

/// Every pod specification of a document, by the paths that Kubernetes' own reference gives.
fn pod_specs(document: &mut Value) -> Vec<&mut Value> {
    if document["kind"] == "List" {
        let items = document["items"].as_array_mut().expect("items");
        return items.iter_mut().flat_map(pod_specs).collect();
    }
    let core = ["v1", "apps/v1", "batch/v1"];
    if !core
        .iter()
        .any(|version| document["apiVersion"] == *version)
    {
        return Vec::new();
    }
    let pointer = match document["kind"].as_str() {
        Some("Pod") => "/spec",
        Some("CronJob") => "/spec/jobTemplate/spec/template/spec",
        Some(
            "Deployment"
            | "StatefulSet"
            | "DaemonSet"
            | "ReplicaSet"
            | "ReplicationController"
            | "Job",
        ) => "/spec/template/spec",
        _ => return Vec::new(),
    };
    vec![document.pointer_mut(pointer).expect("a pod")]
}

/// The one definition, as another reader has it.
fn definition() -> Value {
    values(include_str!("../sidecar.yaml")).remove(0)
}
