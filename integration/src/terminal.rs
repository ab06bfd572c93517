//! A terminal that a program believes to be real: a pseudo-terminal, and what a person would see on it.

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::{OpenptyResult, Winsize, openpty};
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{Termios, tcgetattr};
use nix::unistd::{Pid, read, setsid, write};
use std::num::NonZero;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

/// How long one look waits for output.
const LOOK: u16 = 50;

/// A program on a terminal of its own; dropping it kills the program.
pub struct Terminal {
    child: Child,
    /// Our end.
    master: OwnedFd,
    /// The program's end, kept open to look at its modes.
    slave: OwnedFd,
    modes: Termios,
    screen: vt100::Parser,
}

impl Terminal {
    /// Starts a program in a session of its own, with a terminal of this size as input, output and error.
    pub fn start(mut command: Command, columns: u16, rows: u16) -> Result<Self> {
        let size = Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let OpenptyResult { master, slave } =
            openpty(&size, None).context("cannot open a pseudo-terminal")?;
        let modes = tcgetattr(&slave)?;
        command
            .stdin(slave.try_clone()?)
            .stdout(slave.try_clone()?)
            .stderr(slave.try_clone()?);
        let become_foreground = || {
            prctl::set_pdeathsig(Signal::SIGKILL)?;
            setsid()?;
            // SAFETY: plain system call on our own standard input, which is the terminal.
            Errno::result(unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) })?;
            Ok(())
        };
        // SAFETY: the closure runs between fork and exec and makes async-signal-safe system calls only.
        unsafe {
            command.pre_exec(become_foreground);
        }
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {command:?}"))?;
        Ok(Self {
            child,
            master,
            slave,
            modes,
            screen: vt100::Parser::new(cells(rows)?, cells(columns)?, 0),
        })
    }

    /// Process id of the program.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The lines that can be seen, without blanks at their ends.
    pub fn lines(&self) -> Vec<String> {
        let screen = self.screen.screen();
        let (_, columns) = screen.size();
        let lines = screen.rows(0, columns.get());
        lines.map(|line| line.trim_end().to_owned()).collect()
    }

    /// The same as one text.
    pub fn text(&self) -> String {
        self.lines().join("\n")
    }

    /// True while the program shows the screen that terminals keep for full-screen programs.
    pub fn shows_alternate_screen(&self) -> bool {
        self.screen.screen().alternate_screen()
    }

    /// True if the modes are those from before the program, and the cursor is visible.
    pub fn is_as_before(&self) -> Result<bool> {
        let same = tcgetattr(&self.slave)? == self.modes;
        Ok(same && !self.shows_alternate_screen() && !self.screen.screen().hide_cursor())
    }

    /// Types.
    pub fn press(&self, keys: &str) -> Result<()> {
        let written = write(&self.master, keys.as_bytes())?;
        ensure!(written == keys.len(), "the terminal took half of {keys:?}");
        Ok(())
    }

    /// Takes another size, as a window that is dragged.
    pub fn resize(&mut self, columns: u16, rows: u16) -> Result<()> {
        rustix::termios::tcsetwinsize(
            &self.master,
            rustix::termios::Winsize {
                ws_row: rows,
                ws_col: columns,
                ws_xpixel: 0,
                ws_ypixel: 0,
            },
        )?;
        self.screen
            .screen_mut()
            .set_size(cells(rows)?, cells(columns)?);
        Ok(())
    }

    /// Another terminal of the same size in the place of this one, as `docker attach` gives a program: it shows nothing
    /// yet, and the program is told nothing.
    pub fn exchange(&mut self) {
        let (rows, columns) = self.screen.screen().size();
        self.screen = vt100::Parser::new(rows, columns, 0);
    }

    /// Sends a signal to the program.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill(Pid::from_raw(self.pid() as i32), signal)?)
    }

    /// Looks at the terminal until `probe` gives a value, at most `limit`.
    pub fn wait_for<T>(
        &mut self,
        what: &str,
        limit: Duration,
        mut probe: impl FnMut(&Self) -> Option<T>,
    ) -> Result<T> {
        let deadline = Instant::now() + limit;
        loop {
            self.look()?;
            if let Some(value) = probe(self) {
                return Ok(value);
            }
            if Instant::now() >= deadline {
                bail!(
                    "{what} did not come within {limit:?}; the terminal shows:\n{}",
                    self.text()
                );
            }
        }
    }

    /// Waits for the program's end, at most `limit`, and takes all that it still writes.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            self.look()?;
            if let Some(status) = self.child.try_wait()? {
                while self.look()? {}
                return Ok(status);
            }
            if Instant::now() >= deadline {
                bail!(
                    "the program still runs after {limit:?}; the terminal shows:\n{}",
                    self.text()
                );
            }
        }
    }

    /// Takes what the program has written, if anything comes soon.
    fn look(&mut self) -> Result<bool> {
        let mut fds = [PollFd::new(self.master.as_fd(), PollFlags::POLLIN)];
        if poll(&mut fds, PollTimeout::from(LOOK))? == 0 {
            return Ok(false);
        }
        let mut bytes = [0; 4096];
        let length = read(&self.master, &mut bytes)?;
        self.screen.process(bytes.get(..length).unwrap_or_default());
        Ok(length > 0)
    }
}

fn cells(number: u16) -> Result<NonZero<u16>> {
    NonZero::new(number).context("a terminal has at least one row and one column")
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Both fail only for what has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
