//! The observer: keeps scope, containers and exporters in step with what discovery finds and runtimes announce.

mod commands;
mod gate;
mod observed;
mod pod_file;
#[cfg(test)]
mod tests;

use crate::{
    announced::{Command, Ledger},
    discovery::{
        Change, Discovery, DiscoveryError, Event, Options, OwnContainer, Target, cgroup_id,
    },
    instrument::KernelScope,
    policy::Policy,
    source::SourceStats,
    tls,
};
use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
    time::{Duration, Instant},
};
use tokio::{io::unix::AsyncFd, sync::mpsc as channel, time::MissedTickBehavior};

pub use gate::{Gate, Registry, SlotWriter};
pub use observed::{CommandCounters, Observed};
pub use pod_file::{MAX_FILE, Pod, PodFileError, PodFiles};

/// Interval of the slow procfs pass.
const SLOW_PASS: Duration = Duration::from_secs(10);

/// Shortest time between two passes that look for the rest of an announced container, or make up for lost process
/// records.
const CATCH_UP: Duration = Duration::from_secs(1);

/// Interval at which the pod's files are read; the kubelet takes up to a minute to write them.
const POD_FILES: Duration = Duration::from_secs(2);

/// Process records that may wait for discovery.
pub const LIFECYCLE_QUEUE: usize = 4096;

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
pub type SharedObserved<K = KernelScope> = Arc<Mutex<Observed<K>>>;

/// Locks it; a panic elsewhere leaves it readable.
pub fn lock<K>(observed: &SharedObserved<K>) -> MutexGuard<'_, Observed<K>> {
    observed.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the observer is to do.
pub struct Task {
    /// What to observe.
    pub target: Target,
    /// How it is found.
    pub options: Options,
    /// What containers may ask for.
    pub policy: Policy,
    /// The annotations and labels of our own pod.
    pub pod: (PodFiles, Pod),
    /// Who remembers announced containers.
    pub ledger: Option<Box<dyn Ledger>>,
    /// Who looks for TLS libraries.
    pub tls: Option<tls::Sender>,
}

/// Follows processes until told to stop.
pub struct Observer<R, K = KernelScope> {
    observed: SharedObserved<K>,
    exits: AsyncFd<OwnedFd>,
    gate: Gate<R>,
    ledger: Option<Box<dyn Ledger>>,
    tls: Option<tls::Sender>,
    /// Ids that the ledger holds, by slot.
    ledgered: BTreeMap<u32, String>,
    pod_files: PodFiles,
    stats: Arc<SourceStats>,
    lost_seen: u64,
    /// An announced container may have more processes than the one that was announced.
    pass_wanted: bool,
    /// When `/proc` was last looked through out of turn.
    caught_up: Instant,
    /// When a slot is to be freed.
    expiry: Option<Instant>,
    /// It was said that nothing is observed.
    idle_told: bool,
}

impl<R: Registry, K: SlotWriter> Observer<R, K> {
    /// Finds what is there and puts it in scope.
    pub fn start(
        task: Task,
        kernel: K,
        registry: R,
        stats: Arc<SourceStats>,
    ) -> Result<Self, ObserveError> {
        let (pod_files, pod) = task.pod;
        let own = OwnContainer::detect()?;
        let discovery = Discovery::new(task.target, kernel, own, task.options)?;
        let exits = discovery
            .as_fd()
            .try_clone_to_owned()
            .map_err(ObserveError::Exits)?;
        // SAFETY: an owned descriptor, which nothing closes before the `AsyncFd` has deregistered it.
        let exits = unsafe { AsyncFd::register(exits) }
            .map_err(|error| ObserveError::Exits(error.into()))?;
        let shared = Observed::new(discovery, task.policy, pod);
        let mut observer = Self {
            observed: Arc::new(Mutex::new(shared)),
            exits,
            gate: Gate::new(registry),
            ledger: task.ledger,
            tls: task.tls,
            ledgered: BTreeMap::new(),
            pod_files,
            stats,
            lost_seen: 0,
            pass_wanted: false,
            caught_up: Instant::now(),
            expiry: None,
            idle_told: false,
        };
        let changes = lock(&observer.observed).discovery.initial_pass()?;
        observer.follow(&changes)?;
        observer.tell_if_idle();
        Ok(observer)
    }

