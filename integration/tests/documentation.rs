//! The documentation's commands, taken out of it and run: `integration::document`.
//!
//! A section finds what a newcomer has: a clone with the image that `cargo xtask image` made, the runtime, and images
//! under their public names, which `integration::runtime::stock` makes of Debian's programs.

use crate::pod_sidecar::CAPABILITIES;
use crate::receivers::received_spans;
use anstream::adapter::strip_str;
use anyhow::{Context, Result, bail, ensure};
use integration::document::{Document, Manner, Step, is_shown};
use integration::process::wait_for;
use integration::runtime::{self, Containerd, Docker, Machine, Podman, Release, stock};
use integration::{Need, Process, Scene, Trials, load, place};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

/// The documents whose commands are run.
const DOCUMENTS: &[&str] = &["README.md", "manifests/README.md"];

/// The clone in a machine.
const CLONE: &str = "/srv/pilotfish";

/// What the documents name of the clone, beside the image.
const FILES: &[&str] = &[
    "manifests/compose/compose.yaml",
    "manifests/compose/collector.yaml",
    "manifests/kubernetes/example/deployment.yaml",
];

/// Bound for one block, and for the output that it leads to.
const LIMIT: Duration = Duration::from_secs(45);

/// User of the image.
const USER: &str = "65532";

/// Requests to the application of the compose file, beside the section's own.
const REQUESTS: u64 = 10;

type Perform = fn(&Scene, &Machine, &Document, &str) -> Result<()>;

/// Every name in the documents, and where its blocks are run.
const SECTIONS: &[(&str, Perform)] = &[
    ("command", command),
    ("check", check),
    ("docker", docker),
    ("docker-short", docker),
    ("compose", compose),
    ("podman", podman),
    ("podman-pod", podman),
    ("containerd", containerd),
    ("hook", host_agent),
    ("inject", command),
];

pub(crate) fn register(trials: &mut Trials) {
    trials.subject("documentation");
    trials.add_with("every_section_is_run_or_says_that_it_is_not", &[], complete);
    for &(name, perform) in SECTIONS {
        let tools = [Need::Bpf, Need::Tool("bpftool"), Need::Tool("rotel")];
        let needs = [runtime::needs(&[]), tools.into()].concat();
        trials.add_with(name, &needs, move |scene| {
            let document = document()?;
            let machine = Machine::start(scene)?;
            machine.in_network(|| perform(scene, &machine, &document, name))
        });
    }
}

/// The documents as one.
fn document() -> Result<Document> {
    let mut text = String::new();
    for name in DOCUMENTS {
        text += &fs::read_to_string(place::workspace().join(name)).context(*name)?;
        text += "\n\n";
    }
    Document::read(&text)
}

fn complete(_: &Scene) -> Result<()> {
    let document = document()?;
    let known: BTreeSet<&str> = SECTIONS.iter().map(|&(name, _)| name).collect();
    let wanted = document.names();
    ensure!(
        wanted == known,
        "the documents have {wanted:?}, the trials {known:?}"
    );
    for name in wanted {
        let shown = document
            .steps(name)
            .iter()
            .any(|step| !step.shown.is_empty());
        ensure!(shown, "{name} shows nothing of what it prints");
    }
    Ok(())
}

/// Sections that need no runtime.
fn command(scene: &Scene, machine: &Machine, document: &Document, name: &str) -> Result<()> {
    let clone = Clone::prepare(scene, machine)?;
    clone.perform(document, name).map(drop)
}

fn docker(scene: &Scene, machine: &Machine, document: &Document, name: &str) -> Result<()> {
    let clone = Clone::prepare(scene, machine)?;
    let docker = Docker::start(machine, &json!({}))?;
    docker.load(&clone.stock("nginx", &stock::nginx(machine)?)?)?;
    let _kept = clone.perform(document, name)?;
    must_be_least_privileged(machine)?;
    clone.undo(document, name)
}

fn check(scene: &Scene, machine: &Machine, document: &Document, name: &str) -> Result<()> {
    let clone = Clone::prepare(scene, machine)?;
    let _docker = Docker::start(machine, &json!({}))?;
    clone.perform(document, name).map(drop)
}

