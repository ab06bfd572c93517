//! A plugin for the Node Resource Interface (NRI) of containerd 1.7 and later and of CRI-O: it connects to the
//! runtime's socket, hears of every pod and container, and answers each event within the runtime's limit.
//!
//! The protocol has three layers, each a module: `mux` carries two logical connections over one socket, `ttrpc`
//! carries calls over each of them, and [`api`] has the messages. It follows the specification of NRI
//! (`pkg/api/api.proto`, package `nri.pkg.api.v1alpha1`, from 0.6 on) and of ttrpc (`PROTOCOL.md`, 1.2).
//! The plugin only listens: it never asks the runtime to change a container, and whatever goes wrong here, the runtime
//! hears that all is well, because an error would keep a container from starting.
#![forbid(unsafe_code)]

pub mod api;
mod mux;
mod peer;
mod plugin;
mod session;
mod snapshot;
mod stats;
mod ttrpc;

pub use peer::PeerError;
pub use plugin::{DEFAULT_SOCKET, Plugin};
pub use session::{Handler, Moment, SessionError};
pub use snapshot::Snapshot;
pub use stats::Stats;
