//! Every HTTPS client of the table: its spans equal the server's own access log.

use anyhow::{Context, Result, ensure};
use integration::nginx::Nginx;
use integration::scene::free_port;
use integration::server::Server;
use integration::tls::client::{CLIENTS, ClientKind, Gate, Way};
use integration::tls::coverage::{losses, must_be_lossless, wait_until_probed};
use integration::tls::{self, Certificate, server};
use integration::{Finished, Kind, Outcome, Process, Scene, Span, Tally, Trials, place, program};
use std::ffi::OsStr;
use std::time::Duration;

/// Longest run of a client.
const CLIENT_LIMIT: Duration = Duration::from_mins(1);

/// Requests of a long-lived client after its first.
const LATER: u64 = 60;

/// Clients that live for one request.
const SHORT_LIVED: u64 = 120;

pub(crate) fn register(trials: &mut Trials) {
    trials.subject("tls_clients");
    for kind in CLIENTS {
        let tools = [kind.tools, &["nginx"]].concat();
        trials.add(kind.name, &tools, |scene| standard(kind, scene));
    }
    trials.add("both_sides", &["python3"], both_sides);
    trials.add(
        "long_lived_from_its_start",
        &["busybox", "curl", "gcc", "nginx"],
        long_lived,
    );
    trials.add(
        "short_lived_from_their_start",
        &["busybox", "curl", "nginx"],
        short_lived,
    );
}

/// nginx with a certificate.
struct Target {
    nginx: Nginx,
    server: Server,
    certificate: Certificate,
}

impl Target {
    fn start(scene: &Scene) -> Result<Self> {
        let certificate = Certificate::new(scene)?;
        let nginx = Nginx::new(free_port()?).tls(&certificate);
        let server = server::start("nginx", nginx.command(scene)?, scene, nginx.port())?;
        Ok(Self {
            nginx,
            server,
            certificate,
        })
    }

    fn base(&self) -> String {
        format!("https://127.0.0.1:{}", self.nginx.port())
    }

    /// What it has answered.
    fn finish(self, scene: &Scene) -> Result<Tally> {
        self.server.finish()?;
        self.nginx.access_log(scene)
    }
}

fn standard(kind: &ClientKind, scene: &Scene) -> Result<()> {
    let target = Target::start(scene)?;
    let port = target.nginx.port();
    let gate = Gate::new(scene, "gate")?;
    let way = Way {
        base: target.base(),
        certificate: &target.certificate,
        gate: &gate,
    };
    let client = Process::start(kind.name, (kind.command)(&way)?, scene.folder())?;
    let agent = tls::watch(scene, &[client.pid()])?;
    wait_until_probed(&agent, &[client.pid()], kind.library)?;
    gate.open(&(kind.input)(&way))?;
    client.succeed(CLIENT_LIMIT)?;
    let finished = agent.finish()?;

    let logged = target.finish(scene)?;
    ensure!(
        logged.total() == kind.requests,
        "nginx served {} requests, not {}",
        logged.total(),
        kind.requests
    );
    finished.must_match(&logged, Kind::Client)?;
    ensure!(
        finished.spans.len() as u64 == logged.total(),
        "spans beyond the access log"
    );
    check_all(&finished, port)?;
    must_be_lossless(&finished.metrics)
}

fn check_all(finished: &Finished, port: u16) -> Result<()> {
    let own = finished
        .spans
        .iter()
        .filter(|span| span.kind == Kind::Client);
    own.into_iter()
        .try_for_each(|span| check(span, port).with_context(|| format!("{span:?}")))
}

/// What holds for every client span of HTTPS with a server of the trial.
fn check(span: &Span, port: u16) -> Result<()> {
    ensure!(span.text("url.scheme")? == "https", "url.scheme");
    let origin = format!("https://127.0.0.1:{port}/");
    ensure!(span.text("url.full")?.starts_with(&origin), "url.full");
    ensure!(
        span.text("network.peer.address")? == "127.0.0.1",
        "network.peer.address"
    );
    ensure!(
        span.integer("network.peer.port") == Some(i64::from(port)),
        "network.peer.port"
    );
    Ok(())
}

/// Server and client under one agent, both with TLS in memory: every exchange is a span of each.
fn both_sides(scene: &Scene) -> Result<()> {
    let certificate = Certificate::new(scene)?;
    let server = server::kind("aiohttp")?.start(scene, &certificate)?;
    let gate = Gate::new(scene, "gate")?;
    let way = Way {
        base: format!("https://127.0.0.1:{}", server.port),
        certificate: &certificate,
        gate: &gate,
    };
    let kind = CLIENTS
        .iter()
        .find(|kind| kind.name == "aiohttp")
        .context("a client")?;
    let client = Process::start(kind.name, (kind.command)(&way)?, scene.folder())?;
    let pids = [server.pid(), client.pid()];
    let agent = tls::watch(scene, &pids)?;
    wait_until_probed(&agent, &pids, kind.library)?;
    gate.open("")?;
    client.succeed(CLIENT_LIMIT)?;
    let finished = agent.finish()?;

    let asked = Tally::of_spans(&finished.spans, Kind::Client)?;
    ensure!(
        asked.total() == kind.requests && finished.spans.len() as u64 == 2 * kind.requests,
        "{} spans, {} of the client; it made {} requests",
        finished.spans.len(),
        asked.total(),
        kind.requests
    );
    finished.must_match(&asked, Kind::Server)?;
    check_all(&finished, server.port)?;
    must_be_lossless(&finished.metrics)
}