/// Beside what the document shows: the collector gets every span and the metrics.
fn compose(scene: &Scene, machine: &Machine, document: &Document, name: &str) -> Result<()> {
    const FILE: [&str; 3] = ["compose", "--file", "manifests/compose/compose.yaml"];
    let clone = Clone::prepare(scene, machine)?;
    let docker = Docker::start(machine, &json!({}))?;
    docker.load(&clone.stock("nginx", &stock::nginx(machine)?)?)?;
    docker.load(&clone.stock("collector", &stock::collector(scene.folder())?)?)?;
    let ask = |arguments: &[&str]| {
        let mut command = machine.command("env", ["--chdir", CLONE, "docker"]);
        command.args(FILE).args(arguments);
        let answer = command.output()?;
        let errors = String::from_utf8_lossy(&answer.stderr);
        ensure!(answer.status.success(), "{arguments:?}: {errors}");
        // Each line begins with a command to the terminal.
        Ok(strip_str(&String::from_utf8(answer.stdout)?).to_string())
    };
    let resolved: Value = serde_json::from_str(&ask(&["config", "--format=json"])?)?;
    let sidecar = &resolved["services"]["pilotfish"];
    for (key, value) in [
        ("cap_add", json!(["BPF", "PERFMON", "SYS_PTRACE"])),
        ("cap_drop", json!(["ALL"])),
        ("pid", json!("service:app")),
        ("read_only", json!(true)),
    ] {
        ensure!(sidecar[key] == value, "{key} is {}", sidecar[key]);
    }
    let _kept = clone.perform(document, name)?;
    must_be_least_privileged(machine)?;
    for _ in 0..REQUESTS {
        load::fetch("http://127.0.0.1:8080/counted")?;
    }
    wait_for("the collector's receipt", LIMIT, || {
        let log = ask(&["logs", "--no-log-prefix", "collector"])?;
        let received = received_spans(&log)?;
        let metrics = log.contains("Name: http.server.request.duration");
        ensure!(received.total() <= REQUESTS + 1, "too much: {received:?}");
        Ok((metrics && received.total() == REQUESTS + 1).then_some(()))
    })?;
    clone.undo(document, name)
}

fn podman(scene: &Scene, machine: &Machine, document: &Document, name: &str) -> Result<()> {
    let clone = Clone::prepare(scene, machine)?;
    prepare_podman(&clone)?;
    let _kept = clone.perform(document, name)?;
    must_be_least_privileged(machine)?;
    clone.undo(document, name)
}

fn containerd(scene: &Scene, machine: &Machine, document: &Document, name: &str) -> Result<()> {
    let clone = Clone::prepare(scene, machine)?;
    let containerd = Containerd::start(machine, &Release::V1_7.configuration(""))?;
    containerd.import(&clone.stock("nginx", &stock::nginx(machine)?)?)?;
    let _kept = clone.perform(document, name)?;
    must_be_least_privileged(machine)?;
    clone.undo(document, name)
}

fn host_agent(scene: &Scene, machine: &Machine, document: &Document, name: &str) -> Result<()> {
    let clone = Clone::prepare(scene, machine)?;
    runtime::hook::install(machine)?;
    prepare_podman(&clone)?;
    let _kept = clone.perform(document, name)?;
    clone.undo(document, name)
}

/// Nobody runs systemd in a machine, which podman by default asks for control groups.
fn prepare_podman(clone: &Clone<'_>) -> Result<()> {
    let configuration = "[engine]\ncgroup_manager = \"cgroupfs\"\n";
    let machine = clone.machine;
    machine.write("/etc/containers/containers.conf", configuration, 0o644)?;
    let podman = Podman::prepare(machine, "crun", &[])?;
    podman
        .load(&clone.stock("nginx", &stock::nginx(machine)?)?)
        .map(drop)
}

/// What a newcomer has: a clone of the repository as far as the documents speak of it, and the built programs.
struct Clone<'trial> {
    scene: &'trial Scene,
    machine: &'trial Machine,
}

