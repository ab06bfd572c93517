//! Containers by the runtime's Node Resource Interface: all that its annotations select, with no configuration of
//! the runtime, from before their first instruction.

mod announce;
mod process;
mod stats;

pub use stats::NriStats;

use super::ask;
use super::stats::count;
use crate::announced::{Command, Commands};
use pilotfish_nri::{
    Handler, Moment, Plugin, Snapshot,
    api::{Container, ContainerState, Event, PodSandbox},
};
use pilotfish_workload::Runtime;
use pilotfish_workload::announcement::{Announcement, Reply, is_container_id};
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Selected containers that are remembered; the observer has slots for 511.
const MAX_KNOWN: usize = 4096;

/// Time for the observer to attach one container that runs already, for which no runtime waits.
const PATIENCE: Duration = Duration::from_secs(10);

/// Serves the runtime behind `socket` until dropped, across its restarts.
pub async fn listen(socket: &Path, commands: Commands, stats: Arc<NriStats>) -> Infallible {
    let listener = Listener::new(commands, Arc::clone(&stats));
    Plugin::new(socket, listener, Arc::clone(&stats.plugin))
        .run()
        .await
}

/// Turns what the runtime tells into commands for the observer.
struct Listener {
    desk: Desk,
    runtime: Option<Runtime>,
    /// Selected containers that have not ended, and whether the observer has answered about them.
    known: BTreeMap<String, bool>,
    /// What is being done about the last snapshot.
    snapshot: JoinSet<()>,
}

impl Listener {
    fn new(commands: Commands, stats: Arc<NriStats>) -> Self {
        Self {
            desk: Desk { commands, stats },
            runtime: None,
            known: BTreeMap::new(),
            snapshot: JoinSet::new(),
        }
    }

    async fn started(&mut self, pod: &PodSandbox, container: &Container) {
        let id = &container.id;
        let Some(announcement) = self.selected(pod, container) else {
            return;
        };
        if self.known.len() >= MAX_KNOWN && !self.known.contains_key(id) {
            count(&self.desk.stats.failed);
            return;
        }
        // Before the observer is asked: if its answer comes too late, the end of the container is told all the same.
        self.known.insert(id.clone(), false);
        if self.desk.attach(announcement).await {
            self.known.insert(id.clone(), true);
        }
    }

    async fn ended(&mut self, id: &str) {
        if self.known.remove(id).is_some() {
            let (reply, _) = oneshot::channel();
            let id = id.to_owned();
            self.desk.send(Command::Remove { id, reply }).await;
            count(&self.desk.stats.removes);
        }
    }

    /// What is to be announced of a container, if anything.
    fn selected(&self, pod: &PodSandbox, container: &Container) -> Option<Announcement> {
        if !is_container_id(&container.id) {
            count(&self.desk.stats.failed);
            return None;
        }
        announce::selected(self.runtime, pod, container)
    }
}

impl Handler for Listener {
    fn configured(&mut self, runtime: &str, version: &str) {
        self.runtime = announce::runtime(runtime);
        tracing::info!(runtime, version, "connected to the runtime's NRI");
    }

    fn synchronized(&mut self, snapshot: Snapshot) {
        let is_there = |container: &&Container| container.state() != ContainerState::Stopped;
        let there: BTreeSet<String> = snapshot
            .containers
            .iter()
            .filter(is_there)
            .map(|container| container.id.clone())
            .collect();
        let keep = (snapshot.complete && !self.known.is_empty()).then(|| Command::Keep {
            ids: there.clone(),
            among: self.known.keys().cloned().collect(),
        });
        if snapshot.complete {
            self.known.retain(|id, _| there.contains(id));
        }
        let running = self.running(&snapshot);
        self.known
            .extend(running.iter().map(|found| (found.id.clone(), true)));
        let desk = self.desk.clone();
        // The runtime starts nothing until it has its answer, so the answer does not wait for this.
        self.snapshot = JoinSet::new();
        self.snapshot
            .spawn(async move { desk.take_over(keep, running).await });
    }

    async fn happened(&mut self, moment: Moment) {
        let id = &moment.container.id;
        match moment.event {
            Event::StartContainer => self.started(&moment.pod, &moment.container).await,
            Event::PostStartContainer if self.known.get(id) != Some(&true) => {
                self.started(&moment.pod, &moment.container).await;
            }
            Event::StopContainer | Event::RemoveContainer => self.ended(id).await,
            Event::PostStartContainer | Event::Unknown => {}
        }
    }
}

impl Listener {
    /// Selected containers of a snapshot that run. One that is only created will be told of when it starts.
    fn running(&self, snapshot: &Snapshot) -> Vec<Announcement> {
        let pods: BTreeMap<&str, &PodSandbox> = snapshot
            .pods
            .iter()
            .map(|pod| (pod.id.as_str(), pod))
            .collect();
        let runs = |container: &&Container| {
            matches!(
                container.state(),
                ContainerState::Running | ContainerState::Paused
            )
        };
        let containers = snapshot.containers.iter().filter(runs);
        let nobody = PodSandbox::default();
        containers
            .filter_map(|container| {
                let pod = pods.get(container.pod_sandbox_id.as_str()).copied();
                self.selected(pod.unwrap_or(&nobody), container)
            })
            .take(MAX_KNOWN)
            .collect()
    }
}

/// Where commands are handed in.
#[derive(Clone)]
struct Desk {
    commands: Commands,
    stats: Arc<NriStats>,
}

impl Desk {
    /// True if the observer has decided about the container.
    async fn attach(&self, announcement: Announcement) -> bool {
        let id = announcement.id.clone();
        let Some(pidfd) = process::first(announcement.pid, &id) else {
            count(&self.stats.without_process);
            return false;
        };
        let (reply, answer) = oneshot::channel();
        let command = Command::Attach {
            announcement: Box::new(announcement),
            pidfd,
            reply,
        };
        self.send(command).await;
        // An observer that ends drops the command, and the sender with it.
        match answer.await {
            Ok(Reply::Failed { reason }) => {
                // The observer has warned of it.
                tracing::debug!(container = id, reason, "a container is not observed");
                count(&self.stats.failed);
                false
            }
            Ok(Reply::Ignored { reason }) => {
                tracing::debug!(container = id, reason, "a container is not observed");
                count(&self.stats.ignored);
                true
            }
            Ok(Reply::Attached) => {
                count(&self.stats.attached);
                true
            }
            Ok(Reply::Removed) | Err(_) => {
                count(&self.stats.failed);
                false
            }
        }
    }

    /// An observer that has ended takes no commands any more, and the agent is about to end too.
    async fn send(&self, command: Command) {
        let _ = self.commands.send(command).await;
    }

    async fn take_over(self, keep: Option<Command>, running: Vec<Announcement>) {
        if let Some(keep) = keep {
            self.send(keep).await;
        }
        if running.is_empty() {
            return;
        }
        for announcement in running {
            if timeout(PATIENCE, self.attach(announcement)).await.is_err() {
                count(&self.stats.failed);
            }
        }
        ask::complete(&self.commands, PATIENCE).await;
    }
}

#[cfg(test)]
mod tests;
