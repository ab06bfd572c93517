//! The terminal itself: whether it can show the view, taking it, and giving it back as it was.

use super::model::Model;
use super::page::{self, Theme};
use crossterm::cursor::Show;
use crossterm::execute;
use crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use nix::unistd::{getpgrp, tcgetpgrp};
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
        take()?;
        match Terminal::new(CrosstermBackend::new(stdout())) {
            Ok(terminal) => Ok(Self { terminal }),
            Err(error) => {
                give_back();
                Err(error)
            }
        }
    }

    /// Draws a page where it differs from the last one. Fails once a panic has given the terminal back.
    pub(super) fn draw(&mut self, model: &Model, theme: Theme) -> io::Result<()> {
        if !HELD.load(Ordering::Acquire) {
            return Err(io::Error::other("it was given back because of a panic"));
        }
        self.terminal
            .draw(|frame| page::draw(model, theme, frame.area(), frame.buffer_mut()))
            .map(drop)
    }

    /// Takes the terminal anew, which a shell or somebody else had in between.
    pub(super) fn enter_again(&mut self) -> io::Result<()> {
        give_back();
        take()?;
        self.terminal.clear()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

fn take() -> io::Result<()> {
    enable_raw_mode()?;
    HELD.store(true, Ordering::Release);
    execute!(stdout(), EnterAlternateScreen).inspect_err(|_| give_back())
}

/// Whoever calls first does it; a terminal that is gone needs nothing back.
pub(super) fn give_back() {
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
