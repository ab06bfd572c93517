//! Every server of the table under keep-alive load: spans and client agree on every single exchange.

use anyhow::{Context, Result, ensure};
use integration::nginx::Nginx;
use integration::process::Process;
use integration::scene::free_port;
use integration::server::{SERVERS, Server, ServerKind};
use integration::span::with_path;
use integration::{Agent, Kind, Scene, Span, Trials, load, place};
use std::time::Duration;

/// Largest of the fixtures' bodies.
const LARGE: i64 = 1 << 20;

pub(crate) fn register(trials: &mut Trials) {
    trials.subject("servers");
    for kind in SERVERS {
        trials.add(kind.name, kind.tools, |scene| standard(kind, scene));
    }
    trials.add("nginx_under_wrk", &["nginx", "wrk"], nginx_under_wrk);
}

fn standard(kind: &ServerKind, scene: &Scene) -> Result<()> {
    let server = kind.start(scene)?;
    let agent = Agent::watch(scene, &[server.pid()])?;
    let tally = load::run(server.port, &load::mix(4, 15))?;
    let finished = agent.finish()?;

    finished.must_match(&tally, Kind::Server)?;
    ensure!(
        finished.spans.len() as u64 == tally.total(),
        "spans beyond the client's tally"
    );
    for class in [2, 4, 5] {
        ensure!(tally.of_class(class) > 0, "the mix has no status {class}xx");
    }
    for span in &finished.spans {
        check_attributes(span, server.port).with_context(|| format!("{span:?}"))?;
    }
    let counted = finished
        .metrics
        .sum("http_server_request_duration_seconds_count")?;
    ensure!(
        counted == tally.total(),
        "the duration histogram counted {counted} of {} exchanges",
        tally.total()
    );
    check_body_sizes(&finished.spans)
}

/// What only a server span of our own client carries.
fn check_attributes(span: &Span, port: u16) -> Result<()> {
    ensure!(
        span.integer("server.port") == Some(i64::from(port)),
        "server.port"
    );
    ensure!(
        span.text("client.address")? == "127.0.0.1",
        "client.address"
    );
    ensure!(
        span.integer("client.port").is_some_and(|port| port > 0),
        "client.port"
    );
    ensure!(
        span.text("user_agent.original")? == "pilotfish-integration/1",
        "user_agent.original"
    );
    ensure!(span.parent_span_id.is_none(), "a parent that nobody named");
    let values = serde_json::to_string(&span.attributes)?;
    ensure!(!values.contains("secret"), "a query value left the process");
    Ok(())
}

/// Sizes are right or absent. Absent is allowed for uploads: their end may be chunk framing beyond the captured
/// bytes, and a server may answer before it has read the whole body.
fn check_body_sizes(spans: &[Span]) -> Result<()> {
    for span in with_path(spans, Kind::Server, "/large") {
        let size = span.integer("http.response.body.size");
        ensure!(size == Some(LARGE), "size of the large response: {span:?}");
    }
    let mut known = 0;
    for span in with_path(spans, Kind::Server, "/echo/") {
        let expected = match span.path().split('/').nth(2) {
            Some("more") => 30_000,
            Some("most") => LARGE,
            Some("chunked") => 10_000,
            _ => 5,
        };
        if let Some(size) = span.integer("http.request.body.size") {
            ensure!(size == expected, "size of an upload: {span:?}");
            known += 1;
        }
    }
    ensure!(known > 0, "no upload has a size");
    Ok(())
}

/// wrk cuts off what is in flight when its time is over and does not count it; nginx's access log knows those too.
fn nginx_under_wrk(scene: &Scene) -> Result<()> {
    let nginx = Nginx::new(free_port()?);
    let port = nginx.port();
    let server = Server::start("nginx", nginx.command(scene)?, scene, port)?;
    let agent = Agent::watch(scene, &[server.pid()])?;
    let mut wrk = place::command("wrk")?;
    wrk.args(["-t2", "-c8", "-d2s", "-s"])
        .arg(place::fixture("load.lua"))
        .arg(format!("http://127.0.0.1:{port}"));
    let report = Process::start("wrk", wrk, scene.folder())?.succeed(Duration::from_secs(30))?;
    let finished = agent.finish()?;
    server.finish()?;

    let logged = nginx.access_log(scene)?;
    let completed: u64 = report
        .lines()
        .find_map(|line| line.strip_prefix("completed "))
        .context("wrk's tally")?
        .trim()
        .parse()?;
    ensure!(completed > 100, "wrk completed only {completed} requests");
    ensure!(
        logged.total() >= completed && logged.total() <= completed + 8,
        "nginx served {}, wrk completed {completed}",
        logged.total()
    );
    finished.must_match(&logged, Kind::Server)
}
