//! The server under load, and the load.

use crate::Bench;
use crate::interrupt::Doomed;
use crate::machine::Cores;
use anyhow::{Context, Result, ensure};
use integration::process::{Process, wait_for};
use integration::scene::free_port;
use integration::tls::Certificate;
use integration::tls::load::Connection;
use integration::usage;
use integration::{load, place};
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

const START_LIMIT: Duration = Duration::from_mins(1);
/// Longer than any load, shorter than anyone's patience.
const LOAD_LIMIT: Duration = Duration::from_mins(1);

/// Requests per second of a paced load: the rate of the memory budget.
const PACE: usize = 50_000;

/// nginx on the server's processor: one process, or many that share a port.
pub(crate) struct Web {
    _doomed: Doomed,
    process: Process,
    port: u16,
    scheme: &'static str,
}

/// How much a client asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Demand {
    /// As many small files as the server gives: it has more to do for them than the client.
    Files,
    /// As many responses from memory as the server gives: a request that is hardly more than its socket operations.
    Least,
    /// At most [`PACE`], over so many connections.
    Paced(usize),
}

impl Demand {
    fn connections(self) -> usize {
        match self {
            Self::Files | Self::Least => 64,
            Self::Paced(connections) => connections,
        }
    }

    fn path(self) -> &'static str {
        match self {
            Self::Files => "/small.html",
            Self::Least | Self::Paced(_) => "/least",
        }
    }

    /// What each connection waits before each request.
    fn pause_milliseconds(self) -> Option<usize> {
        match self {
            Self::Files | Self::Least => None,
            Self::Paced(connections) => Some(connections * 1000 / PACE),
        }
    }
}

/// What a load came to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    /// Completed requests.
    pub(crate) requests: f64,
    /// Requests per second by the client's clock.
    pub(crate) rate: f64,
    /// Processor seconds that the server spent on each second of the load.
    pub(crate) server_busy: f64,
}

impl Web {
    /// One process.
    pub(crate) fn one(bench: &Bench) -> Result<Self> {
        let port = free_port()?;
        let command = Cores::pinned(bench.cores.server, &nginx(bench, port, "")?);
        Self::wait(
            Process::start("nginx", command, bench.scene.folder())?,
            port,
        )
    }

    /// One process that serves HTTPS.
    pub(crate) fn tls(bench: &Bench, certificate: &Certificate) -> Result<Self> {
        let port = free_port()?;
        let (chain, key) = (certificate.chain.display(), certificate.key.display());
        let tls = format!(" ssl; ssl_certificate {chain}; ssl_certificate_key {key}");
        let command = Cores::pinned(bench.cores.server, &nginx(bench, port, &tls)?);
        let name = format!("nginx-{port}");
        let mut process = Process::start(&name, command, bench.scene.folder())?;
        let doomed = Doomed::new(process.pid());
        wait_for("the first answer of nginx", START_LIMIT, || {
            ensure!(process.is_running(), "nginx ended: {}", process.log_tail());
            let answer = Connection::open(port).and_then(|mut own| own.get("/least"));
            Ok(answer.ok().map(drop))
        })?;
        Ok(Self {
            _doomed: doomed,
            process,
            port,
            scheme: "https",
        })
    }

    /// `count` processes, children of one shell.
    pub(crate) fn many(bench: &Bench, count: usize) -> Result<Self> {
        let port = free_port()?;
        let mut shell = Command::new("sh");
        // As many files with process ids as processes: nginx insists on writing one, and on removing it.
        shell.arg("-c").arg(
            "count=$1; shift; for number in $(seq $count); do \
             setpriv --pdeathsig KILL -- \"$@\" -g \"pid $number.pid;\" & done; wait",
        );
        let server = nginx(bench, port, "")?;
        shell.args(["sh", &count.to_string()]);
        shell.arg(server.get_program()).args(server.get_args());
        let command = Cores::pinned(bench.cores.server, &shell);
        let web = Self::wait(
            Process::start("many-nginx", command, bench.scene.folder())?,
            port,
        )?;
        wait_for("the start of every nginx", START_LIMIT, || {
            let ready = web
                .children()?
                .into_iter()
                .filter(|&pid| listens(pid))
                .count();
            Ok((ready == count).then_some(()))
        })?;
        Ok(web)
    }

