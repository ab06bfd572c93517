//! The table of clients under test, each making a known number of requests.

use crate::place;
use crate::program;
use anyhow::Result;
use std::process::Command;

/// Rounds that each client makes; a round is the same list of requests everywhere.
pub const ROUNDS: usize = 30;

/// One kind of client.
#[derive(Debug)]
pub struct ClientKind {
    /// Name of its trials.
    pub name: &'static str,
    /// Tools without which it cannot run.
    pub tools: &'static [&'static str],
    /// Its command line against a base URL: [`ROUNDS`] rounds of [`requests`].
    pub command: fn(&str) -> Result<Command>,
}

/// Every client that the standard trial runs.
pub const CLIENTS: &[ClientKind] = &[
    ClientKind {
        name: "curl",
        tools: &["curl"],
        command: curl,
    },
    ClientKind {
        name: "python_requests",
        tools: &["python3"],
        command: |base| scripted("python3", "client.py", base),
    },
    ClientKind {
        name: "node_fetch",
        tools: &["node"],
        command: |base| scripted("node", "client.js", base),
    },
    ClientKind {
        name: "go",
        tools: &["go"],
        command: go,
    },
];

/// Requests of one round: two that succeed, one that fails, one with a body, one large response.
pub const REQUESTS_PER_ROUND: u64 = 5;

fn scripted(interpreter: &str, script: &str, base: &str) -> Result<Command> {
    let mut command = place::command(interpreter)?;
    command
        .arg(place::fixture(script))
        .arg(base)
        .arg(ROUNDS.to_string())
        .env("PYTHONDONTWRITEBYTECODE", "1");
    Ok(command)
}

fn go(base: &str) -> Result<Command> {
    let mut command = Command::new(program::go("client.go")?);
    command.arg(base).arg(ROUNDS.to_string());
    Ok(command)
}

/// One curl makes all requests over kept connections; `--next` starts a request with options of its own.
fn curl(base: &str) -> Result<Command> {
    let mut command = place::command("curl")?;
    for round in 0..ROUNDS {
        if round > 0 {
            command.arg("--next");
        }
        let common = ["--silent", "--show-error", "--output", "/dev/null"];
        command.args(common).arg(format!("{base}/items/{round}"));
        command
            .arg("--next")
            .args(common)
            .arg("--head")
            .arg(format!("{base}/small"));
        command
            .arg("--next")
            .args(common)
            .arg(format!("{base}/missing/{round}"));
        command
            .arg("--next")
            .args(common)
            .args(["--data", "a=b"])
            .arg(format!("{base}/echo"));
        command
            .arg("--next")
            .args(common)
            .arg(format!("{base}/large"));
    }
    Ok(command)
}
