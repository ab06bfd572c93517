//! What the hook does with one container.

use std::fmt::Display;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use pilotfish_workload::announcement::{Announcement, Reply, Request};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::agent::{Agent, AgentError};
use crate::cli::{HookArgs, Stage};
use crate::deadline::Deadline;
use crate::report::{Severity, report, say};
use crate::spec::{self, Configuration, SpecError};
use crate::state::{self, State, StateError};

/// Exit code of success, and of every failure unless `--fail-closed`: the container starts.
pub const STARTS: u8 = 0;

/// Exit code with which a runtime does not start the container.
pub const REFUSED: u8 = 1;

/// Longest warning of the hook's own in an announcement, characters: parts of a broken file are in it.
const MAX_WARNING: usize = 512;

/// Why a container is not announced.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    /// There is no usable state.
    #[error(transparent)]
    State(#[from] StateError),
    /// Neither the state nor the configuration tells annotations.
    #[error(
        "it cannot be told whether it is to be observed, since the state has no annotations and {0}"
    )]
    Unselectable(#[source] SpecError),
    /// Its first process is gone.
    #[error("its process {0} ended before it could be announced")]
    Ended(i32),
    /// No pidfd.
    #[error("its process {pid} cannot be held on to: {source}")]
    Process {
        /// The process.
        pid: i32,
        /// Why not.
        source: io::Error,
    },
    /// No reply.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// The agent cannot.
    #[error("the agent failed: {0}")]
    Failed(String),
    /// The agent answered another question.
    #[error(
        "the agent gave a reply that does not fit the request: install the hook and the agent of one release"
    )]
    Misfit,
}

/// Runs the hook on the state on standard input. Returns the exit code.
pub fn run(args: &HookArgs, deadline: Deadline) -> u8 {
    if let Some(Stage::Other(name)) = &args.stage {
        state::discard(deadline);
        return elsewhere(&format!("stage {name}"));
    }
    let state = match state::read(deadline) {
        Ok(state) => state,
        Err(error) if args.stage == Some(Stage::Poststop) => {
            return not_removed("a container", &error);
        }
        Err(error) => return not_announced(args, "a container", &error),
    };
    let name = format!("container {}", state.id);
    match stage(args.stage.as_ref(), &state) {
        Stage::CreateRuntime => match create(args, state, deadline) {
            Ok(Some(note)) => {
                say(&format!("{name} {note}"));
                STARTS
            }
            Ok(None) => STARTS,
            Err(error) => not_announced(args, &name, &error),
        },
        Stage::Poststop => match remove(args, state, deadline) {
            Ok(()) => STARTS,
            Err(error) => not_removed(&name, &error),
        },
        Stage::Other(place) => elsewhere(&place),
    }
}

/// The hook was configured for a stage that is not for it.
fn elsewhere(place: &str) -> u8 {
    say(&format!(
        "does nothing at {place}: configure it for createRuntime and poststop"
    ));
    STARTS
}

fn not_announced(args: &HookArgs, name: &str, error: &impl Display) -> u8 {
    if args.fail_closed {
        let message = format!("{name} is refused because of --fail-closed: {error}");
        report(Severity::Error, &message);
        REFUSED
    } else {
        let message = format!("{name} starts without being observed: {error}");
        report(Severity::Warning, &message);
        STARTS
    }
}

/// Nothing depends on it: the agent also sees the end of a container's processes.
fn not_removed(name: &str, error: &impl Display) -> u8 {
    report(
        Severity::Warning,
        &format!("the agent was not told that {name} is gone: {error}"),
    );
    STARTS
}

