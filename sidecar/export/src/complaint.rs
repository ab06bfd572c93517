//! Says a persistent fault once, then at most once a minute; the counters tell the rest.

use std::time::{Duration, Instant};

const EVERY: Duration = Duration::from_mins(1);

/// The state of one fault.
#[derive(Debug, Default)]
pub(crate) struct Complaint {
    last: Option<Instant>,
    open: bool,
}

impl Complaint {
    /// True when the fault, which was just met, is to be logged now.
    pub(crate) fn due(&mut self) -> bool {
        let due = self.last.is_none_or(|last| last.elapsed() >= EVERY);
        if due {
            self.last = Some(Instant::now());
            self.open = true;
        }
        due
    }

    /// The fault is over; true if it had been logged.
    pub(crate) fn recovered(&mut self) -> bool {
        std::mem::take(&mut self.open)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flapping_fault_is_told_once() {
        let mut complaint = Complaint::default();
        assert_eq!([complaint.due(), complaint.due()], [true, false]);
        assert_eq!(
            [complaint.recovered(), complaint.recovered()],
            [true, false]
        );
        assert_eq!([complaint.due(), complaint.recovered()], [false, false]);
    }
}
