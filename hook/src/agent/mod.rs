//! The way to the agent: one request, one reply, on a connection of its own.

mod cgroups;
mod connection;
mod launch;

use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::Flock;
use pilotfish_workload::announcement::{FrameError, Reply, Request, encode};

use crate::deadline::{Deadline, Elapsed};
use connection::Connection;
pub use launch::LaunchError;

/// Pause before the next attempt to connect to an agent that is starting or has just ended.
const RETRY: Duration = Duration::from_millis(5);

/// Connections that the agent may close without a reply before that counts as its answer: it may have been about to
/// end, and its successor listens on the same path.
const MAX_CLOSED: usize = 3;

/// Why there is no reply.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// Longer than `sun_path`.
    #[error("the socket's path {0} is too long: at most 107 bytes; choose a shorter --socket")]
    Path(PathBuf),
    /// Nobody listens.
    #[error(
        "no agent listens on {socket} ({why}): start `pilotfish node`, or let the hook start it with --agent"
    )]
    Absent {
        /// Where.
        socket: PathBuf,
        /// In our own words: podman takes the kernel's for those about a missing program of the container.
        why: &'static str,
    },
    /// It does not answer in time.
    #[error(
        "the agent on {socket} did not {what} within the deadline: look at its log and load, or raise --timeout"
    )]
    Slow {
        /// Where.
        socket: PathBuf,
        /// What it did not do.
        what: &'static str,
    },
    /// Any other failure of a system call.
    #[error("cannot {what} the agent on {socket}: {source}")]
    Socket {
        /// Where.
        socket: PathBuf,
        /// What was tried.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// Somebody else's process serves the socket.
    #[error(
        "the socket {socket} is served by a process of user {uid}, which is not believed: only root may write to its directory"
    )]
    Stranger {
        /// Where.
        socket: PathBuf,
        /// The peer's user.
        uid: u32,
    },
    /// The connection ended before the reply.
    #[error("the agent on {0} closed the connection without a reply: look at its log")]
    Closed(PathBuf),
    /// What came is no reply, or what goes is too long.
    #[error("no conversation with the agent on {socket}: {source}")]
    Frame {
        /// Where.
        socket: PathBuf,
        /// What is wrong.
        source: FrameError,
    },
    /// The agent could not be started.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// It was started, by this hook or another, and does not listen yet.
    #[error(
        "the agent was started but did not listen on {} within the deadline: see {}, or raise --timeout",
        .0.display(),
        launch::log_path(.0).display()
    )]
    NotYet(PathBuf),
}

/// Where the agent is, and how to start it.
#[derive(Clone, Copy, Debug)]
pub struct Agent<'a> {
    /// Its socket.
    pub socket: &'a Path,
    /// The program that is started when nobody listens.
    pub program: Option<&'a Path>,
}

/// How far the start of an agent is.
enum Start {
    /// Nobody has tried, or somebody else is at it.
    No,
    /// It is ours to do, if there is still no agent.
    Claimed(Flock<File>),
    /// Done; the claim is kept until the agent listens, so that nobody starts a second one.
    Done(#[expect(dead_code, reason = "dropping it gives up the claim")] Flock<File>),
}

impl Agent<'_> {
    /// Sends a request, with a pidfd beside it where it has one, and waits for the reply.
    pub fn ask(
        self,
        request: &Request,
        pidfd: Option<BorrowedFd<'_>>,
        deadline: Deadline,
    ) -> Result<Reply, AgentError> {
        let frame = encode(request).map_err(|source| AgentError::Frame {
            socket: self.socket.to_owned(),
            source,
        })?;
        if self.program.is_some() {
            launch::bound_log(self.socket);
        }
        let mut start = Start::No;
        let mut closed = 0;
        loop {
            let outcome = Connection::open(self.socket, deadline)
                .and_then(|connection| connection.exchange(&frame, pidfd, deadline));
            let timed_out = match (outcome, self.program) {
                (Err(AgentError::Absent { .. }), Some(program)) => {
                    start = self.advance(start, program)?;
                    if matches!(start, Start::Claimed(_)) {
                        continue;
                    }
                    AgentError::NotYet(self.socket.to_owned())
                }
                (Err(error @ AgentError::Closed(_)), _) if closed < MAX_CLOSED => {
                    closed += 1;
                    error
                }
                (outcome, _) => return outcome,
            };
            deadline.sleep(RETRY).map_err(|Elapsed| timed_out)?;
        }
    }

    /// The next step after nobody listened.
    fn advance(self, start: Start, program: &Path) -> Result<Start, AgentError> {
        Ok(match start {
            Start::No => launch::claim(self.socket)?.map_or(Start::No, Start::Claimed),
            Start::Claimed(claim) => {
                launch::start(program, self.socket)?;
                Start::Done(claim)
            }
            done @ Start::Done(_) => done,
        })
    }
}
