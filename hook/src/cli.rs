//! The command line.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use pilotfish_workload::announcement::DEFAULT_SOCKET;

use crate::install::{InstallArgs, UninstallArgs};
use crate::wrapper;

/// Shortest and longest `--timeout`.
const TIMEOUTS: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(10)..=Duration::from_mins(1);

/// The OCI hook of pilotfish: a container runtime runs it with the container's state on standard input.
///
/// A container whose annotations select it is announced to the agent, and observed from its first instruction. All
/// others, and pause sandboxes, are left alone. The hook fails open: whatever goes wrong, it says so on standard error
/// and in the system's log and exits with 0, unless --fail-closed is given. Environment variables mean nothing to it.
#[derive(Debug, Parser)]
#[command(
    name = "pilotfish-hook",
    version,
    about,
    max_term_width = 100,
    args_conflicts_with_subcommands = true
)]
pub struct Cli {
    /// What else to do.
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    #[expect(missing_docs, reason = "the help text is on the fields")]
    pub hook: HookArgs,
}

/// Subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a container runtime call this hook.
    Install(Box<InstallArgs>),
    /// Take back what `install` added to a runtime.
    Uninstall(UninstallArgs),
    /// Add the hook to a bundle, then become the real OCI runtime. docker calls it; `install` says how.
    Runtime(wrapper::Args),
}

/// Arguments of the hook itself.
#[derive(Clone, Debug, Args)]
pub struct HookArgs {
    /// The stage at which the runtime runs this hook: createRuntime or poststop. At any other the hook says so and
    /// exits with 0. Without it, the container's status tells.
    #[arg(long, value_name = "STAGE")]
    pub stage: Option<Stage>,
    /// The agent's socket.
    #[arg(long, value_name = "PATH", default_value = DEFAULT_SOCKET)]
    pub socket: PathBuf,
    /// How long the container may be held up, such as 500ms or 2s, at most 60s. Default: 1s, with --agent 3s.
    #[arg(long, value_name = "DURATION", value_parser = parse_timeout)]
    pub timeout: Option<Duration>,
    /// Exit with 1 when a selected container could not be announced (or the state not be read), so that the
    /// runtime refuses to start it.
    #[arg(long)]
    pub fail_closed: bool,
    /// The `pilotfish` program to start when nobody listens on the socket: an absolute path, the file root's and
    /// not writable by others. It runs detached, logs to agent.log beside the socket, and ends when idle.
    #[arg(long, value_name = "PATH")]
    pub agent: Option<PathBuf>,
}

impl HookArgs {
    /// The total time that the hook may take.
    pub fn limit(&self) -> Duration {
        Self::limit_of(self.timeout, self.agent.is_some())
    }

    /// The same, of a hook with this `--timeout`, with or without `--agent`.
    pub fn limit_of(timeout: Option<Duration>, starts_agent: bool) -> Duration {
        let default = if starts_agent { 3 } else { 1 };
        timeout.unwrap_or(Duration::from_secs(default))
    }
}

/// Where in a container's life the runtime runs the hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage {
    /// After the container's namespaces exist, before its program does; in the runtime's namespaces.
    CreateRuntime,
    /// After the container is deleted; in the runtime's namespaces.
    Poststop,
    /// Any other: not for this hook.
    Other(String),
}

impl FromStr for Stage {
    type Err = std::convert::Infallible;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Ok(match name {
            "createRuntime" => Self::CreateRuntime,
            "poststop" => Self::Poststop,
            _ => Self::Other(name.to_owned()),
        })
    }
}

/// `--timeout`, bounded by [`TIMEOUTS`].
pub(crate) fn parse_timeout(text: &str) -> Result<Duration, String> {
    let limit = humantime::parse_duration(text)
        .map_err(|error| format!("{error}; expected a duration such as 500ms or 2s"))?;
    if TIMEOUTS.contains(&limit) {
        Ok(limit)
    } else {
        Err("expected a duration between 10ms and 60s".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_timeout_is_bounded() {
        assert_eq!(parse_timeout("1s 500ms"), Ok(Duration::from_millis(1500)));
        for text in ["", "1", "0s", "1ms", "2m", "-1s", "1e9s"] {
            assert!(parse_timeout(text).is_err(), "{text}");
        }
    }

    #[test]
    fn starting_an_agent_takes_longer() {
        let limit = |arguments: &[&str]| Cli::try_parse_from(arguments).unwrap().hook.limit();
        assert_eq!(limit(&["h"]), Duration::from_secs(1));
        assert_eq!(limit(&["h", "--agent", "/a"]), Duration::from_secs(3));
        assert_eq!(
            limit(&["h", "--agent", "/a", "--timeout", "2s"]),
            Duration::from_secs(2)
        );
    }
}
