//! Whether anybody needs this agent: what `--exit-when-idle` looks at.

use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

#[derive(Clone, Copy, Debug)]
struct State {
    containers: usize,
    connections: usize,
    /// When one of them last changed.
    since: Instant,
}

impl State {
    fn is_idle(&self) -> bool {
        self.containers == 0 && self.connections == 0
    }
}

/// Counts containers under observation and open connections.
#[derive(Clone, Debug)]
pub struct Activity(Arc<watch::Sender<State>>);

impl Default for Activity {
    fn default() -> Self {
        let (state, _) = watch::channel(State {
            containers: 0,
            connections: 0,
            since: Instant::now(),
        });
        Self(Arc::new(state))
    }
}

impl Activity {
    /// From now on somebody could ask: idleness counts from here, not from before the programs were loaded.
    pub fn begin(&self) {
        self.change(|_| {});
    }

    /// There are this many containers now.
    pub fn set_containers(&self, containers: usize) {
        self.change(|state| state.containers = containers);
    }

    /// A connection, open until the guard is dropped.
    pub fn connection(&self) -> Connection {
        self.change(|state| state.connections += 1);
        Connection(self.clone())
    }

    /// True while there is neither container nor connection.
    pub fn is_idle(&self) -> bool {
        self.0.borrow().is_idle()
    }

    /// Completes once there has been neither container nor connection for `limit`.
    pub async fn idle_for(&self, limit: Duration) {
        let mut changes = self.0.subscribe();
        loop {
            let state = *changes.borrow_and_update();
            // The sender is in `self`: a change is never an error.
            if !state.is_idle() {
                let _ = changes.changed().await;
                continue;
            }
            tokio::select! {
                biased;
                _ = changes.changed() => {}
                () = sleep_until(state.since + limit) => return,
            }
        }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        self.0.send_modify(|state| {
            change(state);
            state.since = Instant::now();
        });
    }
}

/// An open connection.
#[derive(Debug)]
pub struct Connection(Activity);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0
            .change(|state| state.connections = state.connections.saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn idle_means_neither_container_nor_connection_for_the_whole_time() {
        let activity = Activity::default();
        let start = Instant::now();
        let worker = {
            let activity = activity.clone();
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_secs(9)).await;
                let connection = activity.connection();
                tokio::time::sleep(Duration::from_secs(30)).await;
                activity.set_containers(1);
                drop(connection);
                tokio::time::sleep(Duration::from_secs(30)).await;
                activity.set_containers(0);
            })
        };
        activity.idle_for(LIMIT).await;
        worker.await.unwrap();
        assert_eq!(start.elapsed(), Duration::from_secs(79));
    }

    #[tokio::test(start_paused = true)]
    async fn an_agent_that_nobody_ever_asks_is_idle_too() {
        let activity = Activity::default();
        let start = Instant::now();
        activity.idle_for(LIMIT).await;
        assert_eq!(start.elapsed(), LIMIT);
        assert!(activity.is_idle());
    }

    #[tokio::test(start_paused = true)]
    async fn what_passes_before_anybody_could_ask_does_not_count() {
        let activity = Activity::default();
        tokio::time::sleep(3 * LIMIT).await;
        activity.begin();
        let ready = Instant::now();
        activity.idle_for(LIMIT).await;
        assert_eq!(ready.elapsed(), LIMIT);
    }
}
