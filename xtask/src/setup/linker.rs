//! bpf-linker, which links the eBPF object.

use std::process::Command;

use anyhow::Result;

use crate::command;
use crate::workspace::Workspace;

/// The last release that builds with the LLVM inside of the pinned toolchain; later ones want a system LLVM.
const VERSION: &str = "0.10.3";

/// Why it is there.
pub(super) const REASON: &str = "links the eBPF programs (3 to 7 minutes to build)";

/// Name and version.
pub(super) fn label() -> String {
    format!("bpf-linker {VERSION} in target/tools")
}

/// True unless exactly the pinned version is there.
pub(super) fn missing(workspace: &Workspace) -> bool {
    let binary = workspace.tools().join("bin/bpf-linker");
    let answer = command::output(Command::new(binary).arg("--version"));
    !answer.is_ok_and(|version| version.trim() == format!("bpf-linker {VERSION}"))
}

/// Builds it from crates.io into `target/tools`.
pub(super) fn install(workspace: &Workspace) -> Result<()> {
    let mut install = workspace.cargo([
        "install",
        "bpf-linker",
        "--version",
        VERSION,
        "--locked",
        "--force",
    ]);
    // Its own target directory below `target/tools`: an interrupted build goes on where it was.
    install
        .arg("--root")
        .arg(workspace.tools())
        .arg("--target-dir")
        .arg(workspace.tools().join("build"));
    command::run(&mut install)
}