    fn wait(mut process: Process, port: u16) -> Result<Self> {
        let doomed = Doomed::new(process.pid());
        let url = format!("http://127.0.0.1:{port}/least");
        wait_for("the first answer of nginx", START_LIMIT, || {
            ensure!(process.is_running(), "nginx ended: {}", process.log_tail());
            Ok(matches!(load::fetch(&url), Ok((200, _))).then_some(()))
        })?;
        Ok(Self {
            _doomed: doomed,
            process,
            port,
            scheme: "http",
        })
    }

    /// The single process, or the parent of the many.
    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// The many.
    pub(crate) fn children(&self) -> Result<Vec<u32>> {
        let pid = self.pid();
        let path = format!("/proc/{pid}/task/{pid}/children");
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        text.split_whitespace()
            .map(|pid| {
                pid.parse()
                    .with_context(|| format!("not a process id in {path}"))
            })
            .collect()
    }

    /// Loads the server for so many seconds.
    pub(crate) fn load(&self, bench: &Bench, demand: Demand, seconds: u32) -> Result<Load> {
        let connections = demand.connections();
        let mut wrk = place::command("wrk")?;
        wrk.args(["--threads", "1", "--connections", &connections.to_string()])
            .args(["--duration", &format!("{seconds}s")])
            .arg(format!(
                "{}://127.0.0.1:{}{}",
                self.scheme,
                self.port,
                demand.path()
            ));
        if let Some(pause) = demand.pause_milliseconds() {
            wrk.arg("--script").arg(place::fixture("paced.lua"));
            wrk.args(["--", &pause.to_string()]);
        }
        let command = Cores::pinned(bench.cores.client, &wrk);
        let before = usage::cpu_seconds(self.pid())?;
        let client = Process::start("wrk", command, bench.scene.folder())?;
        let told = client.succeed(LOAD_LIMIT)?;
        let busy = usage::cpu_seconds(self.pid())? - before;
        let (requests, rate) = read_wrk(&told)?;
        Ok(Load {
            requests,
            rate,
            server_busy: busy * rate / requests,
        })
    }
}

/// The shell and `setpriv` have listened on nothing yet.
fn listens(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "nginx")
        && fs::read_dir(format!("/proc/{pid}/fd")).is_ok_and(|descriptors| {
            descriptors
                .flatten()
                .filter_map(|descriptor| fs::read_link(descriptor.path()).ok())
                .any(|target| {
                    target
                        .to_string_lossy()
                        .starts_with("anon_inode:[eventpoll]")
                })
        })
}

/// Its command line; `tls` are parameters of `listen` and directives after it.
fn nginx(bench: &Bench, port: u16, tls: &str) -> Result<Command> {
    let folder: PathBuf = bench.scene.folder().join(format!("saturated-{port}"));
    fs::create_dir_all(&folder)?;
    fs::write(
        folder.join("small.html"),
        "<p>a small file</p>\n".repeat(30),
    )?;
    let template = fs::read_to_string(place::fixture("saturated.conf"))?;
    let file = folder.join("nginx.conf");
    let configuration = template
        .replace("@FOLDER@", &folder.to_string_lossy())
        .replace("@PORT@", &port.to_string())
        .replace("@TLS@", tls);
    fs::write(&file, configuration)?;
    let mut command = place::command("nginx")?;
    command.arg("-p").arg(&folder).arg("-c").arg(&file);
    Ok(command)
}

/// Requests and requests per second, from what wrk prints.
fn read_wrk(told: &str) -> Result<(f64, f64)> {
    for trouble in ["Socket errors", "Non-2xx"] {
        ensure!(!told.contains(trouble), "the load was not clean:\n{told}");
    }
    let requests = told
        .lines()
        .find_map(|line| line.trim().split_once(" requests in "))
        .and_then(|(count, _)| count.parse().ok());
    let rate = told
        .lines()
        .find_map(|line| line.strip_prefix("Requests/sec:"))
        .and_then(|rate| rate.trim().parse().ok());
    requests
        .zip(rate)
        .filter(|&(requests, _): &(f64, f64)| requests > 0.0)
        .with_context(|| format!("wrk did not tell its count:\n{told}"))
}
