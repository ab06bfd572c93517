//! The table of HTTP/2 servers under test.

use crate::nginx::Nginx;
use crate::place;
use crate::process::{Process, wait_for};
use crate::program;
use crate::scene::{Scene, free_port};
use crate::server::Server;
use crate::tls::{self, Certificate};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::process::Command;
use std::time::Duration;

/// Longest time until a server listens.
const START_LIMIT: Duration = Duration::from_secs(30);

/// Files of nghttpd that are called `/items/N`.
const ITEMS: usize = 1000;

/// What a server can answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Routes {
    /// Every route of [`crate::load`].
    All,
    /// 200 and 404 to GET.
    Files,
}

/// One kind of server.
#[derive(Debug)]
pub struct ServerKind {
    /// Name of its trials.
    pub name: &'static str,
    /// Tools without which it cannot run.
    pub tools: &'static [&'static str],
    /// The kind of TLS library that `/status` has to name; none for one that is spoken to in clear, by prior knowledge.
    pub library: Option<&'static str>,
    /// What it answers.
    pub routes: Routes,
    /// Its command line for a port on 127.0.0.1.
    command: fn(&Scene, u16, &Certificate) -> Result<Command>,
}

/// Every server that the standard trials run against.
pub const SERVERS: &[ServerKind] = &[
    ServerKind {
        name: "nginx",
        tools: &["nginx"],
        library: None,
        routes: Routes::All,
        command: |scene, port, _| Nginx::new(port).http2().command(scene),
    },
    ServerKind {
        name: "nginx_tls",
        tools: &["nginx"],
        library: Some("openssl"),
        routes: Routes::All,
        command: |scene, port, certificate| {
            Nginx::new(port).http2().tls(certificate).command(scene)
        },
    },
    ServerKind {
        name: "nghttpd",
        tools: &["nghttpd"],
        library: None,
        routes: Routes::Files,
        command: nghttpd,
    },
    ServerKind {
        name: "node",
        tools: &["node"],
        library: None,
        routes: Routes::All,
        command: |_, port, _| {
            let mut command = place::command("node")?;
            command
                .arg(place::fixture("server.js"))
                .arg(port.to_string())
                .env("HTTP2", "1");
            Ok(command)
        },
    },
    ServerKind {
        name: "node_tls",
        tools: &["node"],
        library: Some("openssl"),
        routes: Routes::All,
        command: |_, port, certificate| {
            let mut command = tls::server::scripted("node", "server.js", port, certificate)?;
            command.env("HTTP2", "1");
            Ok(command)
        },
    },
    ServerKind {
        name: "go_tls",
        tools: &["go"],
        library: Some("go"),
        routes: Routes::All,
        command: |_, port, certificate| {
            let mut command = Command::new(program::go("server.go")?);
            command
                .arg(port.to_string())
                .arg(&certificate.chain)
                .arg(&certificate.key);
            Ok(command)
        },
    },
];

/// The row with this name.
pub fn kind(name: &str) -> Result<&'static ServerKind> {
    SERVERS
        .iter()
        .find(|kind| kind.name == name)
        .with_context(|| format!("no HTTP/2 server called {name} in the table"))
}

/// A server that listens.
#[derive(Debug)]
pub struct Target {
    /// The server itself.
    pub server: Server,
    /// `http` or `https`.
    pub scheme: &'static str,
    /// What it shows.
    pub certificate: Certificate,
}

impl Target {
    /// Such as `https://127.0.0.1:4433`.
    pub fn base(&self) -> String {
        format!("{}://127.0.0.1:{}", self.scheme, self.server.port)
    }
}

impl ServerKind {
    /// Starts the server and waits until it listens, or for its first answer over HTTP/1.1 with TLS.
    pub fn start(&self, scene: &Scene) -> Result<Target> {
        let certificate = Certificate::new(scene)?;
        let port = free_port()?;
        let command = (self.command)(scene, port, &certificate)?;
        let (server, scheme) = if self.library.is_some() {
            (
                tls::server::start(self.name, command, scene, port)?,
                "https",
            )
        } else {
            (listening(self.name, command, scene, port)?, "http")
        };
        Ok(Target {
            server,
            scheme,
            certificate,
        })
    }
}

/// Starts a command and waits until something listens at its port; no request is made.
pub fn listening(name: &str, command: Command, scene: &Scene, port: u16) -> Result<Server> {
    let mut process = Process::start(&format!("{name}-{port}"), command, scene.folder())?;
    wait_for("that the server listens", START_LIMIT, || {
        ensure!(process.is_running(), "it ended:\n{}", process.log_tail());
        let connected = TcpStream::connect((Ipv4Addr::LOCALHOST, port));
        Ok(connected.ok().map(drop))
    })?;
    Ok(Server { process, port })
}

/// nginx that serves HTTP/2 in clear.
pub fn start_nginx(nginx: &Nginx, scene: &Scene) -> Result<Target> {
    Ok(Target {
        server: listening("nginx", nginx.command(scene)?, scene, nginx.port())?,
        scheme: "http",
        certificate: Certificate::new(scene)?,
    })
}

/// nghttpd with padded frames and a trailer: what other servers do not send.
fn nghttpd(scene: &Scene, port: u16, _: &Certificate) -> Result<Command> {
    let root = scene.folder().join(format!("nghttpd-{port}"));
    let items = root.join("items");
    fs::create_dir_all(&items).with_context(|| format!("cannot create {}", items.display()))?;
    for number in 0..ITEMS {
        fs::write(items.join(number.to_string()), "item\n")?;
    }
    fs::write(root.join("small"), "a small file\n")?;
    fs::write(root.join("large"), vec![b'L'; 1 << 20])?;
    let mut command = place::command("nghttpd")?;
    command
        .args(["--no-tls", "--address=127.0.0.1", "--padding=64"])
        .args(["--trailer", "checked: yes", "--htdocs"])
        .arg(&root)
        .arg(port.to_string());
    Ok(command)
}
