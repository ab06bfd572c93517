//! The live view of a terminal: routes of the last minute and the newest traces.
//!
//! ```text
//! Queue, keys, clock -> Model (pure) -> page (cells) -> Screen (terminal)
//! ```
//!
//! Like a printer it has a thread and a bounded queue of its own: a terminal that nobody reads stops nobody. The
//! model is bounded in routes, traces and spans, and counts what exceeds it.

mod figures;
mod messages;
mod model;
mod page;
mod pen;
mod routes;
mod screen;
mod table;
#[cfg(test)]
mod tests;
mod traces;
mod waterfall;

pub use messages::Messages;
pub use model::Facts;
pub(crate) use screen::set_modes_back;
pub use screen::unsuited;

use crate::queue::{InFlight, Queue};
use crossterm::event::{Event, EventStream, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use futures_core::Stream;
use model::{Demand, Key, Model};
use nix::sys::signal::{Signal, kill, raise};
use nix::unistd::Pid;
use pen::Theme;
use screen::Screen;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, MissedTickBehavior};

/// Spans that may wait while a page is drawn.
pub(crate) const QUEUE: usize = 8192;
/// Spans that wake the view, and that it takes at a time.
pub(crate) const BATCH: usize = 512;

/// Shortest time between two pages, which a pressed key waits for.
const FRAME: Duration = Duration::from_millis(100);
/// Frames between two pages that only spans ask for: figures are to be read.
const FRAMES_PER_REFRESH: u32 = 5;

/// What a view needs of the agent.
pub struct Source {
    /// What is known beside the spans; called once per refresh, on the view's thread.
    pub facts: Box<dyn FnMut() -> Facts + Send>,
    /// The log.
    pub messages: Messages,
}

impl std::fmt::Debug for Source {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Source").finish_non_exhaustive()
    }
}

/// Shows spans until the queue is closed and empty, or until the terminal is gone. The log is the view's at once: a
/// line must not depend on when the view's thread gets to run.
pub(crate) fn run(queue: Arc<Queue>, source: Source) -> impl Future<Output = ()> + Send {
    let held = Held::new(source.messages.clone());
    async move {
        let outcome = show(&queue, source).await;
        drop(held);
        if let Err(error) = outcome {
            tracing::warn!(%error, "the terminal cannot show the live view; tracing goes on without it");
            queue.abandon();
        }
    }
}

/// The log while it is the view's. Its end, be it a panic's, comes after the terminal's return: what matters of the
/// log can be read there then.
struct Held(Messages);

impl Held {
    fn new(messages: Messages) -> Self {
        messages.hold();
        Self(messages)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.release(&mut io::stderr());
    }
}

async fn show(queue: &Queue, mut source: Source) -> io::Result<()> {
    let mut screen = Screen::enter()?;
    let theme = Theme::new(std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()));
    let mut model = Model::new();
    let mut keys = EventStream::new();
    let mut continued = signal(SignalKind::from_raw(Signal::SIGCONT as i32))?;
    let mut stopped = signal(SignalKind::from_raw(Signal::SIGTSTP as i32))?;
    let mut frames = tokio::time::interval(FRAME);
    frames.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let start = Instant::now();
    let mut age = FRAMES_PER_REFRESH;
    let mut next = pin!(queue.next(FRAME));
    loop {
        tokio::select! {
            batch = &mut next => {
                let Some(batch) = batch else { return Ok(()) };
                let in_flight = InFlight::new(&queue.accounts, batch.len());
                model.advance(start.elapsed());
                model.take(&batch);
                in_flight.settle(0, "");
                next.set(queue.next(FRAME));
            }
            event = event(&mut keys) => {
                // A key changes the page at once, as does another size.
                age = FRAMES_PER_REFRESH;
                model.changed = true;
                let demand = demand(&event?, &mut model);
                obey(demand, &mut screen)?;
            }
            _ = stopped.recv() => {
                stop(&mut screen)?;
                model.changed = true;
            }
            _ = continued.recv() => {
                screen.enter_again()?;
                model.changed = true;
            }
            _ = frames.tick() => {
                age += 1;
                if age < FRAMES_PER_REFRESH {
                    continue;
                }
                model.advance(start.elapsed());
                let dropped = queue.accounts.dropped.load(Ordering::Relaxed);
                model.learn((source.facts)(), dropped, source.messages.last());
                if std::mem::take(&mut model.changed) {
                    screen.draw(&model, theme)?;
                    age = 0;
                }
            }
        }
    }
}

/// The next event of the terminal. One without events, its end, is waited for without end.
async fn event(keys: &mut EventStream) -> io::Result<Event> {
    match poll_fn(|context| Pin::new(&mut *keys).poll_next(context)).await {
        Some(event) => event,
        None => std::future::pending().await,
    }
}

/// Ending is what SIGINT does, and stopping what SIGTSTP does, neither of which the terminal sends in raw mode. Like
/// the terminal we send the latter to the whole job: a shell does not see that a part of it has stopped.
fn obey(demand: Demand, screen: &mut Screen) -> io::Result<()> {
    match demand {
        Demand::Nothing => Ok(()),
        Demand::Redraw => screen.begin_again(),
        Demand::Quit => raise(Signal::SIGINT).map_err(io::Error::from),
        Demand::Suspend if !screen::is_job() => Ok(()),
        Demand::Suspend => {
            // Once the others have stopped the terminal is the shell's.
            screen.leave();
            kill(Pid::from_raw(0), Signal::SIGTSTP).map_err(io::Error::from)
        }
    }
}

/// What SIGTSTP does by default, but for the terminal.
fn stop(screen: &mut Screen) -> io::Result<()> {
    if !screen::is_job() {
        return Ok(());
    }
    screen.leave();
    raise(Signal::SIGSTOP)?;
    screen.enter_again()
}

/// A terminal says that it has a size, the same even, when it has been exchanged for another: `docker attach` does.
fn demand(event: &Event, model: &mut Model) -> Demand {
    match event {
        Event::Resize(..) => Demand::Redraw,
        _ => key(event).map_or(Demand::Nothing, |key| model.press(key)),
    }
}

fn key(event: &Event) -> Option<Key> {
    let Event::Key(KeyEvent {
        code,
        modifiers,
        kind: KeyEventKind::Press | KeyEventKind::Repeat,
        ..
    }) = event
    else {
        return None;
    };
    if modifiers.contains(KeyModifiers::CONTROL) {
        return match code {
            KeyCode::Char('c') => Some(Key::Quit),
            KeyCode::Char('z') => Some(Key::Suspend),
            KeyCode::Char('l') => Some(Key::Redraw),
            _ => None,
        };
    }
    match code {
        KeyCode::Up | KeyCode::Char('k') => Some(Key::Up),
        KeyCode::Down | KeyCode::Char('j') => Some(Key::Down),
        KeyCode::Esc => Some(Key::Back),
        KeyCode::Char('p' | ' ') => Some(Key::Pause),
        KeyCode::Char('?' | 'h') => Some(Key::Help),
        KeyCode::Char('q') => Some(Key::Quit),
        _ => None,
    }
}
