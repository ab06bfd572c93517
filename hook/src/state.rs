//! The OCI state that a runtime writes to a hook's standard input (runtime-spec, "State").

use std::collections::BTreeMap;
use std::io::{self, IsTerminal};
use std::path::PathBuf;

use nix::errno::Errno;
use nix::poll::PollFlags;
use pilotfish_workload::announcement::is_container_id;
use serde::Deserialize;

use crate::deadline::{Deadline, Elapsed};

/// Longest state that is read, bytes. Annotations of megabytes still fit, so that such a container is observed
/// without the ones that are too long instead of being given up.
pub const MAX_STATE: usize = 4 * 1024 * 1024;

/// What is used of the state. Runtimes write more, and not all write everything.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct State {
    /// Container id; [`parse`] has checked it.
    pub id: String,
    /// `creating`, `created`, `running` or `stopped`.
    #[serde(default)]
    pub status: Option<String>,
    /// First process of the container in the hook's pid namespace; absent or no such pid at namespace stages and
    /// after the end.
    #[serde(default)]
    pub pid: Option<i32>,
    /// Directory of `config.json`.
    #[serde(default)]
    pub bundle: Option<PathBuf>,
    /// Annotations; absent is not the same as none.
    #[serde(default)]
    pub annotations: Option<BTreeMap<String, String>>,
}

/// Why there is no state.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// A person started the hook.
    #[error(
        "standard input is a terminal: a container runtime runs this hook and writes the container's state to it; see `pilotfish-hook --help`"
    )]
    Terminal,
    /// Read error.
    #[error("the container's state cannot be read from standard input: {0}")]
    Read(#[source] io::Error),
    /// The runtime does not end its output.
    #[error(
        "the runtime did not finish writing the container's state within the deadline; raise --timeout if the machine is slow"
    )]
    Slow(#[source] Elapsed),
    /// More than [`MAX_STATE`].
    #[error(
        "the container's state is longer than the {MAX_STATE} bytes allowed; shorten its annotations"
    )]
    TooLong,
    /// Not a state.
    #[error(
        "the container's state on standard input is not what the OCI runtime specification defines: {0}; check which runtime runs the hook"
    )]
    Syntax(#[source] serde_json::Error),
    /// An id that could not be a file name.
    #[error(
        "the container's id {0:?} is none that a runtime makes (letters, digits, `_+.-`, at most 128)"
    )]
    Id(String),
}

/// Reads standard input to its end, also where it is longer than what is kept.
pub fn read(deadline: Deadline) -> Result<State, StateError> {
    let mut text = Vec::new();
    receive(deadline, |part| {
        let room = (MAX_STATE + 1).saturating_sub(text.len());
        text.extend_from_slice(&part[..part.len().min(room)]);
    })?;
    parse(&text)
}

/// Reads standard input to its end for nothing: a runtime that cannot write all of the state fails, and so does the
/// container (crun 1.21, where the hook has a timeout).
pub fn discard(deadline: Deadline) {
    // Whoever calls this does not need it, and has something else to say.
    let _ = receive(deadline, |_| ());
}

fn receive(deadline: Deadline, mut take: impl FnMut(&[u8])) -> Result<(), StateError> {
    let stdin = io::stdin();
    if stdin.is_terminal() {
        return Err(StateError::Terminal);
    }
    let mut part = [0; 16 * 1024];
    loop {
        deadline
            .wait(&stdin, PollFlags::POLLIN)
            .map_err(StateError::Slow)?;
        // Not through the standard library's buffer, whose contents `poll` knows nothing of.
        match nix::unistd::read(&stdin, &mut part) {
            Ok(0) => return Ok(()),
            Ok(length) => take(&part[..length]),
            Err(Errno::EINTR | Errno::EAGAIN) => {}
            Err(errno) => return Err(StateError::Read(errno.into())),
        }
    }
}

/// The state in a JSON text.
pub fn parse(text: &[u8]) -> Result<State, StateError> {
    if text.len() > MAX_STATE {
        return Err(StateError::TooLong);
    }
    let state: State = serde_json::from_slice(text).map_err(StateError::Syntax)?;
    if is_container_id(&state.id) {
        Ok(state)
    } else {
        Err(StateError::Id(state.id.chars().take(128).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runtimes_may_add_omit_and_pretty_print() {
        let state = parse(
            b"{\n  \"ociVersion\": \"1.2.0\",\n  \"id\": \"a1\",\n  \"root\": \"/r\",\n  \"pid\": 7,\n  \"bundle\": \"/b\",\n  \"annotations\": {\"k\": \"v\"}\n}\n",
        )
        .unwrap();
        assert_eq!(state.id, "a1");
        assert_eq!(state.pid, Some(7));
        assert_eq!(state.bundle, Some(PathBuf::from("/b")));
        assert_eq!(state.annotations.unwrap()["k"], "v");
        let state = parse(br#"{"id":"a1","pid":null,"annotations":null}"#).unwrap();
        assert_eq!(
            (state.pid, state.annotations, state.bundle),
            (None, None, None)
        );
    }

    #[test]
    fn anything_else_is_refused_with_a_reason() {
        for text in [
            "",
            "{",
            "[]",
            "{}",
            r#"{"id":7}"#,
            r#"{"id":"a","pid":"7"}"#,
            r#"{"id":"a","pid":99999999999}"#,
            r#"{"id":"a","annotations":[]}"#,
            r#"{"id":"a","annotations":{"k":1}}"#,
            r#"{"id":"a"} x"#,
        ] {
            assert!(
                matches!(parse(text.as_bytes()), Err(StateError::Syntax(_))),
                "{text}"
            );
        }
        assert!(matches!(parse(br#"{"id":"../a"}"#), Err(StateError::Id(_))));
        assert!(matches!(
            parse(&vec![b' '; MAX_STATE + 1]),
            Err(StateError::TooLong)
        ));
    }

    #[test]
    fn nesting_does_not_exhaust_the_stack() {
        let unknown = format!(r#"{{"id":"a","x":{}"#, "[".repeat(MAX_STATE / 2));
        assert!(matches!(
            parse(unknown.as_bytes()),
            Err(StateError::Syntax(_))
        ));
        let known = format!(r#"{{"annotations":{}"#, r#"{"a":"#.repeat(100_000));
        assert!(matches!(
            parse(known.as_bytes()),
            Err(StateError::Syntax(_))
        ));
    }
}
