//! `/status` says why there is nothing to see.

use anyhow::{Context, Result, ensure};
use integration::server::kind;
use integration::{Agent, Kind, Process, Scene, Trials, load, place};
use serde_json::Value;
use std::time::Duration;

/// Time in which a process that starts others does so many times.
const BUSY: Duration = Duration::from_millis(300);

pub(crate) fn register(trials: &mut Trials) {
    trials.subject("metrics");
    trials.add(
        "status_page_explains_silence",
        &["busybox", "node"],
        |scene| silence_of("sleep 3600", scene),
    );
    trials.add(
        "status_page_explains_silence_of_a_busy_process",
        &["busybox", "node"],
        // Processes come and go, which the kernel reports, but no socket carries data.
        |scene| silence_of("while :; do busybox sleep 0.02; done", scene),
    );
}

/// A silent process and one with traffic: the page explains the first only.
fn silence_of(script: &str, scene: &Scene) -> Result<()> {
    let mut command = place::command("busybox")?;
    command.args(["sh", "-c", script]);
    let silent = Process::start("silent", command, scene.folder())?;
    let server = kind("node")?.start(scene)?;
    let agent = Agent::watch(scene, &[silent.pid(), server.pid()])?;
    let tally = load::run(server.port, &load::numbered(2, 20))?;
    // Until the silent one has had the time to be busy with other things.
    std::thread::sleep(BUSY);
    let status = agent.status()?;
    let note = note_of(&status, "busybox")?;
    ensure!(
        note.as_str()
            .is_some_and(|note| note.contains("no socket of this container has carried data")),
        "silence is not explained: {note} in {status:#}"
    );
    let note = note_of(&status, "node")?;
    ensure!(note.is_null(), "traffic is explained away: {note}");
    drop(silent);
    agent.finish()?.must_match(&tally, Kind::Server)
}

/// The note of the container whose service name starts with `name`.
fn note_of<'a>(status: &'a Value, name: &str) -> Result<&'a Value> {
    let containers = status["containers"].as_array().context("containers")?;
    let own = containers
        .iter()
        .find(|container| {
            container["resource"]["service.name"]
                .as_str()
                .is_some_and(|service| service.starts_with(name))
        })
        .with_context(|| format!("no container called {name} in {status:#}"))?;
    own.get("note")
        .context("a note, null if there is nothing to say")
}
