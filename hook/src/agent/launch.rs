//! Starts the agent where no service manager does: detached from the runtime in every respect.

use std::ffi::{CStr, CString};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::SigSet;
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, chdir, dup2_stderr, dup2_stdin, dup2_stdout, execve, fork, setsid};

use super::cgroups;
use crate::trust::{others_may_replace, others_may_write};

/// Seconds without a container after which an agent that was started so ends.
const IDLE_SECONDS: &CStr = c"60";

/// Length from which the log of a running agent begins anew, bytes.
const MAX_LOG: u64 = 1024 * 1024;

/// Number of the last real-time signal (signal(7)).
const LAST_SIGNAL: i32 = 64;

/// Why the agent was not started.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// Not to be trusted with root's rights.
    #[error("--agent {program} is not started: {reason}")]
    Program {
        /// Its path.
        program: PathBuf,
        /// What is wrong, and what would be right.
        reason: String,
    },
    /// Others could put a socket of theirs there.
    #[error("the socket's directory {directory} cannot be used: {reason}")]
    Directory {
        /// Its path.
        directory: PathBuf,
        /// What is wrong, and what would be right.
        reason: String,
    },
    /// No file, no process.
    #[error("cannot {what} to start the agent: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
}

/// Where an agent that the hook started writes its log: beside the socket, begun anew at each start.
pub(super) fn log_path(socket: &Path) -> PathBuf {
    directory(socket).join("agent.log")
}

/// Begins the log anew if it has become too long: no service manager does it, and it lies in memory.
pub(super) fn bound_log(socket: &Path) {
    let path = log_path(socket);
    let is_long = fs::symlink_metadata(&path)
        .is_ok_and(|metadata| metadata.is_file() && metadata.len() > MAX_LOG);
    if is_long && check_directory(directory(socket)).is_ok() {
        // The agent appends, so what it writes next is at the beginning. The next container tries again.
        let _ = private_file().open(path).and_then(|log| log.set_len(0));
    }
}

fn directory(socket: &Path) -> &Path {
    socket.parent().unwrap_or(Path::new("/"))
}

/// Claims the start of the agent; `None` if another hook is at it.
pub(super) fn claim(socket: &Path) -> Result<Option<Flock<File>>, LaunchError> {
    let directory = directory(socket);
    prepare_directory(directory)?;
    let file = private_file()
        .open(directory.join("start.lock"))
        .map_err(|source| LaunchError::System {
            what: "open start.lock beside the socket",
            source,
        })?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(claim) => Ok(Some(claim)),
        Err((_, Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, errno)) => Err(LaunchError::System {
            what: "lock start.lock beside the socket",
            source: errno.into(),
        }),
    }
}

fn private_file() -> OpenOptions {
    let mut options = OpenOptions::new();
    options
        .create(true)
        .append(true)
        .mode(0o600)
        .custom_flags(nix::libc::O_NOFOLLOW);
    options
}

/// Makes the directory if it is absent, and refuses one that others may write to.
fn prepare_directory(directory: &Path) -> Result<(), LaunchError> {
    let refused = |reason| LaunchError::Directory {
        directory: directory.to_owned(),
        reason,
    };
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(refused(format!(
            "{error}; make the directory above it, or choose another --socket"
        ))),
        _ => check_directory(directory),
    }
}

/// Refuses a directory in which others could put a socket or a link of theirs.
fn check_directory(directory: &Path) -> Result<(), LaunchError> {
    let refused = |reason| LaunchError::Directory {
        directory: directory.to_owned(),
        reason,
    };
    let metadata = fs::symlink_metadata(directory).map_err(|error| refused(error.to_string()))?;
    if !metadata.is_dir() {
        return Err(refused("it is not a directory".to_owned()));
    }
    others_may_write(&metadata).map_or(Ok(()), |why| {
        Err(refused(format!(
            "{why}; it must be root's alone (mode 0700)"
        )))
    })
}

