//! The physical price of a uprobe and of a uretprobe: empty programs at a function, in a process that calls
//! nothing else.

use super::places::{Places, Probes};
use crate::Bench;
use crate::agent::{Agent, Exporter};
use crate::machine::Cores;
use crate::report::Row;
use crate::sample::{Sample, interleaved};
use anyhow::{Context, Result};
use integration::process::{Process, wait_for};
use integration::program;
use integration::tls::client::Gate;
use serde_json::json;
use std::process::Command;
use std::time::Duration;

const START_LIMIT: Duration = Duration::from_secs(5);
const LIMIT: Duration = Duration::from_secs(30);
/// In nanoseconds.
const MICROSECOND: f64 = 1e3;

#[derive(Clone, Copy)]
enum State {
    Bare,
    Entries,
    Both,
    Agent,
}

/// Nanoseconds of processor time of a call in each state.
pub(super) struct Prices {
    function: &'static str,
    bare: Sample,
    entries: Sample,
    both: Sample,
    agent: Sample,
    is_stepped: bool,
}

impl Prices {
    /// Of a function that `ssl_calls.c` can call.
    pub(super) fn of(bench: &Bench, function: &'static str) -> Result<Self> {
        let mut prices = Self {
            function,
            bare: Sample::default(),
            entries: Sample::default(),
            both: Sample::default(),
            agent: Sample::default(),
            is_stepped: false,
        };
        let states = [State::Bare, State::Entries, State::Both, State::Agent];
        for (round, state) in interleaved(&states, bench.pick(8, 2))
            .into_iter()
            .enumerate()
        {
            let figure = prices.call(bench, round, state)?;
            match state {
                State::Bare => prices.bare.push(figure),
                State::Entries => prices.entries.push(figure),
                State::Both => prices.both.push(figure),
                State::Agent => prices.agent.push(figure),
            }
        }
        Ok(prices)
    }

    fn call(&mut self, bench: &Bench, round: usize, state: State) -> Result<f64> {
        let name = format!("{}-{round}", self.function);
        let gate = Gate::new(&bench.scene, &format!("gate-{name}"))?;
        let program = program::c_linked("ssl_calls.c", &["libssl.so.3"])?;
        let mut command = Command::new(program);
        command
            .arg(gate.path())
            .arg(bench.pick("50000", "20000"))
            .arg(self.function);
        let command = Cores::pinned(bench.cores.client, &command);
        let process = Process::start(&name, command, bench.scene.folder())?;
        let pid = process.pid();
        // Until the dynamic linker has mapped the library there is nothing to find.
        let places = wait_for("that the library is mapped", START_LIMIT, || {
            Ok(Places::of(pid, &[self.function]).ok())
        })?;
        self.is_stepped = places.is_stepped;
        let (mut empty, mut agent) = (None, None);
        match state {
            State::Bare => {}
            State::Entries => empty = Some(places.hold(bench, Probes::Entries)?),
            State::Both => empty = Some(places.hold(bench, Probes::Both)?),
            State::Agent => {
                let watching = Agent::watch(bench, &[pid], Exporter::Nothing)?;
                watching.wait_until_probed()?;
                agent = Some(watching);
            }
        }
        gate.open("")?;
        let told = process.succeed(LIMIT)?;
        drop(empty);
        agent.map_or(Ok(()), Agent::end)?;
        told.trim()
            .parse()
            .with_context(|| format!("not a figure: {told:?}"))
    }

    /// Microseconds that a uprobe adds.
    pub(super) fn entry(&self) -> f64 {
        self.entries.against(&self.bare, less).median() / MICROSECOND
    }

    /// Microseconds that a uretprobe adds to it.
    pub(super) fn exit(&self) -> f64 {
        self.both.against(&self.entries, less).median() / MICROSECOND
    }

    pub(super) fn row(&self) -> Row {
        let agent = self.agent.against(&self.bare, less);
        Row::new(
            format!(
                "physical price of a uprobe at `{}`, of its uretprobe",
                self.function
            ),
            format!("{:.2} µs, {:.2} µs", self.entry(), self.exit()),
        )
        .how(format!(
            "empty programs by uprobe_multi; a call that fails at once takes {:.0} ns without; it begins with an \
             instruction that the kernel {}; with the agent's programs in place of the empty ones {:.2} µs in all; the \
             uprobe {}",
            self.bare.median(),
            if self.is_stepped {
                "has to single-step"
            } else {
                "emulates"
            },
            agent.median() / MICROSECOND,
            self.entries.against(&self.bare, |own, bare| (own - bare) / MICROSECOND).range(2),
        ))
        .figures(json!({
            "bare": self.bare,
            "entries": self.entries,
            "both": self.both,
            "agent": self.agent,
        }))
    }
}

fn less(own: f64, other: f64) -> f64 {
    own - other
}
