//! Flows that end by silence, because no record will tell of their end, or because that record was lost.
//!
//! | flow | ends after this time without a record | with an exchange in progress |
//! |---|---|---|
//! | of a unix socket, whose close is not seen | 5 minutes | 30 minutes |
//! | rejoined: it may be what came after the close of its connection | 1 minute | 30 minutes |
//! | plaintext of TLS: a process may drop or reuse a connection's object without telling its library | 5 minutes | 30 minutes |
//! | any other: the record of its close may have been lost | 5 minutes | 30 minutes |
//! | any other that is not read any more | never: it has no exchange, and must not be judged again | - |
//!
//! If the connection lives after all, its next record is where it was left: a place in both streams is kept for a
//! while. A response that takes longer than that is absent.

use crate::endpoints::{Endpoints, Transport};
use crate::reassembly::Offsets;
use hashlink::LruCache;
use std::collections::BTreeSet;

const SECOND: u64 = 1_000_000_000;

/// Nanoseconds of silence after which a flow ends that was seen from where it began.
const SOUND: u64 = 300 * SECOND;

/// Nanoseconds of silence after which a rejoined flow ends.
const REJOINED: u64 = 60 * SECOND;

/// Nanoseconds of silence after which either ends while an exchange is in progress.
const IN_EXCHANGE: u64 = 1800 * SECOND;

/// Most flows looked at in one tick; the others follow in the next ones.
const MAX_CHECKS: usize = 1024;

/// How long a flow may be silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Allowance {
    between: u64,
}

impl Allowance {
    /// `None` for a flow that may stay until its close is told; `read` says that it is of interest still.
    pub(crate) fn of(endpoints: &Endpoints, rejoined: bool, read: bool) -> Option<Self> {
        let between = match endpoints.transport {
            Transport::Tcp | Transport::Unknown if rejoined => REJOINED,
            Transport::Tcp if !read && !endpoints.tls => return None,
            Transport::Unix | Transport::Tcp | Transport::Unknown => SOUND,
        };
        Some(Self { between })
    }

    /// True if a flow with its latest record at `last` is over.
    pub(crate) fn is_spent(self, last: u64, in_exchange: bool, now: u64) -> bool {
        let limit = if in_exchange {
            IN_EXCHANGE
        } else {
            self.between
        };
        now.saturating_sub(last) >= limit
    }

    /// When to look at a flow that is not over: no exchange may be in progress then.
    pub(crate) fn next_check(self, last: u64, now: u64) -> u64 {
        let soonest = last.saturating_add(self.between);
        if soonest > now {
            soonest
        } else {
            now.saturating_add(self.between)
        }
    }
}

/// What is kept of a flow that ended by silence.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Left {
    /// Where its next bytes are expected.
    pub(crate) offsets: Offsets,
    /// Its offsets do not count from the connection's first byte.
    pub(crate) late: bool,
}

/// The flows that may end by silence, by the time of their next check: at most one entry per flow of the table.
pub(crate) struct IdleWatch {
    due: BTreeSet<(u64, u64)>,
    /// Where flows were left that ended by silence.
    left: LruCache<u64, Left>,
}

impl IdleWatch {
    /// Remembers where up to `max_left` flows were left; a forgotten one is rejoined, which is counted.
    pub(crate) fn new(max_left: usize) -> Self {
        Self {
            due: BTreeSet::new(),
            left: LruCache::new(max_left),
        }
    }

    /// Notes that a flow ends by silence.
    pub(crate) fn leave(&mut self, cookie: u64, left: Left) {
        self.left.insert(cookie, left);
    }

    /// Where a flow was left that ended by silence.
    pub(crate) fn resume(&mut self, cookie: u64) -> Option<Left> {
        self.left.remove(&cookie)
    }

    pub(crate) fn add(&mut self, check: u64, cookie: u64) {
        self.due.insert((check, cookie));
    }

    pub(crate) fn remove(&mut self, check: u64, cookie: u64) {
        self.due.remove(&(check, cookie));
    }

    /// Takes out the cookies of flows to be checked now, no more than a tick has time for.
    pub(crate) fn take_due(&mut self, now: u64) -> Vec<u64> {
        let mut cookies = Vec::new();
        while cookies.len() < MAX_CHECKS
            && let Some(&(check, cookie)) = self.due.first()
            && check <= now
        {
            self.due.pop_first();
            cookies.push(cookie);
        }
        cookies
    }
}

#[cfg(test)]
mod tests {
    use super::{IdleWatch, MAX_CHECKS};

    #[test]
    fn a_tick_has_a_bound() {
        let mut watch = IdleWatch::new(1);
        for cookie in 0..MAX_CHECKS as u64 + 5 {
            watch.add(10, cookie);
        }
        assert!(watch.take_due(9).is_empty());
        assert_eq!(watch.take_due(10).len(), MAX_CHECKS);
        assert_eq!(watch.take_due(10).len(), 5);
    }
}
