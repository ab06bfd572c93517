//! The table of servers under test.

use crate::load;
use crate::nginx;
use crate::place;
use crate::process::{Process, wait_for};
use crate::program;
use crate::scene::{Scene, free_port};
use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use std::process::Command;
use std::time::Duration;

/// Longest time from start to the first answer; a virtual machine needs a while to start Java.
const START_LIMIT: Duration = Duration::from_secs(30);

/// Target of the request that tells whether a server is up; logs of servers are read without it.
pub const PROBE: &str = "/small?up";

/// One kind of server.
#[derive(Debug)]
pub struct ServerKind {
    /// Name of its trials.
    pub name: &'static str,
    /// Tools without which it cannot run.
    pub tools: &'static [&'static str],
    /// Its command line for a port on 127.0.0.1, compiling what has to be compiled.
    pub command: fn(&Scene, u16) -> Result<Command>,
}

/// Every server that the standard trials run against.
pub const SERVERS: &[ServerKind] = &[
    ServerKind {
        name: "nginx",
        tools: &["nginx"],
        command: |scene, port| nginx::Nginx::new(port).command(scene),
    },
    ServerKind {
        name: "python_http_server",
        tools: &["python3"],
        command: python,
    },
    ServerKind {
        name: "gunicorn_sync",
        tools: &["gunicorn"],
        command: |_, port| gunicorn(port, "sync"),
    },
    ServerKind {
        name: "gunicorn_threads",
        tools: &["gunicorn"],
        command: |_, port| gunicorn(port, "gthread"),
    },
    ServerKind {
        name: "node",
        tools: &["node"],
        command: |_, port| interpreted("node", "server.js", port),
    },
    ServerKind {
        name: "go",
        tools: &["go"],
        command: go,
    },
    ServerKind {
        name: "java",
        tools: &["java", "javac"],
        command: java,
    },
    ServerKind {
        name: "ruby",
        tools: &["ruby"],
        command: |_, port| interpreted("ruby", "server.rb", port),
    },
];

/// The row with this name.
pub fn kind(name: &str) -> Result<&'static ServerKind> {
    SERVERS
        .iter()
        .find(|kind| kind.name == name)
        .with_context(|| format!("no server called {name} in the table"))
}

/// A server that answers.
#[derive(Debug)]
pub struct Server {
    /// The process that was started; workers are its children.
    pub process: Process,
    /// Its port on 127.0.0.1.
    pub port: u16,
}

impl ServerKind {
    /// Starts the server and waits for its first answer.
    pub fn start(&self, scene: &Scene) -> Result<Server> {
        let port = free_port()?;
        Server::start(self.name, (self.command)(scene, port)?, scene, port)
    }
}

impl Server {
    /// Starts a command that serves `port` and waits for its first answer.
    pub fn start(name: &str, command: Command, scene: &Scene, port: u16) -> Result<Self> {
        let mut process = Process::start(&format!("{name}-{port}"), command, scene.folder())?;
        wait_until_answers(port, || process.is_running())
            .with_context(|| format!("{name} logged:\n{}", process.log_tail()))?;
        Ok(Self { process, port })
    }

    /// Process id of the (first) process.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Ends the server in an orderly way, so that its log is complete.
    pub fn finish(mut self) -> Result<()> {
        self.process
            .stop(Signal::SIGQUIT, Duration::from_secs(10))
            .map(drop)
    }
}

/// Waits for the first 200 to [`PROBE`] on a port, while `alive` holds.
pub fn wait_until_answers(port: u16, mut alive: impl FnMut() -> bool) -> Result<()> {
    wait_for("the server's first answer", START_LIMIT, || {
        anyhow::ensure!(alive(), "the server ended during its start");
        let answer = load::fetch(&format!("http://127.0.0.1:{port}{PROBE}"));
        Ok(matches!(answer, Ok((200, _))).then_some(()))
    })
}

fn interpreted(interpreter: &str, script: &str, port: u16) -> Result<Command> {
    let mut command = place::command(interpreter)?;
    command.arg(place::fixture(script)).arg(port.to_string());
    Ok(command)
}

fn python(_: &Scene, port: u16) -> Result<Command> {
    interpreted("python3", "server.py", port)
}

/// gunicorn with two prefork workers of a class, serving `fixtures/app.py`.
pub fn gunicorn(port: u16, worker_class: &str) -> Result<Command> {
    gunicorn_bound(&format!("127.0.0.1:{port}"), worker_class)
}

/// The same, bound to anything that gunicorn understands, such as `unix:/path`.
pub fn gunicorn_bound(bind: &str, worker_class: &str) -> Result<Command> {
    let mut command = place::command("gunicorn")?;
    command.args([
        "--bind",
        bind,
        "--workers",
        "2",
        "--worker-class",
        worker_class,
        "--threads",
        "4",
    ]);
    command
        .arg("--chdir")
        .arg(place::fixture(""))
        .arg("app:application")
        .env("PYTHONDONTWRITEBYTECODE", "1");
    Ok(command)
}

fn go(_: &Scene, port: u16) -> Result<Command> {
    let mut command = Command::new(program::go("server.go")?);
    command.arg(port.to_string());
    Ok(command)
}

fn java(_: &Scene, port: u16) -> Result<Command> {
    let classes = program::java("Server.java")?;
    let mut command = place::command("java")?;
    command
        .arg("-cp")
        .arg(classes)
        .arg("Server")
        .arg(port.to_string());
    Ok(command)
}
