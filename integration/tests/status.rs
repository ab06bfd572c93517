//! `/status` says why there is nothing to see.

use anyhow::{Context, Result, ensure};
use integration::process::wait_for;
use integration::server::kind;
use integration::{Agent, Kind, Process, Scene, Trials, load, place};
use serde_json::{Value, json};
use std::time::Duration;

/// Time in which a process that starts others does so many times.
const BUSY: Duration = Duration::from_millis(300);

/// Bound for what the agent is to notice.
const LIMIT: Duration = Duration::from_secs(20);

const ALL_ENDED: &str = "every observed process has ended; nothing is left to observe";

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
    trials.add(
        "readiness_notes_that_nothing_is_left",
        &["busybox"],
        nothing_is_left,
    );
}

/// It is no fault, so the agent stays ready, but whoever asks why there is no span is told.
fn nothing_is_left(scene: &Scene) -> Result<()> {
    let mut command = place::command("busybox")?;
    command.args(["sleep", "600"]);
    let observed = Process::start("observed", command, scene.folder())?;
    let agent = Agent::watch(scene, &[observed.pid()])?;
    let notes = || -> Result<Value> {
        let (code, page) = load::fetch(&agent.url("/readyz"))?;
        ensure!(code == 200, "{code}: {page}");
        let page: Value = serde_json::from_str(&page)?;
        Ok(page["notes"].clone())
    };
    ensure!(notes()? == json!([]), "there is something to observe");
    drop(observed);
    wait_for("the note", LIMIT, || {
        Ok((notes()? == json!([ALL_ENDED])).then_some(()))
    })?;
    let ready = agent.pages().metrics()?.sum("pilotfish_ready")?;
    ensure!(ready == 1, "pilotfish_ready is {ready}");
    agent.finish().map(drop)
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
