//! podman, which has no daemon.

use super::machine::{Machine, output};
use super::{ARCHIVE, IMAGES, image};
use anyhow::Result;
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::Command;

/// podman in a machine, with a low-level runtime and the options of a trial.
#[derive(Debug)]
pub struct Podman<'machine> {
    machine: &'machine Machine,
    options: Vec<OsString>,
}

impl<'machine> Podman<'machine> {
    /// Loads the images. `runtime` is `runc` or `crun`; `options` stand before the subcommand.
    pub fn prepare(machine: &'machine Machine, runtime: &str, options: &[&str]) -> Result<Self> {
        let own = ["--cgroup-manager=cgroupfs", "--runtime", runtime];
        let podman = Self {
            machine,
            options: own.iter().chain(options).map(OsString::from).collect(),
        };
        machine.write(IMAGES, image::archive()?, 0o644)?;
        podman.output(["load", "--quiet", "--input", IMAGES])?;
        Ok(podman)
    }

    /// Loads the images of an archive of the host.
    pub fn load(&self, archive: &Path) -> Result<String> {
        self.machine.copy_in(archive, ARCHIVE, 0o644)?;
        self.output(["load", "--input", ARCHIVE])
    }

    /// A command line of podman.
    pub fn command(&self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
        let mut command = self.machine.command("podman", &self.options);
        command
            .args(arguments)
            .env("PODMAN_IGNORE_CGROUPSV1_WARNING", "1");
        command
    }

    /// Runs one to its successful end and gives back its standard output.
    pub fn output(&self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Result<String> {
        output(self.command(arguments))
    }
}
