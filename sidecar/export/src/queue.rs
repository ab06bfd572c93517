//! The bounded queue between the ring reader's thread and one exporter, and the exporter's accounts.
//!
//! Every span given to an exporter ends in exactly one account: exported, dropped (the queue was full, or the
//! agent ended before its turn) or failed (sent in vain).

use crate::identity::Container;
use pilotfish_pipeline::Span;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// A span with the identity that its container had when the span was made.
#[derive(Debug)]
pub(crate) struct Observed {
    pub(crate) container: Arc<Container>,
    pub(crate) span: Span,
}

/// What became of the items given to one exporter.
#[derive(Debug, Default)]
pub(crate) struct Accounts {
    pub(crate) exported: AtomicU64,
    pub(crate) dropped: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) last_error: Mutex<Option<String>>,
}

impl Accounts {
    pub(crate) fn exported(&self, count: u64) {
        self.exported.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn dropped(&self, count: u64) {
        self.dropped.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn failed(&self, count: u64, error: &str) {
        self.failed.fetch_add(count, Ordering::Relaxed);
        *self
            .last_error
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(error.to_owned());
    }
}

/// Items on their way to the exporter: counted as failed unless settled, so that a task which is aborted in the
/// middle of a request still accounts for them.
pub(crate) struct InFlight<'a> {
    accounts: &'a Accounts,
    count: u64,
}

impl<'a> InFlight<'a> {
    pub(crate) fn new(accounts: &'a Accounts, count: usize) -> Self {
        Self {
            accounts,
            count: count as u64,
        }
    }

    /// The receiver took all but `rejected`.
    pub(crate) fn settle(mut self, rejected: u64, reason: &str) {
        let rejected = rejected.min(self.count);
        self.accounts.exported(self.count - rejected);
        if rejected > 0 {
            self.accounts.failed(rejected, reason);
        }
        self.count = 0;
    }

    /// The receiver took nothing.
    pub(crate) fn fail(mut self, error: &str) {
        self.accounts.failed(self.count, error);
        self.count = 0;
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        if self.count > 0 {
            self.accounts
                .failed(self.count, "the agent ended during the export");
        }
    }
}

/// One producer, one consumer, never more than `capacity` spans; when full the newest is dropped and counted.
#[derive(Debug)]
pub(crate) struct Queue {
    items: Mutex<State>,
    wake: Notify,
    capacity: usize,
    wake_at: usize,
    batch: usize,
    pub(crate) accounts: Arc<Accounts>,
}

#[derive(Debug, Default)]
struct State {
    spans: VecDeque<Arc<Observed>>,
    closed: bool,
}

impl Queue {
    /// A queue whose consumer is woken as soon as `wake_at` spans wait and takes up to `batch` at a time.
    pub(crate) fn new(capacity: usize, wake_at: usize, batch: usize) -> Self {
        Self {
            items: Mutex::default(),
            wake: Notify::new(),
            capacity,
            wake_at: wake_at.clamp(1, capacity.max(1)),
            batch: batch.max(1),
            accounts: Arc::default(),
        }
    }

    /// True from half full on.
    pub(crate) fn is_behind(&self) -> bool {
        let state = self.state();
        !state.closed && state.spans.len() > self.capacity / 2
    }

    /// Takes what fits, drops and counts the rest. Never waits for the consumer's I/O.
    pub(crate) fn push(&self, spans: &[Arc<Observed>]) {
        let (taken, waiting) = {
            let mut state = self.state();
            let room = if state.closed {
                0
            } else {
                self.capacity.saturating_sub(state.spans.len())
            };
            let taken = room.min(spans.len());
            state.spans.extend(spans.iter().take(taken).cloned());
            (taken, state.spans.len())
        };
        if taken < spans.len() {
            self.accounts.dropped((spans.len() - taken) as u64);
        }
        if waiting >= self.wake_at {
            self.wake.notify_one();
        }
    }

    /// The next batch: when enough spans wait, else what there is after `delay`. `None` once the queue is closed
    /// and empty.
    pub(crate) async fn next(&self, delay: Duration) -> Option<Vec<Arc<Observed>>> {
        let deadline = tokio::time::Instant::now() + delay;
        loop {
            let late = tokio::time::Instant::now() >= deadline;
            {
                let mut state = self.state();
                let enough = state.spans.len() >= self.wake_at || late || state.closed;
                if enough && !state.spans.is_empty() {
                    let take = state.spans.len().min(self.batch);
                    return Some(state.spans.drain(..take).collect());
                }
                if state.closed {
                    return None;
                }
            }
            if late {
                // Nothing came during the delay: wait for a wake-up, or look again after another delay.
                let _ = tokio::time::timeout(delay, self.wake.notified()).await;
            } else {
                let _ = tokio::time::timeout_at(deadline, self.wake.notified()).await;
            }
        }
    }

    /// No further spans are taken; the consumer gets the rest without delay, then `None`.
    pub(crate) fn close(&self) {
        self.state().closed = true;
        self.wake.notify_one();
    }

    /// Gives up what is still queued, as dropped.
    pub(crate) fn abandon(&self) {
        let mut state = self.state();
        state.closed = true;
        let left = std::mem::take(&mut state.spans).len();
        self.accounts.dropped(left as u64);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.items.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::observed;

    fn total(accounts: &Accounts) -> [u64; 3] {
        [&accounts.exported, &accounts.dropped, &accounts.failed]
            .map(|count| count.load(Ordering::Relaxed))
    }

    #[tokio::test]
    async fn a_full_queue_drops_the_newest_and_counts_them() {
        let queue = Queue::new(3, 2, 2);
        let spans: Vec<_> = (0..5)
            .map(|index| observed(&format!("span {index}")))
            .collect();
        queue.push(&spans);
        assert_eq!(total(&queue.accounts), [0, 2, 0]);
        queue.close();
        queue.push(&spans[..1]);
        let mut names = Vec::new();
        while let Some(batch) = queue.next(Duration::ZERO).await {
            assert!(batch.len() <= 2);
            names.extend(batch.iter().map(|item| item.span.name.to_string()));
        }
        assert_eq!(names, ["span 0", "span 1", "span 2"]);
        assert_eq!(
            total(&queue.accounts),
            [0, 3, 0],
            "a closed queue takes nothing"
        );
    }

    #[test]
    fn an_unsettled_batch_counts_as_failed() {
        let accounts = Accounts::default();
        drop(InFlight::new(&accounts, 4));
        InFlight::new(&accounts, 5).settle(2, "no room");
        InFlight::new(&accounts, 1).fail("refused");
        assert_eq!(total(&accounts), [3, 0, 7]);
    }
}
