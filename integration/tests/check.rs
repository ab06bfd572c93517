//! `pilotfish check`, and messages for a wrong command line.

use anyhow::{Context, Result, ensure};
use integration::trial::Need;
use integration::{Scene, Trials, agent};

pub(crate) fn register(trials: &mut Trials) {
    trials.subject("check");
    trials.add_with("text_and_json_agree", &[Need::Bpf], text_and_json_agree);
    trials.add_with(
        "wrong_command_lines_are_explained",
        &[],
        wrong_command_lines,
    );
}

/// Here the backbone can run, so both forms say so, and the JSON lists features.
fn text_and_json_agree(_: &Scene) -> Result<()> {
    let run = |arguments: &[&str]| {
        agent::command(arguments)?
            .output()
            .context("cannot run the agent")
    };
    let text = run(&["check"])?;
    let json = run(&["check", "--json"])?;
    ensure!(
        text.status.success() && json.status.success(),
        "check: {} and {}",
        text.status,
        json.status
    );
    let text = String::from_utf8(text.stdout)?;
    for word in [
        "BTF",
        "sock_send_length",
        "CAP_BPF",
        "CAP_PERFMON",
        "CAP_SYS_PTRACE",
        "lockdown",
        "cgroup",
    ] {
        ensure!(
            text.contains(word),
            "check does not mention {word}:\n{text}"
        );
    }
    let report: serde_json::Value = serde_json::from_slice(&json.stdout)?;
    ensure!(report.is_object(), "not an object: {report}");
    Ok(())
}

fn wrong_command_lines(_: &Scene) -> Result<()> {
    for arguments in [
        &["frobnicate"][..],
        &["sidecar", "--pid", "zero"],
        &["run"],
        &["sidecar", "--pid", "4194305", "--listen", "nowhere"],
    ] {
        let output = agent::command(arguments)?.output()?;
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(!output.status.success(), "{arguments:?} was accepted");
        ensure!(
            message.contains("error") && !message.contains("panicked"),
            "{arguments:?}: {message}"
        );
    }
    Ok(())
}
