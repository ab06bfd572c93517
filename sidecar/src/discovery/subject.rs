//! One live process under inspection, pinned by its pidfd.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use pilotfish_workload::read_text;
use procfs::ProcError;
use procfs::process::{Process, StatFlags};
use rustix::fs::OFlags;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// What to do when `/proc` refuses.
pub(super) const DENIED: &str = "/proc/PID/ns/mnt cannot be read, so its container cannot be told from our own: \
                                 grant CAP_SYS_PTRACE, or run as the same user as the workload";

/// Why a process could not be inspected.
#[derive(Debug, thiserror::Error)]
pub(super) enum InspectError {
    /// It is gone, or the number is that of a thread.
    #[error("the process is gone")]
    Vanished,
    /// The kernel refused.
    #[error("permission denied")]
    Denied,
    /// Something else failed.
    #[error("{0}")]
    Failed(String),
}

impl From<io::Error> for InspectError {
    fn from(error: io::Error) -> Self {
        match rustix::io::Errno::from_io_error(&error) {
            Some(rustix::io::Errno::SRCH | rustix::io::Errno::NOENT) => Self::Vanished,
            Some(rustix::io::Errno::PERM | rustix::io::Errno::ACCESS) => Self::Denied,
            _ => Self::Failed(error.to_string()),
        }
    }
}

impl From<ProcError> for InspectError {
    fn from(error: ProcError) -> Self {
        match error {
            ProcError::NotFound(_) => Self::Vanished,
            ProcError::PermissionDenied(_) => Self::Denied,
            ProcError::Io(error, _) => error.into(),
            other => Self::Failed(other.to_string()),
        }
    }
}

/// A process that was alive after its `/proc` directory had been opened: the pidfd and the directory are of the
/// same process, and reads through that directory fail once it is gone.
#[derive(Debug)]
pub(super) struct Subject {
    pub(super) pid: i32,
    /// Clock ticks since boot; with the pid it names the process.
    pub(super) start: u64,
    /// The parent, 0 when it is outside of our pid namespace.
    pub(super) parent: i32,
    pub(super) kernel_thread: bool,
    /// It has executed no program since it was forked (`PF_FORKNOEXEC`).
    pub(super) only_forked: bool,
    comm: String,
    pidfd: OwnedFd,
    directory: Process,
}

impl Subject {
    pub(super) fn open(pid: i32) -> Result<Self, InspectError> {
        // A pid below 1 is never a process; EINVAL (ENOENT since 6.9) means a thread that leads no group.
        let number = Some(pid)
            .filter(|pid| *pid > 0)
            .and_then(Pid::from_raw)
            .ok_or(InspectError::Vanished)?;
        let pidfd = match pidfd_open(number, PidfdFlags::empty()) {
            Err(rustix::io::Errno::INVAL) => return Err(InspectError::Vanished),
            other => other.map_err(io::Error::from)?,
        };
        let directory = Process::new(pid)?;
        let stat = directory.stat()?;
        let flags = StatFlags::from_bits_truncate(stat.flags);
        let subject = Self {
            pid,
            start: stat.starttime,
            parent: stat.ppid,
            kernel_thread: flags.contains(StatFlags::PF_KTHREAD),
            only_forked: flags.contains(StatFlags::PF_FORKNOEXEC),
            comm: stat.comm,
            pidfd,
            directory,
        };
        subject.check_alive()?;
        Ok(subject)
    }

    /// Fails once the process has exited: a pidfd is readable from then on.
    pub(super) fn check_alive(&self) -> Result<(), InspectError> {
        if has_exited(self.pidfd.as_fd())? {
            Err(InspectError::Vanished)
        } else {
            Ok(())
        }
    }

    /// The text of `/proc/PID/cgroup`.
    pub(super) fn cgroup(&self) -> Result<String, InspectError> {
        Ok(read_text(self.directory.open_relative("cgroup")?)?)
    }

    /// The text of `/proc/PID/mountinfo`; empty when it may not be read, for names are worth having but not needed.
    pub(super) fn mountinfo(&self) -> Result<String, InspectError> {
        match self
            .directory
            .open_relative("mountinfo")
            .map_err(InspectError::from)
        {
            Ok(file) => Ok(read_text(file)?),
            Err(InspectError::Denied) => Ok(String::new()),
            Err(error) => Err(error),
        }
    }

    /// Inode number of its mount namespace, `None` when `/proc` refuses to tell.
    pub(super) fn mount_namespace(&self) -> Result<Option<u64>, InspectError> {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        match self
            .directory
            .open_relative_flags("ns/mnt", flags)
            .map_err(InspectError::from)
        {
            Ok(file) => Ok(Some(file.metadata()?.ino())),
            Err(InspectError::Denied) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// File name of the executable, or the kernel's name of the process where that is not readable.
    pub(super) fn executable(&self) -> String {
        let path = self.directory.exe().unwrap_or_default();
        let name = path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        match name.strip_suffix(" (deleted)").unwrap_or(&name) {
            "" => self.comm.clone(),
            name => name.to_owned(),
        }
    }

    pub(super) fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    pub(super) fn into_pidfd(self) -> OwnedFd {
        self.pidfd
    }
}

/// Whether the process of a pidfd has exited.
pub(crate) fn has_exited(pidfd: BorrowedFd<'_>) -> io::Result<bool> {
    let mut fds = [PollFd::new(pidfd, PollFlags::POLLIN)];
    Ok(poll(&mut fds, PollTimeout::ZERO)? > 0)
}

/// Start time of the process that has this pid now, or `None` when there is none.
pub(crate) fn start_of(pid: i32) -> Option<u64> {
    Some(Process::new(pid).ok()?.stat().ok()?.starttime)
}

/// The process ids in `/proc`, ascending: parents mostly before their children. Bounded by the kernel's pid limit.
pub(super) fn list() -> io::Result<Vec<i32>> {
    let mut pids: Vec<i32> = std::fs::read_dir("/proc")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    pids.sort_unstable();
    Ok(pids)
}
