//! The kustomizations of `manifests/kubernetes`: valid for every supported Kubernetes, consistent, and true to the one
//! definition of the sidecar. What they say is also run, see `manifests_run`.

use anyhow::{Context, Result, bail, ensure};
use integration::kubernetes::{self, NEEDS, objects, references};
use integration::trial::Need;
use integration::{Scene, Trials, place};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

/// Capabilities of everything that loads eBPF programs.
const AGENT: [&str; 3] = ["BPF", "PERFMON", "SYS_PTRACE"];

/// The first version with a policy that changes objects; its manifests have trials of their own.
const ADMISSION: &str = "admission";

pub(crate) fn register(trials: &mut Trials) {
    trials.subject("manifests");
    let mut add = |name, run: fn(&Scene) -> Result<()>| trials.add_with(name, &NEEDS, run);
    add("are_valid", valid);
    add("admission_overlays_are_valid_where_they_are_for", admission);
    add("hold_the_versions_of_the_workspace", versions);
    add("ask_for_the_documented_privileges", privileges);
    add("component_is_the_definition", component);
    add("component_in_every_kind", every_kind);
    let kubectl = [Need::Tool("kubectl"), Need::Tool("kustomize")];
    trials.add_with("kubectl_builds_the_same", &kubectl, kubectl_builds);
}

/// `sidecar/src/inject/sidecar.yaml`.
pub(crate) fn definition() -> Result<Value> {
    let path = place::workspace().join("sidecar/src/inject/sidecar.yaml");
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    objects(&text)?.pop().context("one document")
}

/// Directories with a `kustomization.yaml` of this kind.
fn kustomizations(kind: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(kubernetes::manifests())? {
        let directory = entry?.path();
        let Ok(text) = fs::read_to_string(directory.join("kustomization.yaml")) else {
            ensure!(
                directory.is_file()
                    || directory.ends_with(ADMISSION)
                    || directory.join("profile.yaml").is_file(),
                "{} has no kustomization.yaml",
                directory.display()
            );
            continue;
        };
        if objects(&text)?.iter().any(|object| object["kind"] == kind) {
            found.push(directory);
        }
    }
    ensure!(!found.is_empty(), "there is no {kind}");
    found.sort();
    Ok(found)
}

fn valid(_: &Scene) -> Result<()> {
    let directories = kustomizations("Kustomization")?;
    for name in ["base", "example", "node", "node-crio", "node-hook"] {
        let expected = kubernetes::manifests().join(name);
        ensure!(directories.contains(&expected), "there is no {name}");
    }
    for directory in directories {
        let text = kubernetes::kustomize_build(&directory)?;
        let check = || {
            kubernetes::validate_all(&text)?;
            let built = objects(&text)?;
            references::check(&built)?;
            whole(&built)
        };
        check().with_context(|| directory.display().to_string())?;
    }
    Ok(())
}

/// A server knows the policy's API version from one release on, as the table in `manifests/kubernetes/README.md` has it.
fn admission(_: &Scene) -> Result<()> {
    for (overlay, since, before) in [
        ("base", ["1.36", "1.37"], "1.35"),
        ("opt-in", ["1.36", "1.37"], "1.35"),
        ("v1beta1", ["1.34", "1.35"], "1.33"),
    ] {
        let directory = kubernetes::manifests().join(ADMISSION).join(overlay);
        let text = kubernetes::kustomize_build(&directory)?;
        for version in since {
            let objects = kubernetes::validate(&text, version).context(overlay)?;
            ensure!(objects == 2, "{overlay} has {objects} objects");
        }
        let refused = kubernetes::validate(&text, before).err();
        let why = refused.map_or_else(String::new, |error| format!("{error:#}"));
        ensure!(
            why.contains("Couldn't find schema for kind MutatingAdmissionPolicy"),
            "{overlay} with Kubernetes {before}: {why:?}"
        );
    }
    Ok(())
}

/// What a pod names beside itself is there: its service account, its priority class, its configuration, its namespace.
fn whole(built: &[Value]) -> Result<()> {
    for object in built {
        if let Some(namespace) = object["metadata"]["namespace"].as_str() {
            references::named(built, "Namespace", namespace)?;
        }
        let Some(spec) = kubernetes::pod_spec(object) else {
            continue;
        };
        for (kind, name) in [
            ("ServiceAccount", &spec["serviceAccountName"]),
            ("PriorityClass", &spec["priorityClassName"]),
        ] {
            if let Some(name) = name.as_str() {
                references::named(built, kind, name)?;
            }
        }
        for volume in spec["volumes"].as_array().into_iter().flatten() {
            if let Some(name) = volume["configMap"]["name"].as_str() {
                references::named(built, "ConfigMap", name)?;
            }
        }
    }
    Ok(())
}

