//! TLS: finds the libraries of each observed process and attaches the probes that see plaintext at their boundary.
//!
//! One thread does it, so that neither discovery nor the reader waits: registering a uprobe takes the kernel
//! milliseconds, and removing one a hundred of them, for which there are other threads. Probes are attached to one process
//! at a time, never to a file as such, so that nobody else who uses the same file is concerned. A library is looked for
//! when a process appears or executes a program, a few times while it is young, and whenever one of its flows turns out to
//! be encrypted.

mod attacher;
mod detacher;
mod files;
mod functions;
mod image;
mod needed;
mod rustls;
mod status;

pub use status::{NotCovered, ProcessStatus, Status, TlsStats};

use crate::instrument::TlsPrograms;
use attacher::Attacher;
use detacher::Detacher;
use std::{
    io,
    sync::{
        Arc,
        atomic::Ordering,
        mpsc::{self, Receiver, RecvTimeoutError, SyncSender},
    },
    thread::{self, JoinHandle},
    time::Instant,
};

/// Events that may wait for the attacher.
const QUEUE: usize = 4096;

/// What the attacher is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A process is in scope.
    Added(i32),
    /// It executed a program.
    Executed(i32),
    /// It is gone, or no longer in scope.
    Removed(i32),
    /// One of its flows is encrypted.
    Encrypted(i32),
}

/// The way to the attacher; what it cannot take is counted.
#[derive(Clone)]
pub struct Sender {
    events: SyncSender<Event>,
    stats: Arc<TlsStats>,
}

impl Sender {
    /// Tells of a process. Never waits.
    pub fn send(&self, event: Event) {
        if self.events.try_send(event).is_err() {
            self.stats.events_lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A running attacher. Its thread ends, and detaches everything, when every [`Sender`] is gone.
pub struct Tls {
    /// The way to it.
    pub sender: Sender,
    status: Status,
    thread: JoinHandle<()>,
}

/// What the pages show of it.
#[derive(Clone)]
pub struct TlsPages {
    /// What it counts.
    pub stats: Arc<TlsStats>,
    /// What it has found.
    pub status: Status,
}

impl Tls {
    /// What the pages show.
    pub fn pages(&self) -> TlsPages {
        TlsPages {
            stats: Arc::clone(&self.sender.stats),
            status: self.status.clone(),
        }
    }

    /// Waits until everything is detached, which takes the kernel some 100 ms for each link. A process that ends while one
    /// of its threads detaches leaves breakpoints behind for good: the kernel gives up on a thread that is killed.
    /// Other [`Sender`]s have to be gone.
    pub fn end(self) {
        drop(self.sender);
        if self.thread.join().is_err() {
            tracing::error!(
                "the thread that looks for TLS panicked; this is a bug, please report it"
            );
        }
    }
}

/// A process that waits to execute a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launching {
    /// Its id.
    pub pid: i32,
    /// Path of the program.
    pub program: String,
}

/// Starts the attacher. What is launched has its probes when this returns.
pub fn start(programs: TlsPrograms, launching: Option<&Launching>) -> io::Result<Tls> {
    let (events, queue) = mpsc::sync_channel(QUEUE);
    let stats = Arc::new(TlsStats::default());
    let found = Status::default();
    let mut attacher = Attacher::new(
        programs,
        Detacher::default(),
        Arc::clone(&stats),
        found.clone(),
    );
    if let Some(launching) = launching {
        attacher.prepare(launching);
    }
    let thread = thread::Builder::new()
        .name("tls".to_owned())
        .spawn(move || run(&mut attacher, &queue))?;
    let sender = Sender { events, stats };
    Ok(Tls {
        sender,
        status: found,
        thread,
    })
}

fn run(attacher: &mut Attacher, queue: &Receiver<Event>) {
    loop {
        let event = match attacher.due() {
            None => queue.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(due) => queue.recv_timeout(due.saturating_duration_since(Instant::now())),
        };
        match event {
            Ok(event) => attacher.on_event(event, Instant::now()),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        // Also between two of many events, which would keep the others' time from ever coming.
        attacher.look_at_due(Instant::now());
    }
}
