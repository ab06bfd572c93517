//! The server of the hook's socket: one request, one reply, and bounds on everything that a peer decides.

use super::activity::{Activity, Connection};
use super::ask;
use super::rate::Bucket;
use super::receive::{Descriptors, ReceiveError, Received, receive};
use super::stats::{NodeStats, count};
use crate::announced::Commands;
use pilotfish_workload::announcement::{
    Announcement, FrameError, Reply, Request, encode, is_container_id,
};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout};

/// Bounds of the server.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Connections served at a time; others wait in the kernel's queue.
    pub connections: usize,
    /// Time for a peer to send its request.
    pub request: Duration,
    /// Time for the observer to answer.
    pub answer: Duration,
    /// Time for a peer to take its reply.
    pub reply: Duration,
    /// Announcements per second in the long run.
    pub rate: u32,
    /// Announcements at once.
    pub burst: u32,
}

impl Default for Limits {
    /// The hook waits for one second in all.
    fn default() -> Self {
        Self {
            connections: 64,
            request: Duration::from_secs(1),
            answer: Duration::from_millis(800),
            reply: Duration::from_secs(1),
            rate: 200,
            burst: 1000,
        }
    }
}

/// Pause after the kernel refused a new connection: out of descriptors or memory, which passes.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves connections.
#[derive(Clone)]
pub(super) struct Server {
    commands: Commands,
    stats: Arc<NodeStats>,
    activity: Activity,
    limits: Limits,
    bucket: Arc<Mutex<Bucket>>,
    room: Arc<Semaphore>,
}

impl Server {
    /// A server that passes requests on to `commands`.
    pub(super) fn new(
        commands: Commands,
        stats: Arc<NodeStats>,
        activity: Activity,
        limits: Limits,
    ) -> Self {
        let bucket = Bucket::new(limits.rate, limits.burst, Instant::now());
        Self {
            commands,
            stats,
            activity,
            limits,
            bucket: Arc::new(Mutex::new(bucket)),
            room: Arc::new(Semaphore::new(limits.connections)),
        }
    }

    /// Accepts until it is dropped, which loses no connection that was accepted.
    pub(super) async fn accept(&self, listener: &UnixListener) {
        loop {
            let permit = self.room().await;
            match listener.accept().await {
                Ok((stream, _)) => self.spawn(stream, permit),
                Err(error) => {
                    count(&self.stats.connections_failed);
                    tracing::warn!(%error, "cannot accept a connection to the hook's socket");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Serves connections that had been waiting when the socket was closed.
    pub(super) async fn serve_all(&self, waiting: Vec<std::os::unix::net::UnixStream>) {
        for stream in waiting {
            let permit = self.room().await;
            let stream = stream
                .set_nonblocking(true)
                .and_then(|()| UnixStream::from_std(stream));
            match stream {
                Ok(stream) => self.spawn(stream, permit),
                Err(_) => count(&self.stats.connections_failed),
            }
        }
        self.quiet().await;
    }

    /// Completes once no connection is open.
    pub(super) async fn quiet(&self) {
        let all = u32::try_from(self.limits.connections).unwrap_or(u32::MAX);
        // The semaphore is never closed.
        let _ = self.room.acquire_many(all).await;
    }

    async fn room(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.room).acquire_owned().await.ok()
    }

    fn spawn(&self, stream: UnixStream, permit: Option<OwnedSemaphorePermit>) {
        count(&self.stats.connections);
        let server = self.clone();
        let open = self.activity.connection();
        tokio::spawn(async move {
            server.serve(stream, open).await;
            drop(permit);
        });
    }

    async fn serve(&self, mut stream: UnixStream, _open: Connection) {
        if !is_trusted(&stream) {
            count(&self.stats.peers_refused);
            return;
        }
        let Ok(received) = timeout(self.limits.request, receive(&stream)).await else {
            return count(&self.stats.requests_slow);
        };
        let reply = match received {
            Ok(received) => self.answer(received).await,
            Err(ReceiveError::Ended) => return count(&self.stats.requests_absent),
            Err(ReceiveError::Frame(error)) => {
                count(match error {
                    FrameError::Version { .. } => &self.stats.requests_of_other_version,
                    _ => &self.stats.requests_malformed,
                });
                failed(error.to_string())
            }
        };
        let sent = match encode(&reply) {
            Ok(frame) => timeout(self.limits.reply, stream.write_all(&frame)).await,
            Err(_) => return count(&self.stats.replies_unsent),
        };
        if !matches!(sent, Ok(Ok(()))) {
            count(&self.stats.replies_unsent);
        }
    }

    async fn answer(&self, received: Received) -> Reply {
        let reply = match received.request {
            Request::Attach(announcement) => {
                count(&self.stats.attaches);
                self.attach(announcement, received.descriptors).await
            }
            Request::Remove { id } => {
                count(&self.stats.removes);
                if is_container_id(&id) {
                    ask::remove(&self.commands, id, self.limits.answer, &self.stats).await
                } else {
                    failed("that is no container id".to_owned())
                }
            }
        };
        match &reply {
            Reply::Attached => count(&self.stats.attached),
            Reply::Ignored { .. } => count(&self.stats.ignored),
            Reply::Failed { .. } => count(&self.stats.failed),
            Reply::Removed => {}
        }
        reply
    }

    async fn attach(&self, mut announcement: Box<Announcement>, descriptors: Descriptors) -> Reply {
        if !self.is_allowed() {
            count(&self.stats.announcements_throttled);
            let Limits { rate, burst, .. } = self.limits;
            return failed(format!(
                "more than {burst} containers at once and {rate} per second: try again"
            ));
        }
        let pidfd = match descriptors.into_pidfd() {
            Ok(pidfd) => pidfd,
            Err(error) => {
                count(&self.stats.descriptors_refused);
                return failed(format!(
                    "{error}; install the hook and the agent of one release"
                ));
            }
        };
        if !is_container_id(&announcement.id) {
            return failed("that is no container id".to_owned());
        }
        announcement.identity.container_id = Some(announcement.id.clone());
        let patience = self.limits.answer;
        ask::attach(&self.commands, announcement, pidfd, patience, &self.stats).await
    }

    /// Ends of containers are not held back: they only free.
    fn is_allowed(&self) -> bool {
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        bucket.take(Instant::now())
    }
}

/// Root, or whom we run as.
fn is_trusted(stream: &UnixStream) -> bool {
    let own = rustix::process::geteuid().as_raw();
    stream
        .peer_cred()
        .is_ok_and(|peer| peer.uid() == 0 || peer.uid() == own)
}

fn failed(reason: String) -> Reply {
    Reply::Failed { reason }
}

#[cfg(test)]
mod tests;
