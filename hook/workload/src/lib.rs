//! Identity of containers: what `/proc`, cgroups, mounts and the OCI runtime tell about one; what its annotations
//! ask for; and how the OCI hook tells the agent.
//!
//! Everything is a pure function over text, with one thin bounded reader beside it, so that the agent and the OCI
//! hook agree on every name. The text is hostile: a workload with the right privileges names its own cgroups and
//! mounts. Nothing here panics, and nothing is read or kept beyond a fixed bound.
#![forbid(unsafe_code)]

pub mod annotations;
pub mod announcement;
mod cgroup;
mod identity;
mod image;
pub mod incoming;
mod mounts;
pub mod oci;
mod service;
mod syntax;
mod text;

pub use cgroup::{CgroupIdentity, cgroup_paths};
pub use identity::{IdSource, Identity, Isolation, Runtime};
pub use image::Image;
pub use mounts::MountIdentity;
pub use service::{naming_labels, service};
pub use text::{MAX_LINES, MAX_TEXT, read_text};
