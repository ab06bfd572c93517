//! Ctrl-C and SIGTERM: every child has asked the kernel to end with this program, which leaves the folder, and the
//! children of children that were too young to ask.

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Exit code of a program that was interrupted, by the shells' convention.
const INTERRUPTED: i32 = 130;

static GROUPS: Mutex<Vec<u32>> = Mutex::new(Vec::new());

/// A process group that an interruption kills for as long as this lives.
pub(crate) struct Doomed(u32);

impl Doomed {
    /// Takes note of a process group.
    pub(crate) fn new(group: u32) -> Self {
        groups().push(group);
        Self(group)
    }
}

impl Drop for Doomed {
    fn drop(&mut self) {
        groups().retain(|&group| group != self.0);
    }
}

fn groups() -> MutexGuard<'static, Vec<u32>> {
    GROUPS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From here on a signal removes the folder and ends this program.
pub(crate) fn remove_on_signal(folder: PathBuf) -> Result<()> {
    ctrlc::set_handler(move || {
        for &group in groups().iter() {
            // Fails only for a group that has ended already.
            let _ = killpg(Pid::from_raw(group as i32), Signal::SIGKILL);
        }
        if let Err(error) = std::fs::remove_dir_all(&folder) {
            eprintln!("cannot remove {}: {error}", folder.display());
        }
        std::process::exit(INTERRUPTED);
    })
    .context("cannot catch signals")
}
