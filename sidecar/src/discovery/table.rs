//! The process table: bounded, keyed by process id, each entry pinned to one process by its start time.

use std::collections::HashMap;

/// A process in scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tracked {
    pub(super) slot: u32,
    /// Clock ticks since boot.
    pub(super) start: u64,
}

#[derive(Debug)]
pub(super) struct Table {
    processes: HashMap<i32, Tracked>,
    limit: usize,
}

impl Table {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            processes: HashMap::new(),
            limit,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.processes.len()
    }

    pub(super) fn get(&self, pid: i32) -> Option<Tracked> {
        self.processes.get(&pid).copied()
    }

    /// Whether one more process, `pid`, has room.
    pub(super) fn has_room_for(&self, pid: i32) -> bool {
        self.processes.len() < self.limit || self.processes.contains_key(&pid)
    }

    pub(super) fn insert(&mut self, pid: i32, tracked: Tracked) {
        self.processes.insert(pid, tracked);
    }

    pub(super) fn remove(&mut self, pid: i32) -> Option<Tracked> {
        self.processes.remove(&pid)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (i32, Tracked)> {
        self.processes.iter().map(|(pid, tracked)| (*pid, *tracked))
    }
}
