//! `cargo xtask screens`: takes the screens of the live view that its documentation shows.
//!
//! The scene is `integration/examples/screens.rs`, which shares the processes and clean-up of the integration tests.

use std::path::{PathBuf, absolute};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::command;
use crate::setup::{self, Scope};
use crate::workspace::Workspace;

/// Options of `screens`.
#[derive(Args)]
pub(crate) struct Options {
    /// The document whose screens are replaced; sidecar/LIVE.md of this checkout by default
    document: Option<PathBuf>,
    /// Take the set-up for granted
    #[arg(long)]
    no_setup: bool,
}

/// The `screens` command.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    if !options.no_setup {
        setup::ensure(workspace, Scope::Test)?;
    }
    if !setup::is_root() {
        bail!("the screens are taken of a real agent, which needs root");
    }
    let document = match &options.document {
        Some(path) => absolute(path).with_context(|| format!("bad path {}", path.display()))?,
        None => workspace.path("sidecar/LIVE.md"),
    };
    command::run(&mut workspace.build_agent())?;
    let mut screens = workspace.cargo(["run", "--quiet", "--package", "integration"]);
    screens
        .args(["--example", "screens", "--"])
        .arg(document)
        .env("PILOTFISH_BIN", workspace.agent());
    command::run(&mut screens)
}
