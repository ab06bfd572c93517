//! Clients of HTTP/2 with a tally: every target of a list is asked for by each connection, once.

use super::server::{Routes, Target};
use crate::load::expected_status;
use crate::place;
use crate::process::Process;
use crate::scene::Scene;
use crate::tally::{Outcome, Tally};
use anyhow::{Context, Result, ensure};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Longest run of a client.
pub const LIMIT: Duration = Duration::from_mins(1);

/// Distinct targets, of which a server that can fails a third.
pub fn targets(routes: Routes, count: usize) -> Vec<String> {
    let of = |number: usize| match (number % 3, routes) {
        (0, _) | (1, Routes::Files) => format!("/items/{number}"),
        (1, Routes::All) => format!("/error/{number}"),
        _ => format!("/missing/{number}?token=secret"),
    };
    (0..count).map(of).collect()
}

/// What GET of these targets by each of some connections comes to.
pub fn tally(targets: &[String], connections: usize) -> Tally {
    let outcome = |target: &String| Outcome::new("GET", target, expected_status(target));
    (0..connections)
        .flat_map(|_| targets.iter().map(outcome))
        .collect()
}

/// How h2load asks.
#[derive(Clone, Copy, Debug)]
pub struct Concurrency {
    /// Connections, each of which asks for every target.
    pub connections: usize,
    /// Streams of each at a time.
    pub streams: usize,
}

/// The command line of h2load.
pub fn h2load_command(
    scene: &Scene,
    base: &str,
    targets: &[String],
    how: Concurrency,
) -> Result<Command> {
    let list: String = targets.iter().fold(String::new(), |mut list, target| {
        // Writing to a string does not fail.
        let _ = writeln!(list, "{base}{target}");
        list
    });
    let file = scene.folder().join("targets");
    fs::write(&file, list)?;
    let requests = targets.len() * how.connections;
    let mut command = place::command("h2load")?;
    command
        .args(["--threads=1", "-n", &requests.to_string()])
        .args(["-c", &how.connections.to_string()])
        .args(["-m", &how.streams.to_string(), "--input-file"])
        .arg(file);
    Ok(command)
}

/// Runs h2load; fails unless its own counts are what the targets come to.
pub fn h2load(
    scene: &Scene,
    target: &Target,
    targets: &[String],
    how: Concurrency,
) -> Result<Tally> {
    let command = h2load_command(scene, &target.base(), targets, how)?;
    let log = Process::start("h2load", command, scene.folder())?.succeed(LIMIT)?;
    let tally = tally(targets, how.connections);
    h2load_must_agree(&log, &tally)?;
    Ok(tally)
}

/// Holds what h2load printed against a tally.
pub fn h2load_must_agree(log: &str, tally: &Tally) -> Result<()> {
    let total = tally.total();
    let classes = [2, 3, 4, 5].map(|class| format!("{} {class}xx", tally.of_class(class)));
    let protocol = log
        .lines()
        .find_map(|line| line.strip_prefix("Application protocol: "))
        .context("no protocol was chosen")?;
    ensure!(matches!(protocol, "h2" | "h2c"), "it spoke {protocol}");
    for expected in [
        format!("requests: {total} total, {total} started, {total} done, "),
        ", 0 errored, 0 timeout".to_owned(),
        format!("status codes: {}", classes.join(", ")),
    ] {
        ensure!(log.contains(&expected), "not {expected:?} but:\n{log}");
    }
    Ok(())
}

/// Configurations of curl, one for each request: GET, HEAD, and POST or DELETE; in clear by prior knowledge, with TLS by
/// ALPN. In clear curl 7.88 fails where nginx answers before it has read a body, so that it sends none there.
pub fn curl_rounds(target: &Target, rounds: usize) -> Vec<String> {
    let base = target.base();
    let (protocol, last) = if target.scheme == "https" {
        ("http2", "data = a=b")
    } else {
        ("http2-prior-knowledge", "request = DELETE")
    };
    let common = format!(
        "silent\nshow-error\noutput = /dev/null\ncacert = {}\n{protocol}\n\
         write-out = \"%{{method}} %{{url_effective}} %{{response_code}}\\n\"\n",
        target.certificate.chain.display(),
    );
    let of_round = |round: usize| {
        [
            format!("{common}url = {base}/items/{round}\n"),
            format!("{common}head\nurl = {base}/small\n"),
            format!("{common}url = {base}/missing/{round}\n"),
            format!("{common}url = {base}/error/{round}\n"),
            format!("{common}{last}\nurl = {base}/echo/{round}\n"),
        ]
    };
    (0..rounds).flat_map(of_round).collect()
}

/// Makes these requests. With TLS one curl makes them, at most `at_once` at a time; in clear one after the other, each
/// with a curl of its own: curl 7.88 cannot use a connection of prior knowledge twice.
pub fn curl(
    scene: &Scene,
    target: &Target,
    requests: &[String],
    at_once: usize,
) -> Result<Command> {
    if target.scheme == "https" {
        let file = scene.folder().join("curl.conf");
        fs::write(&file, requests.join("next\n"))?;
        return curl_reading(&file, at_once);
    }
    let folder = scene.folder().join("requests");
    fs::create_dir_all(&folder)?;
    for (number, request) in requests.iter().enumerate() {
        fs::write(folder.join(format!("{number:04}")), request)?;
    }
    let curl = place::tool("curl").context("curl")?;
    let mut command = place::command("sh")?;
    command
        .args([
            "-ec",
            "for file in \"$2\"/*; do \"$1\" --config \"$file\"; done",
            "sh",
        ])
        .arg(curl)
        .arg(folder);
    Ok(command)
}

/// One curl that reads its configuration from a file, or at a gate.
pub fn curl_reading(file: &Path, at_once: usize) -> Result<Command> {
    let mut command = place::command("curl")?;
    command.arg("--no-progress-meter");
    if at_once > 1 {
        command.args(["--parallel", "--parallel-max", &at_once.to_string()]);
    }
    command.arg("--config").arg(file);
    Ok(command)
}

/// What curl printed.
pub fn curl_tally(log: &str, target: &Target) -> Tally {
    Tally::of_lines(&log.replace(&target.base(), ""))
}
