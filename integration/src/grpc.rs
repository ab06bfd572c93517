//! gRPC without any schema: a method's name tells the shape of the call and the code that the server answers, so that every
//! call of a [`Plan`] has a method and an outcome of its own. What the names mean is told in `fixtures/grpc_server.py`.

use crate::http2::server::listening;
use crate::place;
use crate::program;
use crate::scene::{Scene, free_port};
use crate::server::Server;
use crate::span::{Kind, Span};
use crate::tally::{Outcome, Tally};
use crate::tls::client::Gate;
use anyhow::{Context, Result, ensure};
use std::fmt::Write as _;
use std::fs;
use std::process::Command;
use std::time::Duration;

/// Longest run of a client.
pub const LIMIT: Duration = Duration::from_mins(1);

/// Names of the status codes, in their order (gRPC, "statuscodes.md").
const CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// Codes that are a failure of the server (semantic conventions for gRPC).
const SERVER_FAILURES: [&str; 6] = [
    "UNKNOWN",
    "DEADLINE_EXCEEDED",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
];

/// A server or a client.
#[derive(Debug)]
pub struct Program {
    /// Its language, for the names of trials.
    pub name: &'static str,
    /// Tools without which it cannot run.
    pub tools: &'static [&'static str],
    command: fn() -> Result<Command>,
}

/// Every server under test; the port is their argument.
pub const SERVERS: &[Program] = &[
    Program {
        name: "python",
        tools: &["python3"],
        command: || python("grpc_server.py"),
    },
    Program {
        name: "go",
        tools: &["go"],
        command: || Ok(Command::new(program::go("grpc_server.go")?)),
    },
    Program {
        name: "rust",
        tools: &[],
        command: || Ok(Command::new(place::own_program("grpc_server")?)),
    },
];

/// Every client under test.
pub const CLIENTS: &[Program] = &[
    Program {
        name: "python",
        tools: &["python3"],
        command: || python("grpc_client.py"),
    },
    Program {
        name: "go",
        tools: &["go"],
        command: || Ok(Command::new(program::go("grpc_client.go")?)),
    },
];

fn python(script: &str) -> Result<Command> {
    let mut command = place::command("python3")?;
    command
        .arg(place::fixture(script))
        .env("PYTHONDONTWRITEBYTECODE", "1");
    Ok(command)
}

/// The row of a table with this name.
pub fn named(table: &'static [Program], name: &str) -> Result<&'static Program> {
    table
        .iter()
        .find(|program| program.name == name)
        .with_context(|| format!("no {name} in the table"))
}

impl Program {
    /// Starts it as a server.
    pub fn serve(&self, scene: &Scene) -> Result<Server> {
        let port = free_port()?;
        let mut command = (self.command)()?;
        command.arg(port.to_string());
        listening(self.name, command, scene, port)
    }

    /// Its command line as a client of the server at a port, making at most `at_once` calls at a time.
    pub fn client(&self, scene: &Scene, port: u16, plan: &Plan, at_once: usize) -> Result<Command> {
        let file = scene.folder().join("plan");
        fs::write(&file, &plan.lines)?;
        let mut command = (self.command)()?;
        command
            .arg(port.to_string())
            .arg(file)
            .arg(at_once.to_string());
        Ok(command)
    }
}

/// Calls to make, and what they come to.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    lines: String,
    expected: Tally,
}

impl Plan {
    /// Calls `/trial.Calls/SHAPE_CODE_NUMBER` with messages of this many bytes.
    pub fn call(&mut self, shape: &str, code: u16, number: usize, bytes: usize) {
        self.call_of(
            &format!("trial.Calls/{shape}_{code}_{number}"),
            code,
            bytes,
            "",
        );
    }

    /// The same with a `traceparent` in its metadata.
    pub fn traced(&mut self, shape: &str, number: usize, traceparent: &str) {
        let method = format!("trial.Calls/{shape}_0_{number}");
        self.call_of(&method, 0, 100, traceparent);
    }

