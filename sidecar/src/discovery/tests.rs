//! Discovery against the real `/proc` and real child processes, with a recording kernel side.

mod announced;
mod descent;
mod entry;
mod exits;
mod group;
mod namespace;

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use pilotfish_abi::Scope;

use super::*;

/// A kernel side that remembers, and that names the process of a pidfd as the kernel does.
#[derive(Debug, Default)]
struct Recorder {
    scope: BTreeMap<i32, Scope>,
    refusal: Option<i32>,
    kill_before_put: Option<Child>,
}

impl ScopeWriter for Recorder {
    fn put(&mut self, pidfd: BorrowedFd<'_>, scope: Scope) -> io::Result<()> {
        if let Some(mut child) = self.kill_before_put.take() {
            child.kill()?;
            child.wait()?;
        }
        if let Some(errno) = self.refusal {
            return Err(io::Error::from_raw_os_error(errno));
        }
        let pid = pid_of(pidfd)?;
        assert_eq!(
            scope.tgid,
            pid.unsigned_abs(),
            "the scope names the process of the pidfd"
        );
        self.scope.insert(pid, scope);
        Ok(())
    }

    fn remove(&mut self, pidfd: BorrowedFd<'_>) -> io::Result<()> {
        self.scope.remove(&pid_of(pidfd)?);
        Ok(())
    }
}

/// The process of a pidfd; `ENOENT` for one that is gone, as the task storage map answers.
fn pid_of(pidfd: BorrowedFd<'_>) -> io::Result<i32> {
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd()))?;
    let pid = text
        .lines()
        .find_map(|line| line.strip_prefix("Pid:")?.trim().parse().ok());
    pid.filter(|pid| *pid > 0)
        .ok_or_else(|| io::Error::from_raw_os_error(nix::errno::Errno::ENOENT as i32))
}

/// A shell and all that it starts, in a process group that ends with the test. The script prints the pids that
/// the test needs, one line each, when they are there.
struct Family {
    shell: Child,
    pids: Vec<i32>,
}

impl Family {
    fn start(script: &str, lines: usize) -> Self {
        Self::start_with(Command::new("sh").args(["-c", script]), lines)
    }

    fn start_with(command: &mut Command, lines: usize) -> Self {
        use std::os::unix::process::CommandExt;
        let mut shell = command
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        let output = BufReader::new(shell.stdout.take().unwrap());
        let pids = output
            .lines()
            .take(lines)
            .map(|line| line.unwrap().trim().parse().unwrap())
            .collect();
        Self { shell, pids }
    }

    fn root(&self) -> i32 {
        i32::try_from(self.shell.id()).unwrap()
    }
}

impl Drop for Family {
    fn drop(&mut self) {
        let group = nix::unistd::Pid::from_raw(self.root());
        // The group is gone already where the test ended it.
        let _ = nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL);
        let _ = self.shell.wait();
    }
}

fn discovery(target: Target) -> Discovery<Recorder> {
    let own = OwnContainer::detect().unwrap();
    Discovery::new(target, Recorder::default(), own, Options::default()).unwrap()
}

/// Discovery of one process tree, after its first pass.
fn discovery_of(pid: i32) -> Discovery<Recorder> {
    let mut discovery = discovery(Target::Processes(vec![pid]));
    discovery.initial_pass().unwrap();
    discovery
}

#[test]
fn nothing_left_to_observe_has_a_reason() {
    let family = Family::start("echo $$; exec sleep 1000", 1);
    let mut discovery = discovery_of(family.root());
    assert_eq!(discovery.idle(), None);
    drop(family);
    wait_for_exit(&discovery);
    discovery.on_pid_exit();
    assert_eq!(discovery.idle(), Some(ALL_ENDED));
}

#[test]
fn a_namespace_without_others_is_told_with_advice() {
    let mut own = OwnContainer::detect().unwrap();
    // As if this were no host: nothing has been looked at yet, which is how an empty namespace looks.
    own.pid_namespace = 1;
    let target = Target::SharedNamespace;
    let discovery = Discovery::new(target, Recorder::default(), own, Options::default()).unwrap();
    let advice = discovery.idle().unwrap();
    assert!(advice.contains("shareProcessNamespace"), "{advice}");
    assert_eq!(self::discovery(Target::Announced).idle(), None);
}

fn scoped<W: ScopeWriter>(discovery: &Discovery<W>) -> Vec<i32> {
    let mut pids: Vec<_> = discovery
        .containers()
        .flat_map(|container| container.processes.iter().copied())
        .collect();
    pids.sort_unstable();
    assert_eq!(
        pids.len(),
        discovery.process_count(),
        "every process is in one container"
    );
    pids
}

fn seeded(discovery: &Discovery<Recorder>) -> Vec<i32> {
    discovery.writer.scope.keys().copied().collect()
}

fn sorted(pids: impl IntoIterator<Item = i32>) -> Vec<i32> {
    let mut pids: Vec<_> = pids.into_iter().collect();
    pids.sort_unstable();
    pids
}

/// Waits for the descriptor to become readable: an exit has happened before, or is about to.
fn wait_for_exit(discovery: &Discovery<Recorder>) {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let mut fds = [PollFd::new(discovery.as_fd(), PollFlags::POLLIN)];
    assert_eq!(poll(&mut fds, PollTimeout::NONE).unwrap(), 1);
}
