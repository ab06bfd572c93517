//! The table of HTTPS servers under test.

use super::certificate::Certificate;
use super::load::Connection;
use crate::nginx::Nginx;
use crate::place;
use crate::process::{Process, wait_for};
use crate::program::{self, GoBuild};
use crate::scene::{Scene, free_port};
use crate::server::{PROBE, Server};
use anyhow::{Context, Result, ensure};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Longest time from start to the first answer.
const START_LIMIT: Duration = Duration::from_secs(30);

/// One kind of server.
#[derive(Debug)]
pub struct ServerKind {
    /// Name of its trials.
    pub name: &'static str,
    /// Tools without which it cannot run.
    pub tools: &'static [&'static str],
    /// The kind of library that `/status` has to name.
    pub library: &'static str,
    /// Its command line for a port on 127.0.0.1.
    pub command: fn(&Scene, u16, &Certificate) -> Result<Command>,
}

/// Every server that the standard trial runs against.
pub const SERVERS: &[ServerKind] = &[
    ServerKind {
        name: "nginx",
        tools: &["nginx"],
        library: "openssl",
        command: |scene, port, certificate| Nginx::new(port).tls(certificate).command(scene),
    },
    ServerKind {
        name: "python_http_server",
        tools: &["python3"],
        library: "openssl",
        command: |_, port, certificate| scripted("python3", "server.py", port, certificate),
    },
    ServerKind {
        name: "aiohttp",
        tools: &["python3"],
        library: "openssl",
        command: |_, port, certificate| scripted("python3", "server_aiohttp.py", port, certificate),
    },
    ServerKind {
        name: "node",
        tools: &["node"],
        library: "openssl",
        command: |_, port, certificate| scripted("node", "server.js", port, certificate),
    },
    ServerKind {
        name: "go",
        tools: &["go"],
        library: "go",
        command: |_, port, certificate| go(false, false, port, certificate),
    },
    ServerKind {
        name: "go_stripped",
        tools: &["go"],
        library: "go",
        command: |_, port, certificate| go(true, false, port, certificate),
    },
    ServerKind {
        name: "go_pie",
        tools: &["go"],
        library: "go",
        command: |_, port, certificate| go(false, true, port, certificate),
    },
    ServerKind {
        name: "go_stripped_pie",
        tools: &["go"],
        library: "go",
        command: |_, port, certificate| go(true, true, port, certificate),
    },
    ServerKind {
        name: "rustls",
        tools: &[],
        library: "rustls",
        command: |_, port, certificate| rustls(["THREADS", "1.3", "2"], port, certificate),
    },
    ServerKind {
        name: "rustls_tls12",
        tools: &[],
        library: "rustls",
        command: |_, port, certificate| rustls(["THREADS", "1.2", "0"], port, certificate),
    },
    ServerKind {
        name: "rustls_tokio",
        tools: &[],
        library: "rustls",
        command: |_, port, certificate| rustls(["TASKS", "1.3", "2"], port, certificate),
    },
    ServerKind {
        name: "rustls_tokio_without_tickets",
        tools: &[],
        library: "rustls",
        command: |_, port, certificate| rustls(["TASKS", "1.3", "0"], port, certificate),
    },
];

/// The row with this name.
pub fn kind(name: &str) -> Result<&'static ServerKind> {
    SERVERS
        .iter()
        .find(|kind| kind.name == name)
        .with_context(|| format!("no HTTPS server called {name} in the table"))
}

impl ServerKind {
    /// Starts the server and waits for its first answer.
    pub fn start(&self, scene: &Scene, certificate: &Certificate) -> Result<Server> {
        let port = free_port()?;
        let command = (self.command)(scene, port, certificate)?;
        start(self.name, command, scene, port)
    }
}

/// Starts a command that serves HTTPS at `port` and waits for its first answer.
pub fn start(name: &str, command: Command, scene: &Scene, port: u16) -> Result<Server> {
    let mut process = Process::start(&format!("{name}-{port}"), command, scene.folder())?;
    wait_until_answers(port, || process.is_running())
        .with_context(|| format!("{name} logged:\n{}", process.log_tail()))?;
    Ok(Server { process, port })
}

/// Waits for the first 200 to [`PROBE`] on a port, while `alive` holds.
pub fn wait_until_answers(port: u16, mut alive: impl FnMut() -> bool) -> Result<()> {
    wait_for("the server's first answer", START_LIMIT, || {
        ensure!(alive(), "the server ended during its start");
        let answer = Connection::open(port).and_then(|mut connection| connection.get(PROBE));
        Ok(answer.ok().map(drop))
    })
}

/// A script's command line: port, certificate, key.
pub fn scripted(
    interpreter: &str,
    script: &str,
    port: u16,
    certificate: &Certificate,
) -> Result<Command> {
    let mut command = place::command(interpreter)?;
    command
        .arg(place::fixture(script))
        .arg(port.to_string())
        .arg(&certificate.chain)
        .arg(&certificate.key)
        .env("PYTHONDONTWRITEBYTECODE", "1");
    Ok(command)
}

/// The server of this package: how it serves, TLS version, tickets after a handshake.
fn rustls(how: [&str; 3], port: u16, certificate: &Certificate) -> Result<Command> {
    Ok(rustls_in(
        &program::rust("rustls_server")?,
        how,
        port,
        certificate,
    ))
}

/// The same out of another file.
pub fn rustls_in(program: &Path, how: [&str; 3], port: u16, certificate: &Certificate) -> Command {
    let mut command = Command::new(program);
    command
        .args(how)
        .arg(port.to_string())
        .arg(&certificate.chain)
        .arg(&certificate.key);
    command
}

fn go(stripped: bool, pie: bool, port: u16, certificate: &Certificate) -> Result<Command> {
    let program = program::go_as("server.go", GoBuild { stripped, pie })?;
    let mut command = Command::new(program);
    command
        .arg(port.to_string())
        .arg(&certificate.chain)
        .arg(&certificate.key);
    Ok(command)
}
