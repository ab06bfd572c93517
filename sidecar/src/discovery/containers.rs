//! The containers under observation, each with a slot of the kernel's settings array.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use pilotfish_abi::MAX_SLOTS;
use pilotfish_workload::Identity;

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

/// One container under observation.
#[derive(Clone, Debug)]
pub struct Container {
    /// Its slot, 1 to [`MAX_SLOTS`] - 1.
    pub slot: u32,
    /// What its processes have in common.
    pub key: Key,
    /// What `/proc` tells about it.
    pub identity: Identity,
    /// Its first process.
    pub first: First,
    /// Its processes; bounded by the process table.
    pub processes: BTreeSet<i32>,
    /// Since when a pass has found it without processes.
    empty_since: Option<Instant>,
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
            first,
            processes: BTreeSet::new(),
            empty_since: None,
        };
        self.by_slot.insert(slot, container);
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
        known.pod_uid = known.pod_uid.take().or(identity.pod_uid);
        known.runtime = known.runtime.or(identity.runtime);
        before
            != (
                container.first.executable.clone(),
                container.identity.clone(),
            )
    }

    /// Frees the slots of containers that have been without processes for the grace period, and returns them.
    pub(super) fn sweep(&mut self, now: Instant, grace: Duration) -> Vec<u32> {
        let mut expired = Vec::new();
        for container in self
            .by_slot
            .values_mut()
            .filter(|container| container.processes.is_empty())
        {
            let since = *container.empty_since.get_or_insert(now);
            if now.saturating_duration_since(since) >= grace {
                expired.push(container.slot);
            }
        }
        for slot in &expired {
            if let Some(container) = self.by_slot.remove(slot) {
                self.by_key.remove(&container.key);
            }
        }
        expired
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
        assert!(containers.sweep(start, Duration::from_secs(30)).is_empty());
        let later = start + Duration::from_secs(30);
        assert_eq!(containers.sweep(later, Duration::from_secs(30)), [3, 7]);
        assert_eq!(containers.slot_of(&Key::Container("3".to_owned())), None);
        assert_eq!(add(&mut containers, "a"), Some(3));
        assert_eq!(add(&mut containers, "b"), Some(7));
        assert_eq!(add(&mut containers, "c"), None);
    }

    #[test]
    fn a_process_within_the_grace_period_keeps_the_slot() {
        let mut containers = Containers::default();
        let slot = add(&mut containers, "a").unwrap();
        let (start, grace) = (Instant::now(), Duration::from_secs(30));
        assert!(containers.sweep(start, grace).is_empty());
        containers.join(slot, 5);
        assert!(containers.sweep(start + grace, grace).is_empty());
        containers.leave(slot, 5);
        assert!(
            containers.sweep(start + grace, grace).is_empty(),
            "the period begins anew"
        );
        assert_eq!(containers.sweep(start + 2 * grace, grace), [slot]);
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
