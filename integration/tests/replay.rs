//! A recorded stream replays to the spans of the live run.

use anyhow::{Context, Result, ensure};
use integration::process::wait_for;
use integration::server::kind;
use integration::{Kind, Process, Scene, Tally, Trials, agent, load, span};
use nix::sys::signal::Signal;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(20);

pub(crate) fn register(trials: &mut Trials) {
    trials.subject("replay");
    for name in ["nginx", "go"] {
        let tools: &[&str] = if name == "go" { &["go"] } else { &["nginx"] };
        trials.add(&format!("recorded_{name}"), tools, |scene| {
            recorded(scene, name)
        });
    }
    trials.add_with("a_file_that_is_no_recording", &[], no_recording);
}

fn recorded(scene: &Scene, name: &str) -> Result<()> {
    let server = kind(name)?.start(scene)?;
    let file = scene.folder().join("stream.pilotfish");
    let mut command = agent::command(&["record", "--ring-bytes", "16777216"])?;
    command
        .arg(&file)
        .args(["--pid", &server.pid().to_string()]);
    let mut recorder = Process::start("record", command, scene.folder())?;
    wait_until_recording(&mut recorder)?;
    scene.remember_loaded(recorder.pid())?;
    let tally = load::run(server.port, &load::mix(4, 10))?;
    let status = recorder.stop(Signal::SIGTERM, LIMIT)?;
    ensure!(
        status.success(),
        "record ended with {status}:\n{}",
        recorder.log_tail()
    );

    let first = replay(scene, &file, "first")?;
    tally.must_equal(
        &Tally::of_spans(&first, Kind::Server)?,
        "the client",
        "replayed spans",
    )?;
    let names = |spans: &[span::Span]| {
        let mut names: Vec<_> = spans
            .iter()
            .map(|span| {
                (
                    span.start_time_unix_nano,
                    span.name.clone(),
                    span.status_code(),
                )
            })
            .collect();
        names.sort();
        names
    };
    let second = replay(scene, &file, "second")?;
    ensure!(
        names(&first) == names(&second),
        "two replays of one file differ"
    );
    Ok(())
}

/// A recorder says on its log that it has attached.
fn wait_until_recording(recorder: &mut Process) -> Result<()> {
    wait_for("the recorder's start", LIMIT, || {
        ensure!(
            recorder.is_running(),
            "the recorder ended:\n{}",
            recorder.log_tail()
        );
        Ok(recorder.log().contains("recording").then_some(()))
    })
    .with_context(|| format!("record logged:\n{}", recorder.log_tail()))
}

fn replay(scene: &Scene, file: &std::path::Path, name: &str) -> Result<Vec<span::Span>> {
    let spans = scene.folder().join(format!("{name}.jsonl"));
    let mut command = agent::command(&["replay", "--print", "none"])?;
    command.arg("--print-file").arg(&spans).arg(file);
    Process::start(&format!("replay-{name}"), command, scene.folder())?.succeed(LIMIT)?;
    span::read(&spans)
}

fn no_recording(scene: &Scene) -> Result<()> {
    let absent = scene.folder().join("absent");
    let wrong = scene.folder().join("wrong");
    let cut = scene.folder().join("cut");
    std::fs::write(&wrong, "this is not a recording\n".repeat(100))?;
    std::fs::write(&cut, "")?;
    for file in [absent, wrong, cut] {
        let output = agent::command(&["replay"])?.arg(&file).output()?;
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(!output.status.success(), "{} was replayed", file.display());
        ensure!(
            message.contains(&file.display().to_string()) && !message.contains("panicked"),
            "unclear: {message}"
        );
    }
    Ok(())
}
