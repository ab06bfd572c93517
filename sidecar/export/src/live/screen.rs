//! The terminal itself: whether it can show the view, taking it, and giving it back as it was.

use super::model::Model;
use super::page;
use super::pen::Theme;
use crossterm::cursor::Show;
use crossterm::execute;
use crossterm::terminal::{
    Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use nix::unistd::{getpgrp, getsid, tcgetpgrp};
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use std::io::{self, IsTerminal, Stdout, stdin, stdout};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

/// True while the terminal is in our hands.
static HELD: AtomicBool = AtomicBool::new(false);

/// Why standard input and output are no terminal that the view can be shown on; `None` if they are.
pub fn unsuited() -> Option<&'static str> {
    if !stdout().is_terminal() || !stdin().is_terminal() {
        return Some("standard input and output are no terminal");
    }
    // Changing the terminal from the background would stop the whole agent (SIGTTOU).
    if !tcgetpgrp(stdout()).is_ok_and(|group| group == getpgrp()) {
        return Some("pilotfish is not in the terminal's foreground");
    }
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    unsuited_kind(&variable)
}

/// Whether a shell could continue us: in the group of a session's leader, as in a container, a stopped program stays
/// stopped.
pub(super) fn is_job() -> bool {
    getsid(None).is_ok_and(|session| session != getpgrp())
}

/// Containers set no locale, though the terminal that they are seen through knows UTF-8: only another one excludes it.
fn unsuited_kind(variable: &dyn Fn(&str) -> Option<String>) -> Option<&'static str> {
    if variable("TERM").is_none_or(|kind| kind == "dumb") {
        return Some("TERM names no terminal with a cursor");
    }
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
        .into_iter()
        .find_map(variable);
    let other = locale.is_some_and(|locale| {
        let locale = locale.to_ascii_lowercase();
        !locale.contains("utf-8") && !locale.contains("utf8")
    });
    other.then_some("the locale's characters are not UTF-8")
}

/// The terminal while it is ours; dropping it gives it back.
pub(super) struct Screen {
    terminal: Terminal<CrosstermBackend<Stdout>>,
    /// The process is about to be stopped.
    away: bool,
}

