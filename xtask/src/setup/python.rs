//! A Python environment with pinned packages that Debian does not have.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::command;
use crate::workspace::Workspace;

/// One pinned package of the Python Package Index.
pub(super) struct Pin {
    /// Name in the index.
    pub(super) name: &'static str,
    /// Exact version.
    pub(super) version: &'static str,
    /// What for.
    pub(super) reason: &'static str,
}

const PINS: &[Pin] = &[
    Pin {
        name: "rotel",
        version: "0.0.1a15",
        reason: "a collector that receives OTLP",
    },
    Pin {
        name: "requests",
        version: "2.34.2",
        reason: "HTTP client under observation",
    },
    Pin {
        name: "aiohttp",
        version: "3.14.5",
        reason: "HTTPS server and client whose TLS is in memory",
    },
    Pin {
        name: "grpcio",
        version: "1.85.0",
        reason: "gRPC server and client under observation",
    },
    Pin {
        name: "kubernetes-validate",
        version: "1.37.0",
        reason: "the schemas of Kubernetes 1.25 to 1.37",
    },
];

fn environment(workspace: &Workspace) -> PathBuf {
    workspace.tools().join("venv")
}

/// Packages that are not there in the pinned version, told by the directories that pip leaves.
pub(super) fn missing(workspace: &Workspace) -> Vec<&'static Pin> {
    let site_packages: Vec<PathBuf> = fs::read_dir(environment(workspace).join("lib"))
        .into_iter()
        .flatten()
        .filter_map(|python| Some(python.ok()?.path().join("site-packages")))
        .collect();
    PINS.iter()
        .filter(|pin| {
            let escaped = pin.name.replace('-', "_");
            let trace = format!("{escaped}-{}.dist-info", pin.version);
            !site_packages
                .iter()
                .any(|directory| directory.join(&trace).is_dir())
        })
        .collect()
}

/// Makes the environment from Debian's Python, not from whatever `python3` is first on `PATH`.
pub(super) fn install(workspace: &Workspace, pins: &[&Pin]) -> Result<()> {
    if pins.is_empty() {
        return Ok(());
    }
    let environment = environment(workspace);
    command::run(
        Command::new("/usr/bin/python3")
            .args(["-m", "venv"])
            .arg(&environment),
    )
    .context("cannot make a Python environment")?;
    command::run(
        Command::new(environment.join("bin/pip"))
            .args(["install", "--quiet", "--disable-pip-version-check"])
            .args(
                pins.iter()
                    .map(|pin| format!("{}=={}", pin.name, pin.version)),
            ),
    )
}
