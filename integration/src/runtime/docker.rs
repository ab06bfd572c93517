//! The docker daemon and its client.

use super::machine::{Machine, output};
use super::{ARCHIVE, IMAGES, image};
use crate::namespace::inner_pid;
use crate::process::{Process, wait_for};
use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Bound for the start of the daemon and for its orderly end.
const LIMIT: Duration = Duration::from_secs(30);

/// The daemon's configuration in a machine.
pub const CONFIGURATION: &str = "/etc/docker/daemon.json";

/// Where the daemon finds its containerd, as Debian's unit has it.
const CONTAINERD: &str = "--containerd=/run/containerd/containerd.sock";

/// A running daemon.
#[derive(Debug)]
pub struct Docker<'machine> {
    machine: &'machine Machine,
    daemon: Process,
    _containerd: Process,
}

/// What a machine needs of [`CONFIGURATION`]: no network but the machine's own and none.
pub fn configuration() -> Value {
    json!({ "bridge": "none", "iptables": false, "ip6tables": false })
}

impl<'machine> Docker<'machine> {
    /// Writes the configuration, starts the daemon and loads the images.
    pub fn start(machine: &'machine Machine, configuration: &Value) -> Result<Self> {
        machine.write(CONFIGURATION, configuration.to_string(), 0o644)?;
        let containerd = machine.command("containerd", [""; 0]);
        let mut docker = Self {
            machine,
            _containerd: machine.spawn("docker-containerd", containerd)?,
            daemon: machine.spawn("dockerd", machine.command("dockerd", [CONTAINERD]))?,
        };
        docker.await_ready()?;
        machine.write(IMAGES, image::archive()?, 0o644)?;
        docker.output(["load", "--quiet", "--input", IMAGES])?;
        Ok(docker)
    }

    /// Ends the daemon in an orderly way and starts it again with [`CONFIGURATION`] as it is then.
    pub fn restart(&mut self) -> Result<()> {
        kill(
            Pid::from_raw(inner_pid(&self.daemon)? as i32),
            Signal::SIGTERM,
        )?;
        self.daemon.wait(LIMIT)?;
        self.daemon = self.machine.spawn(
            "dockerd-again",
            self.machine.command("dockerd", [CONTAINERD]),
        )?;
        self.await_ready()
    }

    fn await_ready(&mut self) -> Result<()> {
        wait_for("the docker daemon's start", LIMIT, || {
            ensure!(self.daemon.is_running(), "the docker daemon ended");
            Ok(output(self.command(["version"])).ok())
        })
        .map(drop)
        .with_context(|| format!("it logged:\n{}", self.daemon.log_tail()))
    }

    /// Loads the images of an archive of the host.
    pub fn load(&self, archive: &Path) -> Result<String> {
        self.machine.copy_in(archive, ARCHIVE, 0o644)?;
        self.output(["load", "--input", ARCHIVE])
    }

    /// A command line of the client.
    pub fn command(&self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
        self.machine.command("docker", arguments)
    }

    /// Runs one to its successful end and gives back its standard output.
    pub fn output(&self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Result<String> {
        output(self.command(arguments))
    }

    /// The daemon's log so far.
    pub fn log(&self) -> String {
        self.daemon.log()
    }
}
