//! `cargo xtask setup`: says what is missing and why, then installs it.
//!
//! A second run finds nothing to do and takes well under a second: every check reads the package database or the
//! file system, never a registry.

mod debian;
mod linker;
mod packages;
mod python;
mod rust;
mod trees;

use std::fs;
use std::os::unix::fs::MetadataExt;

use anstream::println;
use anyhow::{Result, bail};
use clap::{Args, ValueEnum};

use crate::workspace::Workspace;

/// How much to set up; each includes the ones before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Scope {
    /// What `cargo build --release` needs
    Build,
    /// ... and `cargo xtask demo`
    Demo,
    /// ... and `cargo xtask test`
    Test,
}

/// Options of `setup`.
#[derive(Args)]
pub(crate) struct Options {
    /// Set up only what this needs
    #[arg(long, value_enum, default_value = "test")]
    only: Scope,
    /// Print what would be installed, and change nothing
    #[arg(long)]
    dry_run: bool,
}

/// The `setup` command.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    if options.dry_run {
        Plan::new(workspace, options.only)?.print();
        return Ok(());
    }
    ensure(workspace, options.only)
}

/// Installs what is missing for a scope, and says so.
pub(crate) fn ensure(workspace: &Workspace, scope: Scope) -> Result<()> {
    let plan = Plan::new(workspace, scope)?;
    plan.print();
    plan.carry_out(workspace)
}

/// True for user 0.
pub(crate) fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

/// What a scope lacks.
struct Plan {
    components: Vec<&'static rust::Component>,
    packages: Vec<packages::Package>,
    linker: bool,
    python: Vec<&'static python::Pin>,
    trees: Vec<&'static trees::Tree>,
}

impl Plan {
    fn new(workspace: &Workspace, scope: Scope) -> Result<Self> {
        let mut plan = Self {
            components: rust::missing()?,
            packages: debian::missing(scope)?,
            linker: linker::missing(workspace),
            python: Vec::new(),
            trees: Vec::new(),
        };
        if scope >= Scope::Test {
            plan.python = python::missing(workspace);
            plan.trees = trees::missing(workspace);
        }
        Ok(plan)
    }

    fn print(&self) {
        let lines: Vec<(String, &str)> = self
            .components
            .iter()
            .map(|component| {
                (
                    format!("rustup component {}", component.name),
                    component.reason,
                )
            })
            .chain(
                self.packages
                    .iter()
                    .map(|package| (format!("Debian package {}", package.name), package.reason)),
            )
            .chain(self.linker.then(|| (linker::label(), linker::REASON)))
            .chain(self.python.iter().map(|pin| {
                (
                    format!("Python package {} {}", pin.name, pin.version),
                    pin.reason,
                )
            }))
            .chain(self.trees.iter().map(|tree| (tree.label(), tree.reason)))
            .collect();
        if lines.is_empty() {
            println!("setup: everything is there");
            return;
        }
        println!("setup: missing");
        for (what, reason) in lines {
            println!("  {what:<42} {reason}");
        }
    }

    fn carry_out(&self, workspace: &Workspace) -> Result<()> {
        if !self.packages.is_empty() && !is_root() {
            bail!(
                "installing Debian packages needs root. Run this as root, then try again:\n  {}",
                debian::install_line(&self.packages)
            );
        }
        if !self.trees.is_empty() && !is_root() {
            bail!("making trees of Debian needs root: run `cargo xtask setup` as root");
        }
        rust::install(&self.components)?;
        debian::install(&self.packages)?;
        if self.linker {
            linker::install(workspace)?;
        }
        python::install(workspace, &self.python)?;
        trees::install(workspace, &self.trees)
    }
}
