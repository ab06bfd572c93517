//! What the plugin counts.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters since the start; shared with the pages.
#[derive(Debug, Default)]
pub struct Stats {
    /// 1 while a runtime tells of its containers.
    pub connected: AtomicU64,
    /// Connections to a runtime that were made.
    pub connections: AtomicU64,
    /// Connections that could not be made or that broke.
    pub disconnections: AtomicU64,
    /// Container events heard.
    pub events: AtomicU64,
    /// Container events that were not dealt with when the runtime had to be answered.
    pub late: AtomicU64,
    /// Pods and containers of snapshots.
    pub synchronized: AtomicU64,
    /// Messages that could not be understood.
    pub malformed: AtomicU64,
    /// Messages that were too long to be kept.
    pub too_long: AtomicU64,
    /// Containers and pods of a snapshot beyond its bound.
    pub beyond_bound: AtomicU64,
}

impl Stats {
    /// 1 while a runtime tells of its containers.
    pub fn connected(&self) -> u64 {
        self.connected.load(Ordering::Relaxed)
    }

    /// Every counter: name, help, value.
    pub fn counters(&self) -> [(&'static str, &'static str, u64); 8] {
        [
            (
                "nri_connections",
                "Connections to a runtime's NRI socket. A rise later than the start is a restart of the runtime or a broken connection.",
                &self.connections,
            ),
            (
                "nri_disconnections",
                "Connections to a runtime's NRI socket that failed or ended. If it goes on rising, NRI is off in the runtime.",
                &self.disconnections,
            ),
            (
                "nri_events",
                "Container events heard through NRI. It follows starts and ends of containers.",
                &self.events,
            ),
            (
                "nri_late",
                "Container events not dealt with before the runtime's limit; the container started all the same.",
                &self.late,
            ),
            (
                "nri_synchronized",
                "Pods and containers told when the runtime was connected to.",
                &self.synchronized,
            ),
            (
                "nri_malformed",
                "NRI messages that could not be understood. The runtime speaks another version of NRI.",
                &self.malformed,
            ),
            (
                "nri_too_long",
                "NRI messages over 16 MiB, which were not read: the containers that they tell of are not observed.",
                &self.too_long,
            ),
            (
                "nri_beyond_bound",
                "Pods and containers left out because the runtime told too many at once: they are not observed.",
                &self.beyond_bound,
            ),
        ]
        .map(|(name, help, counter)| (name, help, counter.load(Ordering::Relaxed)))
    }

    pub(crate) fn add(counter: &AtomicU64, count: usize) {
        counter.fetch_add(count as u64, Ordering::Relaxed);
    }
}
