//! What became of everything that was given to the exporters.

use crate::identity::Containers;
use crate::prometheus::{Row, RowKind};
use crate::queue::Accounts;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};

/// The accounts of one exporter: spans, or data points for `otlp_metrics`. Each item ends in one of them.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct ExporterStats {
    /// `print`, `print_file`, `otlp_traces` or `otlp_metrics`.
    pub exporter: &'static str,
    /// Taken by the receiver.
    pub exported: u64,
    /// Given up because the queue was full or the agent ended.
    pub dropped: u64,
    /// Sent in vain or refused by the receiver.
    pub failed: u64,
    /// Why the latest item failed.
    pub last_error: Option<String>,
}

/// A handle on the accounts of all exporters.
#[derive(Clone, Debug)]
pub struct Stats {
    exporters: Vec<(&'static str, Arc<Accounts>)>,
    /// Spans and measurements of a slot that has no container.
    pub(crate) unowned: Arc<AtomicU64>,
    containers: Containers,
}

impl Stats {
    pub(crate) fn new(containers: Containers) -> Self {
        Self {
            exporters: Vec::new(),
            unowned: Arc::default(),
            containers,
        }
    }

    pub(crate) fn add(&mut self, exporter: &'static str, accounts: Arc<Accounts>) {
        self.exporters.push((exporter, accounts));
    }

    pub(crate) fn exporter(&mut self, exporter: &'static str) -> Arc<Accounts> {
        let accounts = Arc::<Accounts>::default();
        self.add(exporter, Arc::clone(&accounts));
        accounts
    }

    /// The accounts of each exporter.
    pub fn exporters(&self) -> Vec<ExporterStats> {
        let read = |(exporter, accounts): &(&'static str, Arc<Accounts>)| ExporterStats {
            exporter,
            exported: accounts.exported.load(Ordering::Relaxed),
            dropped: accounts.dropped.load(Ordering::Relaxed),
            failed: accounts.failed.load(Ordering::Relaxed),
            last_error: accounts
                .last_error
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone(),
        };
        self.exporters.iter().map(read).collect()
    }

    /// Spans and measurements that came for a slot without a container.
    pub fn unowned(&self) -> u64 {
        self.unowned.load(Ordering::Relaxed)
    }

    /// Everything as rows of the Prometheus page.
    pub fn rows(&self) -> Vec<Row> {
        let mut rows = Vec::new();
        for stats in self.exporters() {
            for (name, help, value) in [
                (
                    "exported",
                    "Spans, or data points of otlp_metrics, that the receiver took. It follows the traffic.",
                    stats.exported,
                ),
                (
                    "export_dropped",
                    "Spans given up because the exporter's queue was full or the agent ended. The receiver is too slow: sample less.",
                    stats.dropped,
                ),
                (
                    "export_failed",
                    "Spans, or data points of otlp_metrics, sent in vain or refused. The receiver is at fault; /status has its latest word.",
                    stats.failed,
                ),
            ] {
                rows.push(Row::counter(name, help, value).label("exporter", stats.exporter));
            }
        }
        rows.push(Row::counter(
            "unowned",
            "Spans and measurements of a container that was gone when they came. Few at the ends of containers are normal.",
            self.unowned(),
        ));
        let containers = self.containers.all();
        let series = containers
            .iter()
            .map(|container| container.series_count())
            .sum::<usize>();
        let overflowed = containers
            .iter()
            .map(|container| container.overflowed())
            .sum();
        rows.push(Row::gauge(
            "metric_series",
            "Attribute sets with metrics, over all containers: what a scrape costs. It is bounded.",
            series as f64,
        ));
        // A gauge: the containers of today, not of all time.
        rows.push(Row {
            kind: RowKind::Gauge,
            ..Row::counter(
                "metric_overflowed_measurements",
                "Measurements of present containers that went into an overflow series. Sums stay right; name the routes (--route).",
                overflowed,
            )
        });
        rows
    }
}
