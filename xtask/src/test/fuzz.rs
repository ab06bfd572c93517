//! The smoke run of the fuzz targets: a fixed number of runs from a fixed seed, so that it says the same each time.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::Command;

use anstream::eprintln;
use anyhow::{Context, Result};

use super::checks;
use super::tally::Tally;
use crate::workspace::Workspace;

/// The fuzz crates, each a workspace of its own because its targets are no ordinary programs. No two targets have
/// the same name.
pub(super) const DIRECTORIES: [&str; 3] =
    ["hook/fuzz", "sidecar/pipeline/fuzz", "sidecar/symbols/fuzz"];

#[cfg(target_arch = "x86_64")]
const TARGET: &str = "x86_64-unknown-linux-gnu";
#[cfg(target_arch = "aarch64")]
const TARGET: &str = "aarch64-unknown-linux-gnu";

/// Bounds for libFuzzer: runs, not time; and a hang or a leak is a failure.
const LIMITS: [&str; 6] = [
    "-runs=50000",
    "-seed=1",
    "-verbosity=0",
    "-max_len=8192",
    "-timeout=10",
    "-rss_limit_mb=1024",
];

/// What cargo-fuzz passes for coverage, without the address sanitizer: that one needs a nightly compiler, and the
/// pipeline forbids unsafe code.
const COVERAGE: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1";

/// `cargo VERB` for a fuzz crate. Naming the target keeps the coverage out of build scripts, which could not link.
pub(super) fn cargo(workspace: &Workspace, directory: &str, verb: &str) -> Command {
    let mut command = workspace.cargo_in(
        directory,
        [verb, "--release", "--locked", "--target", TARGET],
    );
    command.env("RUSTFLAGS", COVERAGE);
    command
}

/// Runs every target.
pub(super) fn smoke(workspace: &Workspace) -> Tally {
    let mut tally = Tally::default();
    for directory in DIRECTORIES {
        match commands(workspace, directory) {
            Ok(commands) => tally.add(checks(commands)),
            Err(error) => {
                eprintln!("{error:#}");
                tally.failed.push(directory.to_owned());
            }
        }
    }
    tally
}

fn commands(workspace: &Workspace, directory: &str) -> Result<Vec<Command>> {
    let crate_root = workspace.path(directory);
    targets(&crate_root.join("fuzz_targets"))?
        .into_iter()
        .map(|target| {
            // libFuzzer keeps what it finds in the first directory; the seeds in the repository stay as they are.
            // What an earlier run found would make this one another.
            let found = workspace.target().join("fuzz-corpus").join(&target);
            if found.exists() {
                fs::remove_dir_all(&found)
                    .with_context(|| format!("cannot remove {}", found.display()))?;
            }
            fs::create_dir_all(&found)
                .with_context(|| format!("cannot create {}", found.display()))?;
            let mut run = cargo(workspace, directory, "run");
            run.args(["--bin", &target, "--"]).args(LIMITS);
            let mut failures = OsString::from("-artifact_prefix=");
            failures.push(workspace.target().join(format!("fuzz-failure-{target}-")));
            run.arg(failures)
                .arg(found)
                .arg(crate_root.join("corpus").join(&target));
            Ok(run)
        })
        .collect()
}

/// One target per source file, by name.
fn targets(directory: &Path) -> Result<Vec<String>> {
    let entries =
        fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?;
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter_map(|file| file.strip_suffix(".rs").map(str::to_owned))
        .collect();
    names.sort_unstable();
    Ok(names)
}
