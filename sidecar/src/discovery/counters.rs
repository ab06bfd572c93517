//! What discovery counts: every way to miss, refuse or lose a process.

macro_rules! counters {
    ($($name:ident, $help:literal;)+) => {
        /// Totals since start.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Counters {
            $(#[doc = $help] pub $name: u64,)+
        }

        impl Counters {
            /// Name in metrics and `/status`, one line of help, value.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
                [$((stringify!($name), $help, self.$name),)+].into_iter()
            }
        }
    };
}

counters! {
    processes_seeded, "Processes put in scope after they were found in /proc or announced. It follows their starts.";
    processes_inherited, "Processes that the kernel put in scope when their parent forked. It follows their starts.";
    processes_moved, "Processes whose container changed when they executed a program. Normal while containers start.";
    processes_withdrawn, "Processes taken out of scope because their container had ended, or they were in our own.";
    processes_exited, "Processes that left the table, most of them by their exit. It follows their ends.";
    processes_vanished, "Processes that exited while they were being attached. Harmless.";
    processes_unreadable,
        "Processes not observed because /proc refused to tell which container they are in; see `pilotfish check`.";
    processes_beyond_bound, "Processes not observed because the process table was full. Observe less with one agent.";
    containers_beyond_bound,
        "Processes or announced containers not observed because every container slot was taken. Observe less with one agent.";
    exits_unwatched,
        "Processes whose exit no pidfd reports, because the bound of open pidfds was reached. Their ends are found by the slow pass.";
    records_without_process, "Process records whose process id or slot is not known here, as it ended meanwhile. Harmless.";
    missed_by_records,
        "Processes that only the slow pass found. Their first requests were not seen; it rises with lost process records.";
    scope_failures,
        "Processes not observed because the kernel refused to put them in scope: it is short of memory. The log says more.";
    inspection_failures, "Processes not observed because /proc or a pidfd failed in an unexpected way. The log says how.";
    passes_cut,
        "Passes over /proc that ended while they still found new processes. Processes start faster than they are found.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_carry_their_own_values() {
        let counters = Counters {
            processes_seeded: 3,
            passes_cut: 7,
            ..Counters::default()
        };
        let rows: Vec<_> = counters.iter().filter(|(_, _, value)| *value > 0).collect();
        assert_eq!(rows.len(), 2);
        assert_eq!((rows[0].0, rows[0].2), ("processes_seeded", 3));
        assert_eq!((rows[1].0, rows[1].2), ("passes_cut", 7));
        assert!(counters.iter().all(|(_, help, _)| help.ends_with('.')));
    }
}
