//! What the hook has to say. Runtimes show a hook's standard error only when it fails, so that the system's log gets it too.

use std::io::Write;
use std::os::unix::net::UnixDatagram;

/// Longest message, bytes; peers and files have a part in it.
const MAX_MESSAGE: usize = 2048;

/// How much a message matters: severities of RFC 5424 in facility 3 (daemon).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// A container was refused.
    Error = 3 * 8 + 3,
    /// A container starts without being observed.
    Warning = 3 * 8 + 4,
}

/// Writes to standard error only.
pub fn say(message: &str) {
    // Nobody may be there to read it.
    let _ = writeln!(std::io::stderr(), "pilotfish-hook: {}", one_line(message));
}

/// Writes to standard error, and to the system's log without waiting for it.
pub fn report(severity: Severity, message: &str) {
    // First, for standard error may have to be waited for.
    log(severity, message);
    say(message);
}

fn log(severity: Severity, message: &str) {
    let Ok(log) = UnixDatagram::unbound() else {
        return;
    };
    let line = format!(
        "<{}>pilotfish-hook[{}]: {}",
        severity as u8,
        std::process::id(),
        one_line(message)
    );
    let _ = log
        .set_nonblocking(true)
        .and_then(|()| log.send_to(line.as_bytes(), "/dev/log"));
}

/// The message without what could fake other lines of a log, cut to its bound.
fn one_line(message: &str) -> String {
    let mut line = String::new();
    for character in message.chars() {
        if line.len() >= MAX_MESSAGE {
            line.push_str("...");
            break;
        }
        line.push(if character.is_control() {
            ' '
        } else {
            character
        });
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_bounded_line() {
        assert_eq!(one_line("a\nb\u{1b}[31mc"), "a b [31mc");
        assert!(one_line(&"ü".repeat(MAX_MESSAGE)).len() < MAX_MESSAGE + 8);
    }
}
