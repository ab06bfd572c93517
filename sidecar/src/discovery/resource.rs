//! From a container to its OpenTelemetry resource.

use std::collections::BTreeMap;

use percent_encoding::percent_decode_str;
use pilotfish_workload::Identity;

use super::containers::{Container, Key};

/// `service.name` when nothing better is known (OpenTelemetry resource semantic conventions).
pub const UNKNOWN_SERVICE: &str = "unknown_service";

const SERVICE_NAME: &str = "service.name";

/// Keys that no annotation can set: only the runtime, the kernel or the operator can say them.
const RESERVED: &[&str] = &["container.", "k8s.", "host.", "process.", "telemetry."];

/// Keys that the operator cannot set for all containers at once; a host is the same for all.
const OF_EACH_CONTAINER: &[&str] = &["container.", "k8s.", "process.", "telemetry."];

/// Why `OTEL_RESOURCE_ATTRIBUTES` is not obeyed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum AttributesError {
    /// No equals sign, or nothing in front of it.
    #[error("entry {0} of OTEL_RESOURCE_ATTRIBUTES is no key=value: separate them by commas")]
    NoPair(usize),
    /// Bytes that are no text.
    #[error("entry {0} of OTEL_RESOURCE_ATTRIBUTES is no UTF-8 when percent-decoded")]
    NoText(usize),
}

/// What the operator says of every container: the value of `OTEL_RESOURCE_ATTRIBUTES`, comma-separated `key=value`
/// pairs, percent-encoded (OpenTelemetry resource SDK specification). Entries are counted from 1 in errors, which
/// show no values.
pub fn operator_attributes(text: &str) -> Result<BTreeMap<String, String>, AttributesError> {
    let decoded = |entry, text: &str| {
        let text = percent_decode_str(text.trim()).decode_utf8();
        text.map(String::from)
            .map_err(|_| AttributesError::NoText(entry))
    };
    (1..)
        .zip(text.split(','))
        .filter(|(_, pair)| !pair.trim().is_empty())
        .map(|(entry, pair)| {
            let (key, value) = pair
                .split_once('=')
                .filter(|(key, _)| !key.trim().is_empty())
                .ok_or(AttributesError::NoPair(entry))?;
            Ok((decoded(entry, key)?, decoded(entry, value)?))
        })
        .collect()
}

/// What the operator decided about names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Naming {
    /// `--service-name`: overrules everything that is found.
    pub service_name: Option<String>,
    /// The node's name from the Downward API, or the host's; becomes `host.name`.
    pub host_name: Option<String>,
    /// What the system that we are in calls itself, be it the host or a container: a part of instance ids.
    pub system_name: Option<String>,
    /// The node's name from the Downward API; becomes `k8s.node.name` of containers of pods.
    pub node_name: Option<String>,
    /// Attributes for all containers ([`operator_attributes`]), where nothing else sets them.
    pub attributes: BTreeMap<String, String>,
}

impl Naming {
    /// The first of: the operator's name, the name that was asked for or that follows from the container's identity
    /// ([`pilotfish_workload::service`]), the executable of the container's first process, [`UNKNOWN_SERVICE`]. The
    /// workload's environment is never read for it: it holds secrets, and an `OTEL_SERVICE_NAME` there is meant for an
    /// SDK inside.
    fn service_name<'a>(
        &'a self,
        container: &'a Container,
        asked: &'a BTreeMap<String, String>,
    ) -> &'a str {
        [
            self.service_name.as_deref(),
            asked.get(SERVICE_NAME).map(String::as_str),
            Some(container.first.executable.as_str()),
        ]
        .into_iter()
        .flatten()
        .find(|name| !name.is_empty())
        .unwrap_or(UNKNOWN_SERVICE)
    }

    /// `service.instance.id` where none is asked for: the container's id, which is unique already; else the host and
    /// the first process, which stay the same when the agent restarts.
    fn service_instance(&self, container: &Container) -> String {
        if let Some(id) = &container.identity.container_id {
            return id.clone();
        }
        let host = self.host_name.as_deref().or(self.system_name.as_deref());
        let host = host.unwrap_or("localhost");
        match container.key {
            Key::Process { pid, start } => format!("{host}:{pid}:{start}"),
            _ => format!("{host}:{}:{}", container.first.pid, container.first.start),
        }
    }
}

