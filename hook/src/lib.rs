//! The OCI hook of pilotfish: announces a starting container to the agent, and installs itself into runtimes.
//!
//! [`state`] and [`spec`] read what runtimes write and are shared with the agent; the rest is the command.

pub mod agent;
pub mod cli;
pub mod deadline;
pub mod hook;
pub mod install;
pub mod isolation;
pub mod report;
pub mod spec;
pub mod state;
mod trust;
pub mod wrapper;
