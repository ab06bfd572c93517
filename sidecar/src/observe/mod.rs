//! The observer: keeps scope, containers and exporters in step with what discovery finds.

use crate::{
    discovery::{
        Change, Discovery, DiscoveryError, Event, Options, OwnContainer, ScopeWriter, Target,
        cgroup_id,
    },
    instrument::KernelScope,
    source::{Control, SourceStats},
};
use pilotfish_abi::{Scope, Settings};
use pilotfish_pipeline::Slot;
use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering, mpsc},
    time::{Duration, Instant},
};
use tokio::{io::unix::AsyncFd, sync::mpsc as channel, time::MissedTickBehavior};

/// Interval of the slow procfs pass.
const SLOW_PASS: Duration = Duration::from_secs(10);

/// Shortest time between two passes that make up for lost process records.
const CATCH_UP: Duration = Duration::from_secs(1);

/// Process records that may wait for discovery.
pub const LIFECYCLE_QUEUE: usize = 4096;

/// Who has to know of containers before their first span: exporters, or the recorded file.
pub trait Registry {
    /// A container appeared or changed its name.
    fn set(&mut self, slot: u32, resource: Vec<(String, String)>);
    /// A container is gone.
    fn remove(&mut self, slot: u32);
}

/// Scope writer that holds back "observe this slot" until the registry knows the slot, so that no span can be
/// without a resource.
pub struct Gate {
    kernel: KernelScope,
    held: Vec<(u32, Settings)>,
    /// Watched cgroups by slot.
    cgroups: BTreeMap<u32, u64>,
}

impl Gate {
    /// Puts a gate before the kernel's scope.
    pub fn new(kernel: KernelScope) -> Self {
        Self {
            kernel,
            held: Vec::new(),
            cgroups: BTreeMap::new(),
        }
    }

    /// Lets the kernel catch what enters the container by its cgroup. Where that is refused, the exec records of
    /// newcomers and the slow pass do the same a little later.
    fn watch(&mut self, slot: u32, cgroup: u64) {
        self.unwatch(slot);
        match self.kernel.watch_cgroup(cgroup, slot) {
            Ok(()) => {
                self.cgroups.insert(slot, cgroup);
            }
            Err(error) => tracing::warn!(slot, %error, "cgroup is not watched"),
        }
    }

    fn unwatch(&mut self, slot: u32) {
        if let Some(cgroup) = self.cgroups.remove(&slot)
            && let Err(error) = self.kernel.unwatch_cgroup(cgroup)
        {
            tracing::warn!(slot, %error, "cgroup is still watched");
        }
    }

    fn open(&mut self) -> io::Result<()> {
        for (slot, settings) in self.held.drain(..) {
            self.kernel.settings(slot, settings)?;
        }
        Ok(())
    }
}

impl ScopeWriter for Gate {
    fn put(&mut self, pidfd: BorrowedFd<'_>, scope: Scope) -> io::Result<()> {
        self.kernel.put(pidfd, scope)
    }

    fn remove(&mut self, pidfd: BorrowedFd<'_>) -> io::Result<()> {
        self.kernel.remove(pidfd)
    }

    fn settings(&mut self, slot: u32, settings: Settings) -> io::Result<()> {
        if settings.enabled == 0 {
            return self.kernel.settings(slot, settings);
        }
        self.held.push((slot, settings));
        Ok(())
    }
}

