//! Row 5: what a process out of scope pays for the agent next to it.

use crate::Bench;
use crate::agent::{Agent, Exporter};
use crate::hooks::{Attached, State};
use crate::machine::Cores;
use crate::report::Row;
use crate::sample::{Sample, interleaved};
use anyhow::{Context, Result};

use integration::process::Process;
use integration::program;
use serde_json::json;
use std::process::Command;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(30);
/// Nanoseconds beyond an empty program.
const BUDGET: f64 = 50.0;

/// Nanoseconds of one TCP operation, over so many chunks of 1000.
pub(crate) fn operations(bench: &Bench, chunks: u32) -> Result<f64> {
    let mut command = Command::new(program::c("socket_operations.c")?);
    command.arg(chunks.to_string());
    let command = Cores::pinned(bench.cores.client, &command);
    let told =
        Process::start("socket-operations", command, bench.scene.folder())?.succeed(LIMIT)?;
    told.trim()
        .parse()
        .with_context(|| format!("not a figure: {told:?}"))
}

pub(crate) fn measure(bench: &Bench) -> Result<Vec<Row>> {
    let mut watched = Command::new("sleep");
    watched.arg("infinity");
    let watched = Process::start("watched", watched, bench.scene.folder())?;
    let (mut bare, mut empty, mut agent) =
        (Sample::default(), Sample::default(), Sample::default());
    let mut records = 0;
    let states = [State::Bare, State::Empty, State::Agent];
    for state in interleaved(&states, bench.pick(16, 4)) {
        let attached = Attached::new(bench, state, || {
            Agent::watch(bench, &[watched.pid()], Exporter::Nothing)
        })?;
        let figure = operations(bench, bench.pick(500, 250))?;
        if let Some(agent) = attached.agent() {
            records += agent.metrics()?.produced()?;
        }
        drop(attached);
        match state {
            State::Bare => bare.push(figure),
            State::Empty => empty.push(figure),
            State::Agent => agent.push(figure),
        }
    }
    let less = |own: f64, other: f64| own - other;
    let (against_empty, against_bare) = (agent.against(&empty, less), agent.against(&bare, less));
    let hook = empty.against(&bare, less);
    Ok(vec![
        Row::new(
            "bystander's socket operation, the agent against empty programs",
            format!("{:+.0} ns, {records} records", against_empty.median()),
        )
        .budget(
            "at most +50 ns, no record",
            against_empty.median() <= BUDGET && records == 0,
        )
        .how(format!(
            "TCP, 64 bytes, {:.0} ns with nothing attached, {:+.0} ns with empty programs, {:+.0} ns with the agent; {}",
            bare.median(),
            hook.median(),
            against_bare.median(),
            against_empty.range(0)
        ))
        .figures(json!({ "bare": bare, "empty": empty, "agent": agent })),
    ])
}
