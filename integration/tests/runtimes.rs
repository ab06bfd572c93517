//! The container runtimes themselves, without an agent: what the other trials with containers stand on.

use anyhow::{Context, Result, ensure};
use integration::agent::Setup;
use integration::process::wait_for;
use integration::runtime::{
    self, Bundle, Container, Containerd, Docker, Machine, Pod, Podman, Release, Tree, docker,
    groups, image,
};
use integration::{Need, Scene, Trials, load};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Bound for what a runtime does in well under a second.
const LIMIT: Duration = Duration::from_secs(20);

/// Requests that the agent is to see.
const REQUESTS: usize = 20;

/// The container of every trial.
const SERVER: &[&str] = &["prompt", "8080"];

pub(crate) fn register(trials: &mut Trials) {
    trials.subject("runtimes");
    let agents = [Need::Bpf, Need::Tool("bpftool")];
    trials.add_with(
        "an_agent_traces_inside",
        &[runtime::needs(&[]), agents.into()].concat(),
        agent_inside,
    );
    let mut add = |name: &str, above: &'static [Tree], run: fn(&Machine) -> Result<()>| {
        trials.add_with(name, &runtime::needs(above), move |scene| {
            let machine = Machine::layered(scene, above)?;
            run(&machine)?;
            must_leave_nothing(scene, machine)
        });
    };
    add("a_machine_is_private", &[], private);
    add("runc_runs_a_bundle", &[], |machine| bundle(machine, "runc"));
    add("crun_runs_a_bundle", &[], |machine| bundle(machine, "crun"));
    add("podman_with_runc", &[], |machine| podman(machine, "runc"));
    add("podman_with_crun", &[], |machine| podman(machine, "crun"));
    add("docker", &[], docker_daemon);
    add("containerd_1_6", Release::V1_6.trees(), |machine| {
        containerd(machine, Release::V1_6)
    });
    add("containerd_1_7", Release::V1_7.trees(), |machine| {
        containerd(machine, Release::V1_7)
    });
    add("containerd_2", Release::V2.trees(), |machine| {
        containerd(machine, Release::V2)
    });
}

/// What is outside cannot be seen, what is done inside does not show outside, and tracing is possible.
fn private(machine: &Machine) -> Result<()> {
    let processes = machine.output("ps", ["-e", "-o", "pid="])?;
    ensure!(
        processes.lines().count() < 6,
        "more than its own processes:\n{processes}"
    );
    machine.write("/usr/local/bin/mine", "#!/bin/sh\necho mine\n", 0o755)?;
    ensure!(machine.output("mine", [""; 0])? == "mine\n");
    ensure!(
        !Tree::Debian13.path().join("usr/local/bin/mine").exists(),
        "the tree was written to"
    );
    let visitor = machine.spawn("visitor", machine.command("sleep", ["1000"]))?;
    wait_for("the visitor's start", LIMIT, || {
        Ok((machine.running(&["sleep", "1000"])?.len() == 1).then_some(()))
    })?;
    drop(visitor);
    ensure!(
        machine.running(&["sleep", "1000"])?.is_empty(),
        "it outlives its handle"
    );
    for file in ["/sys/kernel/btf/vmlinux", "/sys/kernel/tracing/events"] {
        ensure!(machine.path(file).exists(), "{file} is missing");
    }
    let groups = machine.output("cat", ["/proc/self/cgroup"])?;
    ensure!(
        !groups.contains(groups::PREFIX),
        "its own group is not the root of its view:\n{groups}"
    );
    Ok(())
}

/// The agent in the machine's namespaces and network, beside a container that a runtime starts later.
fn agent_inside(scene: &Scene) -> Result<()> {
    let machine = Machine::start(scene)?;
    let bundle = Bundle::make(&machine, "/bundle", SERVER, |_| ())?;
    machine.in_network(|| {
        let agent = Setup::sharing_namespace(scene, machine.words())?.start()?;
        bundle.run("runc", "one")?;
        must_serve(&machine)?;
        wait_for("the agent's notice", LIMIT, || {
            let processes = agent.metrics()?.sum("pilotfish_processes")?;
            Ok((processes > 0).then_some(()))
        })?;
        for _ in 0..REQUESTS {
            load::fetch("http://127.0.0.1:8080/counted")?;
        }
        let spans = agent.finish()?.spans;
        let counted = spans.iter().filter(|span| span.path() == "/counted");
        ensure!(counted.count() == REQUESTS, "{spans:?}");
        Ok(())
    })?;
    must_leave_nothing(scene, machine)
}

fn bundle(machine: &Machine, runtime: &str) -> Result<()> {
    let bundle = Bundle::make(machine, "/bundle", SERVER, |config| {
        config["annotations"]["trial"] = "bundle".into();
    })?;
    bundle.run(runtime, "one")?;
    must_serve(machine)?;
    let state = machine.output(runtime, ["state", "one"])?;
    ensure!(state.contains("\"running\""), "{state}");
    must_list_the_server(&machine.output(runtime, ["exec", "one", "ps"])?)?;
    bundle.delete(runtime, "one")?;
    must_be_gone(machine)
}

