//! The agent's own log: lines on standard error, or in the live view while that has the terminal.

use anstream::adapter::strip_bytes;
use pilotfish_export::live::Messages;
use std::io::{self, IsTerminal, Write};
use tracing::{Level, Metadata};
use tracing_subscriber::{EnvFilter, fmt::MakeWriter};

/// Starts logging what `PILOTFISH_LOG` selects. A view takes lines that would otherwise tear its terminal through
/// `messages`.
pub fn start(messages: Messages) {
    let filter =
        EnvFilter::try_from_env("PILOTFISH_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let terminal = io::stderr().is_terminal();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(Log { messages, terminal })
        .with_ansi(terminal)
        .with_target(false)
        .init();
}

/// Makes a writer for each line.
struct Log {
    messages: Messages,
    /// Standard error is a terminal: the view's, if there is one.
    terminal: bool,
}

/// Writes one line.
struct Line<'a> {
    log: &'a Log,
    is_warning: bool,
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line {
            log: self,
            is_warning: true,
        }
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> Line<'a> {
        Line {
            log: self,
            is_warning: *meta.level() <= Level::WARN,
        }
    }
}

impl Write for Line<'_> {
    /// Called once with the whole line.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let plain = strip_bytes(bytes).into_vec();
        let text = String::from_utf8_lossy(&plain);
        let shown = self.log.messages.take(&text, self.is_warning);
        if shown && self.log.terminal {
            return Ok(bytes.len());
        }
        io::stderr().write_all(bytes).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
