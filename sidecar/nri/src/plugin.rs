//! The plugin for the life of the agent: connects again whenever the runtime restarts.

use crate::{
    peer,
    session::{self, Handler, SessionError},
    stats::Stats,
};
use backon::{BackoffBuilder, ExponentialBuilder};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    sync::atomic::Ordering,
    time::Duration,
};
use tokio::{net::UnixStream, time::sleep};

/// Where runtimes listen unless configured otherwise (`DefaultSocketPath` of NRI).
pub const DEFAULT_SOCKET: &str = "/var/run/nri/nri.sock";

/// Shortest and longest time between two attempts to connect.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// Name under which the runtime knows the plugin.
const NAME: &str = "pilotfish";

/// Late among the plugins, which are called in ascending order: it sees what others changed.
const INDEX: &str = "90";

/// A plugin that connects from outside.
#[derive(Debug)]
pub struct Plugin<H> {
    socket: PathBuf,
    handler: H,
    stats: Arc<Stats>,
}

impl<H: Handler> Plugin<H> {
    /// A plugin for the runtime behind `socket`. Nothing happens before [`Self::run`].
    pub fn new(socket: &Path, handler: H, stats: Arc<Stats>) -> Self {
        Self {
            socket: socket.to_owned(),
            handler,
            stats,
        }
    }

    /// Connects, serves, and connects again, until dropped.
    pub async fn run(mut self) -> std::convert::Infallible {
        let mut retry = backoff();
        let mut complaint = String::new();
        loop {
            let error = self.connection().await;
            let was_connected = self.stats.connected.swap(0, Ordering::Relaxed) == 1;
            Stats::add(&self.stats.disconnections, 1);
            if was_connected {
                retry = backoff();
                complaint.clear();
            }
            let reason = error.to_string();
            // Said once, not at every attempt.
            if reason != complaint {
                tracing::warn!(socket = %self.socket.display(), reason, "no NRI connection, trying again");
                complaint = reason;
            }
            sleep(retry.next().unwrap_or(RETRY.1)).await;
        }
    }

    async fn connection(&mut self) -> SessionError {
        let stream = match UnixStream::connect(&self.socket).await {
            Ok(stream) => stream,
            Err(source) => {
                return SessionError::Connect {
                    path: self.socket.clone(),
                    source,
                };
            }
        };
        if let Err(error) = peer::check(&stream) {
            return error.into();
        }
        Stats::add(&self.stats.connections, 1);
        session::serve(stream, (NAME, INDEX), &mut self.handler, &self.stats).await
    }
}

fn backoff() -> impl Iterator<Item = Duration> + Send {
    ExponentialBuilder::default()
        .with_min_delay(RETRY.0)
        .with_max_delay(RETRY.1)
        .without_max_times()
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_become_rare_and_never_end() {
        let waits: Vec<u64> = backoff().take(8).map(|wait| wait.as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30, 30]);
    }
}
