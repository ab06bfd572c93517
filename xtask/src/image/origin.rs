//! What a build was made from, for labels and for time stamps that do not depend on when it was made.

use std::env;
use std::process::Command;

use anyhow::{Context, Result};

use crate::command;
use crate::workspace::Workspace;

/// Source revision and time.
pub(super) struct Origin {
    /// Commit, with `-dirty` if the checkout had changes; `unknown` outside of a git checkout.
    pub(super) revision: String,
    /// Seconds since 1970: `SOURCE_DATE_EPOCH` (reproducible-builds.org), else the commit's time, else 0.
    pub(super) epoch: u64,
}

impl Origin {
    /// Asks the environment and git.
    pub(super) fn find(workspace: &Workspace) -> Result<Self> {
        let git = |arguments: &[&str]| {
            command::output(
                Command::new("git")
                    .args(arguments)
                    .current_dir(workspace.path("")),
            )
            .ok()
            .map(|text| text.trim().to_owned())
        };
        let revision = git(&["rev-parse", "HEAD"]).map_or_else(
            || "unknown".to_owned(),
            |commit| match git(&["status", "--porcelain"]) {
                Some(changes) if changes.is_empty() => commit,
                _ => format!("{commit}-dirty"),
            },
        );
        let epoch = match env::var("SOURCE_DATE_EPOCH") {
            Ok(seconds) => seconds
                .parse()
                .with_context(|| format!("SOURCE_DATE_EPOCH={seconds} is no number of seconds"))?,
            Err(_) => git(&["log", "-1", "--format=%ct"])
                .and_then(|seconds| seconds.parse().ok())
                .unwrap_or(0),
        };
        Ok(Self { revision, epoch })
    }
}
