//! A proxy and the application behind it in one scope: parents are right, or absent, never guessed.

use anyhow::{Context, Result, ensure};
use integration::nginx::Nginx;
use integration::process::wait_for;
use integration::scene::free_port;
use integration::server::{self, Server, gunicorn_bound};
use integration::span::with_path;
use integration::tally::Outcome;
use integration::wire::Wire;
use integration::{Agent, Kind, Process, Scene, Span, Tally, Trials, load};
use std::collections::BTreeMap;
use std::time::Duration;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

pub(crate) fn register(trials: &mut Trials) {
    trials.subject("proxy");
    trials.add(
        "one_trace_without_a_header",
        &["nginx", "gunicorn"],
        linked_without_header,
    );
    trials.add(
        "traceparent_is_honoured",
        &["nginx", "gunicorn"],
        traceparent_is_honoured,
    );
    trials.add(
        "bad_traceparent_starts_a_new_trace",
        &["nginx", "gunicorn"],
        bad_traceparent,
    );
    trials.add(
        "no_wrong_parent_under_concurrency",
        &["nginx", "gunicorn"],
        no_wrong_parent,
    );
    trials.add(
        "unix_socket_upstream",
        &["nginx", "gunicorn"],
        unix_upstream,
    );
}

struct Chain {
    nginx: Server,
    app: Process,
}

impl Chain {
    /// One nginx worker in front of two gunicorn workers with four threads each.
    fn over_tcp(scene: &Scene) -> Result<Self> {
        let port = free_port()?;
        Self::start(scene, &format!("127.0.0.1:{port}"), || Wire::connect(port))
    }

    fn over_unix(scene: &Scene) -> Result<Self> {
        let path = scene.folder().join("app.sock");
        Self::start(scene, &format!("unix:{}", path.display()), || {
            Wire::connect_unix(&path)
        })
    }

    /// nginx has no connection to the application yet: of one that is older than the agent the two ends are not
    /// known to belong together.
    fn start(scene: &Scene, address: &str, connect: impl Fn() -> Result<Wire>) -> Result<Self> {
        let app = Process::start(
            "gunicorn",
            gunicorn_bound(address, "gthread")?,
            scene.folder(),
        )?;
        let up = || {
            Ok(connect()
                .and_then(|mut wire| wire.ask(server::PROBE))
                .ok()
                .map(drop))
        };
        wait_for(
            "the application's first answer",
            Duration::from_secs(20),
            up,
        )?;
        let nginx = Nginx::new(free_port()?).workers(1).upstream(address);
        let nginx = Server::start("nginx", nginx.command(scene)?, scene, nginx.port())?;
        Ok(Self { nginx, app })
    }

    fn pids(&self) -> [u32; 2] {
        [self.nginx.pid(), self.app.pid()]
    }
}

/// The three spans of one request: nginx's server span, nginx's client span, the application's server span.
struct Hops<'a> {
    inbound: &'a Span,
    outbound: &'a Span,
    application: &'a Span,
}

/// nginx names its upstream in the `Host` header, so that tells the two servers apart.
const UPSTREAM: &str = "app";

fn hops<'a>(spans: &'a [Span], path: &str) -> Result<Hops<'a>> {
    let servers = with_path(spans, Kind::Server, path);
    let clients = with_path(spans, Kind::Client, path);
    ensure!(
        servers.len() == 2 && clients.len() == 1,
        "{path} has {} server and {} client spans",
        servers.len(),
        clients.len()
    );
    let is_behind = |span: &&Span| {
        span.text("server.address")
            .is_ok_and(|host| host == UPSTREAM)
    };
    let (behind, front): (Vec<&Span>, Vec<&Span>) = servers.into_iter().partition(is_behind);
    let inbound = front.first().context("no span of nginx")?;
    let application = behind.first().context("no span of the application")?;
    Ok(Hops {
        inbound,
        outbound: clients[0],
        application,
    })
}

fn paths(prefix: &str, count: usize) -> Vec<String> {
    // A path is the prefix of no other one.
    (0..count)
        .map(|number| format!("/app/{prefix}/n{number}n"))
        .collect()
}

fn linked_without_header(scene: &Scene) -> Result<()> {
    let chain = Chain::over_tcp(scene)?;
    let agent = Agent::watch(scene, &chain.pids())?;
    let mut wire = Wire::connect(chain.nginx.port)?;
    let paths = paths("items", 20);
    for path in &paths {
        ensure!(wire.ask(path)?.status == 200, "{path}");
    }
    let spans = agent.finish()?.spans;
    for path in &paths {
        let hops = hops(&spans, path)?;
        ensure!(
            hops.inbound.parent_span_id.is_none(),
            "nginx's server span is the root"
        );
        ensure!(
            hops.outbound.is_child_of(hops.inbound),
            "{path}: nginx's request belongs to the one it serves"
        );
        ensure!(
            hops.application.is_child_of(hops.outbound),
            "{path}: both ends of one connection are in scope"
        );
    }
    let traces: std::collections::BTreeSet<_> = spans.iter().map(|span| &span.trace_id).collect();
    ensure!(
        traces.len() == paths.len(),
        "{} traces of {} requests",
        traces.len(),
        paths.len()
    );
    Ok(())
}

