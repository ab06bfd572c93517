//! `cargo xtask bench`: what observation costs, beside its budgets.
//!
//! The measuring itself is `integration/benches/budgets/`, which shares the processes, places and clean-up of the
//! integration tests. Here is only what has to be built for it.

use std::path::{PathBuf, absolute};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::command;
use crate::setup::{self, Scope};
use crate::workspace::Workspace;

/// Options of `bench`.
#[derive(Args)]
pub(crate) struct Options {
    /// Fewer and shorter rounds: a look, not a result
    #[arg(long)]
    quick: bool,
    /// Also write the figures of every round to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Measure only this part of the table, such as `throughput`; repeatable
    #[arg(long = "part", value_name = "NAME")]
    parts: Vec<String>,
    /// Take the set-up for granted
    #[arg(long)]
    no_setup: bool,
}

/// The `bench` command. A missed budget is part of the report; an error is what could not be measured.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    if !options.no_setup {
        setup::ensure(workspace, Scope::Test)?;
    }
    if !setup::is_root() {
        bail!("the benchmarks load eBPF programs and need root");
    }
    command::run(&mut workspace.build_agent())?;
    command::run(&mut workspace.build_hook())?;
    // Built here, so that no compiler runs while something is measured.
    command::run(&mut workspace.cargo(["bench", "--package", "pilotfish-pipeline", "--no-run"]))?;

    // Only the agent has to be fast: what measures it waits for other programs, and is there from the tests.
    let mut budgets = workspace.cargo(["bench", "--quiet", "--profile", "dev"]);
    budgets
        .args(["--package", "integration", "--bench", "budgets", "--"])
        .env("PILOTFISH_BIN", workspace.agent())
        .env("PILOTFISH_HOOK_BIN", workspace.hook());
    if options.quick {
        budgets.arg("--quick");
    }
    if let Some(file) = &options.json {
        // cargo runs a benchmark in the directory of its package.
        let file = absolute(file).with_context(|| format!("bad path {}", file.display()))?;
        budgets.arg("--json").arg(file);
    }
    for part in &options.parts {
        budgets.args(["--part", part]);
    }
    command::run(&mut budgets)
}
