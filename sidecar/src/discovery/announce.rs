//! Containers that a runtime announces: attached by a pidfd of their first process, ended by name.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Instant;

use pilotfish_workload::announcement::Announcement;
use pilotfish_workload::{CgroupIdentity, IdSource, Identity, Isolation};

use super::admission::{Missed, Place};
use super::containers::{Announced, Init, Key};
use super::groups::Groups;
use super::subject::{InspectError, Subject, has_exited, list, start_of};
use super::{Change, Discovery, ScopeWriter, Target};

/// Why an announced container is not observed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnnounceError {
    /// This agent finds containers by itself.
    #[error("this agent takes no announcements: start `pilotfish node`")]
    NotServed,
    /// The descriptor is not a pidfd.
    #[error("the message came without a pidfd of the container's first process: {0}")]
    NoPidfd(String),
    /// Its first process is in a pid namespace that is not below ours.
    #[error(
        "its first process is not visible: the agent must share the host's pid namespace (hostPID: true)"
    )]
    NotVisible,
    /// Its first process is gone.
    #[error("it ended before it could be observed")]
    Ended,
    /// It is the agent's.
    #[error("it is pilotfish's own container")]
    Own,
    /// All slots are in use.
    #[error("all {} slots for containers are in use: select fewer containers on this node", pilotfish_abi::MAX_SLOTS - 1)]
    SlotsTaken,
    /// The process table is full.
    #[error("the process table is full: select fewer containers on this node")]
    TableFull,
    /// The kernel said no.
    #[error(
        "the kernel refused to put its first process in scope: run `pilotfish check` for what is missing"
    )]
    KernelRefused,
    /// `/proc` failed.
    #[error("its first process could not be inspected: run with PILOTFISH_LOG=debug for the error")]
    Inspection,
}

impl From<Missed> for AnnounceError {
    fn from(missed: Missed) -> Self {
        match missed {
            Missed::Vanished => Self::Ended,
            Missed::Unreadable | Missed::Failed => Self::Inspection,
            Missed::TableFull => Self::TableFull,
            Missed::SlotsTaken => Self::SlotsTaken,
            Missed::KernelRefused => Self::KernelRefused,
        }
    }
}

impl<W: ScopeWriter> Discovery<W> {
    /// Observes an announced container, or takes over what is new about one that is observed already, and returns its
    /// slot. What it changed, even before it failed, [`Self::take_changes`] tells.
    ///
    /// The first process is in scope when this returns. What else runs in a container that did not start just now, the
    /// next [`Self::slow_pass`] finds.
    pub fn announce(
        &mut self,
        announcement: Announcement,
        pidfd: BorrowedFd<'_>,
    ) -> Result<u32, AnnounceError> {
        if self.target != Target::Announced {
            return Err(AnnounceError::NotServed);
        }
        self.drain_exits();
        let subject = self.first_process(pidfd)?;
        let is_own = self.own.identity.container_id.as_ref() == Some(&announcement.id);
        if is_own || subject.pid.unsigned_abs() == std::process::id() {
            return Err(AnnounceError::Own);
        }
        let cgroup = subject
            .cgroup()
            .map_err(|error| self.missed(subject.pid, &error))?;
        let init = Init {
            pid: subject.pid,
            start: subject.start,
        };
        let identity = known_identity(&announcement, &cgroup);
        let mut announced = Announced {
            groups: self.own_groups(&subject, &cgroup, &announcement.id),
            announcement,
            init,
        };
        let key = Key::Container(announced.announcement.id.clone());
        match self.still_alive(&key, init) {
            Some((slot, first)) => {
                announced.init = first;
                if self
                    .table
                    .get(init.pid)
                    .is_none_or(|known| known.slot != slot)
                {
                    self.seed(subject, slot)?;
                }
                if self.containers.announce(slot, identity, announced) {
                    self.changes.push(Change::ContainerRenamed { slot });
                }
                Ok(slot)
            }
            None => self.begin(key, identity, announced, subject),
        }
    }

