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
    connections, "Connections to the hook's socket. It follows starts and ends of containers.";
    connections_failed,
        "Connections to the hook's socket that could not be accepted: the agent is out of file descriptors or memory.";
    peers_refused, "Connections closed because their user is neither root nor our own. Somebody else tries the socket.";
    requests_absent, "Connections that ended before a whole request. The hook was killed or timed out.";
    requests_slow,
        "Connections closed because their request did not come in time. The machine is overloaded, or it was no hook.";
    requests_malformed, "Requests that could not be understood. Whoever sent them is no hook.";
    requests_of_other_version,
        "Requests of another version of the protocol. Hook and agent are of different releases: install both anew.";
    announcements_throttled, "Announcements refused because too many came at once: those containers are not observed.";
    descriptors_refused, "Announcements refused because they did not bring exactly one pidfd. Whoever sent them is no hook.";
    replies_unsent, "Replies that the peer did not take. The hook did not wait; what it asked for was done.";
    attaches, "Containers announced by the hook. It follows their starts.";
    attached, "Announcements answered with attached: those containers are observed.";
    ignored, "Announcements answered with ignored: those containers do not ask to be observed.";
    failed, "Announcements and removals answered with failed. The log says which and why.";
    removes, "Ends of containers announced by the hook.";
    observer_busy,
        "Requests refused because the observer's queue was full: those containers are not observed. The agent lacks CPU.";
    observer_silent, "Requests given up because the observer did not answer in time. The agent lacks CPU.";
    restored, "Containers of a former agent attached again at start. None of their records in between is there.";
    adopted, "Containers started while no agent ran, attached at start. Their first requests were not seen.";
    not_adopted, "Running containers with annotations that could not be attached at start. The log says which and why.";
    state_failures,
        "Containers that could not be written to or removed from the state directory: an agent that starts later will not find them.";
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
