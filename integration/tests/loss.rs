//! Losses are counted to the unit, and nothing is left of an agent that was killed.

use anyhow::{Result, anyhow, ensure};
use integration::agent::Setup;
use integration::server::kind;
use integration::wire::Wire;
use integration::{Agent, Kind, Outcome, Scene, Tally, Trials, load};
use nix::sys::signal::Signal;
use std::thread;

/// The smallest ring buffer that the agent accepts.
const SMALLEST_RING: u32 = 64 << 10;

pub(crate) fn register(trials: &mut Trials) {
    trials.subject("loss");
    for name in ["go", "nginx"] {
        let tools: &[&str] = if name == "go" { &["go"] } else { &["nginx"] };
        trials.add(&format!("full_ring_buffer_{name}"), tools, |scene| {
            full_ring_buffer(scene, name)
        });
        trials.add(
            &format!("connections_recover_from_a_long_gap_{name}"),
            tools,
            |scene| connections_recover(scene, name, true),
        );
        trials.add(
            &format!("connections_recover_from_scattered_losses_{name}"),
            tools,
            |scene| connections_recover(scene, name, false),
        );
    }
    trials.add("sigterm_loses_nothing", &["go"], sigterm_loses_nothing);
    trials.add("killed_agent_leaves_nothing", &["python3"], killed_agent);
    trials.add("agent_restarts_under_load", &["node"], restarts_under_load);
}

/// The agent is stopped while more is produced than the ring holds, several times over.
fn full_ring_buffer(scene: &Scene, name: &str) -> Result<()> {
    let server = kind(name)?.start(scene)?;
    let mut agent = Setup::watching(scene, &[server.pid()])?
        .ring_bytes(SMALLEST_RING)
        .start()?;
    let mut tally = Tally::default();
    for _ in 0..3 {
        agent.process().signal(Signal::SIGSTOP)?;
        tally.merge(load::run(server.port, &load::mix(4, 10))?);
        agent.process().signal(Signal::SIGCONT)?;
        agent.settle()?;
    }
    // A connection that was cut up by losses and goes on afterwards: each of its spans is right or absent.
    tally.merge(load::run(server.port, &load::mix(4, 10))?);
    let finished = agent.finish()?;
    let (produced, delivered, lost) = (
        finished.metrics.produced()?,
        finished.metrics.delivered()?,
        finished.metrics.lost()?,
    );
    ensure!(
        lost > 0,
        "a ring of {SMALLEST_RING} bytes took all {produced} records"
    );
    ensure!(
        produced == delivered + lost,
        "produced {produced}, delivered {delivered}, lost {lost}"
    );
    let seen = Tally::of_spans(&finished.spans, Kind::Server)?;
    ensure!(
        seen.total() < tally.total(),
        "records were lost but no span is missing"
    );
    seen.must_be_within(&tally)
}

/// Traffic on one connection, large enough that a small ring cannot take the traffic of four.
fn burst(wire: &mut Wire) -> Result<()> {
    let head = &b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 500000\r\n\r\n"[..];
    let upload = [head, &vec![b'u'; 500_000]].concat();
    for number in 0..10 {
        wire.ask(&format!("/items/{number}"))?;
        wire.send(&upload)?;
        wire.response()?;
        wire.ask("/chunked")?;
        wire.ask("/large")?;
    }
    Ok(())
}

/// Kept connections whose records were lost in the middle: once the agent keeps up again, every request on them
/// is seen, but for the first, whose beginning may not be provable.
///
/// A stopped agent loses one long stretch, a running one scattered records.
fn connections_recover(scene: &Scene, name: &str, stopped: bool) -> Result<()> {
    let server = kind(name)?.start(scene)?;
    let setup = Setup::watching(scene, &[server.pid()])?;
    let mut agent = setup.ring_bytes(SMALLEST_RING).start()?;
    let mut wires: Vec<Wire> = (0..4)
        .map(|_| Wire::connect(server.port))
        .collect::<Result<_>>()?;
    if stopped {
        agent.process().signal(Signal::SIGSTOP)?;
    }
    thread::scope(|scope| {
        let bursts: Vec<_> = wires
            .iter_mut()
            .map(|wire| scope.spawn(|| burst(wire)))
            .collect();
        bursts
            .into_iter()
            .try_for_each(|burst| burst.join().map_err(|_| anyhow!("a client panicked"))?)
    })?;
    agent.process().signal(Signal::SIGCONT)?;
    ensure!(
        agent.settle()?.lost()? > 0,
        "a ring of {SMALLEST_RING} bytes took everything"
    );

    for (connection, wire) in wires.iter_mut().enumerate() {
        for number in 0..10 {
            wire.ask(&format!("/items/after-{connection}-{number}"))?;
        }
    }
    let finished = agent.finish()?;
    let seen = Tally::of_spans(&finished.spans, Kind::Server)?;
    for connection in 0..wires.len() {
        let path = |number| format!("/items/after-{connection}-{number}");
        let counts: Vec<u64> = (0..10)
            .map(|number| seen.count(&Outcome::new("GET", &path(number), 200)))
            .collect();
        let recovered = counts[0] <= 1 && counts[1..].iter().all(|count| *count == 1);
        ensure!(
            recovered,
            "connection {connection}: {counts:?}; {}",
            finished.losses()
        );
    }
    Ok(())
}

/// The agent is told to end right after the last response; the ring buffer and the queues are still full.
fn sigterm_loses_nothing(scene: &Scene) -> Result<()> {
    let server = kind("go")?.start(scene)?;
    for _ in 0..5 {
        let agent = Agent::watch(scene, &[server.pid()])?;
        let tally = load::run(server.port, &load::numbered(4, 100))?;
        agent.finish_at_once()?.must_match(&tally, Kind::Server)?;
    }
    Ok(())
}

/// The load goes on while the agent is killed and after; no request fails, no program is left.
fn killed_agent(scene: &Scene) -> Result<()> {
    let server = kind("python_http_server")?.start(scene)?;
    let agent = Agent::watch(scene, &[server.pid()])?;
    let port = server.port;
    let plan = load::numbered(4, 200);
    let load = thread::spawn(move || load::run(port, &plan));
    integration::process::wait_for(
        "the first records",
        std::time::Duration::from_secs(10),
        || Ok((agent.metrics()?.delivered()? > 200).then_some(())),
    )?;
    agent.kill()?;
    scene.check_nothing_left()?;
    let during = load
        .join()
        .map_err(|_| anyhow::anyhow!("the client panicked"))??;
    ensure!(
        during.total() == 800,
        "{} requests succeeded",
        during.total()
    );
    let after = load::run(port, &load::numbered(4, 20))?;
    ensure!(after.total() == 80, "{} requests succeeded", after.total());
    Ok(())
}

/// Every agent of a row reports only what happened, on connections that outlive it.
fn restarts_under_load(scene: &Scene) -> Result<()> {
    let server = kind("node")?.start(scene)?;
    let port = server.port;
    let plan = load::numbered(4, 700);
    let load = thread::spawn(move || load::run(port, &plan));
    let mut seen = Tally::default();
    for _ in 0..3 {
        let agent = Agent::watch(scene, &[server.pid()])?;
        seen.merge(Tally::of_spans(&agent.finish()?.spans, Kind::Server)?);
    }
    let tally = load
        .join()
        .map_err(|_| anyhow::anyhow!("the client panicked"))??;
    seen.must_be_within(&tally)
}
