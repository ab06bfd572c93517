//! The Helm chart: it says what the kustomizations say, refuses wrong values, and lends its sidecar to other charts.

use crate::manifests::definition;
use anyhow::{Context, Result, ensure};
use integration::kubernetes::{self, NEEDS, helm_template, objects, references};
use integration::{Scene, Trials};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::symlink;

/// Values that have to be possible, and what they are for.
const POSSIBLE: &[(&str, &[&str])] = &[
    ("defaults", &[]),
    ("hook", &["node.mode=hook"]),
    ("CRI-O", &["node.runtime=crio"]),
    (
        "hook of CRI-O",
        &["node.mode=hook,node.runtime=crio,node.crioHooksDirectory=/etc/containers/oci/hooks.d"],
    ),
    (
        "no priority class of ours",
        &["node.priorityClass.create=false,node.priorityClass.name=system-node-critical"],
    ),
    (
        "nothing optional",
        &[
            "node.tolerations=null,node.nodeSelector=null,node.podAnnotations=null,node.resources=null",
        ],
    ),
    (
        "secrets",
        &[
            "imagePullSecrets[0].name=registry",
            "node.env[0].name=OTEL_EXPORTER_OTLP_HEADERS,node.env[0].valueFrom.secretKeyRef.name=collector,node.env[0].valueFrom.secretKeyRef.key=headers",
        ],
    ),
];

/// Values that have to be refused, and what the error has to name.
const REFUSED: &[(&str, &str)] = &[
    ("node.mode=magic", "node.mode"),
    ("node.runtime=docker", "node.runtime"),
    ("node.enabled=perhaps", "node.enabled"),
    ("node.config=text", "node.config"),
    (
        "node.config.otlp_endpoint=http://collector:4318",
        "otlp_endpoint",
    ),
    ("node.image.tag=a/b", "node.image.tag"),
    ("node.image.repository=", "node.image.repository"),
    ("node.crioHooksDirectory=hooks.d", "node.crioHooksDirectory"),
    (
        "node.crioHooksDirectory=/etc/../..",
        "node.crioHooksDirectory",
    ),
    ("node.priorityClass.create=false", "node.priorityClass.name"),
    (
        "node.priorityClass.value=1000000001",
        "node.priorityClass.value",
    ),
    ("node.podLabels.a=1", "node.podLabels.a"),
    ("node.privileged=true", "privileged"),
    ("nodes.enabled=true", "nodes"),
    (
        "sidecar.otlpEndpoint=collector:4318",
        "sidecar.otlpEndpoint",
    ),
    ("admission.apiVersion=v2", "admission.apiVersion"),
];

pub(crate) fn register(trials: &mut Trials) {
    trials.subject("chart");
    let mut add = |name, run: fn(&Scene) -> Result<()>| trials.add_with(name, &NEEDS, run);
    add("passes_lint", lint);
    add("renders_valid_objects", renders);
    add("says_what_the_kustomizations_say", same);
    add("values_take_effect", effect);
    add("refuses_wrong_values", refuses);
    add("lends_the_sidecar", lends);
    add("has_the_admission_policy", admission);
}

fn set<'a>(values: &[&'a str]) -> Vec<&'a str> {
    values.iter().flat_map(|value| ["--set", value]).collect()
}

fn rendered(values: &[&str]) -> Result<Vec<Value>> {
    objects(&helm_template(&set(values))?)
}

fn lint(_: &Scene) -> Result<()> {
    for (what, values) in POSSIBLE {
        let mut helm = kubernetes::helm()?;
        helm.args(["lint", "--strict"])
            .arg(kubernetes::chart())
            .args(set(values));
        kubernetes::output(helm, "").with_context(|| (*what).to_owned())?;
    }
    Ok(())
}

fn renders(_: &Scene) -> Result<()> {
    for (what, values) in POSSIBLE {
        let check = || {
            let text = helm_template(&set(values))?;
            kubernetes::validate_all(&text)?;
            references::check(&objects(&text)?)
        };
        check().with_context(|| (*what).to_owned())?;
    }
    ensure!(
        rendered(&["node.enabled=false"])?.is_empty(),
        "nothing was asked for"
    );
    Ok(())
}

/// Every object of the chart but for names and labels that Helm's users expect.
fn same(_: &Scene) -> Result<()> {
    let version = env!("CARGO_PKG_VERSION");
    let chart = objects(&fs::read_to_string(kubernetes::chart().join("Chart.yaml"))?)?;
    ensure!(
        chart[0]["version"] == version && chart[0]["appVersion"] == version,
        "{chart:?}"
    );
    for (directory, values) in [
        ("node", &[][..]),
        ("node-crio", &["node.runtime=crio"]),
        ("node-hook", &["node.mode=hook"]),
    ] {
        let text = kubernetes::kustomize_build(&kubernetes::manifests().join(directory))?;
        let mut expected = objects(&text)?;
        // Helm leaves the namespace to its user.
        expected.retain(|object| object["kind"] != "Namespace");
        let expected = comparable(expected)?;
        let found = comparable(rendered(values)?)?;
        ensure!(found.len() == 4, "{} objects", found.len());
        for (expected, found) in expected.iter().zip(&found) {
            ensure!(
                expected == found,
                "{directory}: expected {expected:#}, found {found:#}"
            );
        }
    }
    Ok(())
}