/// The stage: what the command line says unless the state contradicts it, else what the status says.
///
/// At the namespace stages (createContainer, startContainer) the pid is that in the container's pid namespace (runc:
/// 1), 0 (crun) or absent (youki), or, without a pid namespace, that of the hook's own parent.
fn stage(configured: Option<&Stage>, state: &State) -> Stage {
    let status = state.status.as_deref();
    let expected = match (configured, status) {
        (Some(Stage::CreateRuntime), Some(status @ ("running" | "stopped")))
        | (Some(Stage::Poststop), Some(status @ ("creating" | "created" | "running"))) => {
            return Stage::Other(format!("a stage where the container is {status}"));
        }
        (Some(configured), _) => configured.clone(),
        (None, Some("stopped")) => Stage::Poststop,
        (None, Some("creating" | "created") | None) => Stage::CreateRuntime,
        (None, Some(_)) => return Stage::Other("a stage where the container runs".to_owned()),
    };
    let parent = nix::unistd::getppid().as_raw();
    match (expected, state.pid) {
        (Stage::CreateRuntime, Some(pid)) if pid > 1 && pid != parent => Stage::CreateRuntime,
        (Stage::CreateRuntime, _) => {
            Stage::Other("a stage in the container's namespaces".to_owned())
        }
        (expected, _) => expected,
    }
}

/// Announces a container that is to be observed. Returns what there is to say about a success.
fn create(args: &HookArgs, state: State, deadline: Deadline) -> Result<Option<String>, HookError> {
    let pid = state.pid.unwrap_or_default();
    let name = format!("container {}", state.id);
    let announcement = match selection(state)? {
        Selection::Announced(announcement) => announcement,
        Selection::None => return Ok(None),
        Selection::Unread(reason) => {
            // Nobody else sees it: the agent never hears of this container.
            let message = format!("{name} is not observed: {reason}");
            report(Severity::Warning, &message);
            return Ok(None);
        }
    };
    let pidfd = hold(pid)?;
    let note = announcement.warnings.first().cloned();
    let request = Request::Attach(announcement);
    let agent = Agent {
        socket: &args.socket,
        program: args.agent.as_deref(),
    };
    match agent.ask(&request, Some(pidfd.as_fd()), deadline)? {
        Reply::Attached => Ok(note),
        Reply::Ignored { reason } => Ok(Some(format!("is not observed, on purpose: {reason}"))),
        Reply::Failed { reason } => Err(HookError::Failed(reason)),
        Reply::Removed => Err(HookError::Misfit),
    }
}

/// Signs off a container that was to be observed. Starts no agent: one that is not there has nothing to forget.
fn remove(args: &HookArgs, state: State, deadline: Deadline) -> Result<(), HookError> {
    let id = state.id.clone();
    if !matches!(selection(state)?, Selection::Announced(_)) {
        return Ok(());
    }
    let agent = Agent {
        socket: &args.socket,
        program: None,
    };
    match agent.ask(&Request::Remove { id }, None, deadline)? {
        Reply::Removed => Ok(()),
        Reply::Failed { reason } => Err(HookError::Failed(reason)),
        Reply::Attached | Reply::Ignored { .. } => Err(HookError::Misfit),
    }
}

/// What the annotations of a container say.
enum Selection {
    /// Observe it.
    Announced(Box<Announcement>),
    /// Nothing, or not to.
    None,
    /// Something that cannot be read.
    Unread(String),
}

/// What the annotations of the state and of the bundle's configuration ask for.
fn selection(state: State) -> Result<Selection, HookError> {
    let bundle = state.bundle.unwrap_or_default();
    let mut warnings = Vec::new();
    let configuration = match (configuration(&bundle), &state.annotations) {
        (Ok(configuration), _) => configuration,
        (Err(error), None) => return Err(HookError::Unselectable(error)),
        (Err(error), Some(_)) => {
            let warning = format!("only the annotations of the state are known: {error}");
            warnings.push(warning.chars().take(MAX_WARNING).collect());
            Configuration::default()
        }
    };
    let mut all = configuration.annotations;
    all.extend(state.annotations.unwrap_or_default());
    let pid = state.pid.unwrap_or_default();
    let found = Announcement::of_container(state.id.clone(), pid, &all, &bundle);
    let Some(mut announcement) = found else {
        let unread = Announcement::unread_wish(&state.id, &all, &bundle);
        return Ok(unread.map_or(Selection::None, Selection::Unread));
    };
    warnings.append(&mut announcement.warnings);
    announcement.warnings = warnings;
    let announcement = announcement.about_to_execute(configuration.program.as_deref());
    Ok(Selection::Announced(Box::new(announcement)))
}

