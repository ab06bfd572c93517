//! The log while the view has the terminal: lines are kept and shown in it instead of tearing the screen.

use std::collections::VecDeque;
use std::io::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Warnings kept for when the view has been left; the oldest give way.
const KEPT: usize = 100;

/// Longest part of a line that is kept, bytes.
const LONGEST: usize = 2_000;

/// Where the log goes. A clone is a handle on the same.
#[derive(Clone, Debug, Default)]
pub struct Messages(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    /// The view has the terminal.
    held: bool,
    last: Option<String>,
    warnings: VecDeque<String>,
    /// Warnings that gave way.
    forgotten: u64,
}

impl Messages {
    /// Gives a line of the log to the view. `false` if no view has the terminal: then it is the caller's to write.
    pub fn take(&self, line: &str, is_warning: bool) -> bool {
        let mut inner = self.inner();
        if !inner.held {
            return false;
        }
        let line = shortened(line.trim_end());
        if is_warning {
            if inner.warnings.len() == KEPT {
                inner.warnings.pop_front();
                inner.forgotten += 1;
            }
            inner.warnings.push_back(line.to_owned());
        }
        inner.last = Some(line.to_owned());
        true
    }

    /// From now on lines are the view's.
    pub(super) fn hold(&self) {
        self.inner().held = true;
    }

    /// Lines are written again; warnings that were only seen in the view are written now.
    pub(super) fn release(&self, output: &mut dyn Write) {
        let mut inner = self.inner();
        inner.held = false;
        inner.last = None;
        if inner.forgotten > 0 {
            // Whoever closed standard error wants none of it.
            let _ = writeln!(output, "({} older warnings are left out)", inner.forgotten);
            inner.forgotten = 0;
        }
        for line in inner.warnings.drain(..) {
            let _ = writeln!(output, "{line}");
        }
    }

    /// The last line.
    pub(super) fn last(&self) -> Option<String> {
        self.inner().last.clone()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn shortened(line: &str) -> &str {
    let end = (0..=line.len().min(LONGEST))
        .rev()
        .find(|&end| line.is_char_boundary(end));
    line.get(..end.unwrap_or(0)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_taken_only_while_held_and_warnings_come_back() {
        let messages = Messages::default();
        assert!(!messages.take("before", true));
        messages.hold();
        assert!(messages.take("ready\n", false));
        for number in 0..KEPT + 3 {
            assert!(messages.take(&format!("warning {number}\n"), true));
        }
        assert!(messages.take(&"é".repeat(LONGEST), false));
        assert_eq!(messages.last().unwrap().len(), LONGEST);
        let mut output = Vec::new();
        messages.release(&mut output);
        let text = String::from_utf8(output).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), KEPT + 1);
        assert_eq!(lines[..2], ["(3 older warnings are left out)", "warning 3"]);
        assert!(!messages.take("after", true));
        let mut again = Vec::new();
        messages.release(&mut again);
        assert!(again.is_empty());
    }
}
