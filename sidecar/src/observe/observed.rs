//! What is observed and what was decided about it; shared with the status page.

use crate::{
    discovery::{Discovery, ScopeWriter},
    observe::pod_file::Pod,
    policy::{Asking, Decision, Policy},
};
use std::collections::BTreeMap;

macro_rules! counters {
    ($($name:ident, $help:literal;)+) => {
        /// Totals since start.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct CommandCounters {
            $(#[doc = $help] pub $name: u64,)+
        }

        impl CommandCounters {
            /// Name in metrics and `/status`, one line of help, value.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
                [$((stringify!($name), $help, self.$name),)+].into_iter()
            }
        }
    };
}

counters! {
    announcements_attached, "Announcements of containers that were obeyed: those containers are observed.";
    announcements_ignored, "Announcements of containers that do not ask to be observed.";
    announcements_failed, "Announcements of containers that could not be observed. The log says which and why.";
    removals, "Containers whose runtime said that they had ended. It follows their ends.";
}

/// Containers, and what was decided about each.
#[derive(Debug)]
pub struct Observed<K> {
    /// Processes and containers.
    pub discovery: Discovery<K>,
    /// What became of commands.
    pub counters: CommandCounters,
    policy: Policy,
    /// Annotations and labels of the pod whose sidecar this is.
    pod: Pod,
    decisions: BTreeMap<u32, Decision>,
    /// Socket records of former containers, by slot.
    former_records: BTreeMap<u32, u64>,
}

impl<K: ScopeWriter> Observed<K> {
    /// Nothing is decided yet.
    pub fn new(discovery: Discovery<K>, policy: Policy, pod: Pod) -> Self {
        Self {
            discovery,
            counters: CommandCounters::default(),
            policy,
            pod,
            decisions: BTreeMap::new(),
            former_records: BTreeMap::new(),
        }
    }

    /// What was decided about a slot's container.
    pub fn decision(&self, slot: u32) -> Option<&Decision> {
        self.decisions.get(&slot)
    }

    /// The OpenTelemetry resource of a slot's container.
    pub fn resource(&self, slot: u32) -> Option<Vec<(String, String)>> {
        self.discovery
            .resource(slot, &self.decisions.get(&slot)?.asked)
    }

    /// How many socket records a slot had given before its container got it: the kernel's counters go on.
    pub fn former_records(&self, slot: u32) -> u64 {
        self.former_records.get(&slot).copied().unwrap_or_default()
    }

    /// Warnings about the pod's files themselves, such as lines that cannot be read.
    pub fn pod_warnings(&self) -> &[String] {
        &self.pod.warnings
    }

    /// Everything that could not be obeyed now.
    pub fn warning_count(&self) -> usize {
        let of_containers: usize = self.decisions.values().map(|d| d.warnings.len()).sum();
        self.pod.warnings.len() + of_containers
    }

    /// Decides about a container, anew if need be; `None` if the slot has none.
    pub(super) fn decide(&mut self, slot: u32) -> Option<&Decision> {
        let identity = self.discovery.identity_of(slot)?;
        let container = self.discovery.container(slot)?;
        let announcement = container
            .announced
            .as_ref()
            .map(|announced| &announced.announcement);
        // Labels name services, and what runs inside of our pod as a pod of its own is none of ours.
        let none = BTreeMap::new();
        let pods = if self.discovery.is_of_own_pod(slot) {
            &self.pod.labels
        } else {
            &none
        };
        let mut decision = self.policy.decide(Asking {
            identity: &identity,
            annotations: announcement.map_or(&self.pod.annotations, |said| &said.annotations),
            labels: announcement.map_or(pods, |said| &said.labels),
        });
        if let Some(said) = announcement {
            decision.warnings.extend(said.warnings.iter().cloned());
        }
        let warned_before = self
            .decisions
            .get(&slot)
            .is_some_and(|before| before.warnings == decision.warnings);
        if let Some(first) = decision.warnings.first()
            && !warned_before
        {
            let count = decision.warnings.len();
            tracing::warn!(
                slot,
                count,
                first,
                "annotations are not obeyed, see /status"
            );
        }
        self.decisions.insert(slot, decision);
        self.decisions.get(&slot)
    }

    /// A container gets a slot that has given so many socket records.
    pub(super) fn begin(&mut self, slot: u32, records: u64) {
        self.former_records.insert(slot, records);
    }

    pub(super) fn forget(&mut self, slot: u32) {
        self.decisions.remove(&slot);
        self.former_records.remove(&slot);
    }

    pub(super) fn policy(&self) -> &Policy {
        &self.policy
    }

    pub(super) fn set_pod(&mut self, pod: Pod) {
        self.pod = pod;
    }
}