/// The bundle's configuration. Nothing is open in the bundle afterwards, nor is it the working
/// directory.
fn configuration(bundle: &Path) -> Result<Configuration, SpecError> {
    let directory = spec::open_bundle(bundle);
    // The working directory would keep the bundle's mount busy in an agent that is started from here.
    let _ = nix::unistd::chdir("/");
    spec::read(&directory?)
}

/// A pidfd of a process that lives.
fn hold(pid: i32) -> Result<OwnedFd, HookError> {
    let Some(number) = Pid::from_raw(pid) else {
        return Err(HookError::Ended(pid));
    };
    let pidfd = pidfd_open(number, PidfdFlags::empty()).map_err(|errno| match errno {
        rustix::io::Errno::SRCH => HookError::Ended(pid),
        errno => HookError::Process {
            pid,
            source: errno.into(),
        },
    })?;
    // Readable once the process has ended (pidfd_open(2)).
    let mut entry = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
    match poll(&mut entry, PollTimeout::ZERO) {
        Ok(0) => Ok(pidfd),
        Ok(_) => Err(HookError::Ended(pid)),
        Err(errno) => Err(HookError::Process {
            pid,
            source: errno.into(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(status: Option<&str>, pid: Option<i32>) -> State {
        State {
            id: "a".to_owned(),
            status: status.map(str::to_owned),
            pid,
            bundle: None,
            annotations: None,
        }
    }

    #[test]
    fn the_status_tells_the_stage_where_nobody_configured_it() {
        for status in [None, Some("creating"), Some("created")] {
            assert_eq!(stage(None, &state(status, Some(7))), Stage::CreateRuntime);
        }
        assert_eq!(
            stage(None, &state(Some("stopped"), Some(0))),
            Stage::Poststop
        );
        assert!(matches!(
            stage(None, &state(Some("running"), Some(7))),
            Stage::Other(_)
        ));
    }

    #[test]
    fn stages_in_the_container_are_recognised_by_the_pid() {
        let parent = nix::unistd::getppid().as_raw();
        for pid in [None, Some(0), Some(1), Some(-1), Some(parent)] {
            let stage = stage(Some(&Stage::CreateRuntime), &state(Some("created"), pid));
            assert!(matches!(stage, Stage::Other(_)), "{pid:?}");
        }
    }

    #[test]
    fn a_status_that_contradicts_the_command_line_wins() {
        for (configured, status) in [
            (Stage::CreateRuntime, "running"),
            (Stage::CreateRuntime, "stopped"),
            (Stage::Poststop, "created"),
            (Stage::Poststop, "running"),
        ] {
            let stage = stage(Some(&configured), &state(Some(status), Some(7)));
            assert!(matches!(stage, Stage::Other(_)), "{configured:?} {status}");
        }
    }

    #[test]
    fn only_a_living_process_is_held() {
        assert!(hold(std::process::id().cast_signed()).is_ok());
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id().cast_signed();
        let status = nix::sys::wait::waitid(
            nix::sys::wait::Id::Pid(nix::unistd::Pid::from_raw(pid)),
            nix::sys::wait::WaitPidFlag::WEXITED | nix::sys::wait::WaitPidFlag::WNOWAIT,
        );
        assert!(status.is_ok());
        assert!(matches!(hold(pid), Err(HookError::Ended(_))));
        child.wait().unwrap();
        assert!(matches!(hold(0), Err(HookError::Ended(_))));
    }
}
