//! Asks the observer, with a bound on the wait.

use super::stats::{NodeStats, count};
use crate::announced::{Command, Commands};
use pilotfish_workload::announcement::{Announcement, Reply};
use std::os::fd::OwnedFd;
use std::time::Duration;
use tokio::sync::{mpsc::error::TrySendError, oneshot};

/// Asks for a container to be observed.
pub(super) async fn attach(
    commands: &Commands,
    announcement: Box<Announcement>,
    pidfd: OwnedFd,
    patience: Duration,
    stats: &NodeStats,
) -> Reply {
    let (reply, answer) = oneshot::channel();
    let command = Command::Attach {
        announcement,
        pidfd,
        reply,
    };
    ask(commands, command, answer, patience, stats).await
}

/// Says that a container has ended.
pub(super) async fn remove(
    commands: &Commands,
    id: String,
    patience: Duration,
    stats: &NodeStats,
) -> Reply {
    let (reply, answer) = oneshot::channel();
    let command = Command::Remove { id, reply };
    ask(commands, command, answer, patience, stats).await
}

/// Has everything found that belongs to the containers announced so far.
pub(super) async fn complete(commands: &Commands, patience: Duration) {
    let (done, all_found) = oneshot::channel();
    let asking = async {
        // An observer that has ended finds nothing more, and the agent is about to end too.
        if commands.send(Command::Complete { done }).await.is_ok() {
            let _ = all_found.await;
        }
    };
    if tokio::time::timeout(patience, asking).await.is_err() {
        tracing::warn!("processes of running containers may be observed a little later");
    }
}

async fn ask(
    commands: &Commands,
    command: Command,
    answer: oneshot::Receiver<Reply>,
    patience: Duration,
    stats: &NodeStats,
) -> Reply {
    match commands.try_send(command) {
        Ok(()) => {}
        Err(TrySendError::Full(_)) => {
            count(&stats.observer_busy);
            return failed("the agent has too many containers waiting to be observed: try again");
        }
        Err(TrySendError::Closed(_)) => return failed("the agent is ending"),
    }
    match tokio::time::timeout(patience, answer).await {
        Ok(Ok(reply)) => reply,
        Ok(Err(_)) => failed("the agent is ending"),
        Err(_) => {
            count(&stats.observer_silent);
            failed("the agent did not get to it in time; it may still be observed a little later")
        }
    }
}

fn failed(reason: &str) -> Reply {
    Reply::Failed {
        reason: reason.to_owned(),
    }
}
