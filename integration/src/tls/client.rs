//! The table of HTTPS clients under test, each of which waits at a gate before its first request.

use super::certificate::Certificate;
use crate::client::{REQUESTS_PER_ROUND, ROUNDS};
use crate::place;
use crate::program::{self, GoBuild};
use crate::scene::Scene;
use anyhow::{Context, Result};
use nix::sys::stat::Mode;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A FIFO at which a process waits until it may go on.
#[derive(Debug)]
pub struct Gate(PathBuf);

/// A gate with somebody at it; it stays open until this is dropped.
#[derive(Debug)]
pub struct OpenGate(File);

impl OpenGate {
    /// Hands over some text.
    pub fn hand(&mut self, text: &str) -> Result<()> {
        self.0
            .write_all(text.as_bytes())
            .context("nobody is at the gate")
    }
}

impl Gate {
    /// A closed one in the trial's folder.
    pub fn new(scene: &Scene, name: &str) -> Result<Self> {
        let path = scene.folder().join(name);
        nix::unistd::mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR)?;
        Ok(Self(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Waits until the process is there, hands it `text` to read, and lets it go on.
    pub fn open(&self, text: &str) -> Result<()> {
        self.hold()?.hand(text)
    }

    /// Waits until the process is there, and lets it read what it is handed from now on.
    pub fn hold(&self) -> Result<OpenGate> {
        let file = File::options().write(true).open(&self.0);
        Ok(OpenGate(file.context("cannot open the gate")?))
    }
}

/// Where a client goes, and what it trusts.
#[derive(Debug)]
pub struct Way<'a> {
    /// Such as `https://127.0.0.1:4433`.
    pub base: String,
    /// The server's certificate.
    pub certificate: &'a Certificate,
    /// Where it waits.
    pub gate: &'a Gate,
}

/// One kind of client.
#[derive(Debug)]
pub struct ClientKind {
    /// Name of its trials.
    pub name: &'static str,
    /// Tools without which it cannot run.
    pub tools: &'static [&'static str],
    /// The kind of library that `/status` has to name.
    pub library: &'static str,
    /// Its command line.
    pub command: fn(&Way<'_>) -> Result<Command>,
    /// What it reads at the gate.
    pub input: fn(&Way<'_>) -> String,
    /// Requests that it makes.
    pub requests: u64,
}

/// Requests of the clients that make the common rounds.
const OF_ROUNDS: u64 = ROUNDS as u64 * REQUESTS_PER_ROUND;

/// Every client that the standard trial runs.
pub const CLIENTS: &[ClientKind] = &[
    ClientKind {
        name: "curl_openssl",
        tools: &["curl"],
        library: "openssl",
        command: curl,
        input: curl_configuration,
        requests: OF_ROUNDS,
    },
    ClientKind {
        name: "curl_gnutls",
        tools: &["gcc"],
        library: "gnutls",
        command: curl_gnutls,
        input: targets,
        requests: 3 * ROUNDS as u64,
    },
    ClientKind {
        name: "wget_gnutls",
        tools: &["wget"],
        library: "gnutls",
        command: wget,
        input: targets,
        requests: 3 * ROUNDS as u64,
    },
    ClientKind {
        name: "python_requests",
        tools: &["python3"],
        library: "openssl",
        command: |way| scripted("python3", "client.py", way, true),
        input: nothing,
        requests: OF_ROUNDS,
    },
    ClientKind {
        name: "aiohttp",
        tools: &["python3"],
        library: "openssl",
        command: |way| scripted("python3", "client_aiohttp.py", way, true),
        input: nothing,
        requests: OF_ROUNDS,
    },
    ClientKind {
        name: "node_fetch",
        tools: &["node"],
        library: "openssl",
        command: |way| scripted("node", "client.js", way, false),
        input: nothing,
        requests: OF_ROUNDS,
    },
    ClientKind {
        name: "go",
        tools: &["go"],
        library: "go",
        command: |way| go(false, false, way),
        input: nothing,
        requests: OF_ROUNDS,
    },
    ClientKind {
        name: "go_stripped",
        tools: &["go"],
        library: "go",
        command: |way| go(true, false, way),
        input: nothing,
        requests: OF_ROUNDS,
    },
    ClientKind {
        name: "go_pie",
        tools: &["go"],
        library: "go",
        command: |way| go(false, true, way),
        input: nothing,
        requests: OF_ROUNDS,
    },
    ClientKind {
        name: "go_stripped_pie",
        tools: &["go"],
        library: "go",
        command: |way| go(true, true, way),
        input: nothing,
        requests: OF_ROUNDS,
    },
    ClientKind {
        name: "rustls",
        tools: &[],
        library: "rustls",
        command: rustls,
        input: targets,
        requests: 3 * ROUNDS as u64,
    },
];

fn nothing(_: &Way<'_>) -> String {
    String::new()
}

/// URLs, one in a line: three for each round.
fn targets(way: &Way<'_>) -> String {
    let base = &way.base;
    let of_round = |round| format!("{base}/items/{round}\n{base}/small\n{base}/large\n");
    (0..ROUNDS).map(of_round).collect()
}

/// One curl that makes all requests of the rounds; it reads its options at the gate.
fn curl(way: &Way<'_>) -> Result<Command> {
    let mut command = place::command("curl")?;
    command.arg("--config").arg(way.gate.path());
    Ok(command)
}

fn curl_configuration(way: &Way<'_>) -> String {
    let base = &way.base;
    let common = format!(
        "silent\nshow-error\noutput = /dev/null\ncacert = {}",
        way.certificate.chain.display()
    );
    let of_round = |round: usize| {
        [
            format!("{common}\nurl = {base}/items/{round}\n"),
            format!("{common}\nhead\nurl = {base}/small\n"),
            format!("{common}\nurl = {base}/missing/{round}\n"),
            format!("{common}\ndata = a=b\nurl = {base}/echo\n"),
            format!("{common}\nurl = {base}/large\n"),
        ]
    };
    let requests: Vec<String> = (0..ROUNDS).flat_map(of_round).collect();
    requests.join("next\n")
}

fn curl_gnutls(way: &Way<'_>) -> Result<Command> {
    let program = program::c_linked("client_curl.c", &["libcurl-gnutls.so.4"])?;
    let mut command = Command::new(program);
    command.arg(&way.certificate.chain).arg(way.gate.path());
    Ok(command)
}

fn rustls(way: &Way<'_>) -> Result<Command> {
    let mut command = Command::new(program::rust("rustls_client")?);
    command.arg(way.gate.path());
    Ok(command)
}

/// GNU Wget, which Debian builds with `GnuTLS`.
fn wget(way: &Way<'_>) -> Result<Command> {
    let mut command = place::command("wget")?;
    command
        .args([
            "--no-config",
            "--no-verbose",
            "--no-hsts",
            "--output-document=/dev/null",
        ])
        .arg("--ca-certificate")
        .arg(&way.certificate.chain)
        .arg("--input-file")
        .arg(way.gate.path());
    Ok(command)
}

fn scripted(
    interpreter: &str,
    script: &str,
    way: &Way<'_>,
    takes_certificate: bool,
) -> Result<Command> {
    let mut command = place::command(interpreter)?;
    command
        .arg(place::fixture(script))
        .arg(&way.base)
        .arg(ROUNDS.to_string())
        .env("NODE_EXTRA_CA_CERTS", &way.certificate.chain)
        .env("PYTHONDONTWRITEBYTECODE", "1");
    if takes_certificate {
        command.arg(&way.certificate.chain);
    }
    command.arg(way.gate.path());
    Ok(command)
}

fn go(stripped: bool, pie: bool, way: &Way<'_>) -> Result<Command> {
    let mut command = Command::new(program::go_as("client.go", GoBuild { stripped, pie })?);
    command
        .arg(&way.base)
        .arg(ROUNDS.to_string())
        .arg(way.gate.path())
        .env("SSL_CERT_FILE", &way.certificate.chain);
    Ok(command)
}
