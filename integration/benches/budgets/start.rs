//! Row 4: how soon the agent is there.

use crate::Bench;
use crate::agent::{Agent, Exporter};
use crate::report::Row;
use crate::sample::Sample;
use anyhow::{Context, Result};

use integration::agent;
use integration::process::Process;
use serde_json::json;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const READY_BUDGET: f64 = 300.0;
const ATTACH_BUDGET: f64 = 100.0;
/// Processes that one agent attaches to, to find the price of one.
const CROWD: usize = 200;
const RUN_LIMIT: Duration = Duration::from_secs(20);

/// Milliseconds.
#[derive(Default)]
struct Times {
    one: Sample,
    attach: Sample,
    run: Sample,
}

pub(crate) fn measure(bench: &Bench) -> Result<Vec<Row>> {
    let crowd = (0..CROWD)
        .map(|number| {
            let mut sleep = Command::new("sleep");
            sleep.arg("infinity");
            Process::start(&format!("sleep-{number}"), sleep, bench.scene.folder())
        })
        .collect::<Result<Vec<_>>>()?;
    let pids: Vec<u32> = crowd.iter().map(Process::pid).collect();
    let mut times = Times::default();
    for _ in 0..bench.pick(15, 4) {
        let one = ready(bench, &pids[..1])?;
        let all = ready(bench, &pids)?;
        times.one.push(one);
        times.attach.push((all - one) / (CROWD - 1) as f64);
        times.run.push(command_start(bench)?);
    }
    Ok(times.rows())
}

/// From the start of the agent to the first `/readyz` that says yes, asked every 5 ms.
fn ready(bench: &Bench, pids: &[u32]) -> Result<f64> {
    let start = Instant::now();
    let agent = Agent::watch(bench, pids, Exporter::Nothing)?;
    let elapsed = milliseconds(start.elapsed());
    agent.end()?;

    Ok(elapsed)
}

/// From the start of `pilotfish run` to the start of its command, which tells the time.
fn command_start(bench: &Bench) -> Result<f64> {
    let told = bench.scene.folder().join("started");
    let mut command = agent::command(&["run", "--print", "none", "--"])?;
    command.args(["sh", "-c", "date +%s%N > \"$0\""]).arg(&told);

    let start = SystemTime::now().duration_since(UNIX_EPOCH)?;
    Process::start("pilotfish-run", command, bench.scene.folder())?.succeed(RUN_LIMIT)?;

    let text = std::fs::read_to_string(&told).context("the command did not run")?;
    let started = Duration::from_nanos(text.trim().parse()?);
    Ok(milliseconds(started.saturating_sub(start)))
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

impl Times {
    fn rows(&self) -> Vec<Row> {
        vec![
            Row::new("start to ready", format!("{:.0} ms", self.one.median()))
                .budget("at most 300 ms", self.one.median() <= READY_BUDGET)
                .how(format!(
                    "`sidecar --pid` to the first 200 of /readyz, asked every 5 ms; {}",
                    self.one.range(0)
                ))
                .figures(json!({ "ready": self.one })),
            Row::new(
                "attach to a running process",
                format!("{:.2} ms", self.attach.median()),
            )
            .budget("at most 100 ms", self.attach.median() <= ATTACH_BUDGET)
            .how(format!(
                "what each further process adds to the start, {CROWD} of them; {}",
                self.attach.range(2)
            ))
            .figures(json!({ "attach": self.attach })),
            Row::new(
                "`pilotfish run`: delay of the command's start",
                format!("{:.0} ms", self.run.median()),
            )
            .how(format!(
                "the command is traced from its first instruction on; {}",
                self.run.range(0)
            ))
            .figures(json!({ "run": self.run })),
        ]
    }
}
