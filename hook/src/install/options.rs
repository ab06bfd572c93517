//! Options of `install` and `uninstall`.

use super::Error;
use crate::cli::parse_timeout;
use clap::{Args, ValueEnum};
use std::{path::PathBuf, time::Duration};

/// Container runtimes that can be made to call the hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Runtime {
    /// podman: two files in hooks.d.
    Podman,
    /// CRI-O: the same two files.
    Crio,
    /// containerd: a base spec with the hook and the settings that name it.
    Containerd,
    /// docker: a runtime `pilotfish` that wraps the real one.
    Docker,
}

impl Runtime {
    /// What makes the runtime read its configuration again, for people.
    pub(super) fn restart(self) -> &'static str {
        match self {
            Self::Podman => {
                "nothing has to be restarted: podman reads hooks.d at every start of a container"
            }
            Self::Crio => {
                "CRI-O watches hooks.d if the directory was there when it started; else restart it (`systemctl restart \
                 crio`; containers keep running)"
            }
            Self::Containerd => {
                "restart containerd for it to take effect (`systemctl restart containerd`; containers keep running)"
            }
            Self::Docker => {
                "reload docker for it to take effect (`systemctl reload docker`; a changed default runtime needs \
                 `systemctl restart docker`)"
            }
        }
    }
}

/// Where to work.
#[derive(Clone, Debug, Args)]
pub struct Target {
    /// The runtime to configure.
    #[arg(long, value_enum)]
    pub runtime: Runtime,
    /// Print what would change, as a unified diff, and change nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Directory that stands for `/`: an image, a chroot, or a host's root mounted into a container.
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub root: PathBuf,
    /// podman, crio: directory of hook files. Without it: /usr/share/containers/oci/hooks.d, which both read with no
    /// configuration.
    #[arg(long, value_name = "DIR")]
    pub hooks_dir: Option<PathBuf>,
}

/// The hook's own command line, as the runtime will call it.
#[derive(Clone, Debug, Args)]
pub struct HookOptions {
    /// Absolute path of the hook on that host. Without it: the path of this program, or of its copy.
    #[arg(long, value_name = "PATH")]
    pub hook: Option<PathBuf>,
    /// Copy this program to PATH (below --root) first, mode 0755, and make the runtime call the copy.
    #[arg(long, value_name = "PATH", conflicts_with = "hook")]
    pub copy_to: Option<PathBuf>,
    /// Socket of the agent. Without it: the hook's default.
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Agent that the hook starts when none answers. Without it: none.
    #[arg(long, value_name = "PATH")]
    pub agent: Option<PathBuf>,
    /// How long the hook may hold a container's start, such as 500ms or 2s. Without it: the hook's default.
    #[arg(long, value_name = "DURATION", value_parser = parse_timeout)]
    pub timeout: Option<Duration>,
    /// Seconds after which the runtime kills the hook and fails the container, as a last resort. Without it: 5 more
    /// than the hook may take.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub kill_after: Option<u32>,
    /// A selected container that cannot be observed does not start.
    #[arg(long)]
    pub fail_closed: bool,
}

/// Arguments of `pilotfish-hook install`.
#[derive(Clone, Debug, Args)]
pub struct InstallArgs {
    #[command(flatten)]
    #[expect(missing_docs, reason = "the help text is on the fields")]
    pub target: Target,
    #[command(flatten)]
    #[expect(missing_docs, reason = "the help text is on the fields")]
    pub hook: HookOptions,
    /// containerd: only this runtime handler (repeatable). Without it: every handler that runs containers with
    /// `io.containerd.runc.v2`, and `runc` if none is configured.
    #[arg(long = "handler", value_name = "NAME")]
    pub handlers: Vec<String>,
    /// containerd: the runtime's default spec. Without it: what `ctr oci spec` prints below --root.
    #[arg(long, value_name = "FILE")]
    pub default_spec: Option<PathBuf>,
    /// containerd: its version, needed only where there is no config.toml. Without it: `containerd --version`.
    #[arg(long, value_name = "VERSION")]
    pub containerd_version: Option<String>,
    /// docker: make the wrapper the default runtime. Without it: containers ask with `--runtime pilotfish`.
    #[arg(long)]
    pub default: bool,
    /// docker: the OCI runtime that the wrapper starts. Without it: `runc`, or the default runtime that is replaced.
    #[arg(long, value_name = "PATH")]
    pub real_runtime: Option<String>,
}

impl Target {
    /// An option that the runtime has no use for is a mistake of whoever gave it.
    pub(super) fn check(&self) -> Result<(), Error> {
        let has_hooks_dir = matches!(self.runtime, Runtime::Podman | Runtime::Crio);
        only_for(has_hooks_dir, "--hooks-dir", self.hooks_dir.is_some())
    }
}

impl InstallArgs {
    /// The same, of all options.
    pub(super) fn check(&self) -> Result<(), Error> {
        self.target.check()?;
        let containerd = self.target.runtime == Runtime::Containerd;
        only_for(containerd, "--handler", !self.handlers.is_empty())?;
        only_for(containerd, "--default-spec", self.default_spec.is_some())?;
        let version = self.containerd_version.is_some();
        only_for(containerd, "--containerd-version", version)?;
        let docker = self.target.runtime == Runtime::Docker;
        only_for(docker, "--default", self.default)?;
        only_for(docker, "--real-runtime", self.real_runtime.is_some())
    }
}

fn only_for(fits: bool, option: &'static str, given: bool) -> Result<(), Error> {
    if fits || !given {
        Ok(())
    } else {
        Err(Error::OtherRuntime(option))
    }
}

/// Arguments of `pilotfish-hook uninstall`.
#[derive(Clone, Debug, Args)]
pub struct UninstallArgs {
    #[command(flatten)]
    #[expect(missing_docs, reason = "the help text is on the fields")]
    pub target: Target,
}