    /// Ends the containers with these ids, as far as they are known: whatever lives of them is taken out of scope, and
    /// their slots are freed after [`super::Options::ended_grace`].
    pub fn end(&mut self, ids: &BTreeSet<String>, now: Instant) -> Vec<Change> {
        self.drain_exits();
        for id in ids {
            if let Some(slot) = self.containers.slot_of(&Key::Container(id.clone())) {
                self.end_slot(slot);
            }
        }
        self.free_slots(now);
        self.take_changes()
    }

    /// Whether a container of this id is observed, and has not ended.
    pub fn is_announced(&self, id: &str) -> bool {
        self.containers
            .slot_of(&Key::Container(id.to_owned()))
            .is_some()
    }

    /// Where a process belongs that may have been forked or have entered: the announced container whose cgroup holds
    /// it, else where it or its parent is.
    ///
    /// So a process stays in the container that it was forked in even if it moves to the cgroup of a container within
    /// that one, unless that was announced too.
    pub(super) fn place_by_announcement(&self, subject: &Subject) -> Result<Place, InspectError> {
        let known = self.table.get(subject.pid);
        let parent = || {
            let parent = self.table.get(subject.parent)?;
            (start_of(subject.parent) == Some(parent.start)).then_some(parent)
        };
        let inherited = known
            .filter(|known| known.start == subject.start)
            .or_else(parent)
            .map(|known| known.slot);
        // Without a cgroup of its own a container cannot be told from what is around it.
        let groupless = inherited.is_some_and(|slot| {
            let announced = self.containers.get(slot).and_then(|c| c.announced.as_ref());
            announced.is_none_or(|announced| announced.groups.is_empty())
        });
        let entered = if groupless {
            None
        } else {
            self.containers.slot_of_group(&subject.cgroup()?)
        };
        Ok(entered.or(inherited).map_or(Place::Outside, Place::Known))
    }

    /// Whether a process, said to be a child of a container, can be one: with another parent than the kernel said,
    /// its number may have been used again.
    pub(super) fn may_be_orphan(&self, subject: &Subject, slot: u32) -> Result<bool, InspectError> {
        let announced = self.containers.get(slot).and_then(|c| c.announced.as_ref());
        let Some(announced) = announced.filter(|announced| !announced.groups.is_empty()) else {
            return Ok(true);
        };
        Ok(announced.groups.hold(&subject.cgroup()?).is_some())
    }

    /// The first process of a container runs its program now: it may have reached its final cgroup only before that.
    pub(super) fn regroup(&mut self, subject: &Subject, slot: u32) {
        let announced = self.containers.get(slot).and_then(|c| c.announced.as_ref());
        let Some(id) = announced
            .filter(|announced| announced.init.pid == subject.pid)
            .map(|announced| announced.announcement.id.clone())
        else {
            return;
        };
        if let Ok(cgroup) = subject.cgroup() {
            let groups = self.own_groups(subject, &cgroup, &id);
            if self.containers.regroup(slot, groups) {
                self.changes.push(Change::ContainerRenamed { slot });
            }
        }
    }

    /// The cgroups that are a container's own, `first` being its first process.
    ///
    /// A container that its runtime gave no cgroup is in that of whoever started it, a login session perhaps. A group
    /// that does not bear the container's name has to prove itself: nothing older than the container is in it.
    fn own_groups(&self, first: &Subject, cgroup: &str, id: &str) -> Groups {
        let groups = Groups::of(cgroup, &self.own.cgroup, id);
        if groups.is_empty() || groups.is_named() {
            return groups;
        }
        let is_older_inside = |pid: i32| {
            Subject::open(pid).is_ok_and(|other| {
                (other.start, other.pid) < (first.start, first.pid)
                    && other
                        .cgroup()
                        .is_ok_and(|text| groups.hold(&text).is_some())
            })
        };
        if list().is_ok_and(|pids| !pids.into_iter().any(is_older_inside)) {
            groups
        } else {
            Groups::default()
        }
    }

    /// The process of the pidfd, pinned: while the pidfd's process lives, its number is no other's.
    fn first_process(&mut self, pidfd: BorrowedFd<'_>) -> Result<Subject, AnnounceError> {
        let pid = match pid_of(pidfd).map_err(|error| AnnounceError::NoPidfd(error.to_string()))? {
            0 => return Err(AnnounceError::NotVisible),
            pid if pid < 0 => return Err(self.missed(pid, &InspectError::Vanished).into()),
            pid => pid,
        };
        let subject = Subject::open(pid).and_then(|subject| {
            if has_exited(pidfd)? {
                return Err(InspectError::Vanished);
            }
            Ok(subject)
        });
        subject.map_err(|error| self.missed(pid, &error).into())
    }

