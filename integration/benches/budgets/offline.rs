//! Rows 6 and 7: what needs no kernel.

use crate::Bench;
use crate::report::Row;
use anyhow::{Context, Result, ensure};
use integration::place;
use serde_json::json;
use std::env;
use std::process::Command;

const PIPELINE_BUDGET: f64 = 1e6;
const SIZE_BUDGET: f64 = 12.0;

/// What the pipeline's own benchmark prints.
pub(crate) fn pipeline(_: &Bench) -> Result<Vec<Row>> {
    let output = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .current_dir(place::workspace())
        .args([
            "bench",
            "--quiet",
            "--package",
            "pilotfish-pipeline",
            "--bench",
            "exchanges",
        ])
        .output()
        .context("cannot start cargo")?;
    let told = String::from_utf8_lossy(&output.stdout);
    let reason = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "the pipeline's benchmark failed: {reason}"
    );
    let rates = told.lines().filter_map(read_rate);
    let rows: Vec<Row> = rates
        .map(|(name, median, best)| {
            let row = Row::new(
                format!("pipeline on exchanges, {name}"),
                format!("{:.2} million/s per core", median / 1e6),
            );
            let row = if name.starts_with("http1 ") {
                row.budget("at least 1 million/s", median >= PIPELINE_BUDGET)
            } else {
                row
            };
            row.how(format!(
                "`cargo bench -p pilotfish-pipeline`, records in memory; best {:.2} million/s",
                best / 1e6
            ))
            .figures(json!({ "median": median, "best": best }))
        })
        .collect();
    ensure!(
        !rows.is_empty(),
        "the pipeline's benchmark printed no figure: {told}"
    );
    Ok(rows)
}

/// `PROTOCOL NAME: median N exchanges/s, best N exchanges/s`.
fn read_rate(line: &str) -> Option<(&str, f64, f64)> {
    let (name, figures) = line.split_once(": median ")?;
    let (median, best) = figures.split_once(" exchanges/s, best ")?;
    let best = best.split(' ').next()?;
    Some((name, median.parse().ok()?, best.parse().ok()?))
}

/// The size of a stripped copy of the agent.
pub(crate) fn size(bench: &Bench) -> Result<Vec<Row>> {
    let copy = bench.scene.folder().join("stripped");
    let status = Command::new("strip")
        .arg("-o")
        .arg(&copy)
        .arg(place::agent_binary()?)
        .status()
        .context("cannot start strip")?;
    ensure!(status.success(), "strip ended with {status}");
    let megabytes = copy.metadata()?.len() as f64 / 1e6;
    Ok(vec![
        Row::new("agent binary, stripped", format!("{megabytes:.1} MB"))
            .budget("at most 12 MB", megabytes <= SIZE_BUDGET)
            .how("linked dynamically with the C library; the budget is for the static build, which comes with the images"),
    ])
}
