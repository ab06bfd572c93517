//! Exits as pidfds report them: one epoll instance, a bounded number of descriptors.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use rustix::process::{Resource, getrlimit};

/// Events taken from the kernel at a time.
const BATCH: usize = 64;

#[derive(Debug)]
pub(super) struct Exits {
    epoll: Epoll,
    watched: HashMap<i32, OwnedFd>,
    limit: usize,
}

impl Exits {
    pub(super) fn new(limit: usize) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        // The other half is for attaching: a process cannot even be looked at without a descriptor.
        let half = getrlimit(Resource::Nofile)
            .current
            .map_or(usize::MAX, |soft| soft as usize / 2);
        Ok(Self {
            epoll,
            watched: HashMap::new(),
            limit: limit.min(half),
        })
    }

    /// Watches a process; false when the bound is reached or the kernel refuses, and the pidfd is closed.
    pub(super) fn watch(&mut self, pid: i32, pidfd: OwnedFd) -> bool {
        self.forget(pid);
        if self.watched.len() >= self.limit {
            return false;
        }
        let event = EpollEvent::new(EpollFlags::EPOLLIN, u64::from(pid.unsigned_abs()));
        if self.epoll.add(&pidfd, event).is_err() {
            return false;
        }
        self.watched.insert(pid, pidfd);
        true
    }

    /// Stops watching. The entry is removed by name, because a descriptor that another thread's fork still
    /// holds would keep an implicit one alive.
    pub(super) fn forget(&mut self, pid: i32) {
        if let Some(pidfd) = self.watched.remove(&pid) {
            // It was added and is open, so this cannot fail; if it did, a stray event would find no process.
            let _ = self.epoll.delete(&pidfd);
        }
    }

    pub(super) fn is_watched(&self, pid: i32) -> bool {
        self.watched.contains_key(&pid)
    }

    /// Processes that have exited; each stays reported until it is forgotten.
    pub(super) fn exited(&self) -> Vec<i32> {
        let mut events = [EpollEvent::empty(); BATCH];
        let count = self
            .epoll
            .wait(&mut events, EpollTimeout::ZERO)
            .unwrap_or(0);
        events
            .iter()
            .take(count)
            .filter_map(|event| i32::try_from(event.data()).ok())
            .collect()
    }
}

impl AsFd for Exits {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.0.as_fd()
    }
}
