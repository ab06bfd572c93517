//! The ring reader: one OS thread that drains the ring buffer and never waits for anything but time.

mod control;

pub use control::{Control, ControlSender, Mailbox, ReaderGone, control};

use crate::{clock, discovery};
use aya::maps::{MapData, RingBuf};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use pilotfish_abi::{Header, Kind};
use pilotfish_pipeline::{Record, Slot, SlotConfig};
use std::{
    os::fd::AsFd,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
};

/// Pause between two reads while records come, milliseconds. The kernel ends it when an eighth of the ring is full;
/// waking the reader for each record would cost twenty times as much.
const BUSY_WAIT_MS: u8 = 5;
/// The same while nothing comes.
const IDLE_WAIT_MS: u8 = 25;
/// Interval of [`Consumer::tick`], nanoseconds.
const TICK: u64 = 100_000_000;
/// Longest time for what is left in the ring at the end, nanoseconds.
const LAST_DRAIN: u64 = 300_000_000;
/// Records handled before the ends of containers, the end of the reader and the clock get their turn.
const BATCH: usize = 4096;

/// What becomes of the records.
pub trait Consumer: Send {
    /// One record of a socket, already checked; `bytes` is its raw form.
    fn record(&mut self, record: &Record<'_>, bytes: &[u8]);
    /// After each drain of the ring that had records.
    fn drained(&mut self);
    /// About ten times a second. `now` is `CLOCK_MONOTONIC`, `unix_offset` Unix time minus that, nanoseconds.
    fn tick(&mut self, now: u64, unix_offset: i64);
    /// Settings of a container, in force from the next record on.
    fn configure(&mut self, slot: Slot, config: &SlotConfig);
    /// A container is gone, its settings too.
    fn forget(&mut self, slot: Slot);
    /// True while what was given is not worked off; the ring reader cannot wait for that, a replay can.
    fn is_behind(&self) -> bool {
        false
    }
    /// The end: nothing follows.
    fn finish(&mut self);
}

/// What the reader counts; shared with `/metrics` and `/status`.
#[derive(Debug, Default)]
pub struct SourceStats {
    /// Records taken from the ring buffer.
    pub delivered: AtomicU64,
    /// Records that could not be understood.
    pub malformed: AtomicU64,
    /// Records about processes.
    pub lifecycle: AtomicU64,
    /// Process records dropped because discovery was behind; a full procfs pass follows.
    pub lifecycle_lost: AtomicU64,
}

/// The reader's ends of its channels.
pub struct Channels {
    /// Process records for discovery.
    pub lifecycle: tokio::sync::mpsc::Sender<discovery::Event>,
    /// Messages to the reader.
    pub control: Mailbox,
}

/// Starts the reader.
pub fn spawn<C: Consumer + 'static>(
    ring: RingBuf<MapData>,
    consumer: C,
    channels: Channels,
    stats: Arc<SourceStats>,
) -> std::io::Result<JoinHandle<()>> {
    // Edge-triggered: data in the ring alone does not end a wait, only the kernel's wake-up does.
    let wakeups = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    wakeups.add(
        ring.as_fd(),
        EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, 0),
    )?;
    let mut reader = Reader {
        ring,
        wakeups,
        consumer,
        channels,
        stats,
        next_tick: 0,
    };
    thread::Builder::new()
        .name("ring".to_owned())
        .spawn(move || reader.run())
}

struct Reader<C> {
    ring: RingBuf<MapData>,
    wakeups: Epoll,
    consumer: C,
    channels: Channels,
    stats: Arc<SourceStats>,
    next_tick: u64,
}

impl<C: Consumer> Reader<C> {
    fn run(&mut self) {
        self.tick_if_due();
        loop {
            let records = self.drain();
            self.tick_if_due();
            if self.channels.control.after_drain(&mut self.consumer) {
                break;
            }
            match records {
                0 => self.wait(IDLE_WAIT_MS),
                BATCH => {}
                _ => self.wait(BUSY_WAIT_MS),
            }
        }
        // The programs are still attached: under overload the ring would never be empty.
        let deadline = clock::monotonic() + LAST_DRAIN;
        while self.drain() == BATCH && clock::monotonic() < deadline {}
        self.consumer.finish();
    }

    fn drain(&mut self) -> usize {
        let mut records = 0;
        while records < BATCH {
            let Some(item) = self.ring.next() else { break };
            records += 1;
            self.channels.control.before_record(&mut self.consumer);
            match Record::parse(&item) {
                Ok(record) => match lifecycle_event(&record) {
                    Some(event) => {
                        self.stats.lifecycle.fetch_add(1, Ordering::Relaxed);
                        self.consumer.record(&record, &item);
                        if self.channels.lifecycle.try_send(event).is_err() {
                            self.stats.lifecycle_lost.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                    None => self.consumer.record(&record, &item),
                },
                Err(_) => {
                    self.stats.malformed.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        if records > 0 {
            self.stats
                .delivered
                .fetch_add(records as u64, Ordering::Relaxed);
            self.consumer.drained();
        }
        records
    }

    fn tick_if_due(&mut self) {
        let now = clock::monotonic();
        if now >= self.next_tick {
            self.next_tick = now + TICK;
            self.consumer.tick(now, clock::unix_offset());
        }
    }

    fn wait(&self, milliseconds: u8) {
        let mut events = [EpollEvent::empty()];
        // An error (a signal) only means an earlier look at the ring.
        let _ = self
            .wakeups
            .wait(&mut events, EpollTimeout::from(milliseconds));
    }
}

/// Process records, as discovery wants them.
fn lifecycle_event(record: &Record<'_>) -> Option<discovery::Event> {
    let tgid = record.header.tgid;
    Some(match record.kind {
        Kind::Fork => {
            let Header { slot, offset, .. } = record.header;
            discovery::Event::Fork {
                slot,
                parent: offset as u32,
                child: tgid,
            }
        }
        Kind::Exec => discovery::Event::Exec { tgid },
        Kind::Exit => discovery::Event::Exit { tgid },
        Kind::Newcomer => discovery::Event::Newcomer { tgid },
        Kind::Send | Kind::Receive | Kind::SendEnd | Kind::ReceiveEnd | Kind::Close => return None,
    })
}
