//! What an agent left behind, and what must hold of it.

use crate::metrics::Metrics;
use crate::span::{Kind, Span};
use crate::tally::Tally;
use anyhow::{Context, Result};

/// What an agent left behind.
#[derive(Debug)]
pub struct Finished {
    /// Every printed span, checked.
    pub spans: Vec<Span>,
    /// The last scrape before the end.
    pub metrics: Metrics,
    /// Its log.
    pub log: String,
}

impl Finished {
    /// Fails unless the finished exchanges in one role are exactly those of `tally`; then says what was lost.
    pub fn must_match(&self, tally: &Tally, kind: Kind) -> Result<()> {
        let seen = Tally::of_spans(&self.spans, kind)?;
        tally
            .must_equal(&seen, "the tally", "spans")
            .with_context(|| self.losses())
    }

    /// Every counter of the agent that tells of something missing.
    pub fn losses(&self) -> String {
        let telling = [
            "_lost_",
            "_gaps_",
            "_beyond_",
            "_cut_",
            "_holes_",
            "_abandoned_",
            "_unknown_",
            "_opaque_",
            "_malformed_",
            "_unreadable_",
            "_dropped_",
        ];
        let lines = self
            .metrics
            .page()
            .lines()
            .filter(|line| line.starts_with("pilotfish_"));
        let nonzero = lines
            .filter(|line| !line.ends_with(" 0") && telling.iter().any(|word| line.contains(word)));
        format!(
            "of {} records lost: {}",
            self.metrics.produced().unwrap_or_default(),
            nonzero.collect::<Vec<_>>().join(", ")
        )
    }
}
