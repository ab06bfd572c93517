//! Takes probes away: the kernel waits until nobody can be in one of them, some 100 ms for each link, and a process that has
//! just started should not wait for that. Such waits pass side by side, so several threads do it.

use std::{
    collections::VecDeque,
    os::fd::OwnedFd,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
};

/// Links that may wait to be taken away; beyond them the attacher takes them away itself.
const QUEUE: usize = 2048;

/// Threads that take links away, as long as there are any.
const THREADS: usize = 16;

/// What waits, and how many threads there are.
#[derive(Default)]
struct State {
    links: VecDeque<OwnedFd>,
    threads: usize,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    idle: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes links away until there are none.
    fn work(&self) {
        loop {
            let mut state = self.lock();
            let Some(link) = state.links.pop_front() else {
                state.threads -= 1;
                self.idle.notify_all();
                return;
            };
            drop(state);
            drop(link);
        }
    }
}

/// Closes links on threads of its own; dropping this waits until all are closed.
#[derive(Default)]
pub(super) struct Detacher(Arc<Shared>);

impl Detacher {
    pub(super) fn detach(&self, links: impl Iterator<Item = OwnedFd>) {
        for link in links {
            let mut state = self.0.lock();
            if state.links.len() >= QUEUE {
                drop(state);
                drop(link);
                continue;
            }
            state.links.push_back(link);
            if state.threads < THREADS {
                state.threads += 1;
                drop(state);
                self.start_thread();
            }
        }
    }

    fn start_thread(&self) {
        let shared = Arc::clone(&self.0);
        let started = thread::Builder::new()
            .name("tls_detach".to_owned())
            .spawn(move || shared.work());
        if started.is_err() {
            self.0.work();
        }
    }
}

impl Drop for Detacher {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        while state.threads > 0 {
            state = self
                .0
                .idle
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{self, Read};

    /// Every descriptor is closed when the detacher is gone, however many there are.
    #[test]
    fn dropping_it_waits_for_all() {
        let detacher = Detacher::default();
        let (readers, writers): (Vec<_>, Vec<_>) = (0..100).map(|_| io::pipe().unwrap()).collect();
        detacher.detach(writers.into_iter().map(OwnedFd::from));
        drop(detacher);
        for mut reader in readers {
            // The end of the pipe, which would not come while its writer is open.
            assert_eq!(reader.read(&mut [0]).unwrap(), 0);
        }
    }
}
