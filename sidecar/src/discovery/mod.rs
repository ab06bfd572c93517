//! Discovery: which processes are observed, and as which container.
//!
//! The kernel side is behind [`ScopeWriter`], so all of this runs in tests without eBPF. Three sources agree on one
//! process table: the kernel's records ([`Event`]), pidfds that report exits, and a slow pass over `/proc` as a
//! safety net. A process enters the scope through its pidfd, with its life checked before and after its
//! identity was read, so a recycled process id never gets in.

mod admission;
mod announce;
mod cgroup_id;
mod containers;
mod counters;
mod exits;
mod groups;
mod own;
mod passes;
mod pod;
mod resource;
mod subject;
mod table;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use pilotfish_abi::Scope;
use pilotfish_workload::Identity;

pub use announce::AnnounceError;
pub use cgroup_id::{cgroup_id, is_pure_v2};
pub use containers::{Announced, Container, First, Init, Key};
pub use counters::Counters;
pub use own::OwnContainer;
pub use pod::OwnPod;
pub use resource::{
    AttributesError, Naming, UNKNOWN_SERVICE, operator_attributes, resource_attributes,
};

pub(crate) use subject::{has_exited, start_of};

use containers::Containers;
use exits::Exits;
use table::Table;

/// See [`Discovery::idle`].
const ALL_ENDED: &str = "every observed process has ended; nothing is left to observe";

/// See [`Discovery::idle`].
const ALONE: &str = "no process of another container is in this pid namespace: share one (shareProcessNamespace: \
                     true in a pod, docker run --pid=container:NAME), or name a process (pilotfish sidecar --pid PID)";

/// The kernel's side of the scope.
pub trait ScopeWriter {
    /// Puts the process of this pidfd, with all its threads, in scope. Putting it again replaces the value.
    fn put(&mut self, pidfd: BorrowedFd<'_>, scope: Scope) -> io::Result<()>;
    /// Takes it out of scope.
    fn remove(&mut self, pidfd: BorrowedFd<'_>) -> io::Result<()>;
}

/// What to observe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Every process of our pid namespace that is not in our own container.
    SharedNamespace,
    /// These processes, their threads, their present and future descendants, and nothing else.
    Processes(Vec<i32>),
    /// The containers that a runtime announces ([`Discovery::announce`]), and nothing else; also in the host's pid
    /// namespace.
    Announced,
}

/// A process record of the kernel. Process ids are those of our pid namespace, 0 when unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A process in scope forked; the kernel has put the child in the same scope.
    Fork {
        /// The slot of both.
        slot: u32,
        /// The process that forked.
        parent: u32,
        /// The new process.
        child: u32,
    },
    /// A process in scope executed a program.
    Exec {
        /// The process.
        tgid: u32,
    },
    /// The last thread of a process in scope is exiting.
    Exit {
        /// The process.
        tgid: u32,
    },
    /// A process outside every scope, in our pid namespace, executed a program.
    Newcomer {
        /// The process.
        tgid: u32,
    },
}

/// What became different; in the order in which it happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A container is observed from now on.
    ContainerAdded {
        /// Its slot.
        slot: u32,
    },
    /// A container's first process has another executable or cgroup, or its names became known: what is said of it to
    /// exporters and the kernel differs.
    ContainerRenamed {
        /// Its slot.
        slot: u32,
    },
    /// Its runtime says that a container has ended; none of its processes is in scope any more.
    ContainerEnded {
        /// Its slot, which it keeps for a moment.
        slot: u32,
    },
    /// A container's last process has been gone for the grace period; its slot is free.
    ContainerRemoved {
        /// The slot that it had.
        slot: u32,
    },
    /// A process is in scope.
    ProcessAdded {
        /// Its container's slot.
        slot: u32,
        /// The process.
        pid: i32,
    },
    /// A process runs another program than before.
    ProcessExecuted {
        /// Its container's slot.
        slot: u32,
        /// The process.
        pid: i32,
    },
    /// A process is gone, or no longer in scope.
    ProcessRemoved {
        /// The slot that it was in.
        slot: u32,
        /// The process.
        pid: i32,
    },
}

/// What the operator decided about discovery.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long a container without processes keeps its slot, so that late records still find their resource.
    pub grace: Duration,
    /// The same for one that its runtime says has ended.
    pub ended_grace: Duration,
    /// Most processes in the table.
    pub max_processes: usize,
    /// Most pidfds held open to be told of exits, never more than half of the soft limit of open files;
    /// further exits are noticed by records and the slow pass.
    pub max_pidfds: usize,
    /// How services are named.
    pub naming: Naming,
    /// The pod whose containers share our pid namespace.
    pub pod: OwnPod,
    /// A process that waits to execute a program, and that program's file name: it is named by what it will be.
    pub launching: Option<(i32, String)>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            grace: Duration::from_secs(30),
            ended_grace: Duration::from_secs(1),
            max_processes: 16_384,
            max_pidfds: 4096,
            naming: Naming::default(),
            pod: OwnPod::default(),
            launching: None,
        }
    }
}