/// In one order, without what is allowed to differ.
fn comparable(mut list: Vec<Value>) -> Result<Vec<Value>> {
    for object in &mut list {
        if let Some(text) = object["data"]["config.yaml"].as_str() {
            object["data"]["config.yaml"] = json!(objects(text)?);
            object["metadata"]["name"] = json!("pilotfish-node");
        }
        let metadata = ["/metadata", "/spec/template/metadata"];
        for path in metadata {
            if let Some(labels) = object.pointer_mut(&format!("{path}/labels")) {
                without(
                    labels,
                    &[
                        "app.kubernetes.io/instance",
                        "app.kubernetes.io/managed-by",
                        "helm.sh/chart",
                    ],
                )?;
            }
            if let Some(annotations) = object.pointer_mut(&format!("{path}/annotations")) {
                without(annotations, &["checksum/config"])?;
            }
        }
        if object["kind"] == "DaemonSet" {
            without(
                &mut object["spec"]["selector"]["matchLabels"],
                &["app.kubernetes.io/instance"],
            )?;
            let spec = &mut object["spec"]["template"]["spec"];
            sort(&mut spec["volumes"]);
            sort(&mut spec["containers"][0]["volumeMounts"]);
            for volume in spec["volumes"].as_array_mut().into_iter().flatten() {
                if let Some(name) = volume.pointer_mut("/configMap/name") {
                    *name = json!("pilotfish-node");
                }
            }
        }
    }
    list.sort_by_key(|object| object["kind"].to_string());
    Ok(list)
}

fn without(object: &mut Value, keys: &[&str]) -> Result<()> {
    let object = object.as_object_mut().context("an object")?;
    for key in keys {
        object.remove(*key);
    }
    Ok(())
}

/// By name: the order means nothing.
fn sort(list: &mut Value) {
    if let Some(list) = list.as_array_mut() {
        list.sort_by_key(|item| item["name"].to_string());
    }
}

fn effect(_: &Scene) -> Result<()> {
    let found = rendered(&[
        "node.image.repository=registry.example/pilotfish-node,node.image.tag=1.2.3,node.image.pullPolicy=Always",
        "node.config.otlp-endpoint=http://collector:4318,node.config.capture-bytes=1024",
        "node.env[0].name=A,node.env[0].value=b",
        "node.resources.limits.memory=1Gi",
        "node.podLabels.team=fish",
        "node.priorityClass.name=watchers,node.priorityClass.value=5",
    ])?;
    let set = references::named(&found, "DaemonSet", "pilotfish-node")?;
    let template = &set["spec"]["template"];
    let container = &template["spec"]["containers"][0];
    ensure!(
        container["image"] == "registry.example/pilotfish-node:1.2.3",
        "{container}"
    );
    ensure!(container["imagePullPolicy"] == "Always", "{container}");
    ensure!(
        container["env"][1] == json!({ "name": "A", "value": "b" }),
        "{container}"
    );
    ensure!(
        container["resources"]["limits"]["memory"] == "1Gi",
        "{container}"
    );
    ensure!(
        template["metadata"]["labels"]["team"] == "fish",
        "{template}"
    );
    ensure!(
        template["spec"]["priorityClassName"] == "watchers",
        "{template}"
    );
    ensure!(references::named(&found, "PriorityClass", "watchers")?["value"] == 5);

    let map = references::named(&found, "ConfigMap", "pilotfish-node")?;
    let config = objects(map["data"]["config.yaml"].as_str().context("the file")?)?;
    ensure!(
        config[0]["otlp-endpoint"] == "http://collector:4318",
        "{map}"
    );
    ensure!(config[0]["capture-bytes"] == 1024, "{map}");
    let checksum = "/spec/template/metadata/annotations/checksum~1config";
    let before = rendered(&[])?;
    let before = references::named(&before, "DaemonSet", "pilotfish-node")?;
    ensure!(
        before.pointer(checksum).is_some_and(Value::is_string)
            && before.pointer(checksum) != set.pointer(checksum),
        "other settings do not restart the agents"
    );
    Ok(())
}

fn refuses(_: &Scene) -> Result<()> {
    for (value, named) in REFUSED {
        let Err(error) = helm_template(&["--set", value]) else {
            anyhow::bail!("{value} was not refused");
        };
        let error = format!("{error:#}");
        ensure!(
            error.contains("values don't meet the specifications") && error.contains(named),
            "{value}: {error}"
        );
    }
    Ok(())
}

