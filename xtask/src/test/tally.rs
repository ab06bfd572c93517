//! Counts of tests, and the names of those that did not pass.

use std::fmt;

/// The result of some tests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// How many passed.
    pub(super) passed: u64,
    /// Names of those that failed.
    pub(super) failed: Vec<String>,
    /// Names of those that did not run, with the reason where one was given.
    pub(super) ignored: Vec<String>,
}

impl Tally {
    /// Adds another result to this one.
    pub(super) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed.extend(other.failed);
        self.ignored.extend(other.ignored);
    }
}

/// `12 passed, 0 failed`, and `, 1 skipped` when tests were ignored: a form that log readers know.
impl fmt::Display for Tally {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{} passed, {} failed",
            self.passed,
            self.failed.len()
        )?;
        if !self.ignored.is_empty() {
            write!(formatter, ", {} skipped", self.ignored.len())?;
        }
        Ok(())
    }
}
