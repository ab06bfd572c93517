//! The pod that a sidecar belongs to, as the Downward API tells it.

use pilotfish_workload::Identity;

use super::OwnContainer;

/// The names of our own pod. Nothing in `/proc` tells the first two of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnPod {
    /// `metadata.name`.
    pub name: Option<String>,
    /// `metadata.namespace`.
    pub namespace: Option<String>,
    /// `metadata.uid`.
    pub uid: Option<String>,
}

impl OwnPod {
    /// What is told of our pod may be said of our neighbours only: in the host's pid namespace these are anybody's.
    pub(super) fn known_to(self, own: &OwnContainer) -> Self {
        if self == Self::default() {
            return self;
        }
        if own.is_in_host_pid_namespace() {
            tracing::warn!(
                "the pod's name is not used: in the host's pid namespace processes are not those of one pod"
            );
            return Self::default();
        }
        let uid = self.uid.or_else(|| own.identity.pod_uid.clone());
        Self { uid, ..self }
    }

    /// Whether a container of our pid namespace can be one of this pod. One that shows another pod's uid runs inside of
    /// one of its containers, such as a node of a cluster that is made of containers.
    pub(super) fn holds(&self, found: &Identity) -> bool {
        match (&self.uid, &found.pod_uid) {
            (Some(own), Some(found)) => own == found,
            _ => true,
        }
    }

    /// A container's identity with the names of its pod, if that is ours.
    pub(super) fn complete(&self, found: &Identity) -> Identity {
        let mut identity = found.clone();
        if self.holds(found) {
            identity.pod_name = identity.pod_name.or_else(|| self.name.clone());
            identity.namespace = identity.namespace.or_else(|| self.namespace.clone());
            identity.pod_uid = identity.pod_uid.or_else(|| self.uid.clone());
        }
        identity
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "8a6b2f64-1c0d-4e57-9c31-0f6de0a94b12";

    fn pod() -> OwnPod {
        OwnPod {
            name: Some("shop-0".to_owned()),
            namespace: Some("prod".to_owned()),
            uid: Some(UID.to_owned()),
        }
    }

    fn own(pid_namespace: u64, uid: Option<&str>) -> OwnContainer {
        let mut own = OwnContainer::detect().unwrap();
        own.pid_namespace = pid_namespace;
        own.identity.pod_uid = uid.map(str::to_owned);
        own
    }

    fn of_pod(uid: Option<&str>) -> Identity {
        Identity {
            k8s_container_name: Some("web".to_owned()),
            pod_uid: uid.map(str::to_owned),
            ..Identity::default()
        }
    }

    #[test]
    fn a_container_of_our_pod_gets_its_names() {
        for uid in [None, Some(UID)] {
            let identity = pod().complete(&of_pod(uid));
            assert_eq!(identity.pod_name.as_deref(), Some("shop-0"));
            assert_eq!(identity.namespace.as_deref(), Some("prod"));
            assert_eq!(identity.pod_uid.as_deref(), Some(UID));
            assert_eq!(identity.k8s_container_name.as_deref(), Some("web"));
        }
    }

    #[test]
    fn a_container_of_another_pod_gets_nothing() {
        let other = of_pod(Some("00000000-1c0d-4e57-9c31-0f6de0a94b12"));
        assert_eq!(pod().complete(&other), other);
        let told_by_our_mounts = OwnPod { uid: None, ..pod() }.known_to(&own(1, Some(UID)));
        assert_eq!(told_by_our_mounts.complete(&other), other);
    }

    #[test]
    fn outside_of_a_pod_nothing_is_added() {
        let found = of_pod(None);
        let nowhere = OwnPod::default().known_to(&own(1, Some(UID)));
        assert_eq!(nowhere.complete(&found), found);
    }

    #[test]
    fn in_the_hosts_pid_namespace_neighbours_are_not_of_one_pod() {
        let on_the_host = pod().known_to(&own(0xEFFF_FFFC, None));
        assert_eq!(on_the_host, OwnPod::default());
        assert_eq!(pod().known_to(&own(1, None)), pod());
    }
}
