//! Writing the kernel's scope and settings.

use super::{CounterMap, SettingsValue, socket_records, sum, task_storage};
use crate::discovery::ScopeWriter;
use aya::maps::{Array, HashMap, MapData};
use pilotfish_abi::{Scope, Settings};
use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
};

/// The kernel side of discovery: which tasks are observed, and how.
pub struct KernelScope {
    scope: MapData,
    settings: Array<MapData, SettingsValue>,
    cgroups: HashMap<MapData, u64, u32>,
    counters: Arc<CounterMap>,
}

impl KernelScope {
    pub(super) fn new(
        scope: MapData,
        settings: Array<MapData, SettingsValue>,
        cgroups: HashMap<MapData, u64, u32>,
        counters: Arc<CounterMap>,
    ) -> Self {
        Self {
            scope,
            settings,
            cgroups,
            counters,
        }
    }

    /// Sets how the tasks of a slot are observed; [`Settings::default`] switches the slot off.
    pub fn settings(&mut self, slot: u32, settings: Settings) -> io::Result<()> {
        self.settings
            .set(slot, SettingsValue(settings), 0)
            .map_err(io::Error::other)
    }

    /// Records of sockets that a slot has given since the programs were loaded, whichever containers had it.
    pub fn socket_records(&self, slot: u32) -> u64 {
        sum(&self.counters, slot).map_or(0, |counters| socket_records(&counters))
    }

    /// From now on a process that executes a program inside this cgroup v2 group is in scope.
    ///
    /// # Errors
    /// When [`pilotfish_abi::MAX_CGROUPS`] are watched already.
    pub fn watch_cgroup(&mut self, id: u64, slot: u32) -> io::Result<()> {
        self.cgroups.insert(id, slot, 0).map_err(io::Error::other)
    }

    /// Ends that.
    pub fn unwatch_cgroup(&mut self, id: u64) -> io::Result<()> {
        self.cgroups.remove(&id).map_err(io::Error::other)
    }
}

impl ScopeWriter for KernelScope {
    fn put(&mut self, pidfd: BorrowedFd<'_>, scope: Scope) -> io::Result<()> {
        task_storage::update(self.scope.fd().as_fd(), pidfd, &scope)
    }

    fn remove(&mut self, pidfd: BorrowedFd<'_>) -> io::Result<()> {
        task_storage::remove(self.scope.fd().as_fd(), pidfd)
    }
}
