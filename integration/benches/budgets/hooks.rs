//! What can be attached to the socket hooks: nothing, an empty program, or the agent.

use crate::Bench;
use crate::agent::Agent;
use anyhow::{Result, ensure};
use integration::process::{Process, wait_for};
use integration::program;
use std::process::Command;
use std::time::Duration;

/// Longest start of a small program.
const START_LIMIT: Duration = Duration::from_secs(5);

/// A state of the hooks to compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Nothing of ours.
    Bare,
    /// An empty program at `sock_send_length` and `sock_recv_length`.
    Empty,
    /// The agent.
    Agent,
}

/// A state that holds until this is dropped.
#[derive(Debug)]
pub(crate) enum Attached {
    /// Nothing is attached.
    Nothing,
    /// The program that holds the empty ones.
    Empty(#[expect(dead_code, reason = "held until it is dropped")] Process),
    /// The agent.
    Agent(Agent),
}

impl Attached {
    /// Brings a state about; `agent` starts the agent.
    pub(crate) fn new(
        bench: &Bench,
        state: State,
        agent: impl FnOnce() -> Result<Agent>,
    ) -> Result<Self> {
        Ok(match state {
            State::Bare => Self::Nothing,
            State::Empty => Self::Empty(holder(bench, "empty_probe.c")?),
            State::Agent => Self::Agent(agent()?),
        })
    }

    /// The agent, if it is the agent.
    pub(crate) fn agent(&self) -> Option<&Agent> {
        match self {
            Self::Agent(agent) => Some(agent),
            Self::Nothing | Self::Empty(_) => None,
        }
    }
}

/// Starts a fixture that brings something about for as long as it lives, and says when it is ready.
pub(crate) fn holder(bench: &Bench, source: &str) -> Result<Process> {
    hold(bench, source, Command::new(program::c(source)?))
}

/// The same by its command line.
pub(crate) fn hold(bench: &Bench, source: &str, command: Command) -> Result<Process> {
    let mut process = Process::start(source, command, bench.scene.folder())?;
    wait_for(&format!("readiness of {source}"), START_LIMIT, || {
        ensure!(
            process.is_running(),
            "{source} ended: {}",
            process.log_tail()
        );
        Ok((process.log().trim() == "ready").then_some(()))
    })?;
    Ok(process)
}