/// The attributes of a container's resource, keys unique. `process.*` only while it has a single process. `identity` is
/// the container's, completed by what is known of its pod.
///
/// `asked` are attributes that its annotations ask for and `service.*` as it follows from its identity. They never
/// replace what the runtime, the kernel or the operator say: keys of these come from elsewhere or not at all.
/// [`Naming::attributes`] fill what is left, except for keys that are different for each container.
///
/// Values are text; where the semantic conventions want a list (`container.image.tags`,
/// `container.image.repo_digests`), the elements are joined by commas, which cannot be part of one.
pub fn resource_attributes(
    container: &Container,
    identity: &Identity,
    naming: &Naming,
    asked: &BTreeMap<String, String>,
) -> Vec<(String, String)> {
    let mut attributes: BTreeMap<String, String> = asked
        .iter()
        .filter(|(key, _)| !begins_with_one_of(key, RESERVED))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    attributes.insert(
        SERVICE_NAME.to_owned(),
        naming.service_name(container, asked).to_owned(),
    );
    attributes
        .entry("service.instance.id".to_owned())
        .or_insert_with(|| naming.service_instance(container));
    let in_pod = identity.pod_name.is_some() || identity.pod_uid.is_some();
    let node = naming.node_name.clone().filter(|_| in_pod);
    let known = identity_attributes(identity)
        .into_iter()
        .chain(process_attributes(container))
        .chain([
            ("host.name", naming.host_name.clone()),
            ("k8s.node.name", node),
        ]);
    attributes.extend(known.filter_map(|(key, value)| Some((key.to_owned(), value?))));
    for (key, value) in &naming.attributes {
        if !begins_with_one_of(key, OF_EACH_CONTAINER) && !attributes.contains_key(key) {
            attributes.insert(key.clone(), value.clone());
        }
    }
    attributes.into_iter().collect()
}

fn begins_with_one_of(key: &str, prefixes: &[&str]) -> bool {
    prefixes.iter().any(|prefix| key.starts_with(prefix))
}

fn identity_attributes(identity: &Identity) -> Vec<(&'static str, Option<String>)> {
    let list = |values: &[String]| (!values.is_empty()).then(|| values.join(","));
    let runtime = identity.runtime.map(|runtime| runtime.as_str().to_owned());
    let image = &identity.image;
    vec![
        ("container.id", identity.container_id.clone()),
        ("container.name", identity.container_name.clone()),
        ("container.runtime", runtime),
        ("container.image.name", image.name.clone()),
        ("container.image.tags", list(&image.tags)),
        ("container.image.repo_digests", list(&image.repo_digests)),
        ("k8s.namespace.name", identity.namespace.clone()),
        ("k8s.pod.name", identity.pod_name.clone()),
        ("k8s.pod.uid", identity.pod_uid.clone()),
        ("k8s.container.name", identity.k8s_container_name.clone()),
    ]
}

