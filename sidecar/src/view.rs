//! What the live view is told of the agent.

use crate::{
    instrument::Probes,
    observe::{SharedObserved, lock},
    source::SourceStats,
};
use pilotfish_abi::Counter;
use pilotfish_export::{Stats, live::Facts};
use std::sync::{Arc, Mutex, PoisonError, atomic::Ordering};

/// Everything that the view reads beside spans. None of it is owned here.
pub(crate) struct AgentFacts {
    pub(crate) probes: Arc<Mutex<Probes>>,
    pub(crate) observed: SharedObserved,
    pub(crate) export: Stats,
    pub(crate) source: Arc<SourceStats>,
}

impl AgentFacts {
    pub(crate) fn read(&self) -> Facts {
        let (containers, processes, unreadable) = {
            let discovery = &lock(&self.observed).discovery;
            (
                discovery.containers().count(),
                discovery.process_count(),
                discovery.unreadable().count(),
            )
        };
        let losses = [
            ("processes not observed", unreadable as u64),
            ("records, the ring was full", self.ring_full()),
            (
                "records of processes",
                self.source.lifecycle_lost.load(Ordering::Relaxed),
            ),
            ("spans not exported", self.unexported()),
        ];
        Facts {
            containers,
            processes,
            losses: losses.into_iter().filter(|(_, count)| *count > 0).collect(),
        }
    }

    fn ring_full(&self) -> u64 {
        let probes = self.probes.lock().unwrap_or_else(PoisonError::into_inner);
        let totals = probes.total_counters().unwrap_or_default();
        totals.get(Counter::RingFull)
    }

    /// The view counts by itself what it could not take.
    fn unexported(&self) -> u64 {
        let exporters = self.export.exporters();
        let others = exporters.iter().filter(|one| one.exporter != "live");
        others.map(|one| one.dropped + one.failed).sum()
    }
}
