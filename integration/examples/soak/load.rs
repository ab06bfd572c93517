//! The clients, each of which knows how many of its requests were answered.

use crate::servers::Served;
use anyhow::{Context, Result, anyhow, ensure};
use integration::process::Process;
use integration::tls::Certificate;
use integration::tls::load::Connection;
use integration::{Scene, place};
use std::collections::BTreeMap;
use std::fmt;
use std::io::Write;
use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// A round of wrk: its connections ask for so many seconds and are silent for some more.
const ROUND: u64 = 20;
const SILENT: u64 = 3;
const ROUND_LIMIT: Duration = Duration::from_mins(1);
/// Between the connections that come and go.
const BETWEEN: Duration = Duration::from_millis(20);
const END_LIMIT: Duration = Duration::from_secs(20);

/// What the clients did.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    /// Answered requests by the server's port.
    pub(crate) answered: BTreeMap<u16, u64>,
    /// Of these, requests on a connection of their own.
    short: u64,
    /// Connections that were given up before or within the handshake.
    pub(crate) broken: u64,
}

impl Tally {
    /// Adds answers of a server.
    fn add(&mut self, port: u16, count: u64) {
        *self.answered.entry(port).or_default() += count;
    }

    /// Adds others.
    pub(crate) fn merge(&mut self, other: Self) {
        for (port, count) in other.answered {
            self.add(port, count);
        }
        self.short += other.short;
        self.broken += other.broken;
    }

    /// All answers.
    pub(crate) fn total(&self) -> u64 {
        self.answered.values().sum()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{} requests, {} of them on connections of their own; {} connections broken off",
            self.total(),
            self.short,
            self.broken
        )
    }
}

/// Loads all servers until `end`, or until `stop` is set.
pub(crate) fn run(
    scene: &Scene,
    servers: &[Served],
    end: Instant,
    stop: &AtomicBool,
) -> Result<Tally> {
    let ended = || stop.load(Ordering::Relaxed) || Instant::now() >= end;
    std::thread::scope(|scope| {
        let mut threads = Vec::new();
        for served in servers {
            threads.push(scope.spawn(move || keep_asking(scene, served, ended)));
        }
        threads.push(scope.spawn(move || come_and_go(servers, ended)));
        threads.push(scope.spawn(move || break_off(servers, ended)));
        let mut tally = Tally::default();
        for thread in threads {
            let client = thread.join().map_err(|_| anyhow!("a client panicked"))?;
            tally.merge(client?);
        }
        Ok(tally)
    })
}

/// wrk, round after round, with new connections for each.
fn keep_asking(scene: &Scene, served: &Served, ended: impl Fn() -> bool) -> Result<Tally> {
    let mut tally = Tally::default();
    while !ended() {
        let mut wrk = place::command("wrk")?;
        wrk.args(["--threads", "1"])
            .args(["--connections", &served.connections.to_string()])
            .args(["--duration", &format!("{}s", ROUND + SILENT)])
            .arg("--script")
            .arg(place::fixture("soak.lua"))
            .arg(format!("https://127.0.0.1:{}", served.server.port))
            .args(["--", &served.pause.to_string(), &ROUND.to_string()]);
        let name = format!("wrk-{}", served.name);
        let told = Process::start(&name, wrk, scene.folder())?.succeed(ROUND_LIMIT)?;
        let count = completed(&told)
            .with_context(|| format!("the load of {} was not clean:\n{told}", served.name))?;
        tally.add(served.server.port, count);
    }
    Ok(tally)
}

/// The requests of a round in which no connection broke.
fn completed(told: &str) -> Option<u64> {
    let line = told
        .lines()
        .find_map(|line| line.strip_prefix("completed "))?;
    let (completed, broken) = line.split_once(" broken ")?;
    (broken == "0").then(|| completed.parse().ok())?
}

/// A handshake for each request.
fn come_and_go(servers: &[Served], ended: impl Fn() -> bool) -> Result<Tally> {
    let mut tally = Tally::default();
    for served in servers.iter().cycle() {
        if ended() {
            break;
        }
        let mut connection = Connection::open(served.server.port)?;
        connection
            .get("/items/7")
            .with_context(|| format!("a short connection to {}", served.name))?;
        tally.add(served.server.port, 1);
        tally.short += 1;
        sleep(BETWEEN);
    }
    Ok(tally)
}

/// Connections that end before a handshake begins, or in the middle of the client's first record.
fn break_off(servers: &[Served], ended: impl Fn() -> bool) -> Result<Tally> {
    // A TLS 1.0 record header (RFC 8446, 5.1) of a handshake message of 512 bytes, of which 32 follow.
    let mut begun = vec![22, 3, 1, 2, 0];
    begun.resize(5 + 32, 0);
    let mut tally = Tally::default();
    for served in servers.iter().cycle() {
        if ended() {
            break;
        }
        let connect = || TcpStream::connect((Ipv4Addr::LOCALHOST, served.server.port));
        drop(connect()?);
        connect()?.write_all(&begun)?;
        tally.broken += 2;
        sleep(BETWEEN);
    }
    Ok(tally)
}

/// Observed clients that live for one request: a shell that runs one curl after the other.
#[derive(Debug)]
pub(crate) struct Curls {
    process: Process,
    running: PathBuf,
}

impl Curls {
    /// Starts the shell, which waits for [`Curls::begin`].
    pub(crate) fn start(
        scene: &Scene,
        certificate: &Certificate,
        servers: &[Served],
    ) -> Result<Self> {
        let running = scene.folder().join("running");
        let mut shell = Command::new("sh");
        shell
            .arg(place::fixture("soak_client.sh"))
            .arg(&running)
            .arg(&certificate.chain);
        for served in servers {
            shell.arg(format!("https://127.0.0.1:{}/items/8", served.server.port));
        }
        let process = Process::start("curls", shell, scene.folder())?;
        Ok(Self { process, running })
    }

    /// Process id of the shell.
    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Has it begin.
    pub(crate) fn begin(&self) -> Result<()> {
        std::fs::write(&self.running, "").context("cannot start the clients")
    }

    /// Has it end, and gives back its answers.
    pub(crate) fn end(&mut self) -> Result<Tally> {
        std::fs::remove_file(&self.running).context("cannot end the clients")?;
        let status = self.process.wait(END_LIMIT)?;
        ensure!(status.success(), "the clients ended with {status}");
        let mut tally = Tally::default();
        for line in self.process.log().lines() {
            let port = line
                .strip_prefix("https://127.0.0.1:")
                .and_then(|rest| rest.split('/').next()?.parse().ok())
                .with_context(|| format!("a client complained: {line}"))?;
            tally.add(port, 1);
            tally.short += 1;
        }
        Ok(tally)
    }
}
