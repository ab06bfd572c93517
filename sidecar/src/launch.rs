//! `pilotfish run`: a command that starts only when it is in scope, so that its first request is seen.

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    env,
    ffi::OsString,
    fs::File,
    io::{self, PipeReader, PipeWriter, Read, Write},
    os::fd::{AsRawFd, OwnedFd, RawFd},
    os::unix::process::{CommandExt, ExitStatusExt},
    path::PathBuf,
    process::{Child, Command, ExitStatus},
    thread::JoinHandle,
};

/// Why the command did not start.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// No pipe or no thread.
    #[error(
        "cannot prepare to start the command: {0}; raise the limits of open files and processes"
    )]
    Prepare(#[source] io::Error),
    /// The command could not be executed.
    #[error("cannot start {command}: {source}; give an executable file or a name in PATH")]
    Execute {
        /// What was to be run.
        command: String,
        /// The reason.
        source: io::Error,
    },
}

/// Exit code of a child that was never let go; nobody reads it.
const GIVEN_UP: i32 = 1;

/// A command that waits between fork and exec.
pub struct Waiting {
    pid: i32,
    go: PipeWriter,
    starter: JoinHandle<io::Result<Child>>,
    command: String,
}

impl Waiting {
    /// Forks. The child waits for [`Self::go`]; if this value is dropped or this process dies first, the child ends
    /// without executing.
    pub fn fork(command: &[String]) -> Result<Self, LaunchError> {
        let (pid_reader, pid_writer) = io::pipe().map_err(LaunchError::Prepare)?;
        let (go_reader, go) = io::pipe().map_err(LaunchError::Prepare)?;
        let name = command.first().cloned().unwrap_or_default();
        let arguments: Vec<OsString> = command.iter().skip(1).map(OsString::from).collect();
        let program = name.clone();
        let parents_end = go.as_raw_fd();
        // `spawn` returns only after the exec, which waits for us: it needs a thread of its own.
        let starter = std::thread::Builder::new()
            .name("start".to_owned())
            .spawn(move || spawn_waiting(&program, &arguments, pid_writer, go_reader, parents_end))
            .map_err(LaunchError::Prepare)?;
        match read_pid(pid_reader) {
            Some(pid) => Ok(Self {
                pid,
                go,
                starter,
                command: name,
            }),
            None => Err(failure(starter, name)),
        }
    }

    /// The child's process id.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Path of the program that the child will execute, links resolved as `/proc/PID/exe` will show it.
    pub fn program(&self) -> String {
        find(&self.command).map_or_else(
            || self.command.clone(),
            |path| path.to_string_lossy().into_owned(),
        )
    }

    /// Lets the child execute the command.
    pub fn go(mut self) -> Result<Child, LaunchError> {
        if let Err(source) = self.go.write_all(&[1]) {
            return Err(LaunchError::Execute {
                command: self.command,
                source,
            });
        }
        drop(self.go);
        match self.starter.join() {
            Ok(Ok(child)) => Ok(child),
            Ok(Err(source)) => Err(LaunchError::Execute {
                command: self.command,
                source,
            }),
            Err(_) => Err(LaunchError::Prepare(io::Error::other(
                "the starting thread panicked",
            ))),
        }
    }
}

/// Where `execvp` finds a command.
fn find(command: &str) -> Option<PathBuf> {
    if command.contains('/') {
        return PathBuf::from(command).canonicalize().ok();
    }
    let path = env::var_os("PATH")?;
    env::split_paths(&path).find_map(|directory| directory.join(command).canonicalize().ok())
}

fn failure(starter: JoinHandle<io::Result<Child>>, command: String) -> LaunchError {
    match starter.join() {
        Ok(Err(source)) => LaunchError::Execute { command, source },
        Ok(Ok(_)) | Err(_) => {
            LaunchError::Prepare(io::Error::other("the child did not report its process id"))
        }
    }
}

fn spawn_waiting(
    program: &str,
    arguments: &[OsString],
    pid: PipeWriter,
    go: PipeReader,
    parents_end: RawFd,
) -> io::Result<Child> {
    let mut command = Command::new(program);
    command.args(arguments);
    let (mut pid, mut go) = (
        File::from(OwnedFd::from(pid)),
        File::from(OwnedFd::from(go)),
    );
    let (pid_fd, go_fd) = (pid.as_raw_fd(), go.as_raw_fd());
    debug_assert!(pid_fd > 2 && go_fd > 2, "standard descriptors are open");
    // SAFETY: between fork and exec only close(2), write(2), read(2), getpid(2) and _exit(2) are called, all
    // async-signal-safe.
    // The descriptors are close-on-exec, so the command inherits nothing.
    unsafe {
        command.pre_exec(move || {
            // The child's copy of the agent's end would keep the read below from ever seeing that the agent is gone.
            nix::libc::close(parents_end);
            pid.write_all(&std::process::id().to_ne_bytes())?;
            let mut byte = [0];
            match go.read(&mut byte)? {
                1 => Ok(()),
                // The agent is gone or gave up. An error would be written for it, and std aborts where nobody reads.
                _ => nix::libc::_exit(GIVEN_UP),
            }
        });
    }
    command.spawn()
}

fn read_pid(mut reader: PipeReader) -> Option<i32> {
    let mut bytes = [0; 4];
    reader.read_exact(&mut bytes).ok()?;
    i32::try_from(u32::from_ne_bytes(bytes)).ok()
}

/// Passes a signal that was meant for the command on to it.
pub fn forward(pid: u32, signal: Signal) {
    if let Ok(pid) = i32::try_from(pid) {
        // A command that has just ended needs no signal.
        let _ = kill(Pid::from_raw(pid), signal);
    }
}

/// The exit code that a shell would give: the command's own, or 128 and the signal's number.
pub fn exit_code(status: ExitStatus) -> u8 {
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal))
        .unwrap_or(1);
    u8::try_from(code).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// std's side of `spawn` ends with the agent; a child that wrote an error for it would abort, and say so on the
    /// agent's standard error.
    #[test]
    fn a_child_whose_agent_gives_up_ends_without_a_word_to_it() {
        let command = ["true".to_owned()];
        let Waiting { go, starter, .. } = Waiting::fork(&command).expect("a waiting child");
        drop(go);
        let started = starter.join().expect("no panic");
        let mut child = started.expect("no error was written");
        assert_eq!(child.wait().expect("its end").code(), Some(GIVEN_UP));
    }
}
