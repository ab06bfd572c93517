//! Counts of exchanges, as the client, the server or the agent saw them.

use crate::span::{Kind, Span};
use anyhow::{Result, bail};
use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

/// Differences that a failure message lists.
const LISTED: usize = 20;

/// What identifies an exchange in a tally.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Outcome {
    /// Request method.
    pub method: String,
    /// Path without the query.
    pub path: String,
    /// Status code.
    pub status: u16,
}

impl Outcome {
    /// An outcome; a query in `target` is cut off.
    pub fn new(method: &str, target: &str, status: u16) -> Self {
        let path = target.split_once('?').map_or(target, |(path, _)| path);
        Self {
            method: method.to_owned(),
            path: path.to_owned(),
            status,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {} {}", self.method, self.path, self.status)
    }
}

/// How often each outcome was seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally(BTreeMap<Outcome, u64>);

impl Tally {
    /// Reads what a client printed: lines of method, target and status; other lines are not counted.
    pub fn of_lines(text: &str) -> Self {
        let outcomes = text.lines().filter_map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            let [method, target, status] = words[..] else {
                return None;
            };
            Some(Outcome::new(method, target, status.parse().ok()?))
        });
        outcomes.collect()
    }

    /// Counts one exchange.
    pub fn add(&mut self, outcome: Outcome) {
        *self.0.entry(outcome).or_default() += 1;
    }

    /// Adds another tally.
    pub fn merge(&mut self, other: Self) {
        for (outcome, count) in other.0 {
            *self.0.entry(outcome).or_default() += count;
        }
    }

    /// All exchanges.
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }

    /// Exchanges with a status out of `range`'s hundred, such as 2 for 200 to 299.
    pub fn of_class(&self, class: u16) -> u64 {
        self.0
            .iter()
            .filter(|(outcome, _)| outcome.status / 100 == class)
            .map(|(_, count)| count)
            .sum()
    }

    /// The tally with one outcome left out.
    #[must_use]
    pub fn without(&self, outcome: &Outcome) -> Self {
        let mut rest = self.clone();
        rest.0.remove(outcome);
        rest
    }

    /// The tally without the outcomes whose path starts with `prefix`.
    #[must_use]
    pub fn without_path(mut self, prefix: &str) -> Self {
        self.0
            .retain(|outcome, _| !outcome.path.starts_with(prefix));
        self
    }

    /// True if any outcome has this path.
    pub fn has_path(&self, path: &str) -> bool {
        self.0.keys().any(|outcome| outcome.path == path)
    }

    /// How often an outcome was seen.
    pub fn count(&self, outcome: &Outcome) -> u64 {
        self.0.get(outcome).copied().unwrap_or_default()
    }

    /// The finished exchanges among `spans` in one role: those with a status.
    pub fn of_spans(spans: &[Span], kind: Kind) -> Result<Self> {
        let mut tally = Self::default();
        for span in spans.iter().filter(|span| span.kind == kind) {
            if let Some(status) = span.status_code() {
                let path = span.path();
                tally.add(Outcome::new(
                    span.text("http.request.method")?,
                    path,
                    status,
                ));
            }
        }
        Ok(tally)
    }

    /// Fails with the list of differences unless both are equal.
    pub fn must_equal(&self, other: &Self, whose: &str, others: &str) -> Result<()> {
        let mut outcomes: Vec<&Outcome> = self.0.keys().chain(other.0.keys()).collect();
        outcomes.sort();
        outcomes.dedup();
        let differing: Vec<_> = outcomes
            .into_iter()
            .filter(|outcome| self.count(outcome) != other.count(outcome))
            .collect();
        if differing.is_empty() {
            return Ok(());
        }
        let mut text = String::new();
        for outcome in differing.iter().take(LISTED) {
            writeln!(
                text,
                "  {outcome}: {whose} {}, {others} {}",
                self.count(outcome),
                other.count(outcome)
            )?;
        }
        bail!(
            "{whose} counted {} exchanges, {others} {}; {} outcomes differ:\n{text}",
            self.total(),
            other.total(),
            differing.len()
        );
    }

    /// Fails unless every exchange of `self` is also in `other`: a part of it, never something else.
    pub fn must_be_within(&self, other: &Self) -> Result<()> {
        for (outcome, count) in &self.0 {
            let allowed = other.count(outcome);
            if *count > allowed {
                bail!("{outcome} was reported {count} times but happened {allowed} times");
            }
        }
        Ok(())
    }
}

impl FromIterator<Outcome> for Tally {
    fn from_iter<I: IntoIterator<Item = Outcome>>(outcomes: I) -> Self {
        let mut tally = Self::default();
        outcomes.into_iter().for_each(|outcome| tally.add(outcome));
        tally
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(statuses: &[u16]) -> Tally {
        statuses
            .iter()
            .map(|status| Outcome::new("GET", "/a?b=c", *status))
            .collect()
    }

    #[test]
    fn equality_is_by_count_and_names_what_differs() {
        assert!(
            tally(&[200, 404])
                .must_equal(&tally(&[404, 200]), "client", "spans")
                .is_ok()
        );
        let error = tally(&[200, 200])
            .must_equal(&tally(&[200]), "client", "spans")
            .unwrap_err();
        assert!(
            error.to_string().contains("GET /a 200: client 2, spans 1"),
            "{error}"
        );
    }

    #[test]
    fn a_part_is_within_the_whole_and_nothing_else_is() {
        assert!(tally(&[200]).must_be_within(&tally(&[200, 200])).is_ok());
        assert!(tally(&[500]).must_be_within(&tally(&[200])).is_err());
        assert!(tally(&[200, 200]).must_be_within(&tally(&[200])).is_err());
    }
}