fn versions(_: &Scene) -> Result<()> {
    let version = env!("CARGO_PKG_VERSION");
    let mut images = 0;
    for directory in kustomizations("Kustomization")? {
        for object in objects(&kubernetes::kustomize_build(&directory)?)? {
            let label = &object["metadata"]["labels"]["app.kubernetes.io/version"];
            ensure!(label.is_null() || label == version, "{label} in {object}");
            for image in containers(&object).map(|container| &container["image"]) {
                let image = image.as_str().context("an image")?;
                if let Some(tag) = image
                    .strip_prefix("pilotfish")
                    .and_then(|rest| rest.split(':').nth(1))
                {
                    ensure!(tag == version, "{image} in {}", directory.display());
                    images += 1;
                }
            }
        }
    }
    ensure!(images >= 5, "only {images} images of ours were looked at");
    let image = &definition()?["initContainers"][0]["image"];
    ensure!(image == &json!(format!("pilotfish:{version}")), "{image}");
    let readme = fs::read_to_string(kubernetes::manifests().join("README.md"))?;
    let mut tags = readme
        .split("pilotfish:")
        .chain(readme.split("pilotfish-node:"))
        .skip(1);
    let other = tags.find(|rest| {
        rest.starts_with(|first: char| first.is_ascii_digit()) && !rest.starts_with(version)
    });
    ensure!(other.is_none(), "README.md has another version: {other:?}");
    Ok(())
}

/// Containers of a pod or a workload, init containers first.
fn containers(object: &Value) -> impl Iterator<Item = &Value> {
    let spec = kubernetes::pod_spec(object);
    ["initContainers", "containers"]
        .into_iter()
        .filter_map(move |key| spec?.get(key)?.as_array())
        .flatten()
}

/// What the table of privileges says, and no more. Whatever adds a capability needs a namespace with the level
/// "privileged" (Pod Security Standards, "Capabilities" of "baseline").
fn privileges(_: &Scene) -> Result<()> {
    let mut seen = Vec::new();
    for directory in kustomizations("Kustomization")? {
        let built = objects(&kubernetes::kustomize_build(&directory)?)?;
        for object in &built {
            for container in containers(object) {
                let name = container["name"].as_str().context("a name")?;
                let expected: &[&str] = match name {
                    "pilotfish" | "pilotfish-node" => &AGENT,
                    "install-hook" => &["SYS_CHROOT"],
                    _ => continue,
                };
                must_be_confined(container, expected)
                    .with_context(|| format!("{name} in {}", directory.display()))?;
                let namespace = object["metadata"]["namespace"]
                    .as_str()
                    .context("a namespace")?;
                let namespace = references::named(&built, "Namespace", namespace)?;
                let level = &namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"];
                ensure!(level == "privileged", "{namespace}");
                seen.push(name.to_owned());
            }
        }
    }
    for name in ["pilotfish", "pilotfish-node", "install-hook"] {
        ensure!(seen.iter().any(|seen| seen == name), "no container {name}");
    }
    Ok(())
}

fn must_be_confined(container: &Value, capabilities: &[&str]) -> Result<()> {
    let context = &container["securityContext"];
    ensure!(
        context["capabilities"]["drop"] == json!(["ALL"]),
        "{context}"
    );
    ensure!(
        context["capabilities"]["add"] == json!(capabilities),
        "{context}"
    );
    ensure!(context["privileged"] != true, "{context}");
    ensure!(context["readOnlyRootFilesystem"] == true, "{context}");
    ensure!(
        context["seccompProfile"]["type"] == "RuntimeDefault",
        "{context}"
    );
    // Root has its capabilities without gaining any; another user needs the file's.
    let is_root = context["runAsUser"] == 0;
    ensure!(context["allowPrivilegeEscalation"] == !is_root, "{context}");
    ensure!(
        container["resources"]["limits"]["memory"].is_string(),
        "{container}"
    );
    Ok(())
}

/// The patches are the definition and nothing else.
fn component(_: &Scene) -> Result<()> {
    let directory = kubernetes::manifests().join("sidecar");
    ensure!(
        kustomizations("Component")? == [directory.clone()],
        "components"
    );
    let definition = definition()?;
    for (file, path) in [
        ("pod.yaml", "/spec"),
        ("workload.yaml", "/spec/template/spec"),
        ("cron-job.yaml", "/spec/jobTemplate/spec/template/spec"),
    ] {
        let text = fs::read_to_string(directory.join(file))?;
        let patch = objects(&text)?.pop().context("one patch")?;
        ensure!(patch.pointer(path) == Some(&definition), "{file}: {patch}");
        let mut around = patch;
        around.pointer_mut(path).context("the spec")?.take();
        let parts: usize = path.split('/').count() - 1;
        ensure!(
            nodes(&around) == parts + 5,
            "{file} has something else: {around}"
        );
    }
    Ok(())
}

/// Number of values in a value, itself included.
fn nodes(value: &Value) -> usize {
    match value {
        Value::Object(object) => 1 + object.values().map(nodes).sum::<usize>(),
        Value::Array(list) => 1 + list.iter().map(nodes).sum::<usize>(),
        _ => 1,
    }
}

