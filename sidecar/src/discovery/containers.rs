//! The containers under observation, each with a slot of the kernel's settings array.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use pilotfish_abi::MAX_SLOTS;
use pilotfish_workload::Identity;
use pilotfish_workload::announcement::Announcement;

use super::groups::Groups;

/// What makes two processes part of one container.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    /// The same container id.
    Container(String),
    /// No id is known: the same mount namespace.
    MountNamespace(u64),
    /// No id is known: the same cgroup.
    Cgroup(String),
    /// Not in a container: descent from this process.
    Process {
        /// Process id.
        pid: i32,
        /// Start time, in clock ticks since boot.
        start: u64,
    },
}

/// The process that a container is named by: its oldest one when it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct First {
    /// Process id.
    pub pid: i32,
    /// Start time, in clock ticks since boot.
    pub start: u64,
    /// File name of its executable.
    pub executable: String,
}

/// The process that a runtime started a container with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Init {
    /// Process id in our pid namespace.
    pub pid: i32,
    /// Start time, in clock ticks since boot.
    pub start: u64,
}

/// What a runtime said about a container.
#[derive(Clone, Debug)]
pub struct Announced {
    /// Its last announcement.
    pub announcement: Announcement,
    /// Its first process.
    pub init: Init,
    /// By which a process is recognised that enters it later.
    pub(super) groups: Groups,
}

/// One container under observation.
#[derive(Clone, Debug)]
pub struct Container {
    /// Its slot, 1 to [`MAX_SLOTS`] - 1.
    pub slot: u32,
    /// What its processes have in common.
    pub key: Key,
    /// What its runtime and `/proc` tell about it.
    pub identity: Identity,
    /// Of a container that was announced, not found.
    pub announced: Option<Announced>,
    /// Its first process.
    pub first: First,
    /// Its processes; bounded by the process table.
    pub processes: BTreeSet<i32>,
    /// Since when a pass has found it without processes.
    empty_since: Option<Instant>,
    /// Its runtime said so: no process joins it any more.
    ended: bool,
}

impl Container {
    /// The process whose cgroup is the container's: the one that its runtime started, or the oldest one found.
    pub fn first_pid(&self) -> i32 {
        self.announced
            .as_ref()
            .map_or(self.first.pid, |announced| announced.init.pid)
    }

    /// When its slot is to be freed, once it is known to be without processes.
    fn expiry(&self, graces: Graces) -> Option<Instant> {
        let grace = if self.ended {
            graces.ended
        } else {
            graces.empty
        };
        self.empty_since.map(|since| since + grace)
    }
}

/// How long slots are kept for late records.
#[derive(Clone, Copy, Debug)]
pub(super) struct Graces {
    /// Of a container without processes.
    pub(super) empty: Duration,
    /// Of one that has ended.
    pub(super) ended: Duration,
}

/// Slot allocation.
#[derive(Debug, Default)]
pub(super) struct Containers {
    by_slot: BTreeMap<u32, Container>,
    by_key: HashMap<Key, u32>,
    last: u32,
}

impl Containers {
    pub(super) fn iter(&self) -> impl Iterator<Item = &Container> {
        self.by_slot.values()
    }

    pub(super) fn get(&self, slot: u32) -> Option<&Container> {
        self.by_slot.get(&slot)
    }

    pub(super) fn slot_of(&self, key: &Key) -> Option<u32> {
        self.by_key.get(key).copied()
    }

    /// The slot that the next container gets. Freed slots are used again as late as possible, so that records
    /// still under way do not meet another container's resource.
    pub(super) fn next_slot(&self) -> Option<u32> {
        let after = self.last + 1..MAX_SLOTS;
        let before = 1..(self.last + 1).min(MAX_SLOTS);
        after
            .chain(before)
            .find(|slot| !self.by_slot.contains_key(slot))
    }

    pub(super) fn insert(&mut self, slot: u32, key: Key, identity: Identity, first: First) {
        self.last = slot;
        self.by_key.insert(key.clone(), slot);
        let container = Container {
            slot,
            key,
            identity,
            announced: None,
            first,
            processes: BTreeSet::new(),
            empty_since: None,
            ended: false,
        };
        self.by_slot.insert(slot, container);
    }

