//! `cargo xtask setup`: says what is missing and why, then installs it.
//!
//! A second run finds nothing to do and takes well under a second: every check reads the package database or the
//! file system, never a registry.

mod archive;
mod debian;
mod npm;
mod packages;
mod progress;
mod python;
mod rust;
mod tools;
mod trees;

use std::fs;
use std::os::unix::fs::MetadataExt;

use anstream::println;
use anyhow::{Result, bail};
use clap::{Args, ValueEnum};

use crate::workspace::Workspace;
use progress::Steps;

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
    tools: Vec<&'static tools::Tool>,
    python: Vec<&'static python::Pin>,
    npm: bool,
    trees: Vec<&'static trees::Tree>,
}

impl Plan {
    fn new(workspace: &Workspace, scope: Scope) -> Result<Self> {
        let mut plan = Self {
            components: rust::missing()?,
            packages: debian::missing(scope)?,
            tools: tools::missing(workspace, scope),
            python: Vec::new(),
            npm: false,
            trees: Vec::new(),
        };
        if scope >= Scope::Test {
            plan.python = python::missing(workspace);
            plan.npm = npm::missing(workspace);
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
            .chain(self.tools.iter().map(|tool| (tool.label(), tool.reason)))
            .chain(self.python.iter().map(|pin| {
                (
                    format!("Python package {} {}", pin.name, pin.version),
                    pin.reason,
                )
            }))
            .chain(self.npm.then(|| (npm::LABEL.to_owned(), npm::REASON)))
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
        let mut steps = Steps::new(self.steps());
        if !self.components.is_empty() {
            steps.telling("components of the Rust toolchain", || {
                rust::install(&self.components)
            })?;
        }
        if !self.packages.is_empty() {
            let what = format!("{} Debian packages", self.packages.len());
            steps.telling(&what, || debian::install(&self.packages))?;
        }
        for tool in &self.tools {
            steps.telling(&tool.label(), || tool.install(workspace))?;
        }
        if !self.python.is_empty() {
            let what = format!("{} Python packages", self.python.len());
            steps.silent(&what, || python::install(workspace, &self.python))?;
        }
        if self.npm {
            steps.silent(npm::LABEL, || npm::install(workspace))?;
        }
        for tree in &self.trees {
            steps.silent(&tree.label(), || trees::install(workspace, &[tree]))?;
        }
        Ok(())
    }

    /// Steps of [`Self::carry_out`].
    fn steps(&self) -> usize {
        let groups = [
            !self.components.is_empty(),
            !self.packages.is_empty(),
            !self.python.is_empty(),
            self.npm,
        ];
        let single = self.tools.len() + self.trees.len();
        groups.into_iter().filter(|group| *group).count() + single
    }
}
