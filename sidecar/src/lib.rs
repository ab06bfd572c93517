//! The pilotfish agent as a library: discovery, instrumentation, the ring reader and what ties them together.
//!
//! The pure pipeline is `pilotfish-pipeline`, the exporters are `pilotfish-export`.

pub mod agent;
pub mod announced;
pub mod check;
pub mod cli;
pub mod clock;
pub mod configuration;
pub mod consume;
pub mod discovery;
pub mod fail_open;
pub mod health;
pub mod inject;
pub mod instrument;
pub mod launch;
pub mod log;
pub mod manual;
pub mod node;
pub mod observe;
pub mod pages;
pub mod plan;
pub mod policy;
pub mod replay;
pub mod source;
pub mod stream;
pub mod tls;
mod view;