impl Screen {
    /// Takes the terminal. A panic, whichever thread it is in, gives it back first, so that its message can be read.
    pub(super) fn enter() -> io::Result<Self> {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let before = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                give_back();
                before(panic);
            }));
        });
        let terminal = take().inspect_err(|_| give_back())?;
        Ok(Self {
            terminal,
            away: false,
        })
    }

    /// Draws a page where it differs from the last one, unless it is left. Fails once a panic has given the terminal
    /// back.
    pub(super) fn draw(&mut self, model: &Model, theme: Theme) -> io::Result<()> {
        if self.away {
            return Ok(());
        }
        if !HELD.load(Ordering::Acquire) {
            return Err(io::Error::other("it was given back because of a panic"));
        }
        self.terminal
            .draw(|frame| page::draw(model, theme, frame.area(), frame.buffer_mut()))
            .map(drop)
    }

    /// Forgets what the terminal shows, so that the next page is drawn as a whole.
    pub(super) fn begin_again(&mut self) -> io::Result<()> {
        if !self.away && HELD.load(Ordering::Acquire) {
            self.terminal = blank()?;
        }
        Ok(())
    }

    /// Gives the terminal to whoever comes next.
    pub(super) fn leave(&mut self) {
        give_back();
        self.away = true;
    }

    /// Takes the terminal anew, which a shell or somebody else had in between.
    pub(super) fn enter_again(&mut self) -> io::Result<()> {
        give_back();
        self.terminal = take()?;
        self.away = false;
        Ok(())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

/// A blank screen in our modes.
fn take() -> io::Result<Terminal<CrosstermBackend<Stdout>>> {
    enable_raw_mode()?;
    HELD.store(true, Ordering::Release);
    blank()
}

/// A blank screen, of whose terminal nothing is known: `Terminal::clear` would ask it for its cursor, whose answer the
/// keys' reader takes.
fn blank() -> io::Result<Terminal<CrosstermBackend<Stdout>>> {
    execute!(stdout(), EnterAlternateScreen, Clear(ClearType::All))?;
    Terminal::new(CrosstermBackend::new(stdout()))
}

/// Whoever calls first does it; a terminal that is gone needs nothing back.
fn give_back() {
    if HELD.swap(false, Ordering::AcqRel) {
        let _ = disable_raw_mode();
        let _ = execute!(stdout(), LeaveAlternateScreen, Show);
    }
}

/// For an end that cannot wait for a terminal which takes nothing any more: its modes, at least, are set back.
pub(crate) fn set_modes_back() {
    if HELD.load(Ordering::Acquire) {
        let _ = disable_raw_mode();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::pty::openpty;
    use nix::sys::termios::tcgetattr;
    use std::fs::File;
    use std::io::Read;
    use std::process::Command;

    /// Tells the test below that it is the program on the terminal.
    const ON_TERMINAL: &str = "PILOTFISH_TEST_ON_TERMINAL";

    const ENTERED: &str = "\u{1b}[?1049h";
    const LEFT: &str = "\u{1b}[?1049l";
    const CURSOR: &str = "\u{1b}[?25h";

    /// The program: this test once more, on a pseudo-terminal. Its panic is another thread's than the view's.
    #[test]
    fn a_panic_is_told_on_the_terminal_as_it_was_before() {
        if std::env::var_os(ON_TERMINAL).is_some() {
            let _screen = Screen::enter().unwrap();
            assert!(crossterm::terminal::is_raw_mode_enabled().unwrap());
            let _ = std::thread::spawn(|| panic!("what the panic says")).join();
            assert!(!crossterm::terminal::is_raw_mode_enabled().unwrap());
            return;
        }
        let pty = openpty(None, None).unwrap();
        let before = tcgetattr(&pty.slave).unwrap();
        let end = || pty.slave.try_clone().unwrap();
        let status = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture"])
            .arg("live::screen::tests::a_panic_is_told_on_the_terminal_as_it_was_before")
            .env(ON_TERMINAL, "1")
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .status()
            .unwrap();
        assert!(tcgetattr(&pty.slave).unwrap() == before, "other modes");
        drop(pty.slave);
        let mut written = Vec::new();
        // Reading ends with an error when nobody has the other end any more.
        let _ = File::from(pty.master).read_to_end(&mut written);
        let written = String::from_utf8_lossy(&written);
        assert!(status.success(), "{written}");
        let place = |text: &str| written.find(text).unwrap_or_else(|| panic!("{written:?}"));
        let told = place("what the panic says");
        assert!(place(ENTERED) < place(LEFT), "{written:?}");
        assert!(place(LEFT) < told && place(CURSOR) < told, "{written:?}");
    }

    #[test]
    fn the_kind_of_terminal_and_the_first_locale_decide() {
        let kind = |set: &[(&str, &str)]| {
            unsuited_kind(&|name| {
                let found = set.iter().find(|(key, _)| *key == name);
                found.map(|(_, value)| (*value).to_owned())
            })
        };
        let xterm = ("TERM", "xterm");
        assert!(kind(&[xterm]).is_none(), "no locale: a container");
        assert!(kind(&[xterm, ("LANG", "de_DE.UTF-8")]).is_none());
        assert!(kind(&[xterm, ("LC_ALL", "C.utf8"), ("LANG", "C")]).is_none());
        assert!(kind(&[xterm, ("LC_ALL", "C"), ("LANG", "C.UTF-8")]).is_some());
        assert!(kind(&[xterm, ("LANG", "POSIX")]).is_some());
        assert!(kind(&[("TERM", "dumb")]).is_some());
        assert!(kind(&[]).is_some());
    }
}
