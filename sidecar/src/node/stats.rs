//! What the hook's socket counts: every request, and every way to refuse or lose one.

use pilotfish_export::prometheus::Row;
use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! stats {
    ($($name:ident, $help:literal;)+) => {
        /// Totals since start.
        #[derive(Debug, Default)]
        pub struct NodeStats {
            $(#[doc = $help] pub $name: AtomicU64,)+
        }

        impl NodeStats {
            /// The rows of `/metrics`.
            pub fn rows(&self) -> Vec<Row> {
                vec![$(Row::counter(
                    concat!("hook_", stringify!($name)),
                    $help,
                    self.$name.load(Ordering::Relaxed),
                )),+]
            }
        }
    };
}

stats! {
    connections, "Connections to the hook's socket.";
    connections_failed, "Connections that could not be accepted.";
    peers_refused, "Connections closed because their user is neither root nor our own.";
    requests_absent, "Connections that ended before a whole request.";
    requests_slow, "Connections closed because their request did not come in time.";
    requests_malformed, "Requests that could not be understood.";
    requests_of_other_version, "Requests of another version of the protocol.";
    announcements_throttled, "Announcements refused because too many came.";
    descriptors_refused, "Announcements refused because they did not bring exactly one pidfd.";
    replies_unsent, "Replies that the peer did not take.";
    attaches, "Containers announced.";
    attached, "Announcements answered with attached.";
    ignored, "Announcements answered with ignored.";
    failed, "Announcements and removals answered with failed.";
    removes, "Ends of containers announced.";
    observer_busy, "Requests refused because the observer's queue was full.";
    observer_silent, "Requests given up because the observer did not answer in time.";
    restored, "Containers of a former agent attached again at start.";
    adopted, "Containers started while no agent ran, attached at start.";
    not_adopted, "Running containers with annotations that could not be attached at start.";
    state_failures, "Containers that could not be written to or removed from the state directory.";
}

/// One more.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_carry_their_own_values() {
        let stats = NodeStats::default();
        count(&stats.attached);
        count(&stats.attached);
        let rows = stats.rows();
        let row = |name| rows.iter().find(|row| row.name == name).unwrap().value;
        assert!((row("hook_attached") - 2.0).abs() < f64::EPSILON);
        assert!(row("hook_ignored").abs() < f64::EPSILON);
        assert!(rows.iter().all(|row| row.help.ends_with('.')));
    }
}
