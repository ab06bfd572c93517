//! Every client of the table in scope: its client spans equal the server's own access log.

use anyhow::{Context, Result, ensure};
use integration::agent::Setup;
use integration::client::{CLIENTS, ClientKind, REQUESTS_PER_ROUND, ROUNDS};
use integration::nginx::Nginx;
use integration::scene::free_port;
use integration::server::Server;
use integration::{Kind, Scene, Span, Tally, Trials, place};
use std::ffi::OsStr;
use std::time::Duration;

/// Longest run of a client.
const CLIENT_LIMIT: Duration = Duration::from_mins(1);

pub(crate) fn register(trials: &mut Trials) {
    trials.subject("clients");
    for kind in CLIENTS {
        let tools = [kind.tools, &["nginx"]].concat();
        trials.add(kind.name, &tools, |scene| standard(kind, scene));
    }
    trials.add("wrk", &["wrk", "nginx"], wrk);
}

fn standard(kind: &ClientKind, scene: &Scene) -> Result<()> {
    let nginx = Nginx::new(free_port()?);
    let server = Server::start("nginx", nginx.command(scene)?, scene, nginx.port())?;
    let command = (kind.command)(&format!("http://127.0.0.1:{}", nginx.port()))?;
    let (status, spans, log) = Setup::running(scene, &command)?.complete(CLIENT_LIMIT)?;
    server.finish()?;

    ensure!(
        status.success(),
        "the client's success is not the agent's: {status}; log:\n{log}"
    );
    let logged = nginx.access_log(scene)?;
    ensure!(
        logged.total() == ROUNDS as u64 * REQUESTS_PER_ROUND,
        "nginx served {} requests",
        logged.total()
    );
    logged.must_equal(
        &Tally::of_spans(&spans, Kind::Client)?,
        "the access log",
        "spans",
    )?;
    ensure!(
        spans.len() as u64 == logged.total(),
        "spans beyond the access log"
    );
    check_identity(&spans)?;
    spans.iter().try_for_each(|span| {
        check_attributes(span, nginx.port()).with_context(|| format!("{span:?}"))
    })
}

fn check_attributes(span: &Span, port: u16) -> Result<()> {
    ensure!(
        span.text("server.address")? == "127.0.0.1",
        "server.address"
    );
    ensure!(
        span.integer("server.port") == Some(i64::from(port)),
        "server.port"
    );
    let origin = format!("http://127.0.0.1:{port}/");
    ensure!(span.text("url.full")?.starts_with(&origin), "url.full");
    Ok(())
}

/// The service is what the command executed, not the agent that started it.
fn check_identity(spans: &[Span]) -> Result<()> {
    let agent = place::agent_binary()?;
    let agent = agent
        .file_name()
        .and_then(OsStr::to_str)
        .context("a name")?;
    for span in spans {
        for key in ["service.name", "process.executable.name"] {
            ensure!(
                span.resource.get(key).is_none_or(|name| name != agent),
                "{key} is the agent's: {span:?}"
            );
        }
    }
    Ok(())
}

/// Responses that wrk took are spans with a status; what its end cut off has none, at most one per connection.
fn wrk(scene: &Scene) -> Result<()> {
    let nginx = Nginx::new(free_port()?);
    let server = Server::start("nginx", nginx.command(scene)?, scene, nginx.port())?;
    let mut command = place::command("wrk")?;
    command
        .args(["-t2", "-c8", "-d2s", "-s"])
        .arg(place::fixture("load.lua"))
        .arg(format!("http://127.0.0.1:{}", nginx.port()));
    // wrk reads more at a time than is captured by default; the end of a chunked body must not be beyond that.
    let setup = Setup::running(scene, &command)?
        .arg("--capture-bytes")
        .arg("16384");
    let (_, spans, log) = setup.complete(CLIENT_LIMIT)?;
    server.finish()?;

    let completed: u64 = log
        .lines()
        .find_map(|line| line.strip_prefix("completed "))
        .context("wrk's tally")?
        .trim()
        .parse()?;
    let seen = Tally::of_spans(&spans, Kind::Client)?;
    seen.must_be_within(&nginx.access_log(scene)?)?;
    ensure!(
        seen.total() >= completed && seen.total() <= completed + 8,
        "{} spans, wrk completed {completed}",
        seen.total()
    );
    Ok(())
}
