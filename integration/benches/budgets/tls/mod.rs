//! HTTPS: what a saturated nginx still achieves with the agent's probes in its OpenSSL, against the least that uprobes at
//! the same functions cost, which is measured in the same run.

mod bystander;
mod places;
mod price;

pub(crate) use bystander::measure as bystander;

use crate::Bench;
use crate::agent::{Agent, Exporter};
use crate::agent_cost::cost_of_load;
use crate::hooks::holder;
use crate::report::Row;
use crate::sample::{Sample, interleaved};
use crate::sink::Sink;
use crate::throughput::Rates;
use crate::web::{Demand, Web};
use anyhow::Result;
use integration::tls::Certificate;
use integration::usage::Runs;
use places::{OF_REQUEST, Places, Probes};
use price::Prices;
use serde_json::json;

/// What is in nginx's OpenSSL.
#[derive(Clone, Copy)]
enum State {
    Bare,
    Empty,
    Agent,
}

/// What the rounds gave.
#[derive(Default)]
struct Costs {
    bare: Rates,
    empty: Rates,
    agent: Rates,
    /// Microseconds of the agent for a traced request.
    agent_microseconds: Sample,
    traced: Sample,
    lost: Sample,
}

/// How often the probed functions are entered and left for a request.
struct Calls {
    entries: f64,
    exits: f64,
}

pub(crate) fn measure(bench: &Bench) -> Result<Vec<Row>> {
    let certificate = Certificate::new(&bench.scene)?;
    let web = Web::tls(bench, &certificate)?;
    let places = Places::of(web.pid(), &OF_REQUEST)?;
    let sink = Sink::start(bench.cores)?;
    let prices = Prices::of(bench, "SSL_read")?;
    let others = Prices::of(bench, "SSL_do_handshake")?;
    let calls = Calls::count(bench, &web, &places)?;
    let mut costs = Costs::default();
    web.load(bench, Demand::Least, 1)?;
    let states = [State::Bare, State::Empty, State::Agent];
    for state in interleaved(&states, bench.pick(8, 2)) {
        costs.take(bench, &web, &places, &sink, state)?;
    }
    Ok(costs.rows(&prices, &others, &calls))
}

impl Calls {
    /// By the kernel's count of the runs of empty programs.
    fn count(bench: &Bench, web: &Web, places: &Places) -> Result<Self> {
        let statistics = holder(bench, "run_statistics.c")?;
        let runs = |probes| -> Result<f64> {
            let empty = places.hold(bench, probes)?;
            let load = web.load(bench, Demand::Least, 1)?;
            Ok(Runs::of(empty.pid())?.count as f64 / load.requests)
        };
        let entries = runs(Probes::Entries)?;
        let exits = runs(Probes::Both)? - entries;
        drop(statistics);
        Ok(Self { entries, exits })
    }
}

impl Costs {
    fn take(
        &mut self,
        bench: &Bench,
        web: &Web,
        places: &Places,
        sink: &Sink,
        state: State,
    ) -> Result<()> {
        let seconds = bench.pick(3, 1);
        match state {
            State::Bare => self.bare.push(web.load(bench, Demand::Least, seconds)?),
            State::Empty => {
                let empty = places.hold(bench, Probes::Both)?;
                self.empty.push(web.load(bench, Demand::Least, seconds)?);
                drop(empty);
            }
            State::Agent => {
                let agent = Agent::watch(bench, &[web.pid()], Exporter::Otlp(sink))?;
                agent.wait_until_probed()?;
                let cost = cost_of_load(bench, web, &agent, Demand::Least, seconds)?;
                self.agent.push(cost.load);
                self.agent_microseconds.push(cost.microseconds);
                self.traced.push(cost.traced);
                self.lost.push(cost.lost);
                agent.end()?;
            }
        }
        Ok(())
    }

    fn rows(&self, prices: &Prices, others: &Prices, calls: &Calls) -> Vec<Row> {
        vec![
            self.throughput(
                "HTTPS throughput of a saturated nginx, 18 bytes from memory: with the agent / without",
                &self.agent,
            )
            .figures(json!({ "bare": self.bare, "empty": self.empty, "agent": self.agent })),
            self.throughput(
                "the same with empty programs at `SSL_read` and `SSL_write` / without: the limit",
                &self.empty,
            ),
            prices.row(),
            others.row(),
            self.added(prices, calls),
            self.agent_cost(),
        ]
    }

    fn throughput(&self, what: &str, rates: &Rates) -> Row {
        let bare = &self.bare;
        let ratio = rates
            .requests_per_second
            .against(&bare.requests_per_second, |own, bare| own / bare);
        Row::new(what, format!("{:.3}", ratio.median())).how(format!(
            "{:.0} / {:.0} requests/s, nginx busy {:.0} / {:.0} % of its processor with {:.2} / {:.2} µs per request; {}",
            rates.requests_per_second.median(),
            bare.requests_per_second.median(),
            rates.server_busy.median() * 100.0,
            bare.server_busy.median() * 100.0,
            rates.server_microseconds.median(),
            bare.server_microseconds.median(),
            ratio.range(3)
        ))
    }

    /// What a request gains, against the prices of its probes.
    fn added(&self, prices: &Prices, calls: &Calls) -> Row {
        let gain = |rates: &Rates| {
            rates
                .server_microseconds
                .against(&self.bare.server_microseconds, |own, bare| own - bare)
        };
        let least = calls.entries * prices.entry() + calls.exits * prices.exit();
        let (agent, empty) = (gain(&self.agent), gain(&self.empty));
        Row::new(
            "nginx's CPU that observation adds to an HTTPS request / the price of its uprobes",
            format!("{:.2}", agent.median() / least),
        )
        .how(format!(
            "{:.2} µs / {least:.2} µs, which is {:.2} uprobes and {:.2} uretprobes at the prices of `SSL_read`; with empty \
             programs {:.2} µs; {}",
            agent.median(),
            calls.entries,
            calls.exits,
            empty.median(),
            agent.range(2)
        ))
        .figures(json!({ "entries": calls.entries, "exits": calls.exits, "least": least }))
    }

    fn agent_cost(&self) -> Row {
        Row::new(
            "agent CPU per HTTPS request, all traces exported by OTLP http/protobuf",
            format!("{:.2} µs", self.agent_microseconds.median()),
        )
        .how(format!(
            "{:.1} % of the requests traced; {:.1} % of the records found the ring full; {}",
            self.traced.median() * 100.0,
            self.lost.median() * 100.0,
            self.agent_microseconds.range(2)
        ))
        .figures(json!({
            "microseconds": self.agent_microseconds,
            "traced": self.traced,
            "lost": self.lost,
        }))
    }
}