/// A kustomization with workloads of each kind, some of which have init containers and volumes already.
fn every_kind(scene: &Scene) -> Result<()> {
    let plain = json!({ "containers": [{ "name": "web", "image": "web:1" }] });
    let full = json!({
        "containers": [{ "name": "web", "image": "web:1", "volumeMounts": [{ "name": "files", "mountPath": "/files" }] }],
        "initContainers": [{ "name": "migrate", "image": "web:1" }],
        "volumes": [{ "name": "files", "emptyDir": {} }],
    });
    let mut input = Vec::new();
    for spec in [&plain, &full] {
        for kind in [
            "Pod",
            "Deployment",
            "StatefulSet",
            "DaemonSet",
            "ReplicaSet",
            "Job",
            "CronJob",
        ] {
            let name = format!("{}-{}", kind.to_lowercase(), input.len());
            input.push(workload(kind, &name, spec)?);
        }
    }
    let directory = scene.folder().join("shop");
    fs::create_dir(&directory)?;
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": input });
    fs::write(directory.join("shop.yaml"), list.to_string())?;
    let kustomization = json!({
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": ["shop.yaml"],
        "components": [from(&directory, &kubernetes::manifests().join("sidecar"))?],
    });
    fs::write(
        directory.join("kustomization.yaml"),
        kustomization.to_string(),
    )?;

    let text = kubernetes::kustomize_build(&directory)?;
    kubernetes::validate_all(&text)?;
    let built = objects(&text)?;
    references::check(&built)?;
    ensure!(built.len() == input.len(), "{} objects", built.len());
    let definition = definition()?;
    for before in &input {
        let [kind, name] = [&before["kind"], &before["metadata"]["name"]]
            .map(|text| text.as_str().unwrap_or_default());
        let after = references::named(&built, kind, name)?;
        let spec = kubernetes::pod_spec(after).context("a pod's spec")?;
        let before = kubernetes::pod_spec(before).context("a pod's spec")?;
        must_be_added(&definition, before, spec)
            .with_context(|| format!("{kind} {name}: {spec}"))?;
    }
    Ok(())
}

/// What is there is what was there and the definition, whose container is the first.
fn must_be_added(definition: &Value, before: &Value, after: &Value) -> Result<()> {
    ensure!(
        after["shareProcessNamespace"] == true,
        "no shared pid namespace"
    );
    ensure!(
        after["initContainers"][0] == definition["initContainers"][0],
        "another sidecar"
    );
    let mut rest = after.clone();
    let object = rest.as_object_mut().context("an object")?;
    object.remove("shareProcessNamespace");
    for key in ["initContainers", "volumes"] {
        let list = object[key].as_array_mut().context("a list")?;
        list.retain(|item| item != &definition[key][0]);
        if list.is_empty() {
            object.remove(key);
        }
    }
    ensure!(&rest == before, "what was there has changed");
    Ok(())
}

fn workload(kind: &str, name: &str, spec: &Value) -> Result<Value> {
    let labels = json!({ "app": name });
    let mut template = json!({ "metadata": { "labels": labels }, "spec": spec });
    let selector = json!({ "matchLabels": labels });
    let (version, spec) = match kind {
        "Pod" => ("v1", template["spec"].take()),
        "Deployment" | "DaemonSet" | "ReplicaSet" => (
            "apps/v1",
            json!({ "selector": selector, "template": template }),
        ),
        "StatefulSet" => (
            "apps/v1",
            json!({ "selector": selector, "serviceName": name, "template": template }),
        ),
        "Job" | "CronJob" => {
            template["spec"]["restartPolicy"] = json!("Never");
            let job = json!({ "template": template });
            let cron = json!({ "schedule": "0 0 * * *", "jobTemplate": { "spec": job } });
            ("batch/v1", if kind == "Job" { job } else { cron })
        }
        other => bail!("{other} is not known here"),
    };
    Ok(json!({ "apiVersion": version, "kind": kind, "metadata": { "name": name }, "spec": spec }))
}

/// The relative path, which is the only one that kustomize takes.
fn from(directory: &Path, target: &Path) -> Result<PathBuf> {
    let up = directory.canonicalize()?.components().count() - 1;
    let mut path: PathBuf = std::iter::repeat_n("..", up).collect();
    path.push(target.canonicalize()?.strip_prefix("/")?);
    Ok(path)
}

/// `kubectl apply --kustomize` is what people type.
fn kubectl_builds(_: &Scene) -> Result<()> {
    for directory in kustomizations("Kustomization")? {
        let mut kubectl = place::command("kubectl")?;
        kubectl
            .env("KUBECONFIG", "/dev/null")
            .arg("kustomize")
            .arg(&directory);
        let built = kubernetes::output(kubectl, "")?;
        ensure!(
            built == kubernetes::kustomize_build(&directory)?,
            "{}",
            directory.display()
        );
    }
    Ok(())
}