/// Why discovery cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum DiscoveryError {
    /// Sharing the host's pid namespace is not sharing a container's.
    #[error(
        "this is the host's pid namespace, where every process of the machine would be observed: share a \
         container's (docker run --pid=container:NAME, or shareProcessNamespace in a pod), name a process \
         (pilotfish sidecar --pid PID), or start one (pilotfish run -- COMMAND)"
    )]
    HostPidNamespace,
    /// A named process is not there.
    #[error("there is no process {pid} in this pid namespace: check the number passed to --pid")]
    NoSuchProcess {
        /// The process id.
        pid: i32,
    },
    /// A named process could not be put in scope.
    #[error("process {pid} cannot be observed: {reason}")]
    Refused {
        /// The process id.
        pid: i32,
        /// What to do about it.
        reason: &'static str,
    },
    /// Our own identity could not be read.
    #[error("cannot read {path}: {source}; mount procfs on /proc")]
    OwnIdentity {
        /// The file.
        path: &'static str,
        /// Why.
        source: io::Error,
    },
    /// `/proc` could not be listed.
    #[error("cannot list /proc: {0}; mount procfs on /proc")]
    List(io::Error),
    /// No epoll instance for pidfds.
    #[error("cannot create an epoll instance: {0}; raise the limit of open files (ulimit -n)")]
    Epoll(io::Error),
}

/// The process table and the containers, kept in step with the kernel's scope.
#[derive(Debug)]
pub struct Discovery<W> {
    target: Target,
    writer: W,
    own: OwnContainer,
    options: Options,
    table: Table,
    containers: Containers,
    exits: Exits,
    /// Processes of other containers that could not be inspected; bounded by `max_processes`.
    unreadable: BTreeSet<i32>,
    /// The named processes have been looked up: the same number later is another process.
    roots_seeded: bool,
    counters: Counters,
    changes: Vec<Change>,
}

impl<W: ScopeWriter> Discovery<W> {
    /// Prepares; nothing is observed before [`Self::initial_pass`].
    pub fn new(
        target: Target,
        writer: W,
        own: OwnContainer,
        mut options: Options,
    ) -> Result<Self, DiscoveryError> {
        // Everything on a host descends from its process 1.
        let everything = match &target {
            Target::SharedNamespace => true,
            Target::Processes(named) => named.contains(&1),
            Target::Announced => false,
        };
        if everything && own.is_in_host_pid_namespace() {
            return Err(DiscoveryError::HostPidNamespace);
        }
        options.pod = options.pod.known_to(&own);
        let exits = Exits::new(options.max_pidfds).map_err(DiscoveryError::Epoll)?;
        Ok(Self {
            target,
            writer,
            own,
            table: Table::new(options.max_processes),
            containers: Containers::default(),
            exits,
            unreadable: BTreeSet::new(),
            roots_seeded: false,
            counters: Counters::default(),
            changes: Vec::new(),
            options,
        })
    }

    /// The containers that have a slot, in the order of their slots.
    pub fn containers(&self) -> impl Iterator<Item = &Container> {
        self.containers.iter()
    }

    /// The container of a slot.
    pub fn container(&self, slot: u32) -> Option<&Container> {
        self.containers.get(slot)
    }

    /// What is known of a slot's container, with the names of our pod if it is one of its containers.
    pub fn identity_of(&self, slot: u32) -> Option<Identity> {
        let container = self.containers.get(slot)?;
        Some(self.options.pod.complete(&container.identity))
    }

    /// Whether a slot's container can be one of our own pod.
    pub fn is_of_own_pod(&self, slot: u32) -> bool {
        let container = self.containers.get(slot);
        container.is_some_and(|container| self.options.pod.holds(&container.identity))
    }

    /// The OpenTelemetry resource of a slot's container; `asked` as in [`resource_attributes`].
    pub fn resource(
        &self,
        slot: u32,
        asked: &BTreeMap<String, String>,
    ) -> Option<Vec<(String, String)>> {
        Some(resource_attributes(
            self.containers.get(slot)?,
            &self.identity_of(slot)?,
            &self.options.naming,
            asked,
        ))
    }

    /// Number of processes in the table.
    pub fn process_count(&self) -> usize {
        self.table.len()
    }

    /// What was counted so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Processes that could not be told from our own, for lack of a capability.
    pub fn unreadable(&self) -> impl Iterator<Item = i32> {
        self.unreadable.iter().copied()
    }

    /// What to do about [`Self::unreadable`], if there is anything.
    pub fn advice(&self) -> Option<&'static str> {
        (!self.unreadable.is_empty()).then_some(subject::DENIED)
    }

    /// Why nothing at all is observed, once the first pass is over and if it is not meant to be so.
    pub fn idle(&self) -> Option<&'static str> {
        if self.table.len() > 0 || !self.unreadable.is_empty() {
            return None;
        }
        match self.target {
            // What is launched takes the agent with it.
            Target::Processes(_) if self.options.launching.is_none() => Some(ALL_ENDED),
            Target::SharedNamespace => Some(ALONE),
            Target::Processes(_) | Target::Announced => None,
        }
    }

    /// The process in whose cgroup v2 group there is nothing but its container, so that whatever enters that group
    /// belongs to what is observed.
    pub fn group_leader(&self, slot: u32) -> Option<i32> {
        if matches!(self.target, Target::Processes(_)) {
            return None;
        }
        let container = self.containers.get(slot)?;
        let announced = container.announced.as_ref();
        let is_own = announced.is_none_or(|announced| announced.groups.has_unified());
        is_own.then(|| container.first_pid())
    }

    /// The kernel's side.
    pub fn writer(&mut self) -> &mut W {
        &mut self.writer
    }

    /// What became different since it was last asked; for [`Self::announce`], which has another answer as well.
    pub fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }
}

/// Readable when a process exited: then call [`Discovery::on_pid_exit`]. For tokio's `AsyncFd`, which owns what
/// it polls, clone the descriptor (`try_clone_to_owned`); a clone sees the same events.
impl<W> AsFd for Discovery<W> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.exits.as_fd()
    }
}
