//! `cargo xtask test`: every check of the project, in stages, with one tally at the end.

mod fuzz;
mod harness;
mod tally;

use std::env;
use std::process::Command;
use std::time::{Duration, Instant};

use anstream::{eprintln, println};
use anyhow::Result;
use clap::{Args, ValueEnum};

use crate::command;
use crate::demo;
use crate::image;
use crate::setup::{self, Scope};
use crate::workspace::Workspace;
use tally::Tally;

/// One part of the checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Stage {
    /// Formatting of every crate
    Format,
    /// Lints of every crate, the eBPF programs included
    Clippy,
    /// Unit, property and replay tests, and the examples in documentation
    Unit,
    /// A bounded number of runs of every fuzz target
    Fuzz,
    /// The release build against the real kernel, real runtimes and real servers (as root)
    Integration,
    /// `cargo xtask demo --once`: containers, from end to end (as root)
    Demo,
}

/// Options of `test`.
#[derive(Args)]
pub(crate) struct Options {
    /// Run only this stage; repeatable
    #[arg(long = "stage", value_enum)]
    stages: Vec<Stage>,
    /// Fail when a test was ignored; always so when the environment says CI
    #[arg(long)]
    deny_ignored: bool,
    /// Take the set-up for granted
    #[arg(long)]
    no_setup: bool,
}

/// The `test` command; true when everything passed.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<bool> {
    let stages = if options.stages.is_empty() {
        Stage::value_variants()
    } else {
        &options.stages
    };
    if !options.no_setup {
        setup::ensure(workspace, needed_scope(stages))?;
    }
    let mut reports = Vec::with_capacity(stages.len());
    for &stage in stages {
        println!("\n── {stage:?} ──");
        let start = Instant::now();
        let tally = stage.run(workspace);
        reports.push((stage, start.elapsed(), tally));
    }
    let total = summarise(&reports);
    let strict = options.deny_ignored || in_ci();
    let refused = strict && !total.ignored.is_empty();
    if refused {
        eprintln!("error: ignored tests do not count as passed here");
    }
    println!("{total}");
    Ok(total.failed.is_empty() && !refused)
}

fn needed_scope(stages: &[Stage]) -> Scope {
    if stages.contains(&Stage::Integration) {
        Scope::Test
    } else if stages.contains(&Stage::Demo) {
        Scope::Demo
    } else {
        Scope::Build
    }
}

fn in_ci() -> bool {
    env::var("CI").is_ok_and(|value| !value.is_empty() && value != "false" && value != "0")
}

/// Prints time and result of each stage, and what failed or was ignored.
fn summarise(reports: &[(Stage, Duration, Tally)]) -> Tally {
    println!("\n── Summary ──");
    let mut total = Tally::default();
    for (stage, duration, tally) in reports {
        println!(
            "{:<12} {:>5} s   {tally}",
            format!("{stage:?}").to_lowercase(),
            duration.as_secs()
        );
        total.add(tally.clone());
    }
    for name in &total.ignored {
        println!("ignored: {name}");
    }
    for name in &total.failed {
        println!("failed: {name}");
    }
    total
}

impl Stage {
    fn run(self, workspace: &Workspace) -> Tally {
        match self {
            Self::Format => {
                let mut commands = vec![workspace.cargo(["fmt", "--all", "--check"])];
                for directory in ["ebpf"].into_iter().chain(fuzz::DIRECTORIES) {
                    commands.push(workspace.cargo_in(directory, ["fmt", "--check"]));
                }
                checks(commands)
            }
            Self::Clippy => checks(clippy(workspace)),
            Self::Unit => harness::run(&mut workspace.cargo([
                "test",
                "--workspace",
                "--exclude",
                "integration",
                "--no-fail-fast",
            ])),
            Self::Fuzz => fuzz::smoke(workspace),
            Self::Integration => integration(workspace),
            Self::Demo => demonstration(workspace),
        }
    }
}

/// Runs commands whose exit code is their verdict; each counts as one.
fn checks(commands: Vec<Command>) -> Tally {
    let mut tally = Tally::default();
    for mut command in commands {
        match command::run(&mut command) {
            Ok(()) => tally.passed += 1,
            Err(error) => {
                eprintln!("{error:#}");
                tally.failed.push(command::line(&command));
            }
        }
    }
    tally
}

fn clippy(workspace: &Workspace) -> Vec<Command> {
    let deny = ["--", "-D", "warnings"];
    let host = workspace.cargo(
        ["clippy", "--workspace", "--all-targets"]
            .into_iter()
            .chain(deny),
    );
    let mut ebpf = workspace.cargo_in("ebpf", ["clippy", "--release"].into_iter().chain(deny));
    // `-Z build-std` on the pinned stable toolchain, as the agent's build script does it.
    ebpf.env("RUSTC_BOOTSTRAP", "1");
    let fuzz = fuzz::DIRECTORIES.map(|directory| {
        let mut command = fuzz::cargo(workspace, directory, "clippy");
        command.args(deny);
        command
    });
    [host, ebpf].into_iter().chain(fuzz).collect()
}

/// The tests on the real kernel use the agent and the hook as they are shipped: the release build, and a static one.
fn integration(workspace: &Workspace) -> Tally {
    let mut build = checks(vec![workspace.build_agent(), workspace.build_hook()]);
    // The trials of the images need root as their build does, and are ignored without it.
    if setup::is_root()
        && let Err(error) = image::run(workspace, &image::Options::native())
    {
        eprintln!("error: {error:#}");
        build.failed.push("cargo xtask image".to_owned());
    }
    if !build.failed.is_empty() {
        return build;
    }
    let mut tests = workspace.cargo(["test", "--package", "integration", "--no-fail-fast"]);
    tests.env("PILOTFISH_BIN", workspace.agent());
    tests.env("PILOTFISH_HOOK_BIN", workspace.hook());
    harness::run(&mut tests)
}

/// The demo holds what it shows against its own client's tally.
fn demonstration(workspace: &Workspace) -> Tally {
    let name = "cargo xtask demo --once".to_owned();
    let mut tally = Tally::default();
    if !setup::is_root() {
        tally.ignored.push(format!("{name}, needs root"));
        return tally;
    }
    match demo::run(workspace, &demo::Options { once: true }) {
        Ok(true) => tally.passed += 1,
        Ok(false) => tally.failed.push(name),
        Err(error) => {
            eprintln!("error: {error:#}");
            tally.failed.push(name);
        }
    }
    tally
}
