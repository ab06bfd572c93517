//! Writing the kernel's scope and settings.

use super::{SettingsValue, task_storage};
use crate::discovery::ScopeWriter;
use aya::maps::{Array, HashMap, MapData};
use pilotfish_abi::{Scope, Settings};
use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
};

/// The kernel side of discovery: which tasks are observed, and how.
pub struct KernelScope {
    scope: MapData,
    settings: Array<MapData, SettingsValue>,
    cgroups: HashMap<MapData, u64, u32>,
}

impl KernelScope {
    pub(super) fn new(
        scope: MapData,
        settings: Array<MapData, SettingsValue>,
        cgroups: HashMap<MapData, u64, u32>,
    ) -> Self {
        Self {
            scope,
            settings,
            cgroups,
        }
    }

    /// Sets how the tasks of a slot are observed; [`Settings::default`] switches the slot off.
    pub fn settings(&mut self, slot: u32, settings: Settings) -> io::Result<()> {
        self.settings
            .set(slot, SettingsValue(settings), 0)
            .map_err(io::Error::other)
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