/// A shell that waits at a gate before it goes on with a script, in which `$1` and so on are `arguments`.
fn shell(scene: &Scene, script: &str, arguments: &[&OsStr], gate: &Gate) -> Result<Process> {
    let mut command = place::command("busybox")?;
    command
        .args(["sh", "-c"])
        .arg(format!("set -e; busybox cat \"$0\"; {script}"))
        .arg(gate.path())
        .args(arguments);
    Process::start("shell", command, scene.folder())
}

/// Fails unless what is seen is right, and every connection of which an exchange is missed is counted as encrypted; no
/// more than there are, each of which began before the library was probed.
fn must_be_told(
    finished: &Finished,
    logged: &Tally,
    port: u16,
    (missed, connections): (u64, u64),
) -> Result<()> {
    Tally::of_spans(&finished.spans, Kind::Client)?.must_be_within(logged)?;
    check_all(finished, port)?;
    let told = finished.metrics.sum("pilotfish_flows_encrypted_total")?;
    ensure!(
        (missed..=connections).contains(&told),
        "{missed} of {} missed, {told} of {connections} connections told; {:?}",
        logged.total(),
        losses(&finished.metrics)?
    );
    Ok(())
}

/// One client, started under observation, with many requests on one connection: at most the first is missed, and then
/// that is counted.
fn long_lived(scene: &Scene) -> Result<()> {
    let target = Target::start(scene)?;
    let (start, urls) = (Gate::new(scene, "start")?, Gate::new(scene, "urls")?);
    let program = program::c_linked("client_curl.c", &["libcurl.so.4"])?;
    let arguments = [
        program.as_os_str(),
        target.certificate.chain.as_os_str(),
        urls.path().as_os_str(),
    ];
    let client = shell(scene, r#"exec "$1" "$2" "$3""#, &arguments, &start)?;
    let agent = tls::watch(scene, &[client.pid()])?;
    start.open("")?;
    let mut urls = urls.hold()?;
    urls.hand(&format!("{}/items/first\n", target.base()))?;
    wait_until_probed(&agent, &[client.pid()], "openssl")?;
    for number in 0..LATER {
        urls.hand(&format!("{}/items/{number}\n", target.base()))?;
    }
    drop(urls);
    client.succeed(CLIENT_LIMIT)?;
    let finished = agent.finish()?;
    let port = target.nginx.port();
    let logged = target.finish(scene)?;

    ensure!(
        logged.total() == LATER + 1,
        "nginx served {}",
        logged.total()
    );
    let missed = logged.total() - finished.spans.len() as u64;
    let first = Outcome::new("GET", "/items/first", 200);
    let later = Tally::of_spans(&finished.spans, Kind::Client)?.without(&first);
    logged
        .without(&first)
        .must_equal(&later, "the access log", "spans")?;
    must_be_told(&finished, &logged, port, (missed, 1))
}

/// A process for each request: what is missed is counted.
fn short_lived(scene: &Scene) -> Result<()> {
    let target = Target::start(scene)?;
    let gate = Gate::new(scene, "gate")?;
    let script = format!(
        r#"i=0; while [ $i -lt {SHORT_LIVED} ]; do "$1" -sS --cacert "$2" -o /dev/null "$3/items/$i"; i=$((i+1)); done"#
    );
    let (curl, base) = (place::tool("curl").context("curl")?, target.base());
    let arguments = [
        curl.as_os_str(),
        target.certificate.chain.as_os_str(),
        base.as_ref(),
    ];
    let shell = shell(scene, &script, &arguments, &gate)?;
    let agent = tls::watch(scene, &[shell.pid()])?;
    gate.open("")?;
    shell.succeed(CLIENT_LIMIT)?;
    let finished = agent.finish()?;
    let port = target.nginx.port();
    let logged = target.finish(scene)?;

    ensure!(
        logged.total() == SHORT_LIVED,
        "nginx served {}",
        logged.total()
    );
    let missed = logged.total() - finished.spans.len() as u64;
    println!("of {SHORT_LIVED} first requests {missed} are missed");
    ensure!(missed < SHORT_LIVED, "none of them is seen");
    must_be_told(&finished, &logged, port, (missed, SHORT_LIVED))
}
