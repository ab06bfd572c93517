//! Row 8 and the second half of row 3: one agent with many containers.
//!
//! A process named by `--pid` is a slot of its own, which is what the kernel programs and the pipeline know of a
//! container. The same processes under the same load are one slot when their parent is named instead.

use crate::Bench;
use crate::agent::{Agent, Exporter};
use crate::agent_cost::cost_of_load;
use crate::hooks::holder;
use crate::report::Row;
use crate::sample::{Sample, interleaved};
use crate::sink::Sink;
use crate::web::{Demand, Web};
use anyhow::{Result, ensure};
use integration::usage::{self, Runs};
use serde::Serialize;
use serde_json::json;

const MEMORY_BUDGET: f64 = 40.0;
const FLAT: f64 = 1.10;
/// The containers of the memory budget.
const SOME: usize = 100;
/// The containers of the flatness budget.
const MANY: usize = 500;
/// Enough for the kernel's spreading to reach nearly every process.
const CONNECTIONS_PER_PROCESS: usize = 4;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Named {
    Parent,
    Each,
}

/// What the rounds gave with one way of naming the processes.
#[derive(Default, Serialize)]
struct Costs {
    agent_microseconds: Sample,
    kernel_microseconds: Sample,
    requests_per_second: Sample,
    traced: Sample,
    lost: Sample,
    megabytes: Sample,
}

/// The same processes as one container and as many.
#[derive(Default)]
struct Comparison {
    count: usize,
    one: Costs,
    many: Costs,
}

pub(crate) fn measure(bench: &Bench) -> Result<Vec<Row>> {
    let some = compare(bench, SOME, bench.pick(2, 1))?;
    let many = compare(bench, MANY, bench.pick(3, 1))?;
    Ok(vec![
        some.memory_row()
            .budget("at most 40 MB", some.many.megabytes.most() <= MEMORY_BUDGET),
        many.memory_row(),
        some.cost_row(),
        many.cost_row()
            .budget("flat within 10 %", many.ratio().median() <= FLAT),
    ])
}

fn compare(bench: &Bench, count: usize, rounds: usize) -> Result<Comparison> {
    let web = Web::many(bench, count)?;
    let sink = Sink::start(bench.cores)?;
    let each = web.children()?;
    ensure!(each.len() == count, "{} of {count} servers run", each.len());
    let demand = Demand::Paced(count * CONNECTIONS_PER_PROCESS);
    let mut comparison = Comparison {
        count,
        ..Comparison::default()
    };
    let statistics = holder(bench, "run_statistics.c")?;
    web.load(bench, demand, 1)?;
    for named in interleaved(&[Named::Parent, Named::Each], rounds) {
        let (pids, costs) = match named {
            Named::Parent => (&[web.pid()][..], &mut comparison.one),
            Named::Each => (&each[..], &mut comparison.many),
        };
        let agent = Agent::watch(bench, pids, Exporter::Otlp(&sink))?;
        costs.take(bench, &web, &agent, demand)?;
        agent.end()?;
    }
    drop(statistics);
    Ok(comparison)
}

impl Costs {
    fn take(&mut self, bench: &Bench, web: &Web, agent: &Agent, demand: Demand) -> Result<()> {
        let pid = agent.pid();
        usage::forget_peak(pid)?;
        let before = Runs::of(pid)?;
        let cost = cost_of_load(bench, web, agent, demand, bench.pick(5, 2))?;
        let kernel = Runs::of(pid)?.since(before);
        self.agent_microseconds.push(cost.microseconds);
        self.kernel_microseconds
            .push(kernel.nanoseconds as f64 / 1e3 / cost.load.requests);
        self.requests_per_second.push(cost.load.rate);
        self.traced.push(cost.traced);
        self.lost.push(cost.lost);
        self.megabytes.push(usage::peak_resident(pid)? as f64 / 1e6);
        Ok(())
    }

    fn sum(&self) -> Sample {
        self.agent_microseconds
            .against(&self.kernel_microseconds, |agent, kernel| agent + kernel)
    }
}

impl Comparison {
    fn ratio(&self) -> Sample {
        self.many
            .sum()
            .against(&self.one.sum(), |many, one| many / one)
    }

    fn memory_row(&self) -> Row {
        Row::new(
            format!("agent resident memory under load, {} containers", self.count),
            format!("{:.1} MB", self.many.megabytes.median()),
        )
        .how(format!(
            "processes with `--pid` each; largest value at {:.0} requests/s spread over all, OTLP; {:.1} % traced, \
             {:.1} % of the records found the ring full",
            self.many.requests_per_second.median(),
            self.many.traced.median() * 100.0,
            self.many.lost.median() * 100.0,
        ))
        .figures(json!({ "one": self.one, "many": self.many }))
    }

    fn cost_row(&self) -> Row {
        Row::new(
            format!("cost per request, {} containers / one", self.count),
            format!("{:.2}", self.ratio().median()),
        )
        .how(format!(
            "the same processes and load; agent {:.2} / {:.2} µs, eBPF programs {:.2} / {:.2} µs; {}",
            self.many.agent_microseconds.median(),
            self.one.agent_microseconds.median(),
            self.many.kernel_microseconds.median(),
            self.one.kernel_microseconds.median(),
            self.ratio().range(2)
        ))
    }
}