    /// What is observed, for the status page.
    pub fn observed(&self) -> SharedObserved<K> {
        Arc::clone(&self.observed)
    }

    /// Runs until `events` is closed. That `commands` is closed means that there will be none.
    pub async fn run(
        mut self,
        mut events: channel::Receiver<Event>,
        commands: channel::Receiver<Command>,
    ) -> Result<(), ObserveError> {
        let mut commands = Some(commands);
        let start = tokio::time::Instant::now();
        let mut slow = tokio::time::interval_at(start + SLOW_PASS, SLOW_PASS);
        slow.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut pod_files = tokio::time::interval_at(start + POD_FILES, POD_FILES);
        pod_files.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let due = self.due();
            tokio::select! {
                event = events.recv() => match event {
                    Some(event) => self.on(|discovery, _| discovery.on_event(event))?,
                    None => return Ok(()),
                },
                ready = self.exits.readable() => {
                    ready.map_err(ObserveError::Exits)?.clear_ready();
                    self.on(|discovery, _| discovery.on_pid_exit())?;
                }
                command = next(&mut commands) => match command {
                    Some(command) => self.handle(command)?,
                    None => commands = None,
                },
                _ = slow.tick() => self.on(Discovery::slow_pass)?,
                () = sleep_until(due) => self.on(Discovery::sweep)?,
                _ = pod_files.tick(), if !self.pod_files.is_empty() => self.read_pod_files()?,
            }
            self.catch_up()?;
        }
    }

    fn on(
        &mut self,
        act: impl FnOnce(&mut Discovery<K>, Instant) -> Vec<Change>,
    ) -> Result<(), ObserveError> {
        let changes = act(&mut lock(&self.observed).discovery, Instant::now());
        self.follow(&changes)
    }

    /// When there is something to do though nothing happens.
    fn due(&self) -> Option<Instant> {
        let pass = self.pass_wanted.then(|| self.caught_up + CATCH_UP);
        [self.expiry, pass].into_iter().flatten().min()
    }

    /// Process records were dropped, or a container was announced that may have been running already: what is not
    /// known of it is found in /proc.
    fn catch_up(&mut self) -> Result<(), ObserveError> {
        let lost = self.stats.lifecycle_lost.load(Ordering::Relaxed);
        let wanted = self.pass_wanted || lost != self.lost_seen;
        if !wanted || self.caught_up.elapsed() < CATCH_UP {
            return Ok(());
        }
        self.lost_seen = lost;
        self.pass()
    }

    /// A pass out of turn.
    fn pass(&mut self) -> Result<(), ObserveError> {
        self.caught_up = Instant::now();
        self.pass_wanted = false;
        self.on(Discovery::slow_pass)
    }

    /// Annotations or labels changed: everything is decided anew.
    fn read_pod_files(&mut self) -> Result<(), ObserveError> {
        let Some(pod) = self.pod_files.poll() else {
            return Ok(());
        };
        tracing::info!(
            annotations = pod.annotations.len(),
            labels = pod.labels.len(),
            "the pod's annotations or labels changed"
        );
        let slots: Vec<u32> = {
            let mut observed = lock(&self.observed);
            observed.set_pod(pod);
            let containers = observed.discovery.containers();
            containers.map(|container| container.slot).collect()
        };
        slots.into_iter().try_for_each(|slot| self.decide(slot))
    }

    /// Applies changes, and begins the grace period of the containers that these left without processes.
    fn follow(&mut self, changes: &[Change]) -> Result<(), ObserveError> {
        let leaves = |change: &Change| {
            matches!(
                change,
                Change::ProcessRemoved { .. } | Change::ContainerEnded { .. }
            )
        };
        self.apply(changes)?;
        let expired = self.expiry.is_some_and(|expiry| expiry <= Instant::now());
        if expired || changes.iter().any(leaves) {
            let freed = {
                let discovery = &mut lock(&self.observed).discovery;
                let freed = discovery.sweep(Instant::now());
                self.expiry = discovery.next_expiry();
                freed
            };
            self.apply(&freed)?;
            self.tell_if_idle();
        }
        Ok(())
    }

    fn tell_tls(&self, event: tls::Event) {
        if let Some(tls) = &self.tls {
            tls.send(event);
        }
    }

    fn tell_if_idle(&mut self) {
        if let Some(reason) = lock(&self.observed)
            .discovery
            .idle()
            .filter(|_| !self.idle_told)
        {
            self.idle_told = true;
            tracing::warn!(reason, "nothing is observed");
        }
    }

    fn apply(&mut self, changes: &[Change]) -> Result<(), ObserveError> {
        for change in changes {
            match *change {
                Change::ContainerAdded { slot } => {
                    let mut observed = lock(&self.observed);
                    let records = observed.discovery.writer().socket_records(slot);
                    observed.begin(slot, records);
                    drop(observed);
                    self.decide(slot)?;
                }
                Change::ContainerRenamed { slot } => self.decide(slot)?,
                Change::ContainerEnded { slot } => self.ended(slot)?,
                Change::ContainerRemoved { slot } => self.removed(slot)?,
                Change::ProcessAdded { slot, pid } => {
                    tracing::debug!(slot, pid, "process in scope");
                    self.tell_tls(tls::Event::Added { pid, slot });
                }
                Change::ProcessExecuted { slot, pid } => {
                    tracing::debug!(slot, pid, "process executed");
                    self.tell_tls(tls::Event::Executed { pid, slot });
                }
                Change::ProcessRemoved { slot, pid } => {
                    tracing::debug!(slot, pid, "process gone");
                    self.tell_tls(tls::Event::Removed(pid));
                }
            }
        }
        Ok(())
    }

    /// Does with a container what the policy says, also when that or its names have changed.
    fn decide(&mut self, slot: u32) -> Result<(), ObserveError> {
        let mut observed = lock(&self.observed);
        let Some(decision) = observed.decide(slot).cloned() else {
            return Ok(());
        };
        if let Some(tls) = &self.tls {
            tls.allow(slot, decision.tls);
        }
        let resource = observed.resource(slot).unwrap_or_default();
        if decision.instrument {
            let (service, container) = (
                attribute(&resource, "service.name"),
                attribute(&resource, "container.id"),
            );
            tracing::info!(slot, service, container, "observing");
        } else {
            let container = attribute(&resource, "container.id");
            tracing::info!(slot, container, "switched off by its annotations");
        }
        let discovery = &mut observed.discovery;
        let leader = discovery.group_leader(slot).filter(|_| decision.instrument);
        let kernel = discovery.writer();
        self.gate
            .obey(kernel, slot, resource, &decision)
            .map_err(ObserveError::Settings)?;
        if let Some(cgroup) = leader.and_then(cgroup_id) {
            self.gate.watch(kernel, slot, cgroup);
        }
        Ok(())
    }

    /// Its runtime says so. The slot stays until its last records are read.
    fn ended(&mut self, slot: u32) -> Result<(), ObserveError> {
        let mut observed = lock(&self.observed);
        observed.counters.removals += 1;
        self.gate
            .silence(observed.discovery.writer(), slot)
            .map_err(ObserveError::Settings)?;
        drop(observed);
        self.strike_out(slot);
        Ok(())
    }

    fn removed(&mut self, slot: u32) -> Result<(), ObserveError> {
        let container = self.ledgered.get(&slot);
        tracing::info!(slot, container, "container ended");
        let mut observed = lock(&self.observed);
        observed.forget(slot);
        self.gate
            .close(observed.discovery.writer(), slot)
            .map_err(ObserveError::Settings)?;
        drop(observed);
        // The next container of this slot is another one.
        if let Some(tls) = &self.tls {
            tls.allow(slot, true);
        }
        self.strike_out(slot);
        Ok(())
    }

    fn strike_out(&mut self, slot: u32) {
        if let Some(id) = self.ledgered.remove(&slot)
            && let Some(ledger) = &mut self.ledger
        {
            ledger.removed(&id);
        }
    }
}

fn attribute<'a>(resource: &'a [(String, String)], key: &str) -> Option<&'a str> {
    let found = resource.iter().find(|(name, _)| name == key);
    found.map(|(_, value)| value.as_str())
}

/// The next command; never comes when there are none.
async fn next(commands: &mut Option<channel::Receiver<Command>>) -> Option<Command> {
    match commands {
        Some(commands) => commands.recv().await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}
