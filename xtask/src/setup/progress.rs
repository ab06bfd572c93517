//! How far the set-up is: which step of how many, and for how long.

use std::io::{IsTerminal, Write, stdout};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anstream::println;
use anyhow::Result;

/// Steps shorter than this need no word about their time.
const SHORT: Duration = Duration::from_secs(2);

/// The steps of one set-up.
pub(super) struct Steps {
    total: usize,
    begun: usize,
}

impl Steps {
    /// None has begun.
    pub(super) fn new(total: usize) -> Self {
        Self { total, begun: 0 }
    }

    /// A step whose programs tell what they do.
    pub(super) fn telling(&mut self, what: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
        self.timed(what, work)
    }

    /// A step that says nothing for minutes: on a terminal a clock runs meanwhile.
    pub(super) fn silent(&mut self, what: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
        if !stdout().is_terminal() {
            return self.timed(what, work);
        }
        self.timed(what, || {
            thread::scope(|scope| {
                let (ended, end) = mpsc::channel::<()>();
                scope.spawn(move || run_clock(&end));
                let outcome = work();
                drop(ended);
                outcome
            })
        })
    }

    fn timed(&mut self, what: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
        self.begun += 1;
        let step = format!("setup {}/{}: {what}", self.begun, self.total);
        println!("{step}");
        let start = Instant::now();
        work()?;
        let took = start.elapsed();
        if took >= SHORT {
            println!("{step}: done after {}", clock(took));
        }
        Ok(())
    }
}

/// Shows the time until the other end is dropped, and takes it away again.
fn run_clock(end: &mpsc::Receiver<()>) {
    let start = Instant::now();
    while end.recv_timeout(Duration::from_secs(1)) == Err(RecvTimeoutError::Timeout) {
        show(&format!("\r  {}", clock(start.elapsed())));
    }
    show("\r\u{1b}[K");
}

/// A terminal that takes nothing loses a clock, not a set-up.
fn show(text: &str) {
    let mut output = stdout().lock();
    let _ = output
        .write_all(text.as_bytes())
        .and_then(|()| output.flush());
}

fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds / 60 {
        0 => format!("{seconds} s"),
        minutes => format!("{minutes} min {} s", seconds % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_counts_and_a_failed_one_is_handed_on() {
        let mut steps = Steps::new(3);
        assert!(steps.telling("one", || Ok(())).is_ok());
        assert!(steps.silent("two", || anyhow::bail!("no network")).is_err());
        let mut ran = false;
        let work = || {
            ran = true;
            Ok(())
        };
        assert!(steps.silent("three", work).is_ok());
        assert!(ran);
        assert_eq!(steps.begun, 3);
    }

    #[test]
    fn times_are_in_minutes_and_seconds() {
        assert_eq!(clock(Duration::from_millis(59_999)), "59 s");
        assert_eq!(clock(Duration::from_secs(192)), "3 min 12 s");
    }
}
