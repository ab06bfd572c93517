//! Programs that cargo builds from crates.io into `target/tools`.

use std::process::Command;

use anyhow::Result;

use super::Scope;
use crate::command;
use crate::workspace::Workspace;

/// One pinned program.
pub(super) struct Tool {
    /// Name of crate and program.
    name: &'static str,
    version: &'static str,
    /// Who needs it first.
    scope: Scope,
    /// What for.
    pub(super) reason: &'static str,
    /// What makes it say its version.
    question: &'static [&'static str],
}

const TOOLS: &[Tool] = &[
    Tool {
        name: "bpf-linker",
        // The last release that builds with the LLVM inside of the pinned toolchain; later ones want a system LLVM.
        version: "0.10.3",
        scope: Scope::Build,
        reason: "links the eBPF programs (3 to 7 minutes to build)",
        question: &["--version"],
    },
    Tool {
        name: "cargo-cyclonedx",
        version: "0.5.9",
        scope: Scope::Test,
        reason: "bills of materials for the images (1 to 3 minutes to build)",
        question: &["cyclonedx", "--version"],
    },
];

/// Programs of a scope that are not there in exactly the pinned version.
pub(super) fn missing(workspace: &Workspace, scope: Scope) -> Vec<&'static Tool> {
    TOOLS
        .iter()
        .filter(|tool| tool.scope <= scope && !tool.is_there(workspace))
        .collect()
}

impl Tool {
    /// Name, version and place.
    pub(super) fn label(&self) -> String {
        format!("{} {} in target/tools", self.name, self.version)
    }

    fn is_there(&self, workspace: &Workspace) -> bool {
        let binary = workspace.tools().join("bin").join(self.name);
        let answer = command::output(Command::new(binary).args(self.question));
        answer.is_ok_and(|answer| answer.split_whitespace().last() == Some(self.version))
    }

    /// Builds it.
    pub(super) fn install(&self, workspace: &Workspace) -> Result<()> {
        let mut install = workspace.cargo([
            "install",
            self.name,
            "--version",
            self.version,
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
}
