//! The init container of `manifests/kubernetes/node-hook`: the installer with the mounts and the capability that the
//! manifest gives it, and nothing else, makes containerd call the hook.

use anyhow::{Context, Result, ensure};
use integration::kubernetes::{self, objects, references};
use integration::runtime::{self, Machine, hook};
use integration::{Need, Scene, Trials};
use serde_json::Value;

/// Where the init container's file system would be; the manifest's mount paths are below it.
const CONTAINER: &str = "/tmp/container";

pub(crate) fn register(trials: &mut Trials) {
    trials.subject("node_hook");
    let needs = [runtime::needs(&[]), vec![Need::Tool("kustomize")]].concat();
    trials.add_with("installs_with_what_it_is_given", &needs, installs);
}

fn installs(scene: &Scene) -> Result<()> {
    let built = objects(&kubernetes::kustomize_build(
        &kubernetes::manifests().join("node-hook"),
    )?)?;
    let set = references::named(&built, "DaemonSet", "pilotfish-node")?;
    let spec = &set["spec"]["template"]["spec"];
    let init = &spec["initContainers"][0];

    let machine = Machine::start(scene)?;
    hook::install(&machine)?;
    let mounts = mounts(spec, init)?;
    let attempt = |capabilities: &str| {
        let words = words(init)?;
        let setpriv = format!(
            "setpriv --no-new-privs --inh-caps=-all --bounding-set=-all{capabilities} {} {words}",
            hook::HOOK
        );
        machine.output("sh", ["-euc", &format!("{mounts}\n{setpriv}")])
    };
    let without = attempt("");
    ensure!(
        without.is_err(),
        "the capability is not needed: {without:?}"
    );
    let said = attempt(&capabilities(init)?)?;
    ensure!(said.contains("restart containerd"), "{said}");
    let told = machine.output("containerd", ["config", "dump"])?;
    ensure!(
        told.contains("/etc/containerd/pilotfish-base-spec-runc.json"),
        "{told}"
    );
    let spec = machine.output("cat", ["/etc/containerd/pilotfish-base-spec-runc.json"])?;
    ensure!(spec.contains("/opt/pilotfish/pilotfish-hook"), "{spec}");
    machine
        .output("/opt/pilotfish/pilotfish-hook", ["--version"])
        .map(drop)
}

/// Capabilities as setpriv(1) takes them.
fn capabilities(init: &Value) -> Result<String> {
    let added = init["securityContext"]["capabilities"]["add"].as_array();
    let names = added.context("capabilities")?.iter().map(|name| {
        let name = name.as_str().context("a name")?;
        Ok(format!(",+{}", name.to_lowercase()))
    });
    names.collect()
}

/// The arguments, with the container's root where it is.
fn words(init: &Value) -> Result<String> {
    let words = init["command"].as_array().context("a command")?;
    ensure!(words[0] == "/pilotfish-hook", "{words:?}");
    let words = words[1..].iter().map(|word| {
        let word = word.as_str().context("a word")?;
        Ok(word.replace("--root=", &format!("--root={CONTAINER}")))
    });
    Ok(words.collect::<Result<Vec<_>>>()?.join(" "))
}

/// Commands that mount what the manifest mounts; a second time they do nothing.
fn mounts(spec: &Value, init: &Value) -> Result<String> {
    let volumes = spec["volumes"].as_array().context("volumes")?;
    let mut script = Vec::new();
    for mount in init["volumeMounts"].as_array().context("mounts")? {
        let volume = volumes
            .iter()
            .find(|volume| volume["name"] == mount["name"])
            .context("its volume")?;
        let source = volume["hostPath"]["path"].as_str().context("a host path")?;
        let target = mount["mountPath"].as_str().context("a path")?;
        let target = format!("{CONTAINER}{target}");
        let mode = if mount["readOnly"] == true {
            "ro"
        } else {
            "rw"
        };
        let create = if volume["hostPath"]["type"] == "DirectoryOrCreate" {
            format!("mkdir -p {source}; ")
        } else {
            String::new()
        };
        script.push(format!(
            "{create}mountpoint -q {target} || {{ mkdir -p {target}; mount --bind {source} {target}; \
             mount -o remount,bind,{mode} {target}; }}"
        ));
    }
    Ok(script.join("\n"))
}
