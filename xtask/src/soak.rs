//! `cargo xtask soak`: HTTPS under load for a while, with the agent's probes in it, and what must not happen meanwhile.
//!
//! The soak itself is `integration/examples/soak/`, which shares the processes and clean-up of the integration tests.

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::command;
use crate::setup::{self, Scope};
use crate::workspace::Workspace;

/// Options of `soak`.
#[derive(Args)]
pub(crate) struct Options {
    /// How long the load lasts; less than 5 minutes leave Node.js no time to fill its heap
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(5..=24 * 60))]
    minutes: u64,
    /// Take the set-up for granted
    #[arg(long)]
    no_setup: bool,
}

/// The `soak` command; an error if anything did not hold, which the table tells.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    if !options.no_setup {
        setup::ensure(workspace, Scope::Test)?;
    }
    if !setup::is_root() {
        bail!("the soak loads eBPF programs and reads the kernel's log, which needs root");
    }
    command::run(&mut workspace.build_agent())?;
    // Ctrl-C is for the soak, which ends its load and still tells what it has seen.
    ctrlc::set_handler(|| {}).context("cannot catch signals")?;
    let mut soak = workspace.cargo(["run", "--quiet", "--package", "integration"]);
    soak.args(["--example", "soak", "--", "--minutes"])
        .arg(options.minutes.to_string())
        .env("PILOTFISH_BIN", workspace.agent());
    command::run(&mut soak)
}
