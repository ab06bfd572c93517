//! What was checked, and whether it held.

use crate::load::Tally;
use crate::servers::Served;
use anyhow::Result;
use integration::metrics::Metrics;
use integration::tls::coverage;
use std::fmt::Write;

/// What connections are counted as whose plaintext is not seen, or not from its beginning.
const EXPLAINED: [&str; 3] = [
    "flows_encrypted_total",
    "flows_late_total",
    "flows_unknown_total",
];

/// The table.
#[derive(Default)]
pub(crate) struct Verdict(Vec<Check>);

struct Check {
    what: String,
    found: String,
    bound: String,
    held: bool,
}

impl Verdict {
    /// Adds a line.
    pub(crate) fn check(&mut self, what: &str, found: impl Into<String>, bound: &str, held: bool) {
        self.0.push(Check {
            what: what.to_owned(),
            found: found.into().replace('\n', " "),
            bound: bound.to_owned(),
            held,
        });
    }

    /// What servers were seen to answer against what clients had answered, and the counters of losses.
    pub(crate) fn servers(
        &mut self,
        tally: &Tally,
        servers: &[Served],
        metrics: &Metrics,
    ) -> Result<()> {
        for served in servers {
            let service = served.service()?;
            let labels = [("service_name", service.as_str())];
            let seen = metrics.sum_where("http_server_request_duration_seconds_count", &labels)?;
            let answered = tally
                .answered
                .get(&served.server.port)
                .copied()
                .unwrap_or(0);
            self.check(
                &format!("requests that {} was seen to answer", served.name),
                seen.to_string(),
                &format!("exactly {answered}"),
                seen == answered,
            );
        }
        let mut losses = coverage::losses(metrics)?;
        losses.retain(|(name, _)| !EXPLAINED.contains(name));
        let text = losses.iter().map(|(name, count)| format!("{name} {count}"));
        self.check(
            "other counters of losses",
            if losses.is_empty() {
                "all 0".to_owned()
            } else {
                text.collect::<Vec<_>>().join(", ")
            },
            "all 0",
            losses.is_empty(),
        );
        Ok(())
    }

    /// Clients that live for one request may have made it before their probes were in place; their connections, and those
    /// that were broken off within the handshake, are all that may be counted as encrypted.
    pub(crate) fn clients(&mut self, made: u64, broken: u64, metrics: &Metrics) -> Result<()> {
        let seen = metrics.sum("http_client_request_duration_seconds_count")?;
        self.check(
            "requests that short-lived clients were seen to make",
            seen.to_string(),
            &format!("at most {made}, the others counted below"),
            seen <= made && seen + metrics.sum("pilotfish_flows_encrypted_total")? >= made,
        );
        for name in EXPLAINED {
            let count = metrics.sum(&format!("pilotfish_{name}"))?;
            let most = broken + made.saturating_sub(seen);
            self.check(
                &format!("`{name}`"),
                count.to_string(),
                &format!("at most {most}: clients not seen, and broken connections"),
                count <= most,
            );
        }
        Ok(())
    }

    /// True if every line held.
    pub(crate) fn holds(&self) -> bool {
        self.0.iter().all(|check| check.held)
    }

    /// As Markdown.
    pub(crate) fn table(&self) -> String {
        let mut text = "| what | found | bound | held |\n|---|---|---|---|\n".to_owned();
        for check in &self.0 {
            let held = if check.held { "yes" } else { "**no**" };
            let _ = writeln!(
                text,
                "| {} | {} | {} | {held} |",
                check.what, check.found, check.bound
            );
        }
        text
    }
}
