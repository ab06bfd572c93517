//! When processes are looked at: the first pass, the kernel's records, exits, the slow pass.

use std::time::Instant;

use super::admission::Missed;
use super::containers::Graces;
use super::subject::{self, start_of};
use super::{Change, Discovery, DiscoveryError, Event, ScopeWriter, Target};

/// Rounds over `/proc` in one pass. Each finds only what was forked before its parent was in scope, so a second
/// round is nearly always empty.
const MAX_ROUNDS: usize = 16;

impl<W: ScopeWriter> Discovery<W> {
    /// Puts all that is there in scope. A named process that is gone or cannot be attached is an error; any
    /// other is counted.
    pub fn initial_pass(&mut self) -> Result<Vec<Change>, DiscoveryError> {
        if let Target::Processes(named) = self.target.clone() {
            for pid in named {
                let admitted = self.admit(pid).map_err(|missed| refusal(pid, &missed))?;
                if !admitted {
                    let reason =
                        "it is a kernel thread or pilotfish itself: name the workload's process";
                    return Err(DiscoveryError::Refused { pid, reason });
                }
            }
            self.roots_seeded = true;
        }
        self.rounds().map_err(DiscoveryError::List)?;
        Ok(self.take_changes())
    }

    /// Follows one record of the kernel.
    pub fn on_event(&mut self, event: Event) -> Vec<Change> {
        match event {
            Event::Fork {
                slot,
                parent,
                child,
            } => self.on_fork(slot, parent, child),
            Event::Exec { tgid } => self.with_pid(tgid, Self::on_exec),
            Event::Exit { tgid } => self.with_pid(tgid, |discovery, pid| {
                // A pidfd tells exactly when; the record is for processes that have none.
                if !discovery.exits.is_watched(pid) {
                    discovery.untrack(pid);
                }
            }),
            Event::Newcomer { tgid } => self.with_pid(tgid, |discovery, pid| {
                if discovery.table.get(pid).is_none() {
                    discovery.admit_with_children(pid);
                }
            }),
        }
        self.take_changes()
    }

    /// Drops processes whose pidfd says that they exited; call it when the descriptor is readable.
    pub fn on_pid_exit(&mut self) -> Vec<Change> {
        self.drain_exits();
        self.take_changes()
    }

    /// Compares the table with `/proc`, and frees slots whose grace period is over. The safety net: with
    /// records and pidfds in order it finds nothing.
    pub fn slow_pass(&mut self, now: Instant) -> Vec<Change> {
        self.drain_exits();
        self.drop_vanished();
        match self.rounds() {
            Ok(found) => self.counters.missed_by_records += found,
            Err(_) => self.counters.inspection_failures += 1,
        }
        self.free_slots(now);
        self.take_changes()
    }

    /// Frees slots whose grace period is over, and notices the containers for which it begins.
    pub fn sweep(&mut self, now: Instant) -> Vec<Change> {
        self.free_slots(now);
        self.take_changes()
    }

    /// When [`Self::sweep`] will have something to free, as far as the last one knew.
    pub fn next_expiry(&self) -> Option<Instant> {
        self.containers.next_expiry(self.graces())
    }

    pub(super) fn free_slots(&mut self, now: Instant) {
        for container in self.containers.sweep(now, self.graces()) {
            let slot = container.slot;
            self.changes.push(Change::ContainerRemoved { slot });
        }
    }

    fn graces(&self) -> Graces {
        Graces {
            empty: self.options.grace,
            ended: self.options.ended_grace,
        }
    }

    fn on_fork(&mut self, slot: u32, parent: u32, child: u32) {
        let known = self.containers.get(slot).is_some();
        match (i32::try_from(parent), i32::try_from(child)) {
            (Ok(parent), Ok(child)) if known && child > 0 => {
                // What was missed is counted.
                let _ = self.inherit(slot, parent, child);
            }
            _ => self.counters.records_without_process += 1,
        }
    }

    /// Admits a process that the kernel did not put in scope, and what it may have forked before it was heard of here.
    fn admit_with_children(&mut self, pid: i32) {
        // What was missed is counted; there is nothing else to do about it.
        if matches!(self.admit(pid), Ok(true)) && self.rounds().is_err() {
            self.counters.inspection_failures += 1;
        }
    }

    fn on_exec(&mut self, pid: i32) {
        // What was missed is counted.
        match self.table.get(pid) {
            Some(tracked) => drop(self.executed(pid, tracked)),
            // It entered by its cgroup, and the kernel has put it in scope: what it forks has records of its own.
            None => drop(self.admit(pid)),
        }
    }

    fn with_pid(&mut self, tgid: u32, act: impl FnOnce(&mut Self, i32)) {
        match i32::try_from(tgid) {
            Ok(pid) if pid > 0 => act(self, pid),
            _ => self.counters.records_without_process += 1,
        }
    }

    pub(super) fn drain_exits(&mut self) {
        loop {
            let exited = self.exits.exited();
            if exited.is_empty() {
                return;
            }
            for pid in exited {
                self.untrack(pid);
                self.exits.forget(pid);
            }
        }
    }

    /// Drops entries without a pidfd whose process is gone, or whose number another process has now.
    fn drop_vanished(&mut self) {
        let unwatched = self
            .table
            .iter()
            .filter(|(pid, _)| !self.exits.is_watched(*pid));
        let vanished: Vec<_> = unwatched
            .filter(|(pid, tracked)| start_of(*pid) != Some(tracked.start))
            .map(|(pid, _)| pid)
            .collect();
        for pid in vanished {
            self.untrack(pid);
        }
        self.unreadable.retain(|pid| start_of(*pid).is_some());
    }

    /// Rounds until one finds nothing new; returns how many processes were found.
    pub(super) fn rounds(&mut self) -> std::io::Result<u64> {
        // Whatever is to be found belongs to a container that is known already.
        if self.target == Target::Announced && self.containers.is_empty() {
            return Ok(0);
        }
        let mut found = 0;
        for _ in 0..MAX_ROUNDS {
            let new = self.round()?;
            if new == 0 {
                return Ok(found);
            }
            found += new;
        }
        self.counters.passes_cut += 1;
        Ok(found)
    }

    fn round(&mut self) -> std::io::Result<u64> {
        let mut found = 0;
        for pid in subject::list()? {
            if self.table.get(pid).is_none() && self.admit(pid) == Ok(true) {
                found += 1;
            }
        }
        Ok(found)
    }
}

fn refusal(pid: i32, missed: &Missed) -> DiscoveryError {
    let reason = match missed {
        Missed::Vanished => return DiscoveryError::NoSuchProcess { pid },
        Missed::Unreadable => {
            "permission denied: grant CAP_SYS_PTRACE, or run as the same user as the process"
        }
        Missed::Failed => {
            "/proc or a pidfd failed unexpectedly: run with PILOTFISH_LOG=debug for the error"
        }
        Missed::TableFull => "the process table is full: name fewer processes",
        Missed::SlotsTaken => "every container slot is taken: name fewer processes",
        Missed::KernelRefused => {
            "the kernel refused to put it in scope: run `pilotfish check` for what is missing"
        }
    };
    DiscoveryError::Refused { pid, reason }
}
