//! Our own container, which is never observed.

use std::io;
use std::os::unix::fs::MetadataExt;

use pilotfish_workload::{Identity, Isolation, cgroup_paths, read_text};

use super::DiscoveryError;

/// Inode number of the initial pid namespace (`PROC_PID_INIT_INO`, `include/linux/proc_ns.h`).
const HOST_PID_NAMESPACE: u64 = 0xEFFF_FFFC;

/// Inode number of the initial cgroup namespace (`PROC_CGROUP_INIT_INO`).
const HOST_CGROUP_NAMESPACE: u64 = 0xEFFF_FFFB;

/// What tells processes of our own container from others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnContainer {
    /// Inode number of our mount namespace.
    pub mount_namespace: u64,
    /// Inode number of our pid namespace.
    pub pid_namespace: u64,
    /// Inode number of our cgroup namespace.
    pub cgroup_namespace: u64,
    /// Text of `/proc/self/cgroup`.
    pub cgroup: String,
    /// Our container, as far as it is known.
    pub identity: Identity,
}

/// Whether a process is in our own container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Belongs {
    ToUs,
    ToOthers,
    Undecidable,
}

impl OwnContainer {
    /// Reads `/proc/self`.
    pub fn detect() -> Result<Self, DiscoveryError> {
        let cgroup = own_text("/proc/self/cgroup")?;
        let mountinfo = own_text("/proc/self/mountinfo")?;
        Ok(Self {
            mount_namespace: own_inode("/proc/self/ns/mnt")?,
            pid_namespace: own_inode("/proc/self/ns/pid")?,
            cgroup_namespace: own_inode("/proc/self/ns/cgroup")?,
            identity: Identity::from_text(&cgroup, &mountinfo, Isolation::Unknown),
            cgroup,
        })
    }

    /// Whether we see all processes of the host, which those in a container do not unless it is asked for.
    pub fn is_in_host_pid_namespace(&self) -> bool {
        self.pid_namespace == HOST_PID_NAMESPACE
    }

    /// Whether the cgroup paths of all processes can be seen as they are.
    pub fn sees_host_cgroups(&self) -> bool {
        self.cgroup_namespace == HOST_CGROUP_NAMESPACE
    }

    /// Whether the cgroup path of a process can be that of a container with an id of an unusual form: it lives
    /// in another mount namespace, and in another cgroup than we do.
    pub(super) fn isolation(&self, mount_namespace: Option<u64>, cgroup: &str) -> Isolation {
        let elsewhere = mount_namespace.is_some_and(|inode| inode != self.mount_namespace);
        if elsewhere && cgroup != self.cgroup {
            Isolation::Foreign
        } else {
            Isolation::Unknown
        }
    }

    /// Decides by the mount namespace, and by the container id for a process that has made a mount
    /// namespace of its own. Where `/proc` hides the mount namespace, by the cgroup alone: by the ids, or, in a
    /// private cgroup namespace (where our own cgroup reads `/`), by whether the path leads out of it.
    pub(super) fn belongs(
        &self,
        mount_namespace: Option<u64>,
        cgroup: &str,
        id: Option<&str>,
    ) -> Belongs {
        let own_id = self.identity.container_id.as_deref();
        if mount_namespace == Some(self.mount_namespace) || (id.is_some() && id == own_id) {
            return Belongs::ToUs;
        }
        if mount_namespace.is_some() || (id.is_some() && own_id.is_some()) {
            return Belongs::ToOthers;
        }
        if self.sees_host_cgroups() {
            return Belongs::Undecidable;
        }
        if cgroup_paths(cgroup).any(|path| path == "/.." || path.starts_with("/../")) {
            return Belongs::ToOthers;
        }
        // Below the root of our own cgroup namespace, unless that is the whole machine's root.
        Belongs::Undecidable
    }
}

fn own_text(path: &'static str) -> Result<String, DiscoveryError> {
    let read = || read_text(std::fs::File::open(path)?);
    read().map_err(|source| DiscoveryError::OwnIdentity { path, source })
}

fn own_inode(path: &'static str) -> Result<u64, DiscoveryError> {
    let read = || -> io::Result<u64> { Ok(std::fs::metadata(path)?.ino()) };
    read().map_err(|source| DiscoveryError::OwnIdentity { path, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: &str = "1f1c0de1a5b04a7d9c2e8f60718293a4b5c6d7e8f9012345678901234567abcd";
    const THEIRS: &str = "2f1c0de1a5b04a7d9c2e8f60718293a4b5c6d7e8f9012345678901234567abcd";

    fn own(id: Option<&str>, cgroup_namespace: u64, cgroup: &str) -> OwnContainer {
        OwnContainer {
            mount_namespace: 10,
            pid_namespace: 20,
            cgroup_namespace,
            cgroup: cgroup.to_owned(),
            identity: Identity {
                container_id: id.map(str::to_owned),
                ..Identity::default()
            },
        }
    }

    #[test]
    fn the_mount_namespace_decides() {
        let own = own(None, HOST_CGROUP_NAMESPACE, "0::/\n");
        assert_eq!(own.belongs(Some(10), "0::/\n", None), Belongs::ToUs);
        assert_eq!(own.belongs(Some(11), "0::/\n", None), Belongs::ToOthers);
        assert_eq!(own.belongs(None, "0::/\n", None), Belongs::Undecidable);
        assert_eq!(
            own.belongs(None, "0::/a\n", Some(THEIRS)),
            Belongs::Undecidable
        );
    }

    #[test]
    fn ids_decide_where_the_mount_namespace_cannot() {
        let own = own(Some(OURS), HOST_CGROUP_NAMESPACE, "0::/docker/ours\n");
        assert_eq!(
            own.belongs(Some(11), "0::/docker/ours\n", Some(OURS)),
            Belongs::ToUs
        );
        assert_eq!(
            own.belongs(None, "0::/docker/ours/x\n", Some(OURS)),
            Belongs::ToUs
        );
        assert_eq!(
            own.belongs(None, "0::/docker/theirs\n", Some(THEIRS)),
            Belongs::ToOthers
        );
        assert_eq!(own.belongs(None, "0::/\n", None), Belongs::Undecidable);
    }

    #[test]
    fn a_path_out_of_a_private_cgroup_namespace_is_of_others() {
        let own = own(None, 77, "0::/\n");
        assert_eq!(
            own.belongs(None, "0::/../app\n", Some("app")),
            Belongs::ToOthers
        );
        assert_eq!(
            own.belongs(None, "0::/worker\n", None),
            Belongs::Undecidable
        );
    }

    #[test]
    fn an_unusual_id_needs_another_cgroup_than_ours() {
        let own = own(None, HOST_CGROUP_NAMESPACE, "0::/session\n");
        assert_eq!(
            own.isolation(Some(11), "0::/demo/app\n"),
            Isolation::Foreign
        );
        assert_eq!(own.isolation(Some(11), "0::/session\n"), Isolation::Unknown);
        assert_eq!(
            own.isolation(Some(10), "0::/demo/app\n"),
            Isolation::Unknown
        );
        assert_eq!(own.isolation(None, "0::/demo/app\n"), Isolation::Unknown);
    }

    #[test]
    fn we_find_ourselves() {
        let own = OwnContainer::detect().unwrap();
        assert_eq!(
            own.belongs(Some(own.mount_namespace), &own.cgroup, None),
            Belongs::ToUs
        );
    }
}