    /// Takes over what a runtime says about a container; true if that is news.
    pub(super) fn announce(&mut self, slot: u32, identity: Identity, announced: Announced) -> bool {
        let Some(container) = self.by_slot.get_mut(&slot) else {
            return false;
        };
        let same = container.identity == identity
            && container
                .announced
                .as_ref()
                .is_some_and(|before| before.announcement == announced.announcement);
        container.identity = identity;
        container.announced = Some(announced);
        !same
    }

    /// The cgroups of an announced container as they are now; true if that is news.
    pub(super) fn regroup(&mut self, slot: u32, groups: Groups) -> bool {
        let container = self.by_slot.get_mut(&slot);
        let Some(announced) = container.and_then(|container| container.announced.as_mut()) else {
            return false;
        };
        std::mem::replace(&mut announced.groups, groups) != announced.groups
    }

    /// The announced container that a `/proc/PID/cgroup` text is of, the innermost one.
    pub(super) fn slot_of_group(&self, cgroup: &str) -> Option<u32> {
        let depth = |container: &Container| {
            let announced = container.announced.as_ref().filter(|_| !container.ended)?;
            Some((announced.groups.hold(cgroup)?, container.slot))
        };
        self.by_slot
            .values()
            .filter_map(depth)
            .max()
            .map(|(_, slot)| slot)
    }

    /// From now on nothing joins it, and its key is another container's if one comes.
    pub(super) fn end(&mut self, slot: u32) {
        if let Some(container) = self.by_slot.get_mut(&slot) {
            container.ended = true;
            self.by_key.remove(&container.key);
        }
    }

