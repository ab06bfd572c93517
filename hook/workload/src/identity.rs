//! A container's identity, put together from all that `/proc` shows.

use std::fs::File;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::cgroup::CgroupIdentity;
use crate::image::Image;
use crate::mounts::MountIdentity;
use crate::text::read_text;

/// A container runtime, by the value of the semantic convention `container.runtime`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IdSource {
    /// The runtime said it, through the OCI hook or NRI.
    Runtime,
    /// The cgroup path: the runtime's own bookkeeping.
    Cgroup,
    /// A bind mount, because the cgroup namespace hides the path.
    Mount,
}

/// What is known about the container of a process. Absent is better than guessed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Identity {
    /// Container id.
    pub container_id: Option<String>,
    /// Where the id was found.
    pub id_source: Option<IdSource>,
    /// Name of the container as its runtime has it (semantic convention `container.name`).
    pub container_name: Option<String>,
    /// Name of the container in its Kubernetes pod (`k8s.container.name`).
    pub k8s_container_name: Option<String>,
    /// Runtime.
    pub runtime: Option<Runtime>,
    /// Kubernetes pod uid (of a static pod: the kubelet's configuration hash).
    pub pod_uid: Option<String>,
    /// Name of the Kubernetes pod.
    pub pod_name: Option<String>,
    /// Kubernetes namespace.
    pub namespace: Option<String>,
    /// Image, as far as the runtime tells.
    pub image: Image,
}

impl Identity {
    /// The name that annotations use for the container: that in its pod, else its runtime's.
    pub fn name_in_pod(&self) -> Option<&str> {
        self.k8s_container_name
            .as_deref()
            .or(self.container_name.as_deref())
    }

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
            container_name: mounts.container_name.clone(),
            k8s_container_name: mounts.container_name,
            runtime: cgroup.runtime.or(mounts.runtime),
            pod_uid: cgroup.pod_uid.or(mounts.pod_uid),
            ..Self::default()
        }
    }

    /// Reads the two files below `directory` (`/proc/PID`), each bounded by [`crate::MAX_TEXT`].
    pub fn read(directory: &Path, isolation: Isolation) -> io::Result<Self> {
        let cgroup = read_text(File::open(directory.join("cgroup"))?)?;
        let mountinfo = read_text(File::open(directory.join("mountinfo"))?)?;
        Ok(Self::from_text(&cgroup, &mountinfo, isolation))
    }

    /// What the runtime announced, completed by what `/proc` shows of the same container. If `/proc` shows another
    /// id, it is about another container and adds nothing.
    pub fn merge(announced: Self, from_proc: Self) -> Self {
        let other = match (&announced.container_id, &from_proc.container_id) {
            (Some(announced), Some(found)) => announced != found,
            _ => false,
        };
        if other {
            return announced;
        }
        let (container_id, id_source) = match announced.container_id {
            Some(id) => (Some(id), announced.id_source),
            None => (from_proc.container_id, from_proc.id_source),
        };
        Self {
            container_id,
            id_source,
            container_name: announced.container_name.or(from_proc.container_name),
            k8s_container_name: announced
                .k8s_container_name
                .or(from_proc.k8s_container_name),
            runtime: announced.runtime.or(from_proc.runtime),
            pod_uid: announced.pod_uid.or(from_proc.pod_uid),
            pod_name: announced.pod_name.or(from_proc.pod_name),
            namespace: announced.namespace.or(from_proc.namespace),
            image: if announced.image.name.is_some() {
                announced.image
            } else {
                from_proc.image
            },
        }
    }
}
