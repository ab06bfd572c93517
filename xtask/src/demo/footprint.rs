//! Everything that one demo leaves on the machine, named after its process so that it can always be removed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::command;

const PREFIX: &str = "pilotfish-demo-";
const RUN: &str = "/run";

/// The names of one demo's containers, network and files. Dropping it removes them all.
pub(super) struct Footprint {
    pid: u32,
}

impl Footprint {
    /// Claims the names of this process, after removing what demos that were killed left behind.
    pub(super) fn claim() -> Result<Self> {
        for pid in abandoned() {
            drop(Self { pid });
        }
        let footprint = Self {
            pid: std::process::id(),
        };
        let directory = footprint.directory();
        fs::create_dir(&directory)
            .with_context(|| format!("cannot create {}", directory.display()))?;
        Ok(footprint)
    }

    fn name(&self) -> String {
        format!("{PREFIX}{}", self.pid)
    }

    /// Holds bundles, logs and the runtime's state.
    pub(super) fn directory(&self) -> PathBuf {
        Path::new(RUN).join(self.name())
    }

    /// Name of the network namespace.
    pub(super) fn namespace(&self) -> String {
        self.name()
    }

    /// The host's end of the pair of interfaces; at most 15 bytes.
    pub(super) fn interface(&self) -> String {
        format!("pfd{}", self.pid)
    }

    /// Parent of the containers' cgroups.
    pub(super) fn cgroup(&self) -> String {
        format!("/{}", self.name())
    }

    /// `runc` with the state directory of this demo.
    pub(super) fn runc(&self) -> Command {
        let mut runc = Command::new("runc");
        runc.arg("--root").arg(self.runtime_state());
        runc
    }

    fn runtime_state(&self) -> PathBuf {
        self.directory().join("runc")
    }

    fn remove_containers(&self) {
        for container in names_in(&self.runtime_state()) {
            let mut delete = self.runc();
            delete.args(["delete", "--force"]).arg(container);
            report(command::output(&mut delete).map(drop));
        }
    }

    fn remove_network(&self) {
        if Path::new("/run/netns").join(self.namespace()).exists() {
            // The pair of interfaces goes with the namespace that holds one end of it.
            let mut delete = Command::new("ip");
            delete.args(["netns", "delete", &self.namespace()]);
            report(command::output(&mut delete).map(drop));
        }
    }

    /// The runtime removes a container's cgroup but not the parent that it made, one per hierarchy.
    fn remove_cgroups(&self) {
        let root = Path::new("/sys/fs/cgroup");
        let hierarchies = names_in(root).into_iter().map(|name| root.join(name));
        for hierarchy in hierarchies.chain([root.to_path_buf()]) {
            let cgroup = hierarchy.join(self.name());
            if cgroup.is_dir() {
                report(
                    fs::remove_dir(&cgroup)
                        .with_context(|| format!("cannot remove cgroup {}", cgroup.display())),
                );
            }
        }
    }
}

impl Drop for Footprint {
    fn drop(&mut self) {
        self.remove_containers();
        self.remove_network();
        self.remove_cgroups();
        let directory = self.directory();
        report(
            fs::remove_dir_all(&directory)
                .with_context(|| format!("cannot remove {}", directory.display())),
        );
    }
}

fn report(result: Result<()>) {
    if let Err(error) = result {
        anstream::eprintln!("warning: while cleaning up: {error:#}");
    }
}

/// Demos whose process is gone.
fn abandoned() -> Vec<u32> {
    names_in(Path::new(RUN))
        .iter()
        .filter_map(|name| name.strip_prefix(PREFIX)?.parse().ok())
        .filter(|pid| !Path::new(&format!("/proc/{pid}")).exists())
        .collect()
}

fn names_in(directory: &Path) -> Vec<String> {
    fs::read_dir(directory)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect()
}
