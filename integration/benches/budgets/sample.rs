//! Figures of several rounds, reduced to a median and its spread.

use serde::Serialize;
use std::fmt;

/// The figures of one quantity in the order in which they were taken.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(transparent)]
pub(crate) struct Sample(Vec<f64>);

impl Sample {
    /// Adds a figure.
    pub(crate) fn push(&mut self, figure: f64) {
        self.0.push(figure);
    }

    /// Round by round, this against another quantity of the same rounds.
    pub(crate) fn against(&self, other: &Self, combine: impl Fn(f64, f64) -> f64) -> Self {
        let pairs = self.0.iter().zip(&other.0);
        pairs.map(|(&own, &other)| combine(own, other)).collect()
    }

    /// The middle figure, or the mean of the two in the middle; not a number when there is none.
    pub(crate) fn median(&self) -> f64 {
        let sorted = self.sorted();
        let middle = sorted.len() / 2;
        match sorted.len() {
            0 => f64::NAN,
            length if length % 2 == 1 => sorted[middle],
            _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
        }
    }

    /// The largest figure; not a number when there is none.
    pub(crate) fn most(&self) -> f64 {
        self.sorted().last().copied().unwrap_or(f64::NAN)
    }

    /// Smallest and largest figure, to so many decimals.
    pub(crate) fn range(&self, decimals: usize) -> Range {
        let sorted = self.sorted();
        let end = |figure: Option<&f64>| figure.copied().unwrap_or(f64::NAN);
        Range {
            least: end(sorted.first()),
            most: end(sorted.last()),
            rounds: sorted.len(),
            decimals,
        }
    }

    /// Where the middle half of the figures lies, to so many decimals: for many short rounds, of which some meet
    /// whatever else the machine does.
    pub(crate) fn middle_half(&self, decimals: usize) -> String {
        let sorted = self.sorted();
        let at = |quarters: usize| {
            let figure = sorted.get(sorted.len().saturating_sub(1) * quarters / 4);
            figure.copied().unwrap_or(f64::NAN)
        };
        format!(
            "half of {} rounds between {:.decimals$} and {:.decimals$}",
            sorted.len(),
            at(1),
            at(3)
        )
    }

    fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
    }
}

impl FromIterator<f64> for Sample {
    fn from_iter<I: IntoIterator<Item = f64>>(figures: I) -> Self {
        Self(figures.into_iter().collect())
    }
}

/// Where the figures of a sample lie.
pub(crate) struct Range {
    least: f64,
    most: f64,
    rounds: usize,
    decimals: usize,
}

impl fmt::Display for Range {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            least,
            most,
            rounds,
            decimals,
        } = self;
        write!(
            formatter,
            "{least:.decimals$} to {most:.decimals$} in {rounds} rounds"
        )
    }
}

/// `A B C`, then `C B A`, and so on: a drift of the machine falls on all states alike.
pub(crate) fn interleaved<T: Copy>(states: &[T], rounds: usize) -> Vec<T> {
    (0..rounds)
        .flat_map(|round| {
            let mut order = states.to_vec();
            if round % 2 == 1 {
                order.reverse();
            }
            order
        })
        .collect()
}
