//! Which process has which probes, and when it is looked at again.

use super::{
    Event, Launching, files,
    prober::Prober,
    process::Process,
    status::{Status, TlsStats},
};
use rustix::io::Errno;
use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// When a process is looked at after it executed a program, each time after the one before: its libraries come one after the
/// other. One that has forked may be about to execute a program and is spared the first look.
const LOOKS: [Duration; 7] = [
    Duration::ZERO,
    Duration::from_millis(3),
    Duration::from_millis(12),
    Duration::from_millis(50),
    Duration::from_millis(200),
    Duration::from_secs(1),
    Duration::from_secs(5),
];

/// Time between two searches for processes that have ended without notice: the news may have been dropped.
const SWEEP: Duration = Duration::from_secs(10);

/// Processes that are followed.
const MAX_PROCESSES: usize = 16_384;

/// Attaches and detaches.
pub(super) struct Attacher {
    prober: Prober,
    processes: BTreeMap<i32, Process>,
    due: BTreeSet<(Instant, i32)>,
    next_sweep: Instant,
    stats: Arc<TlsStats>,
    status: Status,
}

impl Attacher {
    pub(super) fn new(prober: Prober, stats: Arc<TlsStats>, found: Status) -> Self {
        Self {
            prober,
            processes: BTreeMap::new(),
            due: BTreeSet::new(),
            next_sweep: Instant::now() + SWEEP,
            stats,
            status: found,
        }
    }

    /// When there is something to do though nothing happens.
    pub(super) fn due(&self) -> Option<Instant> {
        let look = self.due.first().map(|(due, _)| *due);
        let sweep = (!self.processes.is_empty()).then_some(self.next_sweep);
        look.into_iter().chain(sweep).min()
    }

    pub(super) fn on_event(&mut self, event: Event, now: Instant) {
        match event {
            Event::Added { pid, slot } => self.begin(pid, slot, 1, now),
            Event::Executed { pid, slot } => self.begin(pid, slot, 0, now),
            Event::Removed(pid) => self.forget(pid),
            Event::Encrypted { pid, slot } => self.look_again(pid, slot, now),
            Event::Switched(slot) => self.look_at_container(slot, now),
        }
    }

    /// Attaches to what a process that waits to execute a program will need, so that its first request is seen.
    pub(super) fn prepare(&mut self, launching: &Launching) {
        let Launching { pid, program } = launching;
        // Its slot comes with the event that it is in scope.
        let (Ok(mut process), Ok(opened)) = (Process::open(*pid, 0, 0), files::open(*pid, program))
        else {
            return;
        };
        self.prober.foresee(&mut process, program, opened);
        self.processes.insert(*pid, process);
    }

    /// A new program.
    fn begin(&mut self, pid: i32, slot: u32, looks: usize, now: Instant) {
        let former = self.remove(pid).map(Process::into_former);
        let former = former.unwrap_or_default();
        self.status.remove(pid);
        match self.admit(pid, slot, looks) {
            Some(mut process) => {
                process.former = former;
                self.processes.insert(pid, process);
                self.plan_look(pid, now);
            }
            None => self.prober.detacher.detach(former.into_values().flatten()),
        }
    }

    /// A process that is to be followed, if it is not gone already and there is room.
    fn admit(&self, pid: i32, slot: u32, looks: usize) -> Option<Process> {
        if self.processes.len() >= MAX_PROCESSES {
            count(&self.stats.processes_beyond_bound);
            return None;
        }
        match Process::open(pid, slot, looks) {
            Ok(process) => Some(process),
            Err(error) if error.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => None,
            Err(error) => {
                count(&self.stats.failures);
                tracing::warn!(pid, %error, "a process is not searched for TLS; raise the limit of open files (ulimit -n)");
                None
            }
        }
    }

