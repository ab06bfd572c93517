//! What a kubelet does to run a pod on this node: as much of it as our manifests use. Anything else in a manifest is
//! refused, so that no trial passes by what it left out.

mod manifest;

use super::cri::{Capabilities, Container, Cri, Mount, Number, Pod, SecurityProfile, Variable};
use super::machine::Machine;
use crate::load;
use crate::process::wait_for;
use anyhow::{Context, Result, bail, ensure};
use manifest::{bytes, downward, list, mapping, must_know, pairs, text, value_of, words};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::time::Duration;

/// Name of the only node.
pub const NODE: &str = "node-1";

/// The kubelet's directory of pods, by default. Some distributions have another one.
const PODS: &str = "/var/lib/kubelet/pods";

/// Keys of a `PodSpec` that say where or when a pod runs, not how.
const SCHEDULING: &[&str] = &[
    "automountServiceAccountToken",
    "dnsPolicy",
    "enableServiceLinks",
    "nodeName",
    "nodeSelector",
    "priorityClassName",
    "restartPolicy",
    "serviceAccountName",
    "terminationGracePeriodSeconds",
    "tolerations",
];

/// A kubelet of a node with one network: pods have the machine's.
#[derive(Debug)]
pub struct Kubelet<'machine> {
    machine: &'machine Machine,
    cri: Cri,
    pods: String,
    /// Files of `ConfigMap` objects, by the object's and the file's name.
    config_maps: BTreeMap<String, BTreeMap<String, String>>,
}

/// A pod that runs.
#[derive(Debug)]
pub struct Running {
    /// Id of its sandbox.
    pub sandbox: String,
    /// Ids of its containers, by their names.
    pub containers: BTreeMap<String, String>,
    folder: String,
    logs: String,
    versions: usize,
}

impl<'machine> Kubelet<'machine> {
    /// Speaks to the runtime of this machine.
    pub fn new(machine: &'machine Machine, cri: Cri) -> Self {
        Self {
            machine,
            cri,
            pods: PODS.to_owned(),
            config_maps: BTreeMap::new(),
        }
    }

    /// With another root directory, such as `/var/snap/microk8s/common/var/lib/kubelet`.
    #[must_use]
    pub fn with_root(mut self, root: &str) -> Self {
        self.pods = format!("{root}/pods");
        self
    }

    /// With a `ConfigMap` of one file.
    #[must_use]
    pub fn with_config_map(mut self, name: &str, file: &str, content: &str) -> Self {
        let files = BTreeMap::from([(file.to_owned(), content.to_owned())]);
        self.config_maps.insert(name.to_owned(), files);
        self
    }

    /// The runtime.
    pub fn cri(&self) -> &Cri {
        &self.cri
    }

    /// Runs a `Pod` object: its native sidecars, each until its startup probe succeeds, then its containers. Probes of
    /// readiness and liveness are not made. Has to be called within the machine's network.
    pub fn run(&self, object: &Value) -> Result<Running> {
        let spec = mapping(&object["spec"], "spec")?;
        let pod = sandbox_of(object)?;
        let mut running = Running {
            sandbox: self.cri.run_pod(&pod)?,
            containers: BTreeMap::new(),
            folder: format!("{}/{}", self.pods, text(&object["metadata"], "uid")?),
            logs: pod.log_folder.clone(),
            versions: 0,
        };
        // A trial may run pods of the same name one after the other.
        self.machine.output("rm", ["-rf", &running.logs])?;
        self.machine.output("mkdir", ["-p", &running.logs])?;
        self.write_volumes(&mut running, object)?;
        for container in list(spec.get("initContainers")) {
            ensure!(
                container["restartPolicy"] == "Always",
                "only native sidecars are known"
            );
            self.start(&mut running, object, &pod, container)?;
        }
        for container in list(spec.get("containers")) {
            self.start(&mut running, object, &pod, container)?;
        }
        Ok(running)
    }

    /// Writes the files of `downwardAPI` volumes again, as after a change of annotations or labels.
    pub fn update(&self, running: &mut Running, object: &Value) -> Result<()> {
        self.write_volumes(running, object)
    }

