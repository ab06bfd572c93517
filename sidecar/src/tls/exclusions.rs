//! Processes that are not probed though they could be: their container's annotations or the operator say so.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Containers in which nothing may be probed, by slot. Shared by who decides about containers and who attaches.
#[derive(Clone, Debug, Default)]
pub(super) struct Containers(Arc<Mutex<BTreeSet<u32>>>);

impl Containers {
    /// Whether probes are allowed in a container from now on; true if that is new.
    pub(super) fn set(&self, slot: u32, allowed: bool) -> bool {
        if allowed {
            self.lock().remove(&slot)
        } else {
            self.lock().insert(slot)
        }
    }

    fn are_off(&self, slot: u32) -> bool {
        self.lock().contains(&slot)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What must not be probed.
#[derive(Debug, Default)]
pub(super) struct Exclusions {
    containers: Containers,
    /// Executables by their file names.
    names: BTreeSet<String>,
}

impl Exclusions {
    pub(super) fn new(containers: Containers, names: &[String]) -> Self {
        let given = names.iter().filter(|name| !name.is_empty());
        Self {
            containers,
            names: given.cloned().collect(),
        }
    }

    /// Why a process of this container must not be probed, if so.
    pub(super) fn container(&self, slot: u32) -> Option<&'static str> {
        self.containers
            .are_off(slot)
            .then_some("switched off by the container's annotations")
    }

    /// Why a process with this executable must not be probed, if so.
    pub(super) fn executable(&self, path: &str) -> Option<&'static str> {
        let path = path.strip_suffix(" (deleted)").unwrap_or(path);
        let name = path.rsplit('/').next().unwrap_or(path);
        self.names
            .contains(name)
            .then_some("left out by the operator (--tls-exclude)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_whole_file_names() {
        let names = ["server".to_owned(), String::new()];
        let exclusions = Exclusions::new(Containers::default(), &names);
        for path in ["/usr/bin/server", "server", "/srv/server (deleted)"] {
            assert!(exclusions.executable(path).is_some(), "{path}");
        }
        for path in ["/usr/bin/server2", "/server/other", "/", ""] {
            assert!(exclusions.executable(path).is_none(), "{path}");
        }
    }

    #[test]
    fn a_container_can_be_switched_off_and_on() {
        let containers = Containers::default();
        let exclusions = Exclusions::new(containers.clone(), &[]);
        assert!(!containers.set(1, true), "it was on");
        assert!(containers.set(1, false) && !containers.set(1, false));
        assert!(exclusions.container(1).is_some() && exclusions.container(2).is_none());
        assert!(containers.set(1, true));
        assert!(exclusions.container(1).is_none());
    }
}
