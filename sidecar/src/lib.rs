//! The pilotfish agent as a library: discovery, instrumentation, the ring reader and what ties them together.
//!
//! The pure pipeline is `pilotfish-pipeline`, the exporters are `pilotfish-export`.

pub mod agent;
pub mod check;
pub mod cli;
pub mod clock;
pub mod consume;
pub mod discovery;
pub mod instrument;
pub mod launch;
pub mod observe;
pub mod pages;
pub mod replay;
pub mod source;
pub mod stream;
