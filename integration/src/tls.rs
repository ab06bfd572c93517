//! HTTPS: servers and clients as elsewhere, but with a certificate, and with the connection of every request known.
//!
//! A trial makes a [`Certificate`], starts a row of [`server::SERVERS`], waits until the agent says that its processes are
//! probed ([`coverage`]), runs a plan with [`load::run`] and compares every single exchange, its client's port included,
//! with the spans. A client of [`client::CLIENTS`] waits at a [`client::Gate`] until it is probed.

pub mod certificate;
pub mod client;
pub mod coverage;
pub mod load;
pub mod memory;
pub mod server;

pub use certificate::Certificate;
pub use load::Exchanges;

use crate::agent::{Agent, Setup};
use crate::scene::Scene;
use anyhow::Result;

/// An agent that captures of each operation as much as a TLS record can hold, so that chunk framing is seen to its end.
pub fn setup<'a>(scene: &'a Scene, pids: &[u32]) -> Result<Setup<'a>> {
    Ok(Setup::watching(scene, pids)?
        .arg("--capture-bytes")
        .arg("16384"))
}

/// Starts it.
pub fn watch(scene: &Scene, pids: &[u32]) -> Result<Agent> {
    setup(scene, pids)?.start()
}
