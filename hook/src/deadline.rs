//! The moment by which the hook has ended, whatever its peers do.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{
    SaFlags, SigAction, SigEvent, SigHandler, SigSet, SigevNotify, Signal, sigaction,
};
use nix::sys::timer::{Expiration, Timer, TimerSetTimeFlags};
use nix::time::ClockId;

/// How much later than the deadline the alarm rings: by then every wait that could be bounded has ended with a better
/// message than the alarm's.
const GRACE: Duration = Duration::from_millis(200);

/// Exit code of a process that the alarm ends.
static ALARM_CODE: AtomicI32 = AtomicI32::new(0);

/// The time is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the time that --timeout allows is over")]
pub struct Elapsed;

/// One total limit for everything that the hook waits for, on the monotonic clock.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    end: Instant,
}

impl Deadline {
    /// A deadline `limit` after `start`.
    pub fn new(start: Instant, limit: Duration) -> Self {
        Self { end: start + limit }
    }

    /// What is left, never zero.
    pub fn left(self) -> Result<Duration, Elapsed> {
        let left = self.end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            Err(Elapsed)
        } else {
            Ok(left)
        }
    }

    /// Waits until a descriptor is ready for `events` or has failed; the operation that follows tells which.
    pub fn wait(self, descriptor: &impl AsFd, events: PollFlags) -> Result<(), Elapsed> {
        loop {
            // Rounded up: with the rest of a millisecond left, poll must not return at once again and again.
            let left = self.left()? + Duration::from_millis(1);
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            let mut entry = [PollFd::new(descriptor.as_fd(), events)];
            match poll(&mut entry, timeout) {
                // An error of poll itself shows again in the operation.
                Ok(1..) => return Ok(()),
                Err(error) if error != Errno::EINTR => return Ok(()),
                _ => {}
            }
        }
    }

    /// Sleeps for a while, or until the deadline.
    pub fn sleep(self, pause: Duration) -> Result<(), Elapsed> {
        std::thread::sleep(pause.min(self.left()?));
        self.left().map(|_| ())
    }

    /// Ends the process with `code` soon after the deadline: opening and reading a file on a file system that hangs
    /// cannot be waited for with `poll`, and standard error may be a pipe that nobody empties.
    pub fn set_alarm(self, code: i32) -> Result<(), Errno> {
        ALARM_CODE.store(code, Ordering::Relaxed);
        let action = SigAction::new(
            SigHandler::Handler(give_up),
            SaFlags::empty(),
            SigSet::empty(),
        );
        // SAFETY: the handler calls only async-signal-safe functions.
        unsafe { sigaction(Signal::SIGALRM, &action) }?;
        SigSet::from(Signal::SIGALRM).thread_unblock()?;
        let event = SigEvent::new(SigevNotify::SigevSignal {
            signal: Signal::SIGALRM,
            si_value: 0,
        });
        let mut timer = Timer::new(ClockId::CLOCK_MONOTONIC, event)?;
        let wait = self.left().unwrap_or_default() + GRACE;
        timer.set(Expiration::OneShot(wait.into()), TimerSetTimeFlags::empty())?;
        // Dropping it would disarm it.
        std::mem::forget(timer);
        Ok(())
    }
}

extern "C" fn give_up(_: nix::libc::c_int) {
    const MESSAGE: &[u8] = b"pilotfish-hook: gave up after its deadline: a file did not open or could not be read; check the file system of the bundle\n";
    let mut stderr = nix::libc::pollfd {
        fd: 2,
        events: nix::libc::POLLOUT,
        revents: 0,
    };
    // SAFETY: poll(2), write(2) and _exit(2) are async-signal-safe; the message is a constant.
    unsafe {
        // A full pipe that nobody empties may be what the hook was waiting for.
        if nix::libc::poll(&raw mut stderr, 1, 0) == 1 {
            nix::libc::write(2, MESSAGE.as_ptr().cast(), MESSAGE.len());
        }
        nix::libc::_exit(ALARM_CODE.load(Ordering::Relaxed));
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::wait::WaitStatus;

    use super::*;

    fn past() -> Deadline {
        Deadline::new(Instant::now(), Duration::ZERO)
    }

    #[test]
    fn nothing_is_left_after_the_end() {
        let past = past();
        assert_eq!(past.left(), Err(Elapsed));
        assert_eq!(past.sleep(Duration::from_hours(1)), Err(Elapsed));
        let (reader, _writer) = std::io::pipe().unwrap();
        assert_eq!(past.wait(&reader, PollFlags::POLLIN), Err(Elapsed));
    }

    #[test]
    fn the_alarm_ends_what_cannot_be_polled() {
        // SAFETY: the child calls only functions that neither allocate nor lock before it ends.
        match unsafe { nix::unistd::fork() }.unwrap() {
            nix::unistd::ForkResult::Child => {
                if past().set_alarm(7).is_ok() {
                    nix::unistd::pause();
                }
                // SAFETY: nothing of the parent's runs at the child's end.
                unsafe { nix::libc::_exit(8) }
            }
            nix::unistd::ForkResult::Parent { child } => {
                let status = nix::sys::wait::waitpid(child, None);
                assert_eq!(status, Ok(WaitStatus::Exited(child, 7)));
            }
        }
    }

    #[test]
    fn a_closed_peer_is_news() {
        let hour = Deadline::new(Instant::now(), Duration::from_hours(1));
        let (reader, writer) = std::io::pipe().unwrap();
        drop(writer);
        assert_eq!(hour.wait(&reader, PollFlags::POLLIN), Ok(()));
    }
}