/// Why observing cannot begin or go on.
#[derive(Debug, thiserror::Error)]
pub enum ObserveError {
    /// Discovery cannot begin.
    #[error(transparent)]
    Discovery(#[from] DiscoveryError),
    /// The descriptor of process exits cannot be watched.
    #[error("cannot watch for process exits: {0}; raise the limit of open files (ulimit -n)")]
    Exits(#[source] io::Error),
    /// The kernel refused settings.
    #[error("the kernel refused the settings of a container: {0}; CAP_BPF is needed")]
    Settings(#[source] io::Error),
}

/// Shared with the status page.
pub type SharedDiscovery = Arc<Mutex<Discovery<Gate>>>;

/// Locks it; a panic elsewhere leaves it readable.
pub fn lock(discovery: &SharedDiscovery) -> MutexGuard<'_, Discovery<Gate>> {
    discovery.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Follows processes until told to stop.
pub struct Observer<R> {
    discovery: SharedDiscovery,
    exits: AsyncFd<OwnedFd>,
    registry: R,
    reader: mpsc::Sender<Control>,
    stats: Arc<SourceStats>,
    lost_seen: u64,
    /// When a loss of process records was last made up for.
    caught_up: Instant,
}

impl<R: Registry> Observer<R> {
    /// Finds what is there and puts it in scope.
    pub fn start(
        target: Target,
        options: Options,
        scope: KernelScope,
        registry: R,
        reader: mpsc::Sender<Control>,
        stats: Arc<SourceStats>,
    ) -> Result<Self, ObserveError> {
        let discovery = Discovery::new(target, Gate::new(scope), OwnContainer::detect()?, options)?;
        let exits = discovery
            .as_fd()
            .try_clone_to_owned()
            .map_err(ObserveError::Exits)?;
        // SAFETY: an owned descriptor, which nothing closes before the `AsyncFd` has deregistered it.
        let exits = unsafe { AsyncFd::register(exits) }
            .map_err(|error| ObserveError::Exits(error.into()))?;
        let discovery = Arc::new(Mutex::new(discovery));
        let mut observer = Self {
            discovery,
            exits,
            registry,
            reader,
            stats,
            lost_seen: 0,
            caught_up: Instant::now(),
        };
        let changes = lock(&observer.discovery).initial_pass()?;
        observer.apply(&changes)?;
        Ok(observer)
    }

    /// The process table, for the status page.
    pub fn discovery(&self) -> SharedDiscovery {
        Arc::clone(&self.discovery)
    }

    /// Runs until `events` is closed.
    pub async fn run(mut self, mut events: channel::Receiver<Event>) -> Result<(), ObserveError> {
        let mut slow = tokio::time::interval_at(tokio::time::Instant::now() + SLOW_PASS, SLOW_PASS);
        slow.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let changes = tokio::select! {
                event = events.recv() => match event {
                    Some(event) => lock(&self.discovery).on_event(event),
                    None => return Ok(()),
                },
                ready = self.exits.readable() => {
                    ready.map_err(ObserveError::Exits)?.clear_ready();
                    lock(&self.discovery).on_pid_exit()
                }
                _ = slow.tick() => lock(&self.discovery).slow_pass(Instant::now()),
            };
            self.apply(&changes)?;
            self.catch_up_after_loss()?;
        }
    }

    /// Process records were dropped: what they said is found in /proc.
    fn catch_up_after_loss(&mut self) -> Result<(), ObserveError> {
        let lost = self.stats.lifecycle_lost.load(Ordering::Relaxed);
        if lost == self.lost_seen {
            return Ok(());
        }
        if self.caught_up.elapsed() < CATCH_UP {
            return Ok(());
        }
        self.caught_up = Instant::now();
        self.lost_seen = lost;
        let changes = lock(&self.discovery).slow_pass(Instant::now());
        self.apply(&changes)
    }

    fn apply(&mut self, changes: &[Change]) -> Result<(), ObserveError> {
        let mut discovery = lock(&self.discovery);
        for change in changes {
            match *change {
                Change::ContainerAdded { slot } | Change::ContainerRenamed { slot } => {
                    if let Some(resource) = discovery.resource(slot) {
                        tracing::info!(slot, service = service_name(&resource), "observing");
                        self.registry.set(slot, resource);
                    }
                    if discovery.follows_cgroups() {
                        let first = discovery
                            .container(slot)
                            .map(|container| container.first.pid);
                        if let Some(cgroup) = first.and_then(cgroup_id) {
                            discovery.writer().watch(slot, cgroup);
                        }
                    }
                }
                Change::ContainerRemoved { slot } => {
                    tracing::info!(slot, "container ended");
                    self.registry.remove(slot);
                    discovery.writer().unwatch(slot);
                    // A reader that is gone has nothing left to forget.
                    let _ = self.reader.send(Control::Forget(Slot(slot)));
                }
                Change::ProcessAdded { slot, pid } => {
                    tracing::debug!(slot, pid, "process in scope");
                }
                Change::ProcessExecuted { slot, pid } => {
                    tracing::debug!(slot, pid, "process executed");
                }
                Change::ProcessRemoved { slot, pid } => tracing::debug!(slot, pid, "process gone"),
            }
        }
        discovery.writer().open().map_err(ObserveError::Settings)
    }
}

fn service_name(resource: &[(String, String)]) -> &str {
    resource
        .iter()
        .find(|(key, _)| key == "service.name")
        .map_or("", |(_, value)| value)
}
