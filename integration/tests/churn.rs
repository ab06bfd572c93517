//! Much that is short: processes and connections come and go, are all seen, and leave nothing behind.

use anyhow::{Context, Result, ensure};
use integration::agent::Setup;
use integration::metrics::Metrics;
use integration::nginx::Nginx;
use integration::process::wait_for;
use integration::scene::free_port;
use integration::server::{Server, kind};
use integration::wire::Wire;
use integration::{Agent, Finished, Kind, Outcome, Scene, Tally, Trials, place};
use nix::sys::stat::Mode;
use std::fs::{self, File};
use std::io::Write;
use std::time::Duration;

/// Bound for a round of children and for what follows it.
const LIMIT: Duration = Duration::from_mins(1);
/// Children that only exist before the agent's memory is measured, and those after.
const FIRST_CHILDREN: u64 = 200;
const CHILDREN: u64 = 2000;
/// One child of so many makes a request.
const EVERY: u64 = 5;
/// Growth of the agent's resident memory that 2,000 processes may cause, bytes.
const MOST_GROWTH: u64 = 8 << 20;
/// Connections with one request each.
const CONNECTIONS: usize = 5000;
/// Flows that may be open when nothing is under way.
const FEW_FLOWS: u64 = 2;

pub(crate) fn register(trials: &mut Trials) {
    trials.subject("churn");
    trials.add(
        "many_short_processes",
        &["python3", "nginx"],
        many_short_processes,
    );
    trials.add("many_connections", &["nginx"], many_connections);
}

/// The command under observation, told through a FIFO what to do.
struct Forker {
    rounds: File,
    agent: Agent,
    done: usize,
}

impl Forker {
    fn start(scene: &Scene, port: u16) -> Result<Self> {
        let fifo = scene.folder().join("rounds");
        nix::unistd::mkfifo(&fifo, Mode::S_IRUSR | Mode::S_IWUSR)?;
        let mut command = place::command("python3")?;
        command
            .arg(place::fixture("forks.py"))
            .arg(port.to_string())
            .arg(scene.folder());
        let agent = Setup::running(scene, &command)?.start()?;
        // Both ends, so that opening does not wait for the command to be there.
        let rounds = File::options().read(true).write(true).open(&fifo)?;
        Ok(Self {
            rounds,
            agent,
            done: 0,
        })
    }

    /// Has `children` come and go, and waits until the agent knows that they are gone.
    fn round(&mut self, children: u64) -> Result<Metrics> {
        writeln!(self.rounds, "{children} {EVERY}")?;
        self.done += 1;
        let (process, done) = (self.agent.process(), self.done);
        wait_for("the end of a round", LIMIT, || {
            ensure!(process.is_running(), "it ended:\n{}", process.log_tail());
            let finished = process.log().matches("done ").count();
            Ok((finished == done).then_some(()))
        })?;
        wait_for("that only the command is left", LIMIT, || {
            let metrics = self.agent.metrics()?;
            Ok((metrics.sum("pilotfish_processes")? == 1).then_some(metrics))
        })?;
        self.agent.settle()
    }

    /// The agent's resident memory, bytes.
    fn resident(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.agent.pid()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kibibytes: u64 = line
            .context("VmRSS")?
            .trim()
            .trim_end_matches(" kB")
            .parse()?;
        Ok(kibibytes * 1024)
    }
}

fn many_short_processes(scene: &Scene) -> Result<()> {
    let nginx = Nginx::new(free_port()?);
    let server = Server::start("nginx", nginx.command(scene)?, scene, nginx.port())?;
    let mut forker = Forker::start(scene, nginx.port())?;
    forker.round(FIRST_CHILDREN)?;
    let before = forker.resident()?;
    let metrics = forker.round(CHILDREN)?;
    let after = forker.resident()?;
    ensure!(
        after <= before + MOST_GROWTH,
        "the agent grew from {before} to {after} bytes"
    );
    let heard = metrics.sum("pilotfish_processes_inherited_total")?
        + metrics.sum("pilotfish_processes_vanished_total")?;
    ensure!(
        heard >= FIRST_CHILDREN + CHILDREN,
        "discovery heard of {heard} children"
    );
    let finished = forker.agent.finish()?;
    server.finish()?;
    let logged = nginx.access_log(scene)?;
    ensure!(
        logged.total() == (FIRST_CHILDREN + CHILDREN) / EVERY,
        "nginx served {} requests",
        logged.total()
    );
    finished.must_match(&logged, Kind::Client)?;
    nothing_lost(&finished, logged.total())
}

/// One request on each, which the server ends.
fn many_connections(scene: &Scene) -> Result<()> {
    let server = kind("nginx")?.start(scene)?;
    let agent = Agent::watch(scene, &[server.pid()])?;
    let mut tally = Tally::default();
    for number in 0..CONNECTIONS {
        let (route, expected) = [("items", 200), ("missing", 404), ("error", 500)][number % 3];
        let target = format!("/{route}/{number}");
        let mut wire = Wire::connect(server.port)?;
        wire.send(format!(
            "GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        ))?;
        let status = wire.response()?.status;
        ensure!(status == expected, "{target} was answered with {status}");
        ensure!(wire.until_close()?.is_empty(), "bytes after the response");
        tally.add(Outcome::new("GET", &target, status));
    }
    wait_for("the end of all flows", LIMIT, || {
        let metrics = agent.metrics()?;
        let ended = metrics.sum("pilotfish_flows_ended_total")?;
        let open = metrics.sum("pilotfish_flows_open")?;
        Ok((ended >= CONNECTIONS as u64 && open <= FEW_FLOWS).then_some(()))
    })?;
    let finished = agent.finish()?;
    finished.must_match(&tally, Kind::Server)?;
    nothing_lost(&finished, tally.total())
}

/// No record and no process record is missing, and there is no span beyond the counted ones.
fn nothing_lost(finished: &Finished, exchanges: u64) -> Result<()> {
    for counter in [
        "pilotfish_kernel_records_lost_ring_full_total",
        "pilotfish_process_records_lost_total",
        "pilotfish_kernel_scope_storage_failures_total",
        "pilotfish_kernel_flow_storage_failures_total",
        "pilotfish_processes_beyond_bound_total",
        "pilotfish_exchanges_abandoned_total",
    ] {
        ensure!(finished.metrics.has(counter), "no counter {counter}");
        let lost = finished.metrics.sum(counter)?;
        ensure!(lost == 0, "{counter} is {lost}; {}", finished.losses());
    }
    ensure!(
        finished.spans.len() as u64 == exchanges,
        "{} spans of {exchanges} exchanges",
        finished.spans.len()
    );
    Ok(())
}
