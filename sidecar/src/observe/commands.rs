//! Announced containers: what is done about each command.

use super::{ObserveError, Observer, Registry, SlotWriter, lock};
use crate::{announced::Command, discovery::AnnounceError, policy::Asking};
use pilotfish_workload::announcement::{Announcement, Reply};
use std::{
    collections::BTreeSet,
    os::fd::{AsFd, OwnedFd},
    time::Instant,
};

impl<R: Registry, K: SlotWriter> Observer<R, K> {
    pub(super) fn handle(&mut self, command: Command) -> Result<(), ObserveError> {
        match command {
            Command::Attach {
                announcement,
                pidfd,
                reply,
            } => {
                let answer = self.attach(*announcement, &pidfd)?;
                // Whoever asked may have given up by now; the container is observed all the same.
                let _ = reply.send(answer);
            }
            Command::Remove { id, reply } => {
                self.end(&BTreeSet::from([id]))?;
                let _ = reply.send(Reply::Removed);
            }
            Command::Keep { ids, among } => {
                self.end(&among.difference(&ids).cloned().collect())?;
            }
            Command::Complete { done } => {
                if self.pass_wanted {
                    self.pass()?;
                }
                let _ = done.send(());
            }
        }
        Ok(())
    }

    fn attach(
        &mut self,
        announcement: Announcement,
        pidfd: &OwnedFd,
    ) -> Result<Reply, ObserveError> {
        let id = announcement.id.clone();
        let refused = self.refuses(&announcement);
        // One that was observed until now may have changed its mind.
        let outcome = if refused && !self.is_observed(&id) {
            Ok(())
        } else {
            self.announce(announcement, pidfd)?
        };
        let mut observed = lock(&self.observed);
        let counters = &mut observed.counters;
        Ok(match outcome {
            Ok(()) if refused => {
                counters.announcements_ignored += 1;
                Reply::Ignored {
                    reason: "its annotations switch it off (pilotfish.dev/instrument)".to_owned(),
                }
            }
            Ok(()) => {
                counters.announcements_attached += 1;
                Reply::Attached
            }
            Err(AnnounceError::Own) => {
                counters.announcements_ignored += 1;
                Reply::Ignored {
                    reason: AnnounceError::Own.to_string(),
                }
            }
            Err(error) => {
                counters.announcements_failed += 1;
                tracing::warn!(container = id, %error, "container is not observed");
                Reply::Failed {
                    reason: format!("container {id} is not observed: {error}"),
                }
            }
        })
    }

    /// In scope and, when this returns, switched on in the kernel.
    fn announce(
        &mut self,
        announcement: Announcement,
        pidfd: &OwnedFd,
    ) -> Result<Result<(), AnnounceError>, ObserveError> {
        let (outcome, changes) = {
            let mut observed = lock(&self.observed);
            let outcome = observed.discovery.announce(announcement, pidfd.as_fd());
            (outcome, observed.discovery.take_changes())
        };
        self.follow(&changes)?;
        let slot = match outcome {
            Ok(slot) => slot,
            Err(error) => return Ok(Err(error)),
        };
        self.pass_wanted = true;
        let observed = lock(&self.observed);
        let container = observed.discovery.container(slot);
        if let Some(announced) = container.and_then(|container| container.announced.as_ref())
            && let Some(ledger) = &mut self.ledger
        {
            let init = announced.init;
            self.ledgered
                .insert(slot, announced.announcement.id.clone());
            ledger.attached(&announced.announcement, init.pid, init.start);
        }
        Ok(Ok(()))
    }

    fn end(&mut self, ids: &BTreeSet<String>) -> Result<(), ObserveError> {
        let changes = lock(&self.observed).discovery.end(ids, Instant::now());
        self.follow(&changes)
    }

    fn refuses(&self, announcement: &Announcement) -> bool {
        lock(&self.observed).policy().refuses(Asking {
            identity: &announcement.identity,
            annotations: &announcement.annotations,
            labels: &announcement.labels,
        })
    }

    fn is_observed(&self, id: &str) -> bool {
        lock(&self.observed).discovery.is_announced(id)
    }
}