fn process_attributes(container: &Container) -> [(&'static str, Option<String>); 2] {
    let single = match container.processes.first() {
        Some(pid) if container.processes.len() == 1 => Some(*pid),
        _ => None,
    };
    let named_by_single =
        single == Some(container.first.pid) && !container.first.executable.is_empty();
    [
        ("process.pid", single.map(|pid| pid.to_string())),
        (
            "process.executable.name",
            named_by_single.then(|| container.first.executable.clone()),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use pilotfish_workload::{Image, Runtime};

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
            container_name: Some("k8s_web_shop".to_owned()),
            k8s_container_name: Some("web".to_owned()),
            runtime: Some(Runtime::CriO),
            pod_uid: Some("uid".to_owned()),
            pod_name: Some("shop-0".to_owned()),
            namespace: Some("prod".to_owned()),
            image: Image {
                name: Some("docker.io/library/nginx".to_owned()),
                tags: vec!["1.27".to_owned(), "latest".to_owned()],
                repo_digests: vec!["nginx@sha256:00".to_owned()],
            },
            ..Identity::default()
        }
    }

    fn asked(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        pairs.iter().map(owned).collect()
    }

    fn of(
        container: &Container,
        naming: &Naming,
        pairs: &[(&str, &str)],
    ) -> BTreeMap<String, String> {
        let attributes = resource_attributes(container, &container.identity, naming, &asked(pairs));
        let count = attributes.len();
        let unique: BTreeMap<_, _> = attributes.into_iter().collect();
        assert_eq!(unique.len(), count, "keys are unique");
        unique
    }

    #[test]
    fn the_best_known_name_wins() {
        let named = Naming {
            service_name: Some("shop".to_owned()),
            ..Naming::default()
        };
        let wish = [("service.name", "web")];
        for (naming, wishes, executable, expected) in [
            (&named, &wish[..], "nginx", "shop"),
            (&Naming::default(), &wish[..], "nginx", "web"),
            (&Naming::default(), &[], "nginx", "nginx"),
            (&Naming::default(), &[], "", UNKNOWN_SERVICE),
        ] {
            let container = container(Identity::default(), executable, &[]);
            assert_eq!(of(&container, naming, wishes)["service.name"], expected);
        }
    }

    #[test]
    fn a_pods_container_in_full() {
        let naming = Naming {
            host_name: Some("node-1".to_owned()),
            node_name: Some("node-1".to_owned()),
            ..Naming::default()
        };
        let wishes = [
            ("service.name", "shop"),
            ("service.instance.id", "prod.shop-0.web"),
            ("team", "fish"),
        ];
        let attributes = of(&container(in_pod(), "nginx", &[40, 41]), &naming, &wishes);
        let expected = [
            ("service.name", "shop"),
            ("service.instance.id", "prod.shop-0.web"),
            ("team", "fish"),
            ("container.id", "abc"),
            ("container.name", "k8s_web_shop"),
            ("container.runtime", "cri-o"),
            ("container.image.name", "docker.io/library/nginx"),
            ("container.image.tags", "1.27,latest"),
            ("container.image.repo_digests", "nginx@sha256:00"),
            ("k8s.namespace.name", "prod"),
            ("k8s.pod.name", "shop-0"),
            ("k8s.pod.uid", "uid"),
            ("k8s.container.name", "web"),
            ("k8s.node.name", "node-1"),
            ("host.name", "node-1"),
        ];
        assert_eq!(attributes, asked(&expected));

        let elsewhere = container(Identity::default(), "nginx", &[40, 41]);
        assert!(!of(&elsewhere, &naming, &[]).contains_key("k8s.node.name"));
    }

    #[test]
    fn nothing_asked_for_replaces_what_is_known_or_pretends_to_be() {
        let wishes = [
            ("container.id", "forged"),
            ("k8s.pod.name", "forged"),
            ("k8s.node.name", "forged"),
            ("host.name", "forged"),
            ("process.pid", "1"),
            ("telemetry.sdk.name", "forged"),
        ];
        let attributes = of(
            &container(in_pod(), "nginx", &[40, 41]),
            &Naming::default(),
            &wishes,
        );
        assert!(
            attributes
                .values()
                .all(|value| value != "forged" && value != "1")
        );
        assert_eq!(attributes["container.id"], "abc");
    }

    #[test]
    fn the_operators_attributes_fill_what_nothing_else_sets() {
        let text = "team=operators, deployment.environment.name=a%2Cb%3Dc ,,host.id=h7,host.name=forged,\
                    container.id=forged,k8s.node.name=forged,process.pid=forged,telemetry.sdk.name=forged";
        let naming = Naming {
            host_name: Some("node-1".to_owned()),
            attributes: operator_attributes(text).unwrap(),
            ..Naming::default()
        };
        let container = container(Identity::default(), "nginx", &[40, 41]);
        let attributes = of(&container, &naming, &[("team", "fish")]);
        let expected = [
            ("service.name", "nginx"),
            ("service.instance.id", "node-1:40:5"),
            ("team", "fish"),
            ("deployment.environment.name", "a,b=c"),
            ("host.id", "h7"),
            ("host.name", "node-1"),
        ];
        assert_eq!(attributes, asked(&expected));
    }

    #[test]
    fn one_bad_entry_spoils_the_operators_attributes() {
        assert_eq!(operator_attributes(" ,"), Ok(BTreeMap::new()));
        for (text, error) in [
            ("a=1,b", AttributesError::NoPair(2)),
            ("=1", AttributesError::NoPair(1)),
            ("a=1,b=2,c=%ff", AttributesError::NoText(3)),
        ] {
            assert_eq!(operator_attributes(text), Err(error), "{text}");
        }
    }

    #[test]
    fn a_single_process_is_described() {
        let naming = Naming {
            host_name: Some("node-1".to_owned()),
            ..Naming::default()
        };
        let single = |pid: i32| {
            of(
                &container(Identity::default(), "nginx", &[pid]),
                &naming,
                &[],
            )
        };
        let attributes = single(40);
        let expected = [
            ("process.pid", "40"),
            ("process.executable.name", "nginx"),
            ("service.name", "nginx"),
            ("service.instance.id", "node-1:40:5"),
            ("host.name", "node-1"),
        ];
        assert_eq!(attributes, asked(&expected));

        // The first process left: its executable says nothing about the one that stayed.
        let attributes = single(41);
        assert_eq!(attributes["process.pid"], "41");
        assert!(!attributes.contains_key("process.executable.name"));
    }
}
