//! Row 1: what a saturated nginx still achieves.

use crate::Bench;
use crate::agent::{Agent, Exporter};
use crate::hooks::{Attached, State};
use crate::report::Row;
use crate::sample::{Sample, interleaved};
use crate::sink::Sink;
use crate::web::{Demand, Load, Web};
use anyhow::Result;
use serde::Serialize;
use serde_json::json;

/// Least that may be left of the throughput.
const BUDGET: f64 = 0.97;
const STATES: [State; 3] = [State::Bare, State::Empty, State::Agent];

/// What the rounds gave in one state.
#[derive(Default, Serialize)]
pub(crate) struct Rates {
    pub(crate) requests_per_second: Sample,
    pub(crate) server_busy: Sample,
    pub(crate) server_microseconds: Sample,
}

/// One kind of load in every state.
#[derive(Default, Serialize)]
struct Comparison {
    bare: Rates,
    empty: Rates,
    agent: Rates,
}

pub(crate) fn measure(bench: &Bench) -> Result<Vec<Row>> {
    let web = Web::one(bench)?;
    let sink = Sink::start(bench.cores)?;
    let (mut files, mut least) = (Comparison::default(), Comparison::default());
    web.load(bench, Demand::Files, 1)?;
    for state in interleaved(&STATES, bench.pick(8, 2)) {
        let attached = Attached::new(bench, state, || {
            Agent::watch(bench, &[web.pid()], Exporter::Otlp(&sink))
        })?;
        let seconds = bench.pick(2, 1);
        files
            .of(state)
            .push(web.load(bench, Demand::Files, seconds)?);
        least
            .of(state)
            .push(web.load(bench, Demand::Least, seconds)?);
        drop(attached);
    }
    let agent = files.against_bare(&files.agent);
    let mut rows = files.rows("a small file of 600 bytes").into_iter();
    let first = rows
        .next()
        .map(|row| row.budget("at least 0.97", agent.median() >= BUDGET));
    Ok(first
        .into_iter()
        .chain(rows)
        .chain(least.rows("18 bytes from memory"))
        .collect())
}

impl Rates {
    pub(crate) fn push(&mut self, load: Load) {
        self.requests_per_second.push(load.rate);
        self.server_busy.push(load.server_busy);
        self.server_microseconds
            .push(load.server_busy * 1e6 / load.rate);
    }
}

impl Comparison {
    fn of(&mut self, state: State) -> &mut Rates {
        match state {
            State::Bare => &mut self.bare,
            State::Empty => &mut self.empty,
            State::Agent => &mut self.agent,
        }
    }

    fn against_bare(&self, rates: &Rates) -> Sample {
        rates
            .requests_per_second
            .against(&self.bare.requests_per_second, |own, bare| own / bare)
    }

    /// With / without the agent, and the limit: nobody can observe these hooks for less than an empty program costs.
    fn rows(&self, response: &str) -> [Row; 2] {
        [
            self.row(
                format!("throughput of a saturated nginx, {response}: with the agent / without"),
                &self.agent,
            )
            .figures(json!(self)),
            self.row(
                "the same with empty programs at the same hooks / without: the limit".to_owned(),
                &self.empty,
            ),
        ]
    }

    fn row(&self, what: String, rates: &Rates) -> Row {
        let ratio = self.against_bare(rates);
        Row::new(what, format!("{:.3}", ratio.median())).how(format!(
            "{:.0} / {:.0} requests/s, nginx busy {:.0} / {:.0} % of its processor with {:.2} / {:.2} µs per request; {}",
            rates.requests_per_second.median(),
            self.bare.requests_per_second.median(),
            rates.server_busy.median() * 100.0,
            self.bare.server_busy.median() * 100.0,
            rates.server_microseconds.median(),
            self.bare.server_microseconds.median(),
            ratio.range(3)
        ))
    }
}
