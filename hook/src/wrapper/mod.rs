//! `pilotfish-hook runtime`: stands in for docker's OCI runtime, adds the hook to the bundles that ask for it, and
//! becomes the real runtime.
//!
//! docker has no other way in: its labels do not reach the spec, and it knows no hooks of the administrator. The
//! real runtime gets its arguments and its environment as they came. Whatever fails before it starts is only
//! said, unless `--fail-closed` was installed.

mod bundle;
mod command_line;

use crate::{
    cli::parse_timeout,
    install::{self, HookOptions, entry::HookCommand},
};
use command_line::CommandLine;
use std::{
    ffi::{OsStr, OsString},
    fs::OpenOptions,
    io::{self, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::Duration,
};

/// The OCI runtime that docker starts where nothing else is configured.
const DEFAULT_RUNTIME: &str = "runc";

/// Arguments of `pilotfish-hook runtime`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The OCI runtime to become, a path or a name in PATH.
    #[arg(long, value_name = "PATH", default_value = DEFAULT_RUNTIME)]
    pub real_runtime: OsString,
    /// Seconds after which the runtime kills the hook.
    #[arg(long, value_name = "SECONDS")]
    pub kill_after: Option<u32>,
    /// Socket of the agent.
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Agent that the hook starts when none answers.
    #[arg(long, value_name = "PATH")]
    pub agent: Option<PathBuf>,
    /// How long the hook may hold a container's start.
    #[arg(long, value_name = "DURATION", value_parser = parse_timeout)]
    pub timeout: Option<Duration>,
    /// A container that asks for observation, or whose bundle cannot be read, does not start without the hook.
    #[arg(long)]
    pub fail_closed: bool,
    /// Arguments of the real runtime.
    #[arg(last = true)]
    pub arguments: Vec<OsString>,
}

/// Why a container starts without the hook, or does not start.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("cannot read {path}: {source}")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path} is not an OCI spec: {reason}")]
    Spec { path: PathBuf, reason: String },
    #[error("cannot write {path}: {source}")]
    Write { path: PathBuf, source: io::Error },
    #[error("wrong options of the hook: {0}")]
    Hook(#[from] install::Error),
    #[error(
        "wrong options of `pilotfish-hook runtime` in /etc/docker/daemon.json, install it again: {0}"
    )]
    Options(String),
}

/// Prepares the bundle and becomes the real runtime. Returns only if that is not possible, or if the container must
/// not start without the hook: docker then reports what was said, on standard error and in the runtime's log.
pub fn run(args: &Args) -> ExitCode {
    let line = CommandLine::parse(&args.arguments);
    let prepared = match &line.bundle {
        Some(bundle) => prepare(args, bundle),
        None => Ok(()),
    };
    match prepared {
        Err(error) if args.fail_closed => return refuse_without_hook(&error, &line),
        Err(error) => start_without_hook(&error),
        Ok(()) => {}
    }
    become_runtime(&args.real_runtime, &args.arguments, &line)
}

/// The same with options that are wrong, for example those of another release: nothing can be prepared, but docker
/// calls the wrapper for its containers all the same. `None` if this is no call of docker's.
pub fn run_misconfigured(arguments: &[OsString], error: &clap::Error) -> Option<ExitCode> {
    let end = arguments.iter().position(|argument| argument == "--")?;
    let (own, arguments) = (arguments.get(..end)?, arguments.get(end + 1..)?);
    if own.get(1)? != "runtime" || !error.use_stderr() {
        return None;
    }
    let line = CommandLine::parse(arguments);
    // What docker asks of a container that exists is its own answer, read by a program.
    if line.bundle.is_some() {
        let text = error.to_string();
        let error = Error::Options(text.lines().next().unwrap_or_default().to_owned());
        if own.iter().any(|option| option == "--fail-closed") {
            return Some(refuse_without_hook(&error, &line));
        }
        start_without_hook(&error);
    }
    let real = own
        .iter()
        .position(|option| option == "--real-runtime")
        .and_then(|at| own.get(at + 1));
    let real = real.map_or(OsStr::new(DEFAULT_RUNTIME), OsString::as_os_str);
    Some(become_runtime(real, arguments, &line))
}

fn refuse_without_hook(error: &Error, line: &CommandLine) -> ExitCode {
    let message = format!(
        "pilotfish-hook: {error}; the container does not start without its hook (--fail-closed)"
    );
    refuse(&message, line.log.as_deref())
}

fn start_without_hook(error: &Error) {
    // Nobody may be reading; the container starts all the same.
    let _ = writeln!(
        io::stderr(),
        "pilotfish-hook: {error}; the container starts without its hook"
    );
}

/// Returns only if there is no such program.
fn become_runtime(real: &OsStr, arguments: &[OsString], line: &CommandLine) -> ExitCode {
    let failed = Command::new(real).args(arguments).exec();
    let message = format!(
        "pilotfish-hook: cannot start the OCI runtime {}: {failed}; install it or correct --real-runtime in \
         /etc/docker/daemon.json",
        Path::new(real).display()
    );
    refuse(&message, line.log.as_deref())
}

fn prepare(args: &Args, bundle: &Path) -> Result<(), Error> {
    let command = HookCommand::new(&HookOptions {
        hook: None,
        copy_to: None,
        socket: args.socket.clone(),
        agent: args.agent.clone(),
        timeout: args.timeout,
        kill_after: args.kill_after,
        fail_closed: args.fail_closed,
    })?;
    bundle::add_hook(bundle, &command)
}

/// containerd's shim shows the last error in the runtime's log (in runc's format), and standard error only if there
/// is no log.
fn refuse(message: &str, log: Option<&Path>) -> ExitCode {
    // Both are for people; the exit code is what counts.
    let _ = writeln!(io::stderr(), "{message}");
    if let Some(log) = log {
        let line = serde_json::json!({ "level": "error", "msg": message });
        let _ = OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .and_then(|mut file| writeln!(file, "{line}"));
    }
    ExitCode::FAILURE
}
