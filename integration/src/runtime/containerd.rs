//! containerd, through its own client and as a Kubernetes node uses it.

use super::cri::Cri;
use super::machine::{Machine, output};
use super::tree::Tree;
use super::{ARCHIVE, IMAGES, image};
use crate::namespace::inner_pid;
use crate::process::{Process, wait_for};
use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Bound for the start of the daemon and for its orderly end.
const LIMIT: Duration = Duration::from_secs(20);

/// The daemon's configuration in a machine.
const CONFIGURATION: &str = "/etc/containerd/config.toml";

/// Its socket in a machine, for its own interface and the CRI.
const SOCKET: &str = "/run/containerd/containerd.sock";

/// Where drop-ins are found.
const IMPORTS: &str = "imports = [\"/etc/containerd/conf.d/*.toml\"]\n";

/// A line of releases with one format of configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// 1.6: version 2 of the configuration, no NRI worth the name.
    V1_6,
    /// 1.7: version 2 of the configuration, NRI to be switched on.
    V1_7,
    /// 2.x: version 3 of the configuration, NRI switched on.
    V2,
}

impl Release {
    /// What [`Machine::layered`] needs for it.
    pub fn trees(self) -> &'static [Tree] {
        match self {
            Self::V1_6 => &[Tree::Containerd16],
            Self::V1_7 => &[],
            Self::V2 => &[Tree::Containerd2],
        }
    }

    /// The start of the version that the daemon has to tell.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::V1_6 => "1.6.",
            Self::V1_7 => "1.7.",
            Self::V2 => "2.",
        }
    }

    /// A configuration whose pod sandboxes come from [`image::PAUSE`], that imports `/etc/containerd/conf.d/*.toml`,
    /// and the trial's own tables. A drop-in for 1.6 and 1.7 replaces each plugin's table as a whole, ours included.
    pub fn configuration(self, tables: &str) -> String {
        let pause = image::PAUSE;
        // Without CAP_SYS_RESOURCE, which a test machine may lack, no OOM score can be lowered as a sandbox asks for.
        let own = match self {
            Self::V1_6 | Self::V1_7 => format!(
                "version = 2\n{IMPORTS}\n\
                 [plugins.\"io.containerd.grpc.v1.cri\"]\n\
                 sandbox_image = \"{pause}\"\nrestrict_oom_score_adj = true\n"
            ),
            Self::V2 => format!(
                "version = 3\n{IMPORTS}\n\
                 [plugins.\"io.containerd.cri.v1.images\".pinned_images]\nsandbox = \"{pause}\"\n\
                 [plugins.\"io.containerd.cri.v1.runtime\"]\nrestrict_oom_score_adj = true\n"
            ),
        };
        format!("{own}\n{tables}\n")
    }
}

/// A running daemon.
#[derive(Debug)]
pub struct Containerd<'machine> {
    machine: &'machine Machine,
    daemon: Process,
}

impl<'machine> Containerd<'machine> {
    /// Writes the configuration, starts the daemon and imports the images, for [`Containerd::ctr`] and the CRI.
    pub fn start(machine: &'machine Machine, configuration: &str) -> Result<Self> {
        machine.write(CONFIGURATION, configuration, 0o644)?;
        let daemon = machine.spawn("containerd", machine.command("containerd", [""; 0]))?;
        let mut containerd = Self { machine, daemon };
        containerd.await_ready()?;
        machine.write(IMAGES, image::archive()?, 0o644)?;
        containerd.ctr(["images", "import", IMAGES])?;
        Ok(containerd)
    }

    /// Imports the images of an archive of the host, in the way that the documentation tells users.
    pub fn import(&self, archive: &Path) -> Result<()> {
        self.machine.copy_in(archive, ARCHIVE, 0o644)?;
        self.ctr(["images", "import", ARCHIVE]).map(drop)
    }

    /// Ends the daemon in an orderly way and starts it again; containers go on meanwhile.
    pub fn restart(&mut self) -> Result<()> {
        kill(
            Pid::from_raw(inner_pid(&self.daemon)? as i32),
            Signal::SIGTERM,
        )?;
        self.daemon.wait(LIMIT)?;
        self.daemon = self.machine.spawn(
            "containerd-again",
            self.machine.command("containerd", [""; 0]),
        )?;
        self.await_ready()
    }

    fn await_ready(&mut self) -> Result<()> {
        wait_for("containerd's start", LIMIT, || {
            ensure!(self.daemon.is_running(), "containerd ended");
            Ok(output(self.command(["version"])).ok())
        })
        .map(drop)
        .with_context(|| format!("it logged:\n{}", self.daemon.log_tail()))
    }

    /// A command line of `ctr`, in the namespace that the CRI uses too.
    pub fn command(&self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
        let mut command = self.machine.command("ctr", ["--namespace", "k8s.io"]);
        command.args(arguments);
        command
    }

    /// Runs one to its successful end and gives back its standard output.
    pub fn ctr(&self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Result<String> {
        output(self.command(arguments))
    }

    /// A client of the Container Runtime Interface.
    pub fn cri(&self) -> Result<Cri> {
        Cri::connect(&self.machine.path(SOCKET))
    }

    /// The daemon's log so far.
    pub fn log(&self) -> String {
        self.daemon.log()
    }
}
