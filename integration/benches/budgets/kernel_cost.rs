//! The kernel's side of row 2: run time of the agent's programs, by the kernel's own clock.

use crate::agent::{Agent, Exporter};
use crate::bystander::operations;
use crate::hooks::holder;
use crate::report::Row;
use crate::sample::Sample;
use crate::sink::Sink;

use crate::Bench;
use crate::web::{Demand, Web};
use anyhow::Result;
use integration::usage::Runs;
use serde_json::json;

/// Run times in nanoseconds; each contains what the clock itself takes, told apart as `clock`.
#[derive(Default)]
struct Times {
    clock: Sample,
    foreign: Sample,
    request: Sample,
    runs: Sample,
    own: Sample,
}

pub(crate) fn measure(bench: &Bench) -> Result<Vec<Row>> {
    let web = Web::one(bench)?;
    let sink = Sink::start(bench.cores)?;
    let mut times = Times::default();
    for _ in 0..bench.pick(4, 1) {
        let empty = holder(bench, "empty_probe.c")?;
        let agent = Agent::watch(bench, &[web.pid()], Exporter::Otlp(&sink))?;
        let statistics = holder(bench, "run_statistics.c")?;
        let (pid, empty_pid) = (agent.pid(), empty.pid());
        let begin = (Runs::of(pid)?, Runs::of(empty_pid)?);
        operations(bench, bench.pick(600, 200))?;
        let foreign = Runs::of(pid)?.since(begin.0);
        let middle = Runs::of(pid)?;
        let load = web.load(bench, Demand::Least, bench.pick(4, 2))?;
        let total = Runs::of(pid)?.since(middle);
        let clock = Runs::of(empty_pid)?.since(begin.1).mean();
        drop(statistics);
        agent.end()?;
        times.push(clock, foreign.mean(), total, load.requests);
    }
    Ok(times.rows())
}

impl Times {
    /// Of a request's operations two are the server's, one receive and one send; the others are the client's and the
    /// sink's, out of scope.
    fn push(&mut self, clock: f64, foreign: f64, total: Runs, requests: f64) {
        let runs = total.count as f64 / requests;
        let request = total.nanoseconds as f64 / requests - clock * runs;
        self.clock.push(clock);
        self.foreign.push(foreign - clock);
        self.request.push(request);
        self.runs.push(runs);
        self.own
            .push((request - (runs - 2.0) * (foreign - clock)) / 2.0);
    }

    fn rows(&self) -> Vec<Row> {
        vec![
            Row::new(
                "run time of the eBPF programs per HTTP request",
                format!("{:.0} ns", self.request.median()),
            )
            .how(format!(
                "over {:.1} socket operations, the client's included, without the {:.0} ns that an empty program shows \
                 for each; {}",
                self.runs.median(),
                self.clock.median(),
                self.request.range(0)
            ))
            .figures(json!({
                "clock": self.clock,
                "foreign": self.foreign,
                "request": self.request,
                "operations": self.runs,
                "own": self.own,
            })),
            Row::new(
                "the same per socket operation, in scope / out of scope",
                format!("{:.0} ns / {:.0} ns", self.own.median(), self.foreign.median()),
            )
            .how("in scope: captured and handed to the agent"),
        ]
    }
}
