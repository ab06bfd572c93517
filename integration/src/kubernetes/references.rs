//! What schemas cannot say, but an API server checks: names that have to be unique, and to mean something.

use super::{pod_spec, pod_template};
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::collections::BTreeSet;

/// Longest name of a port (`IANA_SVC_NAME`, RFC 6335).
const MAX_PORT_NAME: usize = 15;

/// Fails if a pod of these objects mounts a volume that it does not have, has two containers, volumes, mounts or ports
/// of one name, or a probe of a port that it does not name; or if a workload does not select its own pods.
pub fn check(objects: &[Value]) -> Result<()> {
    for object in objects {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let context = || format!("{} {name}", object["kind"]);
        if let Some(spec) = pod_spec(object) {
            check_pod(spec).with_context(context)?;
        }
        if let Some(template) = pod_template(object) {
            check_selector(object, template).with_context(context)?;
        }
    }
    Ok(())
}

/// The object of this kind and name.
pub fn named<'a>(objects: &'a [Value], kind: &str, name: &str) -> Result<&'a Value> {
    objects
        .iter()
        .find(|object| object["kind"] == kind && object["metadata"]["name"] == name)
        .with_context(|| format!("there is no {kind} {name}"))
}

fn check_selector(object: &Value, template: &Value) -> Result<()> {
    let labels = &template["metadata"]["labels"];
    let selected = object["spec"]["selector"]["matchLabels"].as_object();
    for (key, value) in selected.into_iter().flatten() {
        ensure!(
            &labels[key] == value,
            "the label {key} is {}, not {value}",
            labels[key]
        );
    }
    Ok(())
}

fn check_pod(spec: &Value) -> Result<()> {
    let volumes = unique(&spec["volumes"], "name")?;
    let mut containers = BTreeSet::new();
    let mut mounted = BTreeSet::new();
    for container in ["initContainers", "containers"]
        .iter()
        .flat_map(|key| items(&spec[key]))
    {
        let name = text(container, "name")?;
        ensure!(containers.insert(name), "two containers {name}");
        check_container(container).with_context(|| format!("container {name}"))?;
        for mount in items(&container["volumeMounts"]) {
            let volume = text(mount, "name")?;
            ensure!(
                volumes.contains(volume),
                "container {name}: there is no volume {volume}"
            );
            mounted.insert(volume);
        }
    }
    let idle: Vec<_> = volumes.difference(&mounted).collect();
    ensure!(idle.is_empty(), "nothing mounts the volumes {idle:?}");
    Ok(())
}

fn check_container(container: &Value) -> Result<()> {
    unique(&container["volumeMounts"], "mountPath")?;
    unique(&container["env"], "name")?;
    let ports = unique(&container["ports"], "name")?;
    for port in &ports {
        ensure!(
            port.len() <= MAX_PORT_NAME,
            "the name of port {port} is too long"
        );
    }
    for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
        if let Some(port) = container[probe]["httpGet"]["port"].as_str() {
            ensure!(ports.contains(port), "{probe}: there is no port {port}");
        }
    }
    Ok(())
}

/// The texts under `key` in a list, which may have none twice.
fn unique<'a>(list: &'a Value, key: &str) -> Result<BTreeSet<&'a str>> {
    let mut found = BTreeSet::new();
    for item in items(list) {
        let text = text(item, key)?;
        ensure!(found.insert(text), "{key} {text} stands twice");
    }
    Ok(found)
}

fn items(list: &Value) -> &[Value] {
    list.as_array().map_or(&[], Vec::as_slice)
}

fn text<'a>(object: &'a Value, key: &str) -> Result<&'a str> {
    match object[key].as_str() {
        Some(text) => Ok(text),
        None => bail!("no {key} in {object}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn faults(change: impl Fn(&mut Value)) -> String {
        let mut object = json!({
            "kind": "Deployment",
            "metadata": { "name": "shop" },
            "spec": {
                "selector": { "matchLabels": { "app": "shop" } },
                "template": {
                    "metadata": { "labels": { "app": "shop" } },
                    "spec": {
                        "containers": [{
                            "name": "web",
                            "ports": [{ "name": "http" }],
                            "livenessProbe": { "httpGet": { "port": "http" } },
                            "volumeMounts": [{ "name": "files", "mountPath": "/files" }],
                        }],
                        "volumes": [{ "name": "files" }],
                    },
                },
            },
        });
        check(std::slice::from_ref(&object)).expect("nothing is wrong yet");
        change(&mut object);
        let error = check(&[object]).expect_err("a fault");
        format!("{error:#}")
    }

    #[test]
    fn every_broken_reference_is_found() {
        let pod = "/spec/template/spec";
        let set = |path: &str, value: Value| {
            faults(|object| {
                *object
                    .pointer_mut(&format!("{pod}{path}"))
                    .expect("the path") = value.clone();
            })
        };
        assert!(set("/volumes", json!([])).contains("there is no volume files"));
        let two = json!([{ "name": "files" }, { "name": "more" }]);
        assert!(set("/volumes", two).contains("nothing mounts the volumes [\"more\"]"));
        assert!(set("/containers/0/ports", json!([])).contains("there is no port http"));
        let long = json!([{ "name": "http" }, { "name": "sixteen-letters-" }]);
        assert!(set("/containers/0/ports", long).contains("too long"));
        let twice = json!([{ "name": "web" }, { "name": "web" }]);
        assert!(set("/containers", twice).contains("two containers web"));
        let elsewhere =
            faults(|object| object["spec"]["selector"]["matchLabels"]["app"] = json!("x"));
        assert!(elsewhere.contains("the label app"));
    }
}
