//! Identity of containers: what `/proc`, cgroups and mounts tell about one.
//!
//! Everything is a pure function over text, with one thin bounded reader beside it, so that the agent and the OCI
//! hook agree on every name. The text is hostile: a workload with the right privileges names its own cgroups and
//! mounts. Nothing here panics, and nothing is read or kept beyond a fixed bound.
#![forbid(unsafe_code)]

mod cgroup;
mod identity;
mod mounts;
mod syntax;
mod text;

pub use cgroup::{CgroupIdentity, cgroup_paths};
pub use identity::{IdSource, Identity, Isolation, Runtime};
pub use mounts::MountIdentity;
pub use text::{MAX_LINES, MAX_TEXT, read_text};
