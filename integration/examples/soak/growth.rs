//! Figures that must not grow: their median over the first third after the warm-up, and over the last.

use crate::servers::Served;
use crate::verdict::Verdict;
use anyhow::{Context, Result};
use integration::Agent;
use integration::tls::coverage::family;
use integration::usage;
use std::time::Duration;

/// The share of the time in which caches and pools fill.
const WARM_UP: f64 = 0.3;
const KIBIBYTE: u64 = 1 << 10;
const MEBIBYTE: u64 = 1 << 20;

/// One figure over time.
struct Figure {
    what: String,
    /// Bytes, or a number.
    bytes: bool,
    /// What it may grow by.
    bound: u64,
    /// With the seconds since the start.
    values: Vec<(f64, u64)>,
}

/// All of them.
pub(crate) struct Growth {
    agent: u32,
    servers: Vec<Vec<u32>>,
    /// Resident, descriptors and maps of the agent, then each server.
    figures: Vec<Figure>,
}

impl Growth {
    /// Of the agent and the servers with their workers.
    pub(crate) fn new(agent: &Agent, servers: &[Served]) -> Result<Self> {
        let figure = |what: String, bytes, bound| Figure {
            what,
            bytes,
            bound,
            values: Vec::new(),
        };
        let mut figures = vec![
            figure("agent's resident memory".to_owned(), true, 2 * MEBIBYTE),
            figure("agent's descriptors".to_owned(), false, 8),
            figure("kernel memory of its maps".to_owned(), true, 64 * KIBIBYTE),
        ];
        let mut families = Vec::new();
        for served in servers {
            let what = format!("resident memory of {}", served.name);
            figures.push(figure(what, true, 8 * MEBIBYTE));
            families.push(family(served.server.pid())?);
        }
        Ok(Self {
            agent: agent.pid(),
            servers: families,
            figures,
        })
    }

    /// Takes all figures.
    pub(crate) fn look(&mut self, at: Duration) -> Result<()> {
        let mut values = vec![
            usage::resident(self.agent).context("the agent's memory")?,
            usage::descriptors(self.agent)?.len() as u64,
            usage::map_memory(self.agent)?,
        ];
        for family in &self.servers {
            values.push(
                family
                    .iter()
                    .copied()
                    .map(usage::resident)
                    .sum::<Result<u64>>()?,
            );
        }
        for (figure, value) in self.figures.iter_mut().zip(values) {
            figure.values.push((at.as_secs_f64(), value));
        }
        Ok(())
    }

    /// The newest figures, in a line.
    pub(crate) fn now(&self) -> String {
        let newest = self.figures.iter().map(|figure| {
            let value = figure.values.last().map_or(0, |(_, value)| *value);
            format!("{} {}", figure.what, figure.show(value))
        });
        newest.collect::<Vec<_>>().join(", ")
    }

    /// Holds each against its bound.
    pub(crate) fn judge(&self, verdict: &mut Verdict) {
        for figure in &self.figures {
            let (Some(early), Some(late)) = figure.early_and_late() else {
                verdict.check(&figure.what, "too few figures", "", false);
                continue;
            };
            verdict.check(
                &figure.what,
                format!("{}, then {}", figure.show(early), figure.show(late)),
                &format!("at most {} more", figure.show(figure.bound)),
                late <= early + figure.bound,
            );
        }
    }
}

impl Figure {
    fn early_and_late(&self) -> (Option<u64>, Option<u64>) {
        let end = self.values.last().map_or(0.0, |(at, _)| *at);
        let third = (1.0 - WARM_UP) / 3.0;
        let within = |from: f64, to: f64| {
            let values = self.values.iter();
            let chosen = values.filter(|(at, _)| *at >= from * end && *at <= to * end);
            median(chosen.map(|(_, value)| *value).collect())
        };
        (within(WARM_UP, WARM_UP + third), within(1.0 - third, 1.0))
    }

    fn show(&self, value: u64) -> String {
        if self.bytes {
            format!("{:.1} MiB", value as f64 / MEBIBYTE as f64)
        } else {
            value.to_string()
        }
    }
}

fn median(mut values: Vec<u64>) -> Option<u64> {
    values.sort_unstable();
    values.get(values.len() / 2).copied()
}