    /// The slot and first process of a container of this key, if it is the same container. Ids are used again: one
    /// whose first process is gone is another, and ended here.
    fn still_alive(&mut self, key: &Key, init: Init) -> Option<(u32, Init)> {
        let slot = self.containers.slot_of(key)?;
        let before = self.containers.get(slot)?.announced.as_ref()?.init;
        let alive = self
            .table
            .get(before.pid)
            .is_some_and(|known| known.slot == slot && known.start == before.start)
            && start_of(before.pid) == Some(before.start);
        if before == init || alive {
            return Some((slot, before));
        }
        self.end_slot(slot);
        None
    }

    fn begin(
        &mut self,
        key: Key,
        identity: Identity,
        announced: Announced,
        subject: Subject,
    ) -> Result<u32, AnnounceError> {
        let before = self.changes.len();
        let slot = self.add_container(key, identity, &subject)?;
        if subject.only_forked {
            let program = announced.announcement.program.clone();
            self.containers
                .await_program(slot, program.unwrap_or_default());
        }
        if let Some(container) = self.containers.get(slot) {
            let identity = container.identity.clone();
            self.containers.announce(slot, identity, announced);
        }
        let outer = self.table.get(subject.pid).map(|known| known.slot);
        match self.seed(subject, slot) {
            Ok(()) => {
                self.move_out(outer, slot);
                Ok(slot)
            }
            Err(missed) => {
                self.changes.truncate(before);
                self.containers.discard(slot);
                Err(missed.into())
            }
        }
    }

    /// A container within another one was observed as part of it until it was announced: its processes move.
    fn move_out(&mut self, outer: Option<u32>, inner: u32) {
        let Some(outer) = outer.and_then(|slot| self.containers.get(slot)) else {
            return;
        };
        for pid in outer.processes.clone() {
            let Ok(subject) = Subject::open(pid) else {
                continue;
            };
            if matches!(self.place_by_announcement(&subject), Ok(Place::Known(slot)) if slot == inner)
            {
                self.counters.processes_moved += 1;
                // What was missed is counted.
                let _ = self.seed(subject, inner);
            }
        }
    }

    fn end_slot(&mut self, slot: u32) {
        let processes = self
            .containers
            .get(slot)
            .map(|container| container.processes.clone())
            .unwrap_or_default();
        for pid in processes {
            match Subject::open(pid) {
                Ok(subject)
                    if self
                        .table
                        .get(pid)
                        .is_some_and(|p| p.start == subject.start) =>
                {
                    self.withdraw(&subject);
                }
                _ => self.untrack(pid),
            }
        }
        self.containers.end(slot);
        self.changes.push(Change::ContainerEnded { slot });
    }
}

/// What is announced, completed by what the cgroup of its first process tells. Its mounts tell nothing yet: before it
/// executes its program it may still have those of the host.
fn known_identity(announcement: &Announcement, cgroup: &str) -> Identity {
    let found = CgroupIdentity::parse(cgroup, Isolation::Unknown);
    let mut identity = announcement.identity.clone();
    identity.container_id = Some(announcement.id.clone());
    identity.id_source = Some(IdSource::Runtime);
    if found.container_id.as_ref() == Some(&announcement.id) {
        identity.runtime = identity.runtime.or(found.runtime);
        identity.pod_uid = identity.pod_uid.or(found.pod_uid);
    }
    identity
}

/// The process of a pidfd in the pid namespace of our `/proc`: 0 if it is not in it, -1 if it is gone
/// (`pidfd_show_fdinfo`, kernel/pid.c).
fn pid_of(pidfd: BorrowedFd<'_>) -> io::Result<i32> {
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_fd().as_raw_fd()))?;
    let pid = text
        .lines()
        .find_map(|line| line.strip_prefix("Pid:")?.trim().parse().ok());
    pid.ok_or_else(|| io::Error::other("the descriptor is not a pidfd"))
}
