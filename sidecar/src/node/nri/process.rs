//! The first process of a container that a runtime tells of.

use super::super::{adopt, process::pin};
use crate::discovery::has_exited;
use pilotfish_workload::{CgroupIdentity, Isolation, read_text};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// A pidfd of it; `pid` is 0 where the runtime does not tell: CRI-O never does, so its low-level runtime's own files
/// are asked. Nothing is returned of a process that has ended, or that got the number of one that has.
pub(super) fn first(pid: i32, id: &str) -> Option<OwnedFd> {
    if pid > 0 {
        return told(pid, id);
    }
    let found = adopt::find(Path::new("/"), id)?;
    pin(found.pid, found.start)
}

fn told(pid: i32, id: &str) -> Option<OwnedFd> {
    let pidfd = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
    let is_it = named(pid).is_none_or(|named| named == id);
    // What was read is of the process of the pidfd if that one still lives.
    (is_it && has_exited(pidfd.as_fd()).is_ok_and(|exited| !exited)).then_some(pidfd)
}

/// The container that the path of its control group names, where it names one.
pub(super) fn named(pid: i32) -> Option<String> {
    let groups = read_text(File::open(format!("/proc/{pid}/cgroup")).ok()?).ok()?;
    CgroupIdentity::parse(&groups, Isolation::Unknown).container_id
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn a_living_process_is_pinned_and_a_dead_one_is_not() {
        let mut child = Command::new("/bin/cat")
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        // The tests may run in a container themselves.
        let id = named(pid).unwrap_or_else(|| "c1".to_owned());
        assert!(first(pid, &id).is_some());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(first(pid, &id).is_none());
        assert!(first(-1, &id).is_none());
    }
}
