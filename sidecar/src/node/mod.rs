//! `pilotfish node`: one agent for the containers of a host. The OCI hook announces them on a unix socket.
//!
//! The directory of the socket is root's; a lock in it keeps a second agent away. Before the socket is served,
//! containers of a former agent are attached again from the state directory, and those that were started while
//! no agent ran are found through their runtimes' own files.

mod activity;
mod adopt;
mod ask;
pub mod nri;
mod place;
mod process;
mod rate;
mod receive;
mod server;
mod state;
mod stats;
mod trusted;

pub use place::{Address, PlaceError};
pub use state::StateDirectory;
pub use trusted::TrustError;

use crate::announced::Commands;
use crate::cli::NodeArgs;
use crate::pages::FrontEnd;
use activity::Activity;
use ask::{attach, complete};
use nri::NriStats;
use pilotfish_export::prometheus::Row;
use pilotfish_workload::announcement::{Announcement, Reply};
use place::Place;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sd_notify::NotifyState;
use server::{Limits, Server};
use stats::{NodeStats, count};
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;

/// Time for one answer of the observer at start, when nobody waits but everything is attached at once.
const PATIENCE: Duration = Duration::from_secs(10);

/// Time for requests in progress when the agent is told to end.
const LAST_REQUESTS: Duration = Duration::from_millis(300);

/// Why a node agent cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// Its socket.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// Its state directory.
    #[error("the state directory cannot be used: {0}{remedy}", remedy = place::remedy(.0, "--state-dir"))]
    State(#[source] TrustError),
}

/// A node agent that has its socket but serves it not yet; connections wait.
pub struct Node {
    place: Place,
    state: StateDirectory,
    activity: Activity,
    stats: Arc<NodeStats>,
    nri: Option<(PathBuf, Arc<NriStats>)>,
    ready: Arc<AtomicBool>,
    idle: Option<Duration>,
    adopt: bool,
}

/// What the pages show of a [`Node`].
struct Front {
    stats: Arc<NodeStats>,
    nri: Option<Arc<NriStats>>,
    ready: Arc<AtomicBool>,
}

impl FrontEnd for Front {
    fn rows(&self) -> Vec<Row> {
        let nri = self.nri.iter().flat_map(|stats| stats.rows());
        self.stats.rows().into_iter().chain(nri).collect()
    }

    fn not_ready(&self) -> Option<String> {
        let ready = self.ready.load(Ordering::Acquire);
        (!ready).then(|| "containers that run already are being attached".to_owned())
    }
}

impl Node {
    /// Takes the socket, which fails if another agent has it, and opens the state directory.
    pub async fn prepare(args: &NodeArgs) -> Result<Self, NodeError> {
        raise_file_limit();
        let passed = place::passed_descriptor()?;
        let place = Place::take(&args.socket, passed, place::LOCK_WAIT).await?;
        let (activity, stats) = (Activity::default(), Arc::new(NodeStats::default()));
        let beside = || args.socket.with_file_name("containers");
        let path = args.state_dir.clone().unwrap_or_else(beside);
        let ledger = StateDirectory::open(&path, activity.clone(), Arc::clone(&stats))
            .map_err(NodeError::State)?;
        Ok(Self {
            place,
            state: ledger,
            activity,
            stats,
            nri: args.nri.clone().map(|socket| (socket, Arc::default())),
            ready: Arc::default(),
            idle: args
                .exit_when_idle
                // A runtime may have something to tell at any time. Clap refuses both, but not if one is in the file.
                .filter(|_| args.nri.is_none())
                .map(Duration::from_secs),
            adopt: args.adopt,
        })
    }

    /// Who remembers what the observer attaches.
    pub fn ledger(&self) -> StateDirectory {
        self.state.clone()
    }

    /// What the pages show.
    pub fn front_end(&self) -> Arc<dyn FrontEnd> {
        Arc::new(Front {
            stats: Arc::clone(&self.stats),
            nri: self.nri.as_ref().map(|(_, stats)| Arc::clone(stats)),
            ready: Arc::clone(&self.ready),
        })
    }

