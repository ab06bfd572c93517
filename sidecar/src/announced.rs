//! Containers that a runtime announces, by the OCI hook or by NRI: what the node agent's front ends ask of the
//! observer, and what they hear from it.

use pilotfish_workload::announcement::{Announcement, Reply};
use std::{collections::BTreeSet, os::fd::OwnedFd};
use tokio::sync::{mpsc, oneshot};

/// Commands that may wait for the observer; a front end that finds the queue full fails its request.
pub const COMMAND_QUEUE: usize = 256;

/// To the observer. The reply comes when the kernel obeys.
#[derive(Debug)]
pub enum Command {
    /// Observe a container, or take over what is new about one that is observed already.
    Attach {
        /// What is known of it.
        announcement: Box<Announcement>,
        /// Its first process.
        pidfd: OwnedFd,
        /// [`Reply::Attached`], [`Reply::Ignored`] or [`Reply::Failed`].
        reply: oneshot::Sender<Reply>,
    },
    /// A container has ended: free everything of it as soon as its last records are read.
    Remove {
        /// Its id.
        id: String,
        /// [`Reply::Removed`].
        reply: oneshot::Sender<Reply>,
    },
    /// These are all containers that there are (of one runtime's snapshot): others that `among` names have ended.
    Keep {
        /// The containers that exist.
        ids: BTreeSet<String>,
        /// The containers that the front end knew before.
        among: BTreeSet<String>,
    },
    /// What was announced so far had been running: find the rest of its processes now, not a moment later.
    Complete {
        /// All is in scope.
        done: oneshot::Sender<()>,
    },
}

/// The way to the observer.
pub type Commands = mpsc::Sender<Command>;

/// Who remembers announced containers across a restart of the agent.
pub trait Ledger: Send {
    /// A container is observed. `start` is the start time of its first process in clock ticks since boot, which with
    /// its `pid` (in our pid namespace) names it.
    fn attached(&mut self, announcement: &Announcement, pid: i32, start: u64);
    /// Nothing is left of it.
    fn removed(&mut self, id: &str);
}