fn podman(machine: &Machine, runtime: &str) -> Result<()> {
    let podman = Podman::prepare(machine, runtime, &[])?;
    let run = ["run", "--detach", "--name=one", "--network=host"];
    podman.output(run.iter().chain(&[image::PROMPT]).chain(SERVER))?;
    must_serve(machine)?;
    must_list_the_server(&podman.output(["exec", "one", "ps"])?)?;
    podman.output(["rm", "--force", "--time=5", "one"])?;
    must_be_gone(machine)
}

fn docker_daemon(machine: &Machine) -> Result<()> {
    let mut docker = Docker::start(machine, &docker::configuration())?;
    let run = [
        "run",
        "--detach",
        "--name=one",
        "--network=host",
        "--annotation=trial=docker",
    ];
    docker.output(run.iter().chain(&[image::PROMPT]).chain(SERVER))?;
    must_serve(machine)?;
    must_list_the_server(&docker.output(["exec", "one", "ps"])?)?;
    docker.output(["rm", "--force", "one"])?;
    must_be_gone(machine)?;
    docker.restart()
}

/// Through its own client, and through the CRI, where the container outlives a restart of the daemon.
fn containerd(machine: &Machine, release: Release) -> Result<()> {
    let mut containerd = Containerd::start(machine, &release.configuration(""))?;
    let version = containerd.ctr(["version"])?;
    let (_, server) = version.split_once("Server:").context("no server")?;
    ensure!(
        server.contains(&format!("Version:  {}", release.prefix())),
        "{version}"
    );

    let run = ["run", "--detach", "--net-host", image::PROMPT, "one"];
    containerd.ctr(run.iter().chain(SERVER))?;
    must_serve(machine)?;
    let exec = ["task", "exec", "--exec-id=look", "one", "ps"];
    must_list_the_server(&containerd.ctr(exec)?)?;
    containerd.ctr(["task", "rm", "--force", "one"])?;
    containerd.ctr(["container", "rm", "one"])?;
    must_be_gone(machine)?;

    let cri = containerd.cri()?;
    let pod = Pod::new("shop", "cart")
        .label("app", "cart")
        .annotation("pilotfish.dev/instrument", "true");
    let sandbox = cri.run_pod(&pod)?;
    let container = cri.run(&sandbox, &pod, &Container::new("server", SERVER))?;
    must_serve(machine)?;
    containerd.restart()?;
    let cri = containerd.cri()?;
    let answer = cri.exec(&container, &["ps"])?;
    ensure!(answer.code == 0, "{answer:?}");
    must_list_the_server(&String::from_utf8_lossy(&answer.output))?;
    cri.remove(&container)?;
    must_be_gone(machine)?;
    cri.remove_pod(&sandbox)?;
    ensure!(machine.running(&["sleep", "infinity"])?.len() == 1);
    Ok(())
}

/// The server answers in the machine's network, and is one of the machine's processes.
fn must_serve(machine: &Machine) -> Result<()> {
    machine.in_network(|| {
        wait_for("the container's first answer", LIMIT, || {
            Ok(load::fetch("http://127.0.0.1:8080/")
                .is_ok_and(|(status, _)| status == 200)
                .then_some(()))
        })
    })?;
    let processes = machine.running(SERVER)?;
    ensure!(!processes.is_empty(), "no process {SERVER:?}");
    Ok(())
}

fn must_list_the_server(processes: &str) -> Result<()> {
    ensure!(
        processes.contains("prompt 8080"),
        "a command in the container does not see its server:\n{processes}"
    );
    Ok(())
}

fn must_be_gone(machine: &Machine) -> Result<()> {
    wait_for("the container's end", LIMIT, || {
        Ok(machine.running(SERVER)?.is_empty().then_some(()))
    })
}

/// No process, no mount, no control group of the machine is there after its end.
fn must_leave_nothing(scene: &Scene, machine: Machine) -> Result<()> {
    let namespace = fs::read_link(format!("/proc/{}/ns/pid", machine.pid()))?;
    drop(machine);
    wait_for("the end of the machine's processes", LIMIT, || {
        let processes = fs::read_dir("/proc")?.flatten();
        let mut of_all =
            processes.filter_map(|entry| fs::read_link(entry.path().join("ns/pid")).ok());
        Ok((!of_all.any(|other| other == namespace)).then_some(()))
    })?;
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    ensure!(
        !mounts.contains(&*scene.folder().to_string_lossy()),
        "mounts are left:\n{mounts}"
    );
    let own = format!("{}{}-", groups::PREFIX, std::process::id());
    let left = folders_below(Path::new("/sys/fs/cgroup"), &own);
    ensure!(left.is_empty(), "control groups are left: {left:?}");
    Ok(())
}

/// Folders whose name starts with `prefix`, two levels deep: in every hierarchy.
fn folders_below(root: &Path, prefix: &str) -> Vec<PathBuf> {
    let folders = |folder: &Path| {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries
            .map(|entry| entry.path())
            .filter(|path| path.is_dir())
    };
    folders(root)
        .flat_map(|folder| folders(&folder).chain([folder.clone()]).collect::<Vec<_>>())
        .filter(|folder| {
            folder
                .file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with(prefix))
        })
        .collect()
}
