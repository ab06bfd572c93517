//! From a container to its OpenTelemetry resource.

use super::containers::{Container, Key};

/// `service.name` when nothing better is known (OpenTelemetry resource semantic conventions).
pub const UNKNOWN_SERVICE: &str = "unknown_service";

/// What the operator decided about names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Naming {
    /// `--service-name`: overrules everything that is found.
    pub service_name: Option<String>,
    /// The node's name from the Downward API, or the host's; becomes `host.name`.
    pub host_name: Option<String>,
}

impl Naming {
    /// The first of: the operator's name, the container's name in its Kubernetes pod, the executable of the
    /// container's first process, [`UNKNOWN_SERVICE`]. The workload's environment is never read for it: it holds
    /// secrets, and an `OTEL_SERVICE_NAME` there is meant for an SDK inside.
    pub fn service_name<'a>(&'a self, container: &'a Container) -> &'a str {
        [
            self.service_name.as_deref(),
            container.identity.container_name.as_deref(),
            Some(container.first.executable.as_str()),
        ]
        .into_iter()
        .flatten()
        .find(|name| !name.is_empty())
        .unwrap_or(UNKNOWN_SERVICE)
    }

    /// `service.instance.id`: the container's id, which is unique already; else the host and the first process,
    /// which stay the same when the agent restarts.
    pub fn service_instance(&self, container: &Container) -> String {
        if let Some(id) = &container.identity.container_id {
            return id.clone();
        }
        let host = self.host_name.as_deref().unwrap_or("localhost");
        match container.key {
            Key::Process { pid, start } => format!("{host}:{pid}:{start}"),
            _ => format!("{host}:{}:{}", container.first.pid, container.first.start),
        }
    }
}

/// The attributes of a container's resource, keys unique. `process.*` only while it has a single process.
pub fn resource_attributes(container: &Container, naming: &Naming) -> Vec<(String, String)> {
    let identity = &container.identity;
    let single = match container.processes.first() {
        Some(pid) if container.processes.len() == 1 => Some(*pid),
        _ => None,
    };
    let named_by_single =
        single == Some(container.first.pid) && !container.first.executable.is_empty();
    [
        (
            "service.name",
            Some(naming.service_name(container).to_owned()),
        ),
        (
            "service.instance.id",
            Some(naming.service_instance(container)),
        ),
        ("container.id", identity.container_id.clone()),
        ("container.name", identity.container_name.clone()),
        (
            "container.runtime",
            identity.runtime.map(|runtime| runtime.as_str().to_owned()),
        ),
        ("k8s.pod.uid", identity.pod_uid.clone()),
        ("k8s.container.name", identity.container_name.clone()),
        ("host.name", naming.host_name.clone()),
        ("process.pid", single.map(|pid| pid.to_string())),
        (
            "process.executable.name",
            named_by_single.then(|| container.first.executable.clone()),
        ),
    ]
    .into_iter()
    .filter_map(|(key, value)| Some((key.to_owned(), value?)))
    .collect()
}

#[cfg(test)]
mod tests {
    use pilotfish_workload::{Identity, Runtime};

    use super::super::containers::{Containers, First};
    use super::*;

    fn container(identity: Identity, executable: &str, processes: &[i32]) -> Container {
        let mut containers = Containers::default();
        let first = First {
            pid: 40,
            start: 5,
            executable: executable.to_owned(),
        };
        containers.insert(1, Key::Process { pid: 40, start: 5 }, identity, first);
        for pid in processes {
            containers.join(1, *pid);
        }
        containers.get(1).unwrap().clone()
    }

    fn in_pod() -> Identity {
        Identity {
            container_id: Some("abc".to_owned()),
            container_name: Some("web".to_owned()),
            runtime: Some(Runtime::CriO),
            pod_uid: Some("uid".to_owned()),
            ..Identity::default()
        }
    }

    #[test]
    fn the_best_known_name_wins() {
        let named = Naming {
            service_name: Some("shop".to_owned()),
            host_name: None,
        };
        let unnamed = Naming::default();
        assert_eq!(
            named.service_name(&container(in_pod(), "nginx", &[])),
            "shop"
        );
        assert_eq!(
            unnamed.service_name(&container(in_pod(), "nginx", &[])),
            "web"
        );
        assert_eq!(
            unnamed.service_name(&container(Identity::default(), "nginx", &[])),
            "nginx"
        );
        assert_eq!(
            unnamed.service_name(&container(Identity::default(), "", &[])),
            UNKNOWN_SERVICE
        );
    }

    #[test]
    fn a_pods_container_in_full() {
        let naming = Naming {
            service_name: None,
            host_name: Some("node-1".to_owned()),
        };
        let attributes = resource_attributes(&container(in_pod(), "nginx", &[40, 41]), &naming);
        let expected = [
            ("service.name", "web"),
            ("service.instance.id", "abc"),
            ("container.id", "abc"),
            ("container.name", "web"),
            ("container.runtime", "cri-o"),
            ("k8s.pod.uid", "uid"),
            ("k8s.container.name", "web"),
            ("host.name", "node-1"),
        ];
        assert_eq!(
            attributes,
            expected.map(|(key, value)| (key.to_owned(), value.to_owned()))
        );
    }

    #[test]
    fn a_single_process_is_described() {
        let naming = Naming {
            service_name: None,
            host_name: Some("node-1".to_owned()),
        };
        let attributes =
            resource_attributes(&container(Identity::default(), "nginx", &[40]), &naming);
        let value = |key: &str| {
            attributes
                .iter()
                .find(|(k, _)| k == key)
                .map(|(_, value)| value.as_str())
        };
        assert_eq!(value("process.pid"), Some("40"));
        assert_eq!(value("process.executable.name"), Some("nginx"));
        assert_eq!(value("service.instance.id"), Some("node-1:40:5"));
        assert_eq!(value("container.id"), None);

        // The first process left: its executable says nothing about the one that stayed.
        let attributes =
            resource_attributes(&container(Identity::default(), "nginx", &[41]), &naming);
        assert!(attributes.contains(&("process.pid".to_owned(), "41".to_owned())));
        assert!(
            attributes
                .iter()
                .all(|(key, _)| key != "process.executable.name")
        );
    }
}
