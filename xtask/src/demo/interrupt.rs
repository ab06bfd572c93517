//! Ctrl-C and SIGTERM become an error at the next wait, so that everything is cleaned up on the way out.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// From here on signals are noted instead of ending the process.
pub(super) fn catch() -> Result<()> {
    ctrlc::set_handler(|| INTERRUPTED.store(true, Ordering::Relaxed))
        .context("cannot catch signals")
}

/// True once a signal came.
pub(super) fn came() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// An error once a signal came.
pub(super) fn check() -> Result<()> {
    if came() {
        bail!("interrupted");
    }
    Ok(())
}

/// Tries again until there is an answer; the error of the last attempt explains a time-out. Ends at once when what it
/// waits for is no longer `alive`.
pub(super) fn poll<T>(
    limit: Duration,
    alive: impl Fn() -> Result<()>,
    mut attempt: impl FnMut() -> Result<T>,
) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        check()?;
        alive()?;
        match attempt() {
            Ok(answer) => return Ok(answer),
            Err(error) if Instant::now() >= deadline => {
                return Err(error.context(format!("gave up after {} s", limit.as_secs())));
            }
            Err(_) => thread::sleep(Duration::from_millis(50)),
        }
    }
}