impl<'trial> Clone<'trial> {
    fn prepare(scene: &'trial Scene, machine: &'trial Machine) -> Result<Self> {
        let image = place::agent_image()?;
        let name = image.file_name().context("an image has a name")?;
        let inside = format!("{CLONE}/target/images/{}", name.to_string_lossy());
        machine.copy_in(&image, &inside, 0o644)?;
        for file in FILES {
            let inside = format!("{CLONE}/{file}");
            machine.copy_in(&place::workspace().join(file), &inside, 0o644)?;
        }
        machine.copy_in(&place::agent_binary()?, "/usr/local/bin/pilotfish", 0o755)?;
        Ok(Self { scene, machine })
    }

    /// Writes an archive for a runtime to load.
    fn stock(&self, name: &str, archive: &[u8]) -> Result<PathBuf> {
        let file = self.scene.folder().join(format!("{name}.tar"));
        fs::write(&file, archive)?;
        Ok(file)
    }

    /// Runs the blocks of a section but for those that undo it. What they leave running ends with what is given back.
    fn perform(&self, document: &Document, name: &str) -> Result<Vec<Process>> {
        let steps = document.steps(name);
        let mut kept = Vec::new();
        for (number, step) in steps.into_iter().enumerate() {
            let process = match step.manner {
                Manner::Once => self.once(&format!("{name}-{number}"), step)?,
                Manner::Until => self.until(&format!("{name}-{number}"), step)?,
                Manner::Undo => continue,
            };
            kept.push(process);
        }
        Ok(kept)
    }

    /// Runs the blocks that undo a section: no sidecar is left, and the next section finds what this one found.
    fn undo(&self, document: &Document, name: &str) -> Result<()> {
        let steps = document.steps(name);
        let steps = steps.into_iter().filter(|step| step.manner == Manner::Undo);
        for (number, step) in steps.enumerate() {
            self.once(&format!("{name}-undo-{number}"), step)?;
        }
        let left = self.machine.running(&["/pilotfish", "sidecar"])?;
        ensure!(left.is_empty(), "left running: {left:?}");
        Ok(())
    }

    fn once(&self, name: &str, step: &Step) -> Result<Process> {
        let mut process = self.start(name, step)?;
        let status = process.wait(LIMIT)?;
        let said = process.log();
        ensure!(
            status.success(),
            "{}ended with {status}:\n{said}",
            step.script
        );
        ensure!(
            is_shown(&step.shown, &said),
            "{}printed:\n{said}",
            step.script
        );
        Ok(process)
    }

    /// Output comes a moment after what causes it.
    fn until(&self, name: &str, step: &Step) -> Result<Process> {
        let mut said = String::new();
        wait_for("the output", LIMIT, || {
            let mut process = self.start(name, step)?;
            process.wait(LIMIT)?;
            said = process.log();
            Ok(is_shown(&step.shown, &said).then_some(process))
        })
        .with_context(|| format!("{}printed:\n{said}\nnot:\n{:?}", step.script, step.shown))
    }

    fn start(&self, name: &str, step: &Step) -> Result<Process> {
        let shell = ["--chdir", CLONE, "sh", "-euc", &step.script];
        let mut command = self.machine.command("env", shell);
        command
            .env("PODMAN_IGNORE_CGROUPSV1_WARNING", "1")
            // Where the harness imports images.
            .env("CONTAINERD_NAMESPACE", "k8s.io");
        self.machine.spawn(name, command)
    }
}

/// The sidecar of the section runs as the image's user, with the three capabilities and no other.
fn must_be_least_privileged(machine: &Machine) -> Result<()> {
    let running = machine.running(&["/pilotfish", "sidecar"])?;
    let [pid] = running[..] else {
        bail!("not one sidecar: {running:?}");
    };
    let status = fs::read_to_string(machine.path(&format!("/proc/{pid}/status")))?;
    let line = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        line.unwrap_or_default().trim()
    };
    ensure!(line("CapEff:") == CAPABILITIES, "{status}");
    ensure!(line("Uid:").split('\t').all(|id| id == USER), "{status}");
    Ok(())
}
