//! The budget table: what observation costs, each row a figure or ratio taken within one run of this program.
//!
//! `cargo xtask bench` builds what is needed and calls it. A missed budget is printed as missed and is no failure; only
//! a row that cannot be measured is. Everything with and without the agent is interleaved, so that the machine's own
//! drift cancels out, and everything that was started ends with this program.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a report is for printing"
)]

mod agent;
mod agent_cost;
mod bystander;
mod hook;
mod hooks;
mod interrupt;
mod kernel_cost;
mod machine;
mod offline;
mod report;
mod sample;
mod sink;
mod slots;
mod start;
mod throughput;
mod tls;
mod web;

use anyhow::{Context, Result};
use clap::Parser;
use integration::Scene;
use report::{Report, Row};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

/// Prints what the agent costs beside its budgets, as Markdown.
#[derive(Parser)]
struct Options {
    /// Fewer and shorter rounds: a look, not a result
    #[arg(long)]
    quick: bool,
    /// Also write the figures of every round to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Measure only this part; repeatable
    #[arg(long = "part", value_name = "NAME", value_parser = PARTS.map(|(name, _)| name))]
    parts: Vec<String>,
    /// Given by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

/// What every part needs.
struct Bench {
    scene: Scene,
    cores: machine::Cores,
    quick: bool,
}

impl Bench {
    /// The first in a full run, the second in a quick one.
    fn pick<T>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }
}

type Part = (&'static str, fn(&Bench) -> Result<Vec<Row>>);

/// In the order of the table.
const PARTS: [Part; 11] = [
    ("throughput", throughput::measure),
    ("agent-cost", agent_cost::measure),
    ("kernel-cost", kernel_cost::measure),
    ("slots", slots::measure),
    ("start", start::measure),
    ("bystander", bystander::measure),
    ("tls", tls::measure),
    ("tls-bystander", tls::bystander),
    ("hook", hook::measure),
    ("pipeline", offline::pipeline),
    ("size", offline::size),
];

fn main() -> ExitCode {
    let options = Options::parse();
    match run(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Measures and prints; false when a part could not be measured.
fn run(options: &Options) -> Result<bool> {
    let bench = Bench {
        scene: Scene::new()?,
        cores: machine::Cores::choose()?,
        quick: options.quick,
    };
    interrupt::remove_on_signal(bench.scene.folder().to_owned())?;
    let mut report = Report::new(machine::describe(options.quick)?);
    let start = Instant::now();
    for (name, measure) in PARTS {
        if options.parts.is_empty() || options.parts.iter().any(|part| part == name) {
            eprintln!("{:>4} s  {name}", start.elapsed().as_secs());
            report.add(name, measure(&bench));
        }
    }
    report.add(
        "clean-up",
        bench.scene.check_nothing_left().map(|()| Vec::new()),
    );
    println!("{}", report.markdown());
    if let Some(file) = &options.json {
        std::fs::write(file, report.json()?)
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(report.is_complete())
}