    /// Plans the next of the young process's looks.
    fn plan_look(&mut self, pid: i32, now: Instant) {
        let Some(process) = self.processes.get_mut(&pid) else {
            return;
        };
        if let Some(wait) = LOOKS.get(process.looks) {
            process.looks += 1;
            plan(&mut self.due, process, now + *wait);
        } else if !process.former.is_empty() {
            let former = mem::take(&mut process.former);
            self.prober.detacher.detach(former.into_values().flatten());
        }
    }

    /// One of a process's flows is encrypted. The news that there is such a process may have been dropped.
    fn look_again(&mut self, pid: i32, slot: u32, now: Instant) {
        if let Some(process) = self.processes.get_mut(&pid) {
            let earliest = process.earliest(now);
            plan(&mut self.due, process, earliest);
        } else if self.processes.len() < MAX_PROCESSES {
            self.begin(pid, slot, 0, now);
        }
    }

    /// Other rules hold for the processes of a container.
    fn look_at_container(&mut self, slot: u32, now: Instant) {
        let processes = self.processes.values_mut();
        for process in processes.filter(|process| process.slot == slot) {
            plan(&mut self.due, process, now);
        }
    }

    fn forget(&mut self, pid: i32) {
        if let Some(mut process) = self.remove(pid) {
            self.prober
                .detacher
                .detach(process.take_links().into_iter());
        }
        self.status.remove(pid);
    }

    /// Takes a process out.
    fn remove(&mut self, pid: i32) -> Option<Process> {
        let process = self.processes.remove(&pid)?;
        if let Some(due) = process.due {
            self.due.remove(&(due, pid));
        }
        Some(process)
    }

    /// Looks at the processes whose time has come, until the agent ends.
    pub(super) fn look_at_due(&mut self, now: Instant, ending: &AtomicBool) {
        if self.next_sweep <= now {
            self.next_sweep = now + SWEEP;
            self.sweep(now);
        }
        while let Some(&(due, pid)) = self.due.first()
            && due <= now
            && !ending.load(Ordering::Relaxed)
        {
            self.due.pop_first();
            let Some(mut process) = self.processes.remove(&pid) else {
                continue;
            };
            process.due = None;
            count(&self.stats.looks);
            let found_something = self.look(&mut process);
            // While it is young, it is looked at anyway.
            let is_young = process.looks < LOOKS.len();
            process.was_looked_at(now, found_something || is_young);
            self.processes.insert(pid, process);
            self.plan_look(pid, now);
        }
    }

    /// Looks at a process; whether there is news of it.
    fn look(&mut self, process: &mut Process) -> bool {
        let before = process.status.clone();
        self.prober.look(process);
        if process.status == before {
            return false;
        }
        let more = process.status.others.saturating_sub(before.others);
        let counter = &self.stats.files_beyond_bound;
        counter.fetch_add(more as u64, Ordering::Relaxed);
        self.status.set(process.pid, process.status.clone());
        true
    }

    /// Makes good what dropped events would have brought.
    fn sweep(&mut self, now: Instant) {
        let mut ended = Vec::new();
        for (&pid, process) in &mut self.processes {
            if process.has_ended() {
                ended.push(pid);
            } else if self.prober.is_switched_off(process.slot) != process.switched_off {
                plan(&mut self.due, process, now);
            }
        }
        for pid in ended {
            self.forget(pid);
        }
    }
}

/// What is still attached goes the way of all links.
impl Drop for Attacher {
    fn drop(&mut self) {
        let processes = mem::take(&mut self.processes).into_values();
        let links = processes.flat_map(|mut process| process.take_links());
        self.prober.detacher.detach(links);
    }
}

/// Moves a process's next look to a time, unless it is earlier already.
fn plan(due: &mut BTreeSet<(Instant, i32)>, process: &mut Process, at: Instant) {
    match process.due {
        Some(planned) if planned <= at => return,
        Some(planned) => {
            due.remove(&(planned, process.pid));
        }
        None => {}
    }
    process.due = Some(at);
    due.insert((at, process.pid));
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
