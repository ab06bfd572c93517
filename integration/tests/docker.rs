//! docker with the wrapper that `pilotfish-hook install` makes one of its runtimes.

use crate::containerd::{OTHER, must_be_silent};
use crate::hook::{LIMIT, SERVER, add, must_trace, of_container};
use crate::hook_launch;
use crate::identity::must_have;
use anyhow::{Context, Result, bail, ensure};
use integration::agent::Setup;
use integration::process::wait_for;
use integration::runtime::{Docker, Machine, docker, hook, image};
use integration::{Kind, Scene, Trials, load, span};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::fs;

/// What every container here has in common.
const RUN: [&str; 2] = ["run", "--detach"];

/// Containers of the wrapper's runtime that ask for observation.
const SELECTED: [&str; 2] = [
    "--runtime=pilotfish",
    "--annotation=pilotfish.dev/instrument=true",
];

/// Requests that an observed container makes and answers in its own network.
const REQUESTS: usize = 5;

pub(crate) fn register(trials: &mut Trials) {
    trials.subject("docker");
    add(trials, "installed", installed);
    add(trials, "installed_as_default", installed_as_default);
    add(trials, "agent_by_the_hook", agent_by_the_hook);
}

/// From the installation to its end. Only containers with the runtime and the annotation are seen.
fn installed(scene: &Scene, machine: &Machine) -> Result<()> {
    let mut configuration = docker::configuration();
    configuration["log-opts"] = json!({ "max-size": "7m" });
    configuration["runtimes"] = json!({ "plain": { "path": "/usr/sbin/runc" } });
    let mut docker = Docker::start(machine, &configuration)?;
    let original = fs::read(machine.path(docker::CONFIGURATION))?;
    let said = machine.output(hook::HOOK, ["install", "--runtime=docker"])?;
    ensure!(said.contains("reload docker"), "{said}");
    let mut edited = daemon_json(machine)?;
    let runtimes = edited["runtimes"].as_object_mut().context("no runtimes")?;
    ensure!(runtimes.remove("pilotfish").is_some(), "{runtimes:?}");
    ensure!(edited == configuration, "the configuration is now {edited}");
    reload(machine, &docker)?;

    let agent = Setup::node(scene, machine)?.start()?;
    start(&docker, 8081, &[SELECTED[0], "--network=host"], OTHER)?;
    start(
        &docker,
        8082,
        &[SELECTED[1], "--network=host"],
        &["prompt", "8082"],
    )?;
    let before = agent.settle()?;
    ensure!(before.sum("pilotfish_hook_attaches_total")? == 0);
    let server = start(
        &docker,
        8080,
        &[SELECTED[0], SELECTED[1], "--network=host"],
        SERVER,
    )?;
    hook::await_observed(&agent, machine, &[&server])?;
    must_trace(&agent, 8080, &server, "seen")?;
    must_be_silent(&agent, 8081)?;
    must_be_silent(&agent, 8082)?;

    // A process that enters it; the network of its own gives the next container a hook of docker's.
    docker.output(
        ["exec", "--detach", &server]
            .iter()
            .chain(&["prompt", "8083"]),
    )?;
    wait_for("the agent's notice", LIMIT, || {
        Ok((hook::processes(&agent, &server)? >= 2).then_some(()))
    })?;
    must_trace(&agent, 8083, &server, "entered")?;
    // The same id, another first process.
    docker.output(["stop", "--time=0", &server])?;
    hook::await_observed(&agent, machine, &[])?;
    load::first_request(8080, "/again", || docker.output(["start", &server]))?;
    hook::await_observed(&agent, machine, &[&server])?;
    let isolated = isolated(machine, &docker)?;
    hook::await_observed(&agent, machine, &[&server, &isolated])?;
    docker.output(["rm", "--force", &server, &isolated])?;
    hook::await_observed(&agent, machine, &[])?;

    machine.output(hook::HOOK, ["uninstall", "--runtime=docker"])?;
    let left = fs::read(machine.path(docker::CONFIGURATION))?;
    ensure!(left == original, "{}", String::from_utf8_lossy(&left));
    docker.restart()?;
    let words = RUN.iter().chain(&SELECTED).chain(&[image::PROMPT]);
    let refused = docker
        .output(words)
        .err()
        .context("the runtime is still there")?;
    ensure!(format!("{refused:#}").contains("pilotfish"), "{refused:#}");

    let finished = agent.finish()?;
    let spans = of_container(&finished.spans, &server);
    let first = spans.first().context("no span")?;
    ensure!(first.path() == "/first", "{first:?}");
    let again = spans.last().context("no span")?;
    ensure!(again.path() == "/again", "{again:?}");
    must_have(
        first,
        &[
            ("container.id", json!(server)),
            ("container.runtime", json!("docker")),
            ("service.name", json!("prompt")),
        ],
    )?;
    let alone = of_container(&finished.spans, &isolated);
    ensure!(alone.len() == REQUESTS, "{alone:?}");
    let servers = finished
        .spans
        .iter()
        .filter(|span| span.kind == Kind::Server);
    ensure!(
        servers.count() == spans.len() + alone.len(),
        "{:?}",
        finished.spans
    );
    Ok(())
}