    /// Takes back an insertion.
    pub(super) fn discard(&mut self, slot: u32) {
        if let Some(container) = self.by_slot.remove(&slot) {
            self.by_key.remove(&container.key);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_slot.is_empty()
    }

    pub(super) fn join(&mut self, slot: u32, pid: i32) {
        if let Some(container) = self.by_slot.get_mut(&slot) {
            container.processes.insert(pid);
            container.empty_since = None;
        }
    }

    pub(super) fn leave(&mut self, slot: u32, pid: i32) {
        if let Some(container) = self.by_slot.get_mut(&slot) {
            container.processes.remove(&pid);
        }
    }

    /// Names a container by the program that its first process is about to execute. What it runs is the runtime's.
    pub(super) fn await_program(&mut self, slot: u32, program: String) {
        if let Some(container) = self.by_slot.get_mut(&slot) {
            container.first.executable = program;
        }
    }

    /// Names a container by another process, or by the new program of the same one; true if that differs.
    /// Names of the pod that were not known are taken over: a container that was found while its runtime was
    /// still mounting shows them only now. What makes up its key never changes.
    pub(super) fn rename(&mut self, slot: u32, first: First, identity: Identity) -> bool {
        let Some(container) = self.by_slot.get_mut(&slot) else {
            return false;
        };
        let before = (
            container.first.executable.clone(),
            container.identity.clone(),
        );
        container.first = first;
        let known = &mut container.identity;
        known.container_name = known.container_name.take().or(identity.container_name);
        known.k8s_container_name = known
            .k8s_container_name
            .take()
            .or(identity.k8s_container_name);
        known.pod_uid = known.pod_uid.take().or(identity.pod_uid);
        known.runtime = known.runtime.or(identity.runtime);
        before
            != (
                container.first.executable.clone(),
                container.identity.clone(),
            )
    }

    /// Frees the slots of containers that have been without processes for their grace period, and returns them.
    pub(super) fn sweep(&mut self, now: Instant, graces: Graces) -> Vec<Container> {
        for container in self
            .by_slot
            .values_mut()
            .filter(|container| container.processes.is_empty())
        {
            container.empty_since.get_or_insert(now);
        }
        let expired: Vec<_> = self
            .by_slot
            .extract_if(.., |_, container| {
                container.expiry(graces).is_some_and(|expiry| expiry <= now)
            })
            .map(|(_, container)| container)
            .collect();
        for container in expired.iter().filter(|container| !container.ended) {
            self.by_key.remove(&container.key);
        }
        expired
    }

    /// When the next slot can be freed, as far as the last [`Self::sweep`] knew.
    pub(super) fn next_expiry(&self, graces: Graces) -> Option<Instant> {
        self.by_slot
            .values()
            .filter_map(|container| container.expiry(graces))
            .min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(containers: &mut Containers, name: &str) -> Option<u32> {
        let slot = containers.next_slot()?;
        let first = First {
            pid: 1,
            start: 1,
            executable: name.to_owned(),
        };
        containers.insert(
            slot,
            Key::Container(name.to_owned()),
            Identity::default(),
            first,
        );
        Some(slot)
    }

    const GRACES: Graces = Graces {
        empty: Duration::from_secs(30),
        ended: Duration::from_secs(1),
    };

    const NONE: [u32; 0] = [];

    fn swept(containers: &mut Containers, now: Instant) -> Vec<u32> {
        let expired = containers.sweep(now, GRACES);
        expired
            .into_iter()
            .map(|container| container.slot)
            .collect()
    }

    #[test]
    fn an_ended_container_goes_soon_and_leaves_its_key_to_the_next() {
        let mut containers = Containers::default();
        let ended = add(&mut containers, "a").unwrap();
        containers.end(ended);
        let next = add(&mut containers, "a").unwrap();
        containers.join(next, 5);
        let start = Instant::now();
        assert_eq!(swept(&mut containers, start), NONE);
        assert_eq!(containers.next_expiry(GRACES), Some(start + GRACES.ended));
        assert_eq!(swept(&mut containers, start + GRACES.ended), [ended]);
        let key = Key::Container("a".to_owned());
        assert_eq!(containers.slot_of(&key), Some(next));
    }

    #[test]
    fn slots_are_bounded_and_reused_last() {
        let mut containers = Containers::default();
        for expected in 1..MAX_SLOTS {
            let slot = add(&mut containers, &expected.to_string()).unwrap();
            assert_eq!(slot, expected);
            containers.join(slot, 100);
        }
        assert_eq!(add(&mut containers, "one too many"), None);

        let start = Instant::now();
        for slot in [7, 3] {
            containers.leave(slot, 100);
        }
        assert_eq!(swept(&mut containers, start), NONE);
        assert_eq!(swept(&mut containers, start + GRACES.empty), [3, 7]);
        assert_eq!(containers.slot_of(&Key::Container("3".to_owned())), None);
        assert_eq!(add(&mut containers, "a"), Some(3));
        assert_eq!(add(&mut containers, "b"), Some(7));
        assert_eq!(add(&mut containers, "c"), None);
    }

    #[test]
    fn a_process_within_the_grace_period_keeps_the_slot() {
        let mut containers = Containers::default();
        let slot = add(&mut containers, "a").unwrap();
        let (start, grace) = (Instant::now(), GRACES.empty);
        assert_eq!(swept(&mut containers, start), NONE);
        assert_eq!(containers.next_expiry(GRACES), Some(start + grace));
        containers.join(slot, 5);
        assert_eq!(containers.next_expiry(GRACES), None);
        assert_eq!(swept(&mut containers, start + grace), NONE);
        containers.leave(slot, 5);
        assert_eq!(
            swept(&mut containers, start + grace),
            NONE,
            "the period begins anew"
        );
        assert_eq!(swept(&mut containers, start + 2 * grace), [slot]);
        assert_eq!(add(&mut containers, "b"), Some(slot + 1));
    }

    #[test]
    fn names_that_become_known_are_taken_over_and_kept() {
        let mut containers = Containers::default();
        let slot = add(&mut containers, "runc").unwrap();
        let first = First {
            pid: 1,
            start: 1,
            executable: "nginx".to_owned(),
        };
        let named = |name: &str| Identity {
            container_name: Some(name.to_owned()),
            ..Identity::default()
        };
        assert!(containers.rename(slot, first.clone(), Identity::default()));
        assert!(containers.rename(slot, first.clone(), named("web")));
        assert!(!containers.rename(slot, first.clone(), named("forged")));
        assert!(!containers.rename(slot, first, Identity::default()));
        let container = containers.get(slot).unwrap();
        assert_eq!(container.identity, named("web"));
        assert_eq!(container.first.executable, "nginx");
    }
}
