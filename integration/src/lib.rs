//! The harness of the integration tests: real servers and clients on the real kernel, watched by the real agent.
//!
//! A trial gets a [`Scene`], starts a server from [`server::SERVERS`] and an [`Agent`] scoped to it, drives a
//! known number of requests with [`load`], and compares spans with the client's own tally, exactly. Everything a
//! trial starts dies with it, and the runner then checks that no eBPF program of its agents is left in the kernel.
//!
//! To add a server: a fixture that answers the routes listed in [`load`], a function that builds its command line,
//! and a row in [`server::SERVERS`].

pub mod agent;
pub mod announce;
pub mod client;
pub mod document;
pub mod finished;
pub mod grpc;
pub mod holdings;
pub mod http2;
pub mod kubernetes;
pub mod load;
pub mod metrics;
pub mod namespace;
pub mod nginx;
pub mod pages;
pub mod place;
pub mod policy;
pub mod process;
pub mod program;
pub mod runtime;
pub mod scene;
pub mod server;
pub mod span;
pub mod tally;
pub mod terminal;
pub mod tls;
pub mod trial;
pub mod usage;
pub mod wire;

pub use agent::Agent;
pub use finished::Finished;
pub use process::Process;
pub use scene::Scene;
pub use span::{Kind, Span};
pub use tally::{Outcome, Tally};
pub use trial::{Need, Trials};