fn traceparent_is_honoured(scene: &Scene) -> Result<()> {
    let chain = Chain::over_tcp(scene)?;
    let agent = Agent::watch(scene, &chain.pids())?;
    let mut wire = Wire::connect(chain.nginx.port)?;
    wire.send(format!(
        "GET /app/items/1 HTTP/1.1\r\nHost: a\r\ntraceparent: 00-{TRACE}-{CALLER}-01\r\n\r\n"
    ))?;
    ensure!(wire.response()?.status == 200, "the traced request");
    ensure!(
        wire.ask("/app/items/2")?.status == 200,
        "the request after it"
    );
    let spans = agent.finish()?.spans;
    let traced = hops(&spans, "/app/items/1")?;
    for span in [traced.inbound, traced.outbound, traced.application] {
        ensure!(span.trace_id == TRACE, "{span:?}");
    }
    ensure!(
        traced.inbound.parent_span_id.as_deref() == Some(CALLER),
        "the caller is the parent"
    );
    let next = hops(&spans, "/app/items/2")?;
    ensure!(
        next.inbound.trace_id != TRACE,
        "a context belongs to one exchange"
    );
    Ok(())
}

fn bad_traceparent(scene: &Scene) -> Result<()> {
    let chain = Chain::over_tcp(scene)?;
    let agent = Agent::watch(scene, &chain.pids())?;
    let mut wire = Wire::connect(chain.nginx.port)?;
    let zero_trace = "0".repeat(32);
    let bad = [
        format!("00-{zero_trace}-{CALLER}-01"),
        format!("00-{TRACE}-0000000000000000-01"),
        format!("ff-{TRACE}-{CALLER}-01"),
        format!("00-{}-{CALLER}-01", TRACE.to_uppercase()),
        format!("00-{TRACE}-{CALLER}"),
        "nonsense".to_owned(),
    ];
    for (number, value) in bad.iter().enumerate() {
        wire.send(format!(
            "GET /app/items/n{number}n HTTP/1.1\r\nHost: a\r\ntraceparent: {value}\r\n\r\n"
        ))?;
        ensure!(wire.response()?.status == 200, "request {number}");
    }
    let spans = agent.finish()?.spans;
    for (number, value) in bad.iter().enumerate() {
        let hops = hops(&spans, &format!("/app/items/n{number}n"))?;
        ensure!(
            hops.inbound.trace_id != TRACE && hops.inbound.parent_span_id.is_none(),
            "{value} was believed"
        );
    }
    Ok(())
}

/// nginx serves many requests on one thread at a time: a span may lack its parent but must not have another's.
fn no_wrong_parent(scene: &Scene) -> Result<()> {
    let chain = Chain::over_tcp(scene)?;
    let agent = Agent::watch(scene, &chain.pids())?;
    let connections = 6;
    let plan = (0..connections)
        .map(|connection| {
            paths(&format!("slow/c{connection}"), 3)
                .into_iter()
                .map(load::Ask::Get)
                .collect()
        })
        .collect();
    let tally = load::run(chain.nginx.port, &plan)?;
    let spans = agent.finish()?.spans;
    ensure!(
        spans.len() as u64 == 3 * tally.total(),
        "{} spans of {} requests",
        spans.len(),
        tally.total()
    );
    let by_id: BTreeMap<&str, &Span> = spans
        .iter()
        .map(|span| (span.span_id.as_str(), span))
        .collect();
    let mut linked = 0;
    for span in &spans {
        let Some(parent) = &span.parent_span_id else {
            continue;
        };
        let parent = by_id
            .get(parent.as_str())
            .with_context(|| format!("parent of {span:?} does not exist"))?;
        ensure!(
            parent.path() == span.path(),
            "a parent of another request: {span:?} under {parent:?}"
        );
        linked += 1;
    }
    ensure!(
        linked >= tally.total(),
        "only {linked} of {} spans have a parent",
        spans.len()
    );
    Ok(())
}

fn unix_upstream(scene: &Scene) -> Result<()> {
    let chain = Chain::over_unix(scene)?;
    let agent = Agent::watch(scene, &chain.pids())?;
    let mut wire = Wire::connect(chain.nginx.port)?;
    let mut asked = Tally::default();
    for path in paths("items", 20)
        .into_iter()
        .chain(paths("error", 5))
        .chain(paths("missing", 5))
    {
        asked.add(Outcome::new("GET", &path, wire.ask(&path)?.status));
    }
    let spans = agent.finish()?.spans;
    asked.must_equal(
        &Tally::of_spans(&spans, Kind::Client)?,
        "the client",
        "nginx's client spans",
    )?;
    let mut twice = asked.clone();
    twice.merge(asked);
    twice.must_equal(
        &Tally::of_spans(&spans, Kind::Server)?,
        "the client, twice",
        "server spans of nginx and the application",
    )
}