    /// Attaches what runs, then serves until `end`, or until nobody has needed it for the time of
    /// `--exit-when-idle`. What comes back holds the lock: dropping it lets another agent in.
    pub async fn serve(
        mut self,
        commands: Commands,
        end: impl Future<Output = ()>,
    ) -> Result<Address, NodeError> {
        let mut end = pin!(end);
        tokio::select! {
            () = self.find_running(&commands) => {}
            () = &mut end => return Ok(self.place.close()?.0),
        }
        // Dropped, and so ended, with this future.
        let mut runtime = JoinSet::new();
        if let Some((socket, stats)) = self.nri.take() {
            let commands = commands.clone();
            runtime.spawn(async move { nri::listen(&socket, commands, stats).await });
        }
        let server = Server::new(
            commands,
            Arc::clone(&self.stats),
            self.activity.clone(),
            Limits::default(),
        );
        self.activity.begin();
        self.ready.store(true, Ordering::Release);
        notify(NotifyState::Ready);
        tracing::info!("ready");
        loop {
            let told = tokio::select! {
                () = server.accept(&self.place.listener) => true,
                () = &mut end => true,
                () = idle(&self.activity, self.idle) => false,
            };
            let (address, waiting) = self.place.close()?;
            if told {
                notify(NotifyState::Stopping);
                let _ = tokio::time::timeout(LAST_REQUESTS, server.serve_all(waiting)).await;
                return Ok(address);
            }
            server.serve_all(waiting).await;
            if self.activity.is_idle() || address.is_activated() {
                notify(NotifyState::Stopping);
                tracing::info!("no container is observed and nobody asks: ending");
                return Ok(address);
            }
            self.place = address.reopen()?;
        }
    }

    /// Containers of a former agent, then those that were started while there was none.
    async fn find_running(&mut self, commands: &Commands) {
        match self.state.remembered(crate::discovery::start_of) {
            Ok(remembered) => {
                for entry in remembered {
                    let id = entry.announcement.id.clone();
                    let (pid, start) = (entry.pid, entry.start);
                    if self
                        .attach(commands, Box::new(entry.announcement), pid, start)
                        .await
                    {
                        count(&self.stats.restored);
                    } else {
                        self.state.forget(&id);
                    }
                }
            }
            Err(error) => tracing::warn!(%error, "the state directory cannot be read"),
        }
        if self.adopt {
            self.adopt(commands).await;
        }
        complete(commands, PATIENCE).await;
    }

    async fn adopt(&self, commands: &Commands) {
        for found in adopt::found(Path::new("/")) {
            if self.state.knows(&found.id) || process::pin(found.pid, found.start).is_none() {
                continue;
            }
            let Some(announcement) = adopt::announcement(&found) else {
                continue;
            };
            if self
                .attach(commands, announcement, found.pid, found.start)
                .await
            {
                count(&self.stats.adopted);
            } else {
                count(&self.stats.not_adopted);
            }
        }
    }

    async fn attach(
        &self,
        commands: &Commands,
        announcement: Box<Announcement>,
        pid: i32,
        start: u64,
    ) -> bool {
        let id = announcement.id.clone();
        let Some(pidfd) = process::pin(pid, start) else {
            return false;
        };
        match attach(commands, announcement, pidfd, PATIENCE, &self.stats).await {
            Reply::Attached => return true,
            Reply::Failed { reason } => {
                tracing::warn!(
                    container = id,
                    reason,
                    "a running container is not observed"
                );
            }
            reply => tracing::debug!(
                container = id,
                ?reply,
                "a running container is not observed"
            ),
        }
        false
    }
}

async fn idle(activity: &Activity, limit: Option<Duration>) {
    match limit {
        Some(limit) => activity.idle_for(limit).await,
        None => std::future::pending().await,
    }
}

/// Tells the service manager, where there is one.
fn notify(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "the service manager was not told");
    }
}

/// Every observed process and container takes a descriptor; the usual soft limit is for programs that use select(2).
pub(crate) fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}

#[cfg(test)]
mod tests;
