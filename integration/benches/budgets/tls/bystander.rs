//! What a process pays that uses the very library whose functions are probed in another one: uprobes are placed in a file,
//! but their breakpoints only in the processes that were asked for.

use super::places::LIBRARY;
use crate::Bench;
use crate::agent::{Agent, Exporter};
use crate::report::Row;
use crate::sample::{Sample, interleaved};
use crate::throughput::Rates;
use crate::web::{Demand, Web};
use anyhow::{Result, ensure};
use integration::process::Process;
use integration::tls::Certificate;
use integration::tls::memory::differing_bytes;
use serde::Serialize;
use serde_json::json;
use std::process::Command;

/// Least that may be left of the throughput: what the machine's own noise leaves.
const BUDGET: f64 = 0.97;

/// Whom the agent observes.
#[derive(Clone, Copy)]
enum State {
    /// There is no agent.
    Nobody,
    /// A process without TLS: every socket operation of the machine passes the agent's hooks, but no library has probes.
    Other,
    /// Another nginx with the same library.
    Nginx,
}

#[derive(Default, Serialize)]
struct Measured {
    nobody: Rates,
    other: Rates,
    nginx: Rates,
    exchanges: u64,
}

pub(crate) fn measure(bench: &Bench) -> Result<Vec<Row>> {
    let certificate = Certificate::new(&bench.scene)?;
    let observed = Web::tls(bench, &certificate)?;
    let bystander = Web::tls(bench, &certificate)?;
    let mut sleep = Command::new("sleep");
    sleep.arg("infinity");
    let other = Process::start("without-tls", sleep, bench.scene.folder())?;
    let mut measured = Measured::default();
    bystander.load(bench, Demand::Least, 1)?;
    let load = || bystander.load(bench, Demand::Least, bench.pick(3, 1));
    let states = [State::Nobody, State::Other, State::Nginx];
    for state in interleaved(&states, bench.pick(8, 2)) {
        match state {
            State::Nobody => measured.nobody.push(load()?),
            State::Other => {
                let agent = Agent::watch(bench, &[other.pid()], Exporter::Nothing)?;
                measured.other.push(load()?);
                agent.end()?;
            }
            State::Nginx => {
                let agent = Agent::watch(bench, &[observed.pid()], Exporter::Nothing)?;
                agent.wait_until_probed()?;
                measured.nginx.push(load()?);
                check_breakpoints(&observed, &bystander)?;
                measured.exchanges += agent.metrics()?.sum("pilotfish_exchanges_started_total")?;
                agent.end()?;
            }
        }
    }
    Ok(vec![measured.row()])
}

fn check_breakpoints(observed: &Web, bystander: &Web) -> Result<()> {
    ensure!(
        differing_bytes(observed.pid(), LIBRARY)? > 0,
        "the observed nginx has no breakpoint: there was nothing to pay for"
    );
    let breakpoints = differing_bytes(bystander.pid(), LIBRARY)?;
    ensure!(
        breakpoints == 0,
        "the bystander has {breakpoints} breakpoints"
    );
    Ok(())
}

impl Measured {
    fn row(&self) -> Row {
        let against = |own: &Sample, other: &Sample| own.against(other, |own, other| own / other);
        let (nginx, other, nobody) = (&self.nginx, &self.other, &self.nobody);
        let throughput = against(&nginx.requests_per_second, &other.requests_per_second);
        let beside_none = against(&nginx.requests_per_second, &nobody.requests_per_second);
        let cpu = against(&nginx.server_microseconds, &other.server_microseconds);
        Row::new(
            "HTTPS throughput of an nginx out of scope: another one with the same libssl observed / a process without TLS",
            format!("{:.3}, {} exchanges", throughput.median(), self.exchanges),
        )
        .budget(
            "at least 0.97, no exchange, no breakpoint",
            throughput.median() >= BUDGET && self.exchanges == 0,
        )
        .how(format!(
            "its CPU per request {:.3}; {:.2} / {:.2} µs, {:.2} µs without an agent, beside which the throughput is {:.3}: \
             the hooks at socket operations; no breakpoint in its text; {}",
            cpu.median(),
            nginx.server_microseconds.median(),
            other.server_microseconds.median(),
            nobody.server_microseconds.median(),
            beside_none.median(),
            throughput.range(3)
        ))
        .figures(json!(self))
    }
}
