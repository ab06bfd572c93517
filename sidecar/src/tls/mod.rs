//! TLS: finds the libraries of each observed process and attaches the probes that see plaintext at their boundary.
//!
//! One thread does it, so that neither discovery nor the reader waits: registering a uprobe takes the kernel
//! milliseconds, and removing one a hundred of them, for which there are other threads. Probes are attached to one process
//! at a time, never to a file as such, so that nobody else who uses the same file is concerned. A library is looked for
//! when a process appears or executes a program, a few times while it is young, and whenever one of its flows turns out to
//! be encrypted.

mod attacher;
mod copies;
mod detacher;
mod exclusions;
mod files;
mod functions;
mod image;
mod needed;
mod prober;
mod process;
mod rustls;
mod status;

pub use status::{NotCovered, ProcessStatus, Status, TlsStats};

use crate::{instrument::TlsPrograms, node::raise_file_limit};
use attacher::Attacher;
use exclusions::{Containers, Exclusions};
use prober::Prober;
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, Receiver, RecvTimeoutError, SyncSender},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// Events that may wait for the attacher.
const QUEUE: usize = 4096;

/// How long the end waits for probes to be taken away: some 1,200 links, 16 at a time. Container runtimes kill what has not
/// ended after 10 seconds.
const END: Duration = Duration::from_secs(8);

/// What the attacher is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A process is in scope.
    Added {
        /// Its id.
        pid: i32,
        /// Slot of its container.
        slot: u32,
    },
    /// It executed a program.
    Executed {
        /// Its id.
        pid: i32,
        /// Slot of its container.
        slot: u32,
    },
    /// It is gone, or no longer in scope.
    Removed(i32),
    /// One of its flows is encrypted.
    Encrypted {
        /// Its id.
        pid: i32,
        /// Slot of its container.
        slot: u32,
    },
    /// Whether probes are allowed in the container of this slot has changed.
    Switched(u32),
}

/// The way to the attacher; what it cannot take is counted.
#[derive(Clone)]
pub struct Sender {
    events: SyncSender<Event>,
    containers: Containers,
    stats: Arc<TlsStats>,
}

impl Sender {
    /// Allows probes in the processes of a container, or takes them away; they are allowed unless this says otherwise.
    pub fn allow(&self, slot: u32, allowed: bool) {
        if self.containers.set(slot, allowed) {
            self.send(Event::Switched(slot));
        }
    }

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
    /// Tells the thread to begin nothing new.
    ending: Arc<AtomicBool>,
    /// Closed when it has ended.
    ended: Receiver<()>,
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

    /// Waits until everything is detached, which takes the kernel some 100 ms for each link, but not for ever. A process
    /// that ends while one of its threads detaches leaves breakpoints behind for good: the kernel gives up on a thread
    /// that is killed. Other [`Sender`]s have to be gone.
    pub fn end(self) {
        self.ending.store(true, Ordering::Relaxed);
        drop(self.sender);
        if self.ended.recv_timeout(END) == Err(RecvTimeoutError::Timeout) {
            tracing::error!(
                seconds = END.as_secs(),
                "probes of TLS libraries are still being taken away; what is left of them slows its program until that is restarted"
            );
        } else if self.thread.join().is_err() {
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

/// Starts the attacher. What is launched has its probes when this returns. Executables with one of the names in `excluded`
/// are not probed.
pub fn start(
    programs: TlsPrograms,
    launching: Option<&Launching>,
    excluded: &[String],
) -> io::Result<Tls> {
    // A descriptor for every process that is followed, and for every link.
    raise_file_limit();
    let (events, queue) = mpsc::sync_channel(QUEUE);
    let stats = Arc::new(TlsStats::default());
    let found = Status::default();
    let containers = Containers::default();
    let exclusions = Exclusions::new(containers.clone(), excluded);
    let prober = Prober::new(programs, exclusions, Arc::clone(&stats));
    let mut attacher = Attacher::new(prober, Arc::clone(&stats), found.clone());
    if let Some(launching) = launching {
        attacher.prepare(launching);
    }
    let ending = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&ending);
    let (end, ended) = mpsc::sync_channel(1);
    let thread = thread::Builder::new()
        .name("tls".to_owned())
        .spawn(move || {
            run(&mut attacher, &queue, &told);
            // Waits for what is still attached.
            drop(attacher);
            drop::<SyncSender<()>>(end);
        })?;
    let sender = Sender {
        events,
        containers,
        stats,
    };
    Ok(Tls {
        sender,
        status: found,
        thread,
        ending,
        ended,
    })
}

fn run(attacher: &mut Attacher, queue: &Receiver<Event>, ending: &AtomicBool) {
    while !ending.load(Ordering::Relaxed) {
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
        attacher.look_at_due(Instant::now(), ending);
    }
}
