//! HTTP/2: servers that speak it, and clients whose every request has a path of its own.
//!
//! A trial starts a row of [`server::SERVERS`], asks it with [`load`], and holds the spans against what was asked and
//! answered, one by one.

pub mod load;
pub mod server;

use crate::finished::Finished;
use crate::span::{Kind, Span};
use crate::tally::{Outcome, Tally};
use anyhow::{Context, Result, ensure};

/// Fails unless the spans are exactly the exchanges of a tally, over HTTP/2 and of this scheme.
pub fn must_be_all(spans: &[Span], tally: &Tally, kind: Kind, scheme: &str) -> Result<()> {
    tally.must_equal(&Tally::of_spans(spans, kind)?, "the client", "spans")?;
    ensure!(
        spans.len() as u64 == tally.total(),
        "{} spans of {} exchanges",
        spans.len(),
        tally.total()
    );
    for span in spans {
        check(span, scheme).with_context(|| format!("{span:?}"))?;
        ensure!(!span.is_marked_incomplete(), "marked: {span:?}");
    }
    Ok(())
}

fn check(span: &Span, scheme: &str) -> Result<()> {
    ensure!(
        span.text("network.protocol.version")? == "2",
        "network.protocol.version"
    );
    ensure!(span.text("url.scheme")? == scheme, "url.scheme");
    ensure!(
        span.text("server.address")? == "127.0.0.1",
        "server.address"
    );
    Ok(())
}

/// Fails if a span tells what did not happen; some may be missing. What a marked one does not know it must not name.
pub fn must_be_true(spans: &[Span], tally: &Tally, kind: Kind) -> Result<()> {
    let (marked, whole): (Vec<Span>, Vec<Span>) =
        spans.iter().cloned().partition(Span::is_marked_incomplete);
    Tally::of_spans(&whole, kind)?.must_be_within(tally)?;
    for span in marked {
        let outcome = Outcome::new(
            span.text("http.request.method")?,
            span.path(),
            span.status_code().unwrap_or_default(),
        );
        let is_known =
            !outcome.path.is_empty() && outcome.status != 0 && outcome.method != "_OTHER";
        ensure!(
            !is_known || tally.count(&outcome) > 0,
            "a marked span tells what did not happen: {span:?}"
        );
    }
    Ok(())
}

/// Counters that are above zero only if bytes of a header block or a frame were not captured.
const UNSEEN: &[&str] = &[
    "pilotfish_kernel_records_lost_ring_full_total",
    "pilotfish_exchanges_abandoned_total",
    "pilotfish_holes_total",
    "pilotfish_heads_too_long_total",
    "pilotfish_flows_lost_place_total",
    "pilotfish_kernel_bytes_beyond_capture_total",
    "pilotfish_flows_opaque_total",
    "pilotfish_kernel_operations_iovecs_cut_total",
];

/// Fails if a counter tells that something was not seen.
pub fn must_be_seen_whole(finished: &Finished) -> Result<()> {
    for name in UNSEEN {
        ensure!(finished.metrics.has(name), "no counter {name}");
        let value = finished.metrics.sum(name)?;
        ensure!(value == 0, "{name} is {value}; {}", finished.losses());
    }
    Ok(())
}
