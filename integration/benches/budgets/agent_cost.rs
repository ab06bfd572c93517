//! Rows 2 and 3: the agent's processor time for a request, and its memory with one process in scope.

use crate::agent::{Agent, Exporter};
use crate::report::Row;
use crate::sample::{Sample, interleaved};
use crate::sink::Sink;

use crate::Bench;
use crate::web::{Demand, Load, Web};
use anyhow::{Result, ensure};
use integration::usage;

use serde_json::json;
use std::thread::sleep;
use std::time::Duration;

const CPU_BUDGET: f64 = 5.0;
const IDLE_BUDGET: f64 = 15.0;
const MEGABYTE: f64 = 1e6;
/// What an agent does once after its start is over by then.
const SETTLED: Duration = Duration::from_secs(1);

/// What the rounds with one exporter gave.
#[derive(Default)]
struct Costs {
    microseconds: Sample,
    traced: Sample,
    lost: Sample,
    dropped: Sample,
    rate: Sample,
}

/// Megabytes.
#[derive(Default)]
struct Memory {
    start: Sample,
    idle: Sample,
    maps: Sample,
    loaded: Sample,
}

pub(crate) fn measure(bench: &Bench) -> Result<Vec<Row>> {
    let web = Web::one(bench)?;
    let sink = Sink::start(bench.cores)?;
    let (mut otlp, mut file, mut memory) = (Costs::default(), Costs::default(), Memory::default());
    let printed = bench.scene.folder().join("spans.jsonl");
    let exporters = [Exporter::Otlp(&sink), Exporter::File(&printed)];
    for exporter in interleaved(&exporters, bench.pick(3, 1)) {
        let agent = Agent::watch(bench, &[web.pid()], exporter)?;
        sleep(SETTLED);
        if let Exporter::Otlp(_) = exporter {
            memory.before(agent.pid())?;
            otlp.take(bench, &web, &agent)?;
            memory.after(agent.pid())?;
        } else {
            file.take(bench, &web, &agent)?;
        }
        agent.end()?;
    }
    ensure!(sink.bytes() > 0, "nothing was exported by OTLP");
    let mut rows = vec![
        otlp.row("exported by OTLP http/protobuf")
            .budget("at most 5 µs", otlp.microseconds.median() <= CPU_BUDGET),
        file.row("printed to a file as JSON"),
    ];
    rows.extend(memory.rows(&otlp.rate));
    Ok(rows)
}

/// Processor time of the agent for each request it traced, with everything that it still has to do afterwards.
pub(crate) struct RequestCost {
    /// Microseconds for a traced request.
    pub(crate) microseconds: f64,
    /// What the load came to.
    pub(crate) load: Load,
    /// Traced requests / requests.
    pub(crate) traced: f64,
    /// Records that the full ring buffer refused / records.
    pub(crate) lost: f64,
    /// Spans that the exporter dropped / requests.
    pub(crate) dropped: f64,
}

/// Loads the server while the agent watches.
pub(crate) fn cost_of_load(
    bench: &Bench,
    web: &Web,
    agent: &Agent,
    demand: Demand,
    seconds: u32,
) -> Result<RequestCost> {
    let before = agent.cpu_at_rest()?;
    let traced_before = agent.metrics()?.sum("pilotfish_exchanges_finished_total")?;
    let load = web.load(bench, demand, seconds)?;

    let cpu = agent.cpu_at_rest()? - before;
    let metrics = agent.metrics()?;
    let traced = metrics.sum("pilotfish_exchanges_finished_total")? - traced_before;
    ensure!(traced > 0, "the agent traced no request of the load");
    Ok(RequestCost {
        microseconds: cpu * 1e6 / traced as f64,
        load,
        traced: traced as f64 / load.requests,
        lost: metrics.lost()? as f64 / metrics.produced()? as f64,
        dropped: metrics.sum("pilotfish_export_dropped_total")? as f64 / load.requests,
    })
}

impl Costs {
    fn take(&mut self, bench: &Bench, web: &Web, agent: &Agent) -> Result<()> {
        let cost = cost_of_load(bench, web, agent, Demand::Least, bench.pick(5, 2))?;
        self.microseconds.push(cost.microseconds);
        self.traced.push(cost.traced);
        self.lost.push(cost.lost);
        self.dropped.push(cost.dropped);
        self.rate.push(cost.load.rate);
        Ok(())
    }

    fn row(&self, exporter: &str) -> Row {
        Row::new(
            format!("agent CPU per HTTP request, all traces {exporter}"),
            format!("{:.2} µs", self.microseconds.median()),
        )
        .how(format!(
            "user and system time; {:.0} requests/s, {:.1} % of them traced; {:.1} % of the records found the ring \
             full, {:.1} % of the spans the exporter's queue; {}",
            self.rate.median(),
            self.traced.median() * 100.0,
            self.lost.median() * 100.0,
            self.dropped.median() * 100.0,
            self.microseconds.range(2)
        ))
        .figures(json!({
            "microseconds": self.microseconds,
            "traced": self.traced,
                        "lost": self.lost,
            "dropped": self.dropped,
            "requests_per_second": self.rate,
        }))
    }
}

impl Memory {
    fn before(&mut self, pid: u32) -> Result<()> {
        self.start
            .push(usage::peak_resident(pid)? as f64 / MEGABYTE);
        self.idle.push(usage::resident(pid)? as f64 / MEGABYTE);
        self.maps.push(usage::map_memory(pid)? as f64 / MEGABYTE);
        usage::forget_peak(pid)
    }

    fn after(&mut self, pid: u32) -> Result<()> {
        self.loaded
            .push(usage::peak_resident(pid)? as f64 / MEGABYTE);
        Ok(())
    }

    fn rows(&self, rate: &Sample) -> Vec<Row> {
        let megabytes = |sample: &Sample| format!("{:.1} MB", sample.median());
        vec![
            Row::new("agent resident memory, idle", megabytes(&self.idle))
                .budget("at most 15 MB", self.idle.median() <= IDLE_BUDGET)
                .how(format!(
                    "one process in scope; its eBPF maps hold {} more in the kernel; while it starts it needs {}",
                    megabytes(&self.maps),
                    megabytes(&self.start)
                ))
                .figures(json!({ "idle": self.idle, "maps": self.maps, "start": self.start })),
            Row::new(
                "agent resident memory under load, one container",
                megabytes(&self.loaded),
            )
            .how(format!("largest value at {:.0} requests/s, OTLP", rate.median()))
            .figures(json!({ "loaded": self.loaded })),
        ]
    }
}