/// A chart that has ours as a dependency, for the template of the sidecar alone.
fn lends(scene: &Scene) -> Result<()> {
    let chart = scene.folder().join("shop");
    fs::create_dir_all(chart.join("templates"))?;
    fs::create_dir_all(chart.join("charts"))?;
    symlink(kubernetes::chart(), chart.join("charts/pilotfish"))?;
    fs::write(
        chart.join("Chart.yaml"),
        format!(
            "apiVersion: v2\nname: shop\nversion: 1.0.0\ndependencies:\n- name: pilotfish\n  version: {}\n",
            env!("CARGO_PKG_VERSION")
        ),
    )?;
    fs::write(
        chart.join("values.yaml"),
        "pilotfish:\n  node:\n    enabled: false\n",
    )?;
    fs::write(
        chart.join("templates/pods.yaml"),
        r#"{{- range $name, $settings := dict "plain" (dict) "own" .Values.own }}
---
apiVersion: v1
kind: Pod
metadata:
  name: {{ $name }}
spec:
  shareProcessNamespace: true
  initContainers:
    {{- include "pilotfish.sidecar" $settings | nindent 4 }}
  containers:
    - name: web
      image: web:1
  volumes:
    {{- include "pilotfish.sidecarVolume" $ | nindent 4 }}
{{- end }}
"#,
    )?;
    let mut helm = kubernetes::helm()?;
    helm.args(["template", "shop"])
        .arg(&chart)
        .args(["--kube-version", kubernetes::VERSIONS[0]]);
    helm.args(set(&[
        "own.image=registry.example/pilotfish:1.2.3",
        "own.env[0].name=OTEL_EXPORTER_OTLP_ENDPOINT,own.env[0].value=http://c:4318",
        "own.resources.limits.memory=1Gi",
    ]));
    let text = kubernetes::output(helm, "")?;
    kubernetes::validate_all(&text)?;
    let found = objects(&text)?;
    references::check(&found)?;
    ensure!(found.len() == 2, "{text}");

    let mut expected = definition()?;
    expected["containers"] = json!([{ "name": "web", "image": "web:1" }]);
    let plain = &references::named(&found, "Pod", "plain")?["spec"];
    ensure!(plain == &expected, "expected {expected:#}, found {plain:#}");
    let sidecar = &mut expected["initContainers"][0];
    sidecar["image"] = json!("registry.example/pilotfish:1.2.3");
    sidecar["resources"] = json!({ "limits": { "memory": "1Gi" } });
    let more = json!({ "name": "OTEL_EXPORTER_OTLP_ENDPOINT", "value": "http://c:4318" });
    sidecar["env"].as_array_mut().context("a list")?.push(more);
    let own = &references::named(&found, "Pod", "own")?["spec"];
    ensure!(own == &expected, "expected {expected:#}, found {own:#}");
    Ok(())
}

/// The policy is that of `manifests/kubernetes/admission`, with the chart's image.
fn admission(_: &Scene) -> Result<()> {
    for (directory, values) in [
        ("base", &[][..]),
        ("opt-in", &["admission.optIn=true"]),
        (
            "v1beta1",
            &["admission.apiVersion=admissionregistration.k8s.io/v1beta1"],
        ),
    ] {
        let directory = kubernetes::manifests().join("admission").join(directory);
        let expected = comparable(objects(&kubernetes::kustomize_build(&directory)?)?)?;
        let values = [&["node.enabled=false,admission.enabled=true"], values].concat();
        let mut found = comparable(rendered(&values)?)?;
        for object in &mut found {
            let added = ["app.kubernetes.io/part-of", "app.kubernetes.io/version"];
            without(&mut object["metadata"]["labels"], &added)?;
        }
        ensure!(
            found == expected,
            "expected {expected:#?}, found {found:#?}"
        );
    }
    let text = helm_template(&set(&[
        "admission.enabled=true,sidecar.image.repository=registry.example/pilotfish",
        "sidecar.otlpEndpoint=http://collector:4318",
    ]))?;
    kubernetes::validate(&text, kubernetes::VERSIONS[1])?;
    let found = objects(&text)?;
    let policy = references::named(&found, "MutatingAdmissionPolicy", "pilotfish")?;
    let image = format!(
        "\"registry.example/pilotfish:{}\"",
        env!("CARGO_PKG_VERSION")
    );
    let expected = json!([
        { "name": "image", "expression": image },
        { "name": "collector", "expression": "\"http://collector:4318\"" },
    ]);
    ensure!(
        policy["spec"]["variables"] == expected,
        "{}",
        policy["spec"]["variables"]
    );
    Ok(())
}
