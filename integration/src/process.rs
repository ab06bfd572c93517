//! Child processes that cannot outlive the trial that started them.

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::sys::{prctl, signal};
use nix::unistd::Pid;
use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How often a bounded wait looks again.
const POLL: Duration = Duration::from_millis(5);

/// Bound for the end of a wrapper whose child, perhaps the first process of a pid namespace, was killed.
const WRAPPER_LIMIT: Duration = Duration::from_secs(5);

/// Lines of a log that an error message quotes.
const QUOTED_LINES: usize = 25;

/// A child in a process group of its own; dropping it kills the whole group.
#[derive(Debug)]
pub struct Process {
    child: Child,
    name: String,
    log: PathBuf,
}

impl Process {
    /// Starts `command`. Its standard output and error go to `NAME.log` in `folder`.
    pub fn start(name: &str, mut command: Command, folder: &Path) -> Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let file =
            File::create(&log).with_context(|| format!("cannot create {}", log.display()))?;
        command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .process_group(0);
        // SAFETY: the closure runs between fork and exec and makes one async-signal-safe system call.
        unsafe {
            command.pre_exec(|| prctl::set_pdeathsig(Signal::SIGKILL).map_err(Into::into));
        }
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {name}: {command:?}"))?;
        Ok(Self {
            child,
            name: name.to_owned(),
            log,
        })
    }

    /// Process id, which is also the id of the group.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The process or descendant that runs this executable; wrappers such as nsenter stay as its parent.
    pub fn descendant_running(&self, executable: &Path) -> Option<u32> {
        descendant_running(self.pid(), executable)
    }

    /// Sends `signal` to the process alone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        signal::kill(self.nix_pid(), signal)
            .with_context(|| format!("cannot send {signal} to {}", self.name))
    }

    /// Waits for the end, at most `limit`.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() >= deadline {
                bail!(
                    "{} still runs after {limit:?}; its log ends with:\n{}",
                    self.name,
                    self.log_tail()
                );
            }
            sleep(POLL);
        }
    }

    /// Sends `signal` and waits for the end, at most `limit`.
    pub fn stop(&mut self, signal: Signal, limit: Duration) -> Result<ExitStatus> {
        self.signal(signal)?;
        self.wait(limit)
    }

    /// Waits for a successful end and gives back all that was written.
    pub fn succeed(mut self, limit: Duration) -> Result<String> {
        let status = self.wait(limit)?;
        if !status.success() {
            bail!(
                "{} ended with {status}; its log ends with:\n{}",
                self.name,
                self.log_tail()
            );
        }
        Ok(self.log())
    }

    /// True until the process has ended.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Everything written to standard output and error so far.
    pub fn log(&self) -> String {
        std::fs::read(&self.log)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// The end of the log, for error messages.
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(QUOTED_LINES)..].join("\n")
    }

    fn nix_pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if leads_elsewhere(self.pid()) {
            self.end_through_wrapper();
        }
        // Both fail only for what has ended already.
        let _ = killpg(self.nix_pid(), Signal::SIGKILL);
        let _ = self.child.wait();
    }
}

impl Process {
    /// Lets a wrapper wait for its child. An orphan would be waited for by the host's first process, which may take
    /// its time, and until then it holds the other pid namespace.
    fn end_through_wrapper(&self) {
        for child in children(self.pid()).unwrap_or_default() {
            let _ = signal::kill(Pid::from_raw(child as i32), Signal::SIGKILL);
        }
        let ended = || {
            // The wrapper itself is not waited for yet, so that the id of its group stays taken.
            let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
            let status = waitid(Id::Pid(self.nix_pid()), flags)?;
            Ok((status != WaitStatus::StillAlive).then_some(()))
        };
        // Fails for one that was waited for already; one that lasts longer is killed.
        let _ = wait_for("the wrapper's end", WRAPPER_LIMIT, ended);
    }
}

/// True of a wrapper such as nsenter, whose children are in another pid namespace than it is itself.
fn leads_elsewhere(pid: u32) -> bool {
    let namespace = |name| std::fs::read_link(format!("/proc/{pid}/ns/{name}"));
    match (namespace("pid"), namespace("pid_for_children")) {
        (Ok(own), Ok(childrens)) => own != childrens,
        _ => false,
    }
}

/// Device and inode: a path means something else in another mount namespace.
fn identity(path: &Path) -> Option<(u64, u64)> {
    let metadata = path.metadata().ok()?;
    Some((metadata.dev(), metadata.ino()))
}

/// The process `pid` or a descendant of it that runs this executable.
pub fn descendant_running(pid: u32, executable: &Path) -> Option<u32> {
    let wanted = identity(executable)?;
    let mut candidates = vec![pid];
    while let Some(pid) = candidates.pop() {
        if identity(Path::new(&format!("/proc/{pid}/exe"))) == Some(wanted) {
            return Some(pid);
        }
        candidates.extend(children(pid).unwrap_or_default());
    }
    None
}

/// Children of a process.
pub fn children(pid: u32) -> Result<BTreeSet<u32>> {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    text.split_whitespace()
        .map(|word| word.parse().context("a process id"))
        .collect()
}

/// Looks again until `probe` gives a value, at most `limit`.
pub fn wait_for<T>(
    what: &str,
    limit: Duration,
    mut probe: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = probe()? {
            return Ok(value);
        }
        if Instant::now() >= deadline {
            bail!("{what} did not happen within {limit:?}");
        }
        sleep(POLL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_process_takes_its_group_along() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 600 & echo $!; wait"]);
        let process = Process::start("shell", command, folder.path()).expect("a shell");
        let grandchild = wait_for("the shell's output", Duration::from_secs(5), || {
            Ok(process.log().trim().parse::<i32>().ok())
        })
        .expect("a process id");
        drop(process);
        let gone = || {
            Ok(match signal::kill(Pid::from_raw(grandchild), None) {
                Err(nix::errno::Errno::ESRCH) => Some(()),
                _ => is_zombie(grandchild).then_some(()),
            })
        };
        wait_for("the grandchild's end", Duration::from_secs(5), gone).expect("no survivor");
    }

    fn is_zombie(pid: i32) -> bool {
        std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "))
    }
}