/// Every container goes through the wrapper, which leaves alone what does not ask for the hook.
fn installed_as_default(scene: &Scene, machine: &Machine) -> Result<()> {
    let mut configuration = docker::configuration();
    configuration["default-runtime"] = json!("plain");
    configuration["runtimes"] = json!({ "plain": { "path": "/usr/sbin/runc" } });
    let mut docker = Docker::start(machine, &configuration)?;
    let options = ["install", "--runtime=docker", "--default"];
    machine.output(hook::HOOK, options)?;
    docker.restart()?;
    let agent = Setup::node(scene, machine)?.start()?;
    let network = "--network=host";
    let other = start(&docker, 8081, &[network], OTHER)?;
    ensure!(hooks_of(machine, &other)?.is_null(), "it has hooks");
    let server = start(&docker, 8080, &[SELECTED[1], network], SERVER)?;
    hook::await_observed(&agent, machine, &[&server])?;
    docker.output(["rm", "--force", &server, &other])?;
    hook::await_observed(&agent, machine, &[])?;
    machine.output(hook::HOOK, ["uninstall", "--runtime=docker"])?;
    ensure!(daemon_json(machine)? == configuration);
    docker.restart()?;
    start(&docker, 8080, &[SELECTED[1], network], SERVER)?;

    let finished = agent.finish()?;
    ensure!(finished.metrics.sum("pilotfish_hook_attaches_total")? == 1);
    ensure!(finished.spans.len() == 1, "{:?}", finished.spans);
    let first = &finished.spans[0];
    must_have(first, &[("container.id", json!(server))])
}

/// The agent that the hook starts is a child of the container's shim at first, and outlives it.
fn agent_by_the_hook(scene: &Scene, machine: &Machine) -> Result<()> {
    hook_launch::configure(scene, machine)?;
    let mut docker = Docker::start(machine, &docker::configuration())?;
    let agent = ["--agent", hook_launch::AGENT, "--timeout=20s"];
    let words = ["install", "--runtime=docker"];
    machine.output(hook::HOOK, words.iter().chain(&agent))?;
    docker.restart()?;
    let mut started = Vec::new();
    let mut containers = Vec::new();
    for _ in 0..2 {
        let options = [SELECTED[0], SELECTED[1], "--network=host"];
        let container = start(&docker, 8080, &options, SERVER)?;
        docker.output(["rm", "--force", &container])?;
        containers.push(container);
        started.push(hook_launch::started_agent(scene, machine)?);
    }
    ensure!(started[0] == started[1], "another agent: {started:?}");
    kill(Pid::from_raw(started[0] as i32), Signal::SIGTERM)?;
    hook_launch::await_end(machine)?;
    let spans = span::read(&scene.folder().join("spans.jsonl"))?;
    ensure!(spans.len() == 2, "{spans:?}");
    for (span, container) in spans.iter().zip(&containers) {
        let service = ("service.name", json!("prompt"));
        must_have(span, &[("container.id", json!(container)), service])?;
    }
    Ok(())
}

fn daemon_json(machine: &Machine) -> Result<Value> {
    let text = fs::read(machine.path(docker::CONFIGURATION))?;
    Ok(serde_json::from_slice(&text)?)
}

/// Hooks in the bundle of a running container.
fn hooks_of(machine: &Machine, id: &str) -> Result<Value> {
    let bundle = format!("/run/containerd/io.containerd.runtime.v2.task/moby/{id}/config.json");
    let spec: Value = serde_json::from_slice(&fs::read(machine.path(&bundle))?)?;
    Ok(spec["hooks"].clone())
}

/// What `systemctl reload docker` does.
fn reload(machine: &Machine, docker: &Docker<'_>) -> Result<()> {
    let daemons = machine.running(&["dockerd"])?;
    let [daemon] = daemons[..] else {
        bail!("not one daemon: {daemons:?}");
    };
    machine.output("kill", ["-HUP", &daemon.to_string()])?;
    wait_for("the new runtime", LIMIT, || {
        let runtimes = docker.output(["info", "--format={{json .Runtimes}}"])?;
        Ok(runtimes.contains("\"pilotfish\"").then_some(()))
    })
}

/// Starts a container that a client asks before it runs, and gives back its id.
fn start(docker: &Docker<'_>, port: u16, options: &[&str], words: &[&str]) -> Result<String> {
    let words = RUN
        .iter()
        .chain(options)
        .chain(&[image::PROMPT])
        .chain(words);
    let id = load::first_request(port, "/first", || docker.output(words))?;
    Ok(id.trim().to_owned())
}

/// A container with a network of its own, for which docker before 28 has a hook in the bundle already. Its first
/// process makes the requests, and then goes on.
fn isolated(machine: &Machine, docker: &Docker<'_>) -> Result<String> {
    let script = format!(
        "prompt 8080 & for n in $(seq {REQUESTS}); do \
         until wget -q -O /dev/null http://127.0.0.1:8080/$n; do sleep 0.02; done; done; : >/done; wait"
    );
    let words = [
        "--network=none",
        image::PROMPT,
        "busybox",
        "sh",
        "-c",
        &script,
    ];
    let id = docker.output(RUN.iter().chain(&SELECTED).chain(&words))?;
    let id = id.trim().to_owned();
    let bundle = hooks_of(machine, &id)?;
    let hooks = |stage: &str| bundle[stage].as_array().map_or(0, Vec::len);
    ensure!(
        (hooks("prestart"), hooks("createRuntime"), hooks("poststop")) == (1, 1, 1),
        "the bundle has {bundle}"
    );
    wait_for("the container's requests", LIMIT, || {
        let done = docker.output(["exec", &id, "cat", "/done"]);
        Ok(done.ok())
    })?;
    Ok(id)
}