    fn start(
        &self,
        running: &mut Running,
        object: &Value,
        pod: &Pod,
        wanted: &Value,
    ) -> Result<()> {
        must_know(
            wanted,
            &[
                "args",
                "command",
                "env",
                "image",
                "imagePullPolicy",
                "livenessProbe",
                "name",
                "ports",
                "readinessProbe",
                "resources",
                "restartPolicy",
                "securityContext",
                "startupProbe",
                "volumeMounts",
            ],
        )?;
        let name = text(wanted, "name")?;
        let mut container = Container::of_image(name, text(wanted, "image")?);
        container.command = words(&wanted["command"]);
        container.arguments = words(&wanted["args"]);
        container.log = format!("{name}/0.log");
        self.machine
            .output("mkdir", ["-p", &format!("{}/{name}", running.logs)])?;
        for variable in list(Some(&wanted["env"])) {
            container.environment.push(Variable {
                key: text(variable, "name")?.to_owned(),
                value: value_of(variable, object)?,
            });
        }
        container.mounts = self.mounts(running, &object["spec"], wanted)?;
        let limit = &wanted["resources"]["limits"]["memory"];
        if let Some(limit) = limit.as_str() {
            container.limit_memory(bytes(limit)?);
        }
        secure(&mut container, &wanted["securityContext"])?;
        let id = self.cri.run(&running.sandbox, pod, &container)?;
        running.containers.insert(name.to_owned(), id);
        await_startup(wanted)
            .with_context(|| format!("it logged {:?}", running.log(self.machine, name)))
    }

    /// What is wanted, the termination log, and the pod's hosts file.
    fn mounts(&self, running: &Running, spec: &Value, wanted: &Value) -> Result<Vec<Mount>> {
        let name = text(wanted, "name")?;
        let log = format!("{}/containers/{name}/{:08x}", running.folder, 0x1f2e_3d4c);
        self.machine.write(&log, "", 0o666)?;
        let hosts = format!("{}/etc-hosts", running.folder);
        self.machine.write(&hosts, "127.0.0.1 localhost\n", 0o644)?;
        let mut mounts = vec![
            mount(&log, "/dev/termination-log", false),
            mount(&hosts, "/etc/hosts", false),
        ];
        for wish in list(Some(&wanted["volumeMounts"])) {
            must_know(wish, &["mountPath", "name", "readOnly"])?;
            let name = text(wish, "name")?;
            let volume = list(Some(&spec["volumes"]))
                .iter()
                .find(|volume| volume["name"] == name)
                .with_context(|| format!("there is no volume {name}"))?;
            let outside = match volume["hostPath"]["path"].as_str() {
                Some(path) => path.to_owned(),
                None => running.volume(volume)?,
            };
            let read_only = wish["readOnly"] == true;
            mounts.push(mount(&outside, text(wish, "mountPath")?, read_only));
        }
        Ok(mounts)
    }

    /// A `downwardAPI` volume: `NAME` leads through the link `..data` into a folder of this version.
    fn write_volumes(&self, running: &mut Running, object: &Value) -> Result<()> {
        running.versions += 1;
        for volume in list(Some(&object["spec"]["volumes"])) {
            if volume.get("hostPath").is_some() {
                let host = &volume["hostPath"];
                if host["type"] == "DirectoryOrCreate" {
                    self.machine.output("mkdir", ["-p", text(host, "path")?])?;
                }
                continue;
            }
            let folder = running.volume(volume)?;
            if volume.get("emptyDir").is_some() {
                self.machine.output("mkdir", ["-p", "-m", "777", &folder])?;
                continue;
            }
            if volume.get("configMap").is_some() {
                let name = text(&volume["configMap"], "name")?;
                let files = self.config_maps.get(name);
                for (file, content) in files.with_context(|| format!("no ConfigMap {name}"))? {
                    self.machine
                        .write(&format!("{folder}/{file}"), content, 0o644)?;
                }
                continue;
            }
            let version = format!("..version-{}", running.versions);
            for item in list(Some(&volume["downwardAPI"]["items"])) {
                let path = text(item, "path")?;
                let content = downward(item, object)?;
                let file = format!("{folder}/{version}/{path}");
                self.machine.write(&file, content, 0o644)?;
                let link = self.machine.path(&folder).join(path);
                if fs::symlink_metadata(&link).is_err() {
                    symlink(format!("..data/{path}"), link)?;
                }
            }
            let folder = self.machine.path(&folder);
            symlink(version, folder.join("..data_tmp"))?;
            fs::rename(folder.join("..data_tmp"), folder.join("..data"))?;
        }
        Ok(())
    }
}

impl Running {
    /// The id of a container.
    pub fn id(&self, name: &str) -> Result<&str> {
        let id = self.containers.get(name);
        id.map(String::as_str)
            .with_context(|| format!("no container {name}"))
    }