/// Refuses a program that somebody other than the administrator could have put there.
fn check_program(program: &Path) -> Result<(), LaunchError> {
    let refused = |reason| LaunchError::Program {
        program: program.to_owned(),
        reason,
    };
    if !program.is_absolute() {
        return Err(refused("give an absolute path".to_owned()));
    }
    let metadata = fs::symlink_metadata(program)
        .map_err(|error| refused(format!("{error}; install the agent there")))?;
    if !metadata.is_file() {
        return Err(refused("it is not a regular file".to_owned()));
    }
    if let Some(why) = others_may_write(&metadata) {
        return Err(refused(format!("{why}; make it root's, mode 0755")));
    }
    match others_may_replace(program).map_err(|error| refused(error.to_string()))? {
        Some((above, why)) => Err(refused(format!("of {}: {why}", above.display()))),
        None => Ok(()),
    }
}

/// Starts `PROGRAM node --socket SOCKET --exit-when-idle 60` in a session of its own, as nobody's child, with no
/// environment and no descriptor of the runtime's.
pub(super) fn start(program: &Path, socket: &Path) -> Result<(), LaunchError> {
    check_program(program)?;
    let failed = |what| move |source: io::Error| LaunchError::System { what, source };
    let log = private_file()
        .open(log_path(socket))
        .and_then(|log| log.set_len(0).map(|()| log))
        .map_err(failed("open agent.log beside the socket"))?;
    let null = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")
        .map_err(failed("open /dev/null"))?;
    let invalid = |_| LaunchError::Program {
        program: program.to_owned(),
        reason: "its path or the socket's has a zero byte".to_owned(),
    };
    let program = CString::new(program.as_os_str().as_bytes()).map_err(invalid)?;
    let socket = CString::new(socket.as_os_str().as_bytes()).map_err(invalid)?;
    // SAFETY: the hook has one thread, so the child may do anything.
    match unsafe { fork() }.map_err(|errno| failed("fork")(errno.into()))? {
        ForkResult::Parent { child } => {
            // It ends at once; the agent is its child, and so becomes init's.
            let _ = waitpid(child, None);
            Ok(())
        }
        ForkResult::Child => {
            let _ = setsid();
            // SAFETY: as above.
            if let Ok(ForkResult::Child) = unsafe { fork() } {
                become_agent(&program, &socket, &log, &null);
            }
            end(0)
        }
    }
}

/// In the agent's process: leaves the runtime's surroundings and becomes the program.
fn become_agent(program: &CStr, socket: &CStr, log: &File, null: &File) {
    let streams = dup2_stdin(null)
        .and(dup2_stdout(null))
        .and(dup2_stderr(log));
    if streams.is_err() {
        return;
    }
    for number in 1..=LAST_SIGNAL {
        // SAFETY: no handler is installed. What cannot be changed (SIGKILL, SIGSTOP, the C library's own) need not be.
        unsafe { nix::libc::signal(number, nix::libc::SIG_DFL) };
    }
    let _ = SigSet::empty().thread_set_mask();
    let _ = chdir("/");
    for warning in cgroups::leave() {
        eprintln!("pilotfish-hook: the agent {warning}");
    }
    // A runtime may have protected itself, and an agent that is in the way must not outlive it.
    if let Err(error) = fs::write("/proc/self/oom_score_adj", "0") {
        eprintln!("pilotfish-hook: the agent keeps the runtime's oom_score_adj: {error}");
    }
    let arguments = [
        program,
        c"node",
        c"--socket",
        socket,
        c"--exit-when-idle",
        IDLE_SECONDS,
    ];
    let environment: [&CStr; 0] = [];
    let Err(errno) = execve(program, &arguments, &environment);
    eprintln!("pilotfish-hook: the agent {program:?} cannot be executed: {errno}");
}

fn end(code: i32) -> ! {
    // SAFETY: nothing of the parent's may run at the child's end, destructors and buffers included.
    unsafe { nix::libc::_exit(code) }
}
