//! What the attacher counts and what it has found, for `/metrics` and `/status`.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

macro_rules! stats {
    ($($field:ident => $help:literal;)+) => {
        /// Counters of the attacher.
        #[derive(Debug, Default)]
        pub struct TlsStats { $(#[doc = $help] pub $field: AtomicU64,)+ }

        impl TlsStats {
            /// Every counter as name of its metric, explanation and value.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
                [$((concat!("tls_", stringify!($field)), $help, self.$field.load(Ordering::Relaxed)),)+].into_iter()
            }
        }
    };
}

stats! {
    attached => "TLS libraries and executables whose functions were probed, each in one process.";
    failures => "TLS libraries that could not be probed in a process, because of the kernel, a file or a limit.";
    not_covered => "TLS libraries found in a process whose plaintext cannot be seen; /status says which and why.";
    files_beyond_bound => "TLS libraries of processes that have more of them than are looked at.";
    looks => "Looks at the mapped files of a process.";
    events_lost => "Events for the search for TLS libraries that were dropped because it was behind.";
    processes_beyond_bound => "Processes whose libraries are not looked for because too many are observed.";
}

/// A file with TLS that is not seen, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotCovered {
    /// As the process sees it.
    pub path: String,
    /// The reason.
    pub reason: String,
}

/// One process that has TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessStatus {
    /// Path and kind of each file that is probed.
    pub probed: Vec<(String, &'static str)>,
    /// Probes whose instruction has to be single-stepped.
    pub stepped: usize,
    /// Files that are not, at most 64.
    pub not_covered: Vec<NotCovered>,
    /// Libraries beyond what is looked at in one process.
    pub others: usize,
}

/// Shared with the status page: processes that have TLS, by pid.
#[derive(Clone, Debug, Default)]
pub struct Status(Arc<Mutex<BTreeMap<i32, ProcessStatus>>>);

impl Status {
    /// A copy of everything.
    pub fn processes(&self) -> BTreeMap<i32, ProcessStatus> {
        self.lock().clone()
    }

    pub(super) fn set(&self, pid: i32, process: ProcessStatus) {
        self.lock().insert(pid, process);
    }

    pub(super) fn remove(&self, pid: i32) {
        self.lock().remove(&pid);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<i32, ProcessStatus>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