    /// What a container has written: standard output and standard error. Lines of the CRI's log format are
    /// `TIME STREAM TAG TEXT`; a line without its end has the tag `P`.
    pub fn log(&self, machine: &Machine, name: &str) -> Result<[String; 2]> {
        let file = machine.path(&format!("{}/{name}/0.log", self.logs));
        let log =
            fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let mut streams = [String::new(), String::new()];
        for line in log.lines() {
            let mut fields = line.splitn(4, ' ').skip(1);
            let (stream, tag) = (fields.next(), fields.next());
            let stream = &mut streams[usize::from(stream == Some("stderr"))];
            stream.push_str(fields.next().unwrap_or_default());
            if tag != Some("P") {
                stream.push('\n');
            }
        }
        Ok(streams)
    }

    /// Where a volume of the pod's own is in the machine.
    fn volume(&self, volume: &Value) -> Result<String> {
        let kind = if volume.get("emptyDir").is_some() {
            "kubernetes.io~empty-dir"
        } else if volume.get("downwardAPI").is_some() {
            "kubernetes.io~downward-api"
        } else if volume.get("configMap").is_some() {
            "kubernetes.io~configmap"
        } else {
            bail!("volumes of this kind are not known: {volume}");
        };
        Ok(format!(
            "{}/volumes/{kind}/{}",
            self.folder,
            text(volume, "name")?
        ))
    }
}

/// The sandbox.
fn sandbox_of(object: &Value) -> Result<Pod> {
    let (metadata, spec) = (&object["metadata"], &object["spec"]);
    let own = [
        "containers",
        "hostNetwork",
        "hostPID",
        "initContainers",
        "shareProcessNamespace",
        "volumes",
    ];
    must_know(spec, &[&own[..], SCHEDULING].concat())?;
    let [namespace, name, uid] =
        ["namespace", "name", "uid"].map(|key| text(metadata, key).unwrap_or_default());
    let mut pod = Pod::with_uid(namespace, name, uid);
    for (key, value) in pairs(metadata, "labels") {
        pod = pod.label(&key, &value);
    }
    for (key, value) in pairs(metadata, "annotations") {
        pod = pod.annotation(&key, &value);
    }
    pod.log_folder = format!("/var/log/pods/{namespace}_{name}_{uid}");
    Ok(match (&spec["hostPID"], &spec["shareProcessNamespace"]) {
        (Value::Bool(true), _) => pod.among_the_machines_processes(),
        (_, Value::Bool(true)) => pod.sharing_processes(),
        _ => pod,
    })
}

fn mount(outside: &str, inside: &str, read_only: bool) -> Mount {
    Mount {
        inside: inside.to_owned(),
        outside: outside.to_owned(),
        read_only,
    }
}

/// A `securityContext`.
fn secure(container: &mut Container, context: &Value) -> Result<()> {
    if context.is_null() {
        return Ok(());
    }
    must_know(
        context,
        &[
            "allowPrivilegeEscalation",
            "capabilities",
            "privileged",
            "readOnlyRootFilesystem",
            "runAsGroup",
            "runAsNonRoot",
            "runAsUser",
            "seccompProfile",
        ],
    )?;
    let user = context["runAsUser"].as_i64();
    ensure!(
        context["runAsNonRoot"] != true || user.is_some_and(|user| user != 0),
        "runAsNonRoot without a user"
    );
    let security = container.security();
    security.user = user.map(|value| Number { value });
    security.group = context["runAsGroup"].as_i64().map(|value| Number { value });
    security.privileged = context["privileged"] == true;
    security.read_only_root = context["readOnlyRootFilesystem"] == true;
    security.no_new_privileges = context["allowPrivilegeEscalation"] == false;
    security.capabilities = Some(Capabilities {
        add: words(&context["capabilities"]["add"]),
        drop: words(&context["capabilities"]["drop"]),
    });
    // Without a wish a kubelet asks for no profile.
    let kind = match context["seccompProfile"]["type"].as_str() {
        Some("RuntimeDefault") => 0,
        Some("Unconfined") | None => 1,
        Some(other) => bail!("the seccomp profile {other} is not known"),
    };
    security.seccomp = Some(SecurityProfile { kind });
    Ok(())
}

/// Waits for a startup probe as long as it allows.
fn await_startup(container: &Value) -> Result<()> {
    let probe = &container["startupProbe"];
    if probe.is_null() {
        return Ok(());
    }
    let get = &probe["httpGet"];
    let port = list(Some(&container["ports"]))
        .iter()
        .find(|port| port["name"] == get["port"])
        .map_or(&get["port"], |port| &port["containerPort"]);
    let url = format!("http://127.0.0.1:{port}{}", text(get, "path")?);
    let seconds = |key: &str| probe[key].as_u64().context("a number of seconds");
    let limit = seconds("periodSeconds")? * seconds("failureThreshold")?;
    wait_for("the startup probe", Duration::from_secs(limit), || {
        Ok(matches!(load::fetch(&url), Ok((200, _))).then_some(()))
    })
}
