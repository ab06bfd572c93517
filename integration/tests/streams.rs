//! What ends or leaves the stream in an unusual way: half-closed connections, and bodies that no buffer receives.

use anyhow::{Context, Result, ensure};
use integration::agent::Setup;
use integration::nginx::Nginx;
use integration::process::wait_for;
use integration::scene::free_port;
use integration::server::Server;
use integration::{Agent, Kind, Outcome, Process, Scene, Span, Tally, Trials, place};
use std::process::Command;
use std::time::Duration;

/// Longest run of a client.
const LIMIT: Duration = Duration::from_mins(1);
/// Rounds of three requests that the half-closing client makes.
const ROUNDS: usize = 8;
/// Exchanges on the connection whose bodies are spliced.
const EXCHANGES: usize = 20;

pub(crate) fn register(trials: &mut Trials) {
    trials.subject("messages");
    let tools = &["nginx", "python3"];
    trials.add("half_closed_client", tools, half_closed_client);
    trials.add("half_closed_by_the_client", tools, half_closed_server);
    trials.add("spliced_receive", tools, spliced_receive);
}

fn nginx(scene: &Scene) -> Result<(Nginx, Server)> {
    let nginx = Nginx::new(free_port()?);
    let server = Server::start("nginx", nginx.command(scene)?, scene, nginx.port())?;
    Ok((nginx, server))
}

fn client(script: &str, port: u16, rounds: usize) -> Result<Command> {
    let mut command = place::command("python3")?;
    command
        .arg(place::fixture(script))
        .args([port.to_string(), rounds.to_string()]);
    Ok(command)
}

/// Every span has a status, and client, server and agent agree.
fn must_be_exact(spans: &[Span], kind: Kind, printed: &Tally, logged: &Tally) -> Result<()> {
    ensure!(
        printed.total() == 3 * ROUNDS as u64,
        "the client made {} requests",
        printed.total()
    );
    printed.must_equal(logged, "the client", "the access log")?;
    printed.must_equal(&Tally::of_spans(spans, kind)?, "the client", "spans")?;
    ensure!(
        spans.len() as u64 == printed.total(),
        "spans without a status: {spans:?}"
    );
    Ok(())
}

/// The observed process is the one that ends its writing side.
fn half_closed_client(scene: &Scene) -> Result<()> {
    let (nginx, server) = nginx(scene)?;
    let command = client("half_closed.py", server.port, ROUNDS)?;
    let (status, spans, log) = Setup::running(scene, &command)?.complete(LIMIT)?;
    server.finish()?;
    ensure!(status.success(), "{status}:\n{log}");
    let printed = Tally::of_lines(&log);
    must_be_exact(&spans, Kind::Client, &printed, &nginx.access_log(scene)?)
}

/// The observed process answers on a connection that its peer has half closed.
fn half_closed_server(scene: &Scene) -> Result<()> {
    let (nginx, server) = nginx(scene)?;
    let agent = Agent::watch(scene, &[server.pid()])?;
    let command = client("half_closed.py", server.port, ROUNDS)?;
    let log = Process::start("client", command, scene.folder())?.succeed(LIMIT)?;
    let finished = agent.finish()?;
    server.finish()?;
    let (printed, logged) = (Tally::of_lines(&log), nginx.access_log(scene)?);
    must_be_exact(&finished.spans, Kind::Server, &printed, &logged)
        .with_context(|| finished.losses())
}

/// Spliced bytes are out of sight. When such a response ended nobody saw, so that it gives no span and is counted;
/// every other exchange on the connection, between and after them, gives its exact span.
fn spliced_receive(scene: &Scene) -> Result<()> {
    let (nginx, server) = nginx(scene)?;
    let command = client("spliced.py", server.port, EXCHANGES)?;
    let mut agent = Setup::running(scene, &command)?.start()?;
    let process = agent.process();
    wait_for("the client's last exchange", LIMIT, || {
        ensure!(process.is_running(), "it ended:\n{}", process.log_tail());
        Ok(process.log().contains("\ndone\n").then_some(()))
    })?;
    let printed = Tally::of_lines(&agent.process().log());
    wait_for("the end of the flow", LIMIT, || {
        let ended = agent.metrics()?.sum("pilotfish_flows_ended_total")?;
        Ok((ended == 1).then_some(()))
    })?;
    let finished = agent.finish()?;
    server.finish()?;
    printed.must_equal(&nginx.access_log(scene)?, "the client", "the access log")?;

    let spliced = Outcome::new("GET", "/large", 200);
    let count = printed.count(&spliced);
    ensure!(
        printed.total() == EXCHANGES as u64 && count == printed.total() / 2,
        "the client made other requests: {printed:?}"
    );
    let seen = Tally::of_spans(&finished.spans, Kind::Client)?;
    ensure!(
        seen.total() == finished.spans.len() as u64,
        "spans without a status: {:?}",
        finished.spans
    );
    let abandoned = finished
        .metrics
        .sum("pilotfish_exchanges_abandoned_total")?;
    ensure!(
        seen.count(&spliced) + abandoned == count,
        "of {count} spliced responses {} have a span and {abandoned} are counted",
        seen.count(&spliced)
    );
    // A hole shows when bytes come after it, which the last response has none of.
    ensure!(
        finished.metrics.sum("pilotfish_gaps_total")? + 1 >= abandoned,
        "the gaps are not counted: {}",
        finished.losses()
    );
    let whole = |tally: &Tally| tally.without(&spliced);
    whole(&printed)
        .must_equal(&whole(&seen), "the client", "spans")
        .with_context(|| finished.losses())
}
