//! Processes that are known by their number and start time.

use crate::discovery::{has_exited, start_of};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::os::fd::{AsFd, OwnedFd};

/// A pidfd of the process that has this number and started at this time, unless it has ended.
pub(super) fn pin(pid: i32, start: u64) -> Option<OwnedFd> {
    let number = Some(pid).filter(|pid| *pid > 0).and_then(Pid::from_raw)?;
    let pidfd = pidfd_open(number, PidfdFlags::empty()).ok()?;
    // The pidfd is of whoever had the number before /proc was read; if that one still lives, it is of the same.
    let same = start_of(pid) == Some(start);
    (same && has_exited(pidfd.as_fd()).is_ok_and(|exited| !exited)).then_some(pidfd)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_process_of_that_time_is_pinned() {
        let own = i32::try_from(std::process::id()).unwrap();
        let start = start_of(own).unwrap();
        assert!(pin(own, start).is_some());
        assert!(pin(own, start + 1).is_none());
        assert!(pin(0, 0).is_none());
        assert!(pin(-1, 0).is_none());
    }

    #[test]
    fn a_process_that_has_ended_is_not_pinned() {
        let mut child = std::process::Command::new("/bin/cat")
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let start = start_of(pid).unwrap();
        assert!(pin(pid, start).is_some());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(pin(pid, start).is_none());
    }
}