    /// Calls what no server implements.
    pub fn unknown(&mut self, number: usize) {
        self.call_of(&format!("trial.Nothing/Unary_12_{number}"), 12, 100, "");
    }

    fn call_of(&mut self, method: &str, code: u16, bytes: usize, traceparent: &str) {
        // Writing to a string does not fail.
        let _ = writeln!(self.lines, "{method} {bytes} {traceparent}");
        self.expected.add(Outcome::new("grpc", method, code));
    }

    /// Goes on when the calls before have ended and the gate is open.
    pub fn wait(&mut self, gate: &Gate) {
        let _ = writeln!(self.lines, "wait {}", gate.path().display());
    }

    /// Goes on when the calls before have ended.
    pub fn pause(&mut self) {
        self.lines.push_str("wait\n");
    }

    /// What all calls come to; fails unless the client, of which this is the log, says the same.
    pub fn agreed(&self, log: &str) -> Result<Tally> {
        self.expected
            .must_equal(&Tally::of_lines(log), "the plan", "the client")?;
        Ok(self.expected.clone())
    }
}

/// The calls with a status among the spans of one role.
pub fn tally_of(spans: &[Span], kind: Kind) -> Result<Tally> {
    let mut tally = Tally::default();
    for span in spans.iter().filter(|span| span.kind == kind) {
        if let Some(code) = code_of(span)? {
            let method = span
                .rpc_method()
                .with_context(|| format!("no call: {span:?}"))?;
            tally.add(Outcome::new("grpc", method, code));
        }
    }
    Ok(tally)
}

/// Number of a call's status; fails if the span's error does not go with it.
pub fn code_of(span: &Span) -> Result<Option<u16>> {
    let Ok(name) = span.text("rpc.response.status_code") else {
        return Ok(None);
    };
    let code = CODES
        .iter()
        .position(|code| *code == name)
        .with_context(|| format!("no code is called {name}"))?;
    let is_failure = match span.kind {
        Kind::Server => SERVER_FAILURES.contains(&name),
        Kind::Client => name != "OK",
    };
    let error = span.text("error.type").ok();
    ensure!(
        error == is_failure.then_some(name),
        "error.type does not go with {name}: {span:?}"
    );
    Ok(Some(u16::try_from(code)?))
}

/// Fails unless the spans of one role are exactly these calls, on a server at this port.
pub fn must_be_all(spans: &[Span], tally: &Tally, kind: Kind, port: u16) -> Result<()> {
    tally.must_equal(&tally_of(spans, kind)?, "the client", "spans")?;
    let own = spans.iter().filter(|span| span.kind == kind);
    ensure!(
        own.clone().count() as u64 == tally.total(),
        "{} spans of {} calls",
        own.count(),
        tally.total()
    );
    for span in own {
        ensure!(
            span.integer("server.port") == Some(i64::from(port)),
            "server.port: {span:?}"
        );
        ensure!(!span.is_marked_incomplete(), "marked: {span:?}");
    }
    Ok(())
}

/// Fails if a span tells of a call that was not made or of another answer than its own; some may be missing. What is not
/// known to be gRPC, or of which call it is, is marked, and a path that it tells is that of a call.
pub fn must_be_true(spans: &[Span], tally: &Tally, kind: Kind) -> Result<()> {
    let mut known = Vec::new();
    for span in spans {
        let method = span.rpc_method();
        if method.is_some_and(|method| method != "_OTHER") {
            known.push(span.clone());
            continue;
        }
        ensure!(span.is_marked_incomplete(), "not marked: {span:?}");
        let path = span.path().trim_start_matches('/');
        ensure!(
            method.is_some() || path.is_empty() || tally.has_path(path),
            "no such call: {span:?}"
        );
    }
    tally_of(&known, kind)?.must_be_within(tally)
}
