//! A container's identity, put together from all that `/proc` shows.

use std::fs::File;
use std::io;
use std::path::Path;

use serde::Serialize;

use crate::cgroup::CgroupIdentity;
use crate::mounts::MountIdentity;
use crate::text::read_text;

/// A container runtime, by the value of the semantic convention `container.runtime`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Runtime {
    /// Docker Engine.
    #[serde(rename = "docker")]
    Docker,
    /// containerd, by its CRI plug-in, ctr or nerdctl.
    #[serde(rename = "containerd")]
    Containerd,
    /// CRI-O.
    #[serde(rename = "cri-o")]
    CriO,
    /// Podman.
    #[serde(rename = "podman")]
    Podman,
}

impl Runtime {
    /// The name that goes into telemetry.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Containerd => "containerd",
            Self::CriO => "cri-o",
            Self::Podman => "podman",
        }
    }
}

/// Whether a process is known to live in a mount namespace other than that of the reader's host: only then can an
/// unusual cgroup path be a container's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// It shares the reader's mount namespace, or that is not known.
    Unknown,
    /// Its mount namespace is another one.
    Foreign,
}

/// Where a container id was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum IdSource {
    /// The cgroup path: the runtime's own bookkeeping.
    Cgroup,
    /// A bind mount, because the cgroup namespace hides the path.
    Mount,
}

/// What is known about the container of a process. Absent is better than guessed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Identity {
    /// Container id.
    pub container_id: Option<String>,
    /// Where the id was found.
    pub id_source: Option<IdSource>,
    /// Name of the container in its Kubernetes pod.
    pub container_name: Option<String>,
    /// Runtime.
    pub runtime: Option<Runtime>,
    /// Kubernetes pod uid (of a static pod: the kubelet's configuration hash).
    pub pod_uid: Option<String>,
}

impl Identity {
    /// Puts together the texts of `/proc/PID/cgroup` and `/proc/PID/mountinfo`.
    pub fn from_text(cgroup: &str, mountinfo: &str, isolation: Isolation) -> Self {
        let cgroup = CgroupIdentity::parse(cgroup, isolation);
        let mounts = MountIdentity::parse(mountinfo);
        let (container_id, id_source) = match (cgroup.container_id, mounts.container_id) {
            (Some(id), _) => (Some(id), Some(IdSource::Cgroup)),
            (None, Some(id)) if cgroup.pod_uid.is_none() => (Some(id), Some(IdSource::Mount)),
            _ => (None, None),
        };
        Self {
            container_id,
            id_source,
            container_name: mounts.container_name,
            runtime: cgroup.runtime.or(mounts.runtime),
            pod_uid: cgroup.pod_uid.or(mounts.pod_uid),
        }
    }

    /// Reads the two files below `directory` (`/proc/PID`), each bounded by [`crate::MAX_TEXT`].
    pub fn read(directory: &Path, isolation: Isolation) -> io::Result<Self> {
        let cgroup = read_text(File::open(directory.join("cgroup"))?)?;
        let mountinfo = read_text(File::open(directory.join("mountinfo"))?)?;
        Ok(Self::from_text(&cgroup, &mountinfo, isolation))
    }
}
