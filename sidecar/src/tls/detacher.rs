//! Takes probes away: the kernel waits until nobody can be in one of them, and a process that has just started should not
//! wait for that.

use std::{
    io,
    os::fd::OwnedFd,
    sync::mpsc::{self, SyncSender, TrySendError},
    thread,
};

/// Processes whose probes may wait to be taken away; beyond them the attacher does it itself.
const QUEUE: usize = 1024;

/// Closes links on a thread of its own, which ends with this.
pub(super) struct Detacher(SyncSender<Vec<OwnedFd>>);

impl Detacher {
    pub(super) fn start() -> io::Result<Self> {
        let (links, queue) = mpsc::sync_channel::<Vec<OwnedFd>>(QUEUE);
        thread::Builder::new()
            .name("tls_detach".to_owned())
            .spawn(move || queue.iter().for_each(drop))?;
        Ok(Self(links))
    }

    pub(super) fn detach(&self, links: impl Iterator<Item = OwnedFd>) {
        match self.0.try_send(links.collect()) {
            Ok(()) => {}
            Err(TrySendError::Full(links) | TrySendError::Disconnected(links)) => drop(links),
        }
    }
}
