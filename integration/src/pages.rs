//! An agent's pages, whoever started it.

use crate::load;
use crate::metrics::Metrics;
use crate::process::wait_for;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::time::Duration;

/// Longest time until the counters stand still.
const LIMIT: Duration = Duration::from_secs(15);

/// The agent batches its wake-ups; counters that stood still for this long have settled.
const CALM: Duration = Duration::from_millis(100);

/// The pages at a port of the loopback interface.
#[derive(Clone, Copy, Debug)]
pub struct Pages {
    port: u16,
}

impl Pages {
    /// Those at this port.
    pub fn at(port: u16) -> Self {
        Self { port }
    }

    /// Address of one of them.
    pub fn url(self, page: &str) -> String {
        format!("http://127.0.0.1:{}{page}", self.port)
    }

    /// Scrapes the metrics.
    pub fn metrics(self) -> Result<Metrics> {
        let (status, page) = load::fetch(&self.url("/metrics"))?;
        ensure!(status == 200, "/metrics answered {status}");
        Ok(Metrics::new(page))
    }

    /// Reads `/status`.
    pub fn status(self) -> Result<Value> {
        let (status, page) = load::fetch(&self.url("/status"))?;
        ensure!(status == 200, "/status answered {status}");
        Ok(serde_json::from_str(&page)?)
    }

    /// Waits until everything that the kernel produced has been delivered or counted as lost.
    pub fn settle(self) -> Result<Metrics> {
        let mut last = (0, 0, 0);
        wait_for("that records produced = delivered + lost", LIMIT, || {
            let metrics = self.metrics()?;
            let now = (metrics.produced()?, metrics.delivered()?, metrics.lost()?);
            let calm = now == last && now.0 == now.1 + now.2;
            last = now;
            if !calm {
                std::thread::sleep(CALM);
            }
            Ok(calm.then_some(metrics))
        })
        .with_context(|| {
            format!(
                "last seen: produced {}, delivered {}, lost {}",
                last.0, last.1, last.2
            )
        })
    }
}
