//! The sidecar that is added: `sidecar.yaml` with the options put in.

use super::{
    anchors::Anchors,
    arguments::{RunAs, SidecarOptions},
    tree::{self, Entry, Node},
};

/// The one definition.
const SOURCE: &str = include_str!("sidecar.yaml");

/// Name of the sidecar's container.
pub(super) const CONTAINER: &str = "pilotfish";

/// Name of the volume with annotations and labels.
pub(super) const VOLUME: &str = "pilotfish-podinfo";

/// Environment variable of the container that holds what `--uninject` cannot know otherwise: the pod's own entries in
/// place of which something was added, as they were written, one per line.
pub(super) const RECORD: &str = "PILOTFISH_INJECT_KEPT";

/// Key of the pod specification that lets the sidecar see the other containers' processes.
pub(super) const SHARE: &str = "shareProcessNamespace";
/// Key of the list that the sidecar's container is in.
pub(super) const INIT_CONTAINERS: &str = "initContainers";
/// Key of the list that the sidecar's volume is in.
pub(super) const VOLUMES: &str = "volumes";

/// Port of the pages in `sidecar.yaml`.
const DEFAULT_PORT: u16 = 9464;

/// What is added to a pod, besides `shareProcessNamespace: true`.
#[derive(Clone, Debug)]
pub(super) struct Definition {
    container: Node<'static>,
    pub(super) volume: Node<'static>,
    pub(super) port: u16,
}

/// An option that cannot be put in.
#[derive(Debug, thiserror::Error)]
pub enum DefinitionError {
    /// Two values for one variable.
    #[error(
        "the environment variable {0} is given twice: --env is only for what no other option and pilotfish itself set"
    )]
    VariableTwice(String),
    /// `sidecar.yaml` is not as the code expects it; a test sees to that.
    #[error("the built-in definition of the sidecar has no {0}; report this as a bug")]
    Incomplete(&'static str),
}

impl Definition {
    pub(super) fn new(options: &SidecarOptions) -> Result<Self, DefinitionError> {
        let documents = tree::parse(SOURCE).unwrap_or_default();
        let [pod] = documents.as_slice() else {
            return Err(DefinitionError::Incomplete("document"));
        };
        let only = |key| pod.own(key).and_then(|list| list.items().first()).cloned();
        let mut definition = Self {
            container: only(INIT_CONTAINERS).ok_or(DefinitionError::Incomplete("container"))?,
            volume: only(VOLUMES).ok_or(DefinitionError::Incomplete("volume"))?,
            port: DEFAULT_PORT,
        };
        definition.apply(options)?;
        Ok(definition)
    }

    fn apply(&mut self, options: &SidecarOptions) -> Result<(), DefinitionError> {
        if let Some(image) = &options.image {
            set(&mut self.container, "image", Node::text(image.clone()))?;
        }
        if let Some(endpoint) = &options.otlp_endpoint {
            self.add_variable("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)?;
        }
        if let Some(port) = options.listen_port {
            self.port = port.get();
            let number = Node::literal(port.to_string());
            let ports = part(&mut self.container, "ports")?;
            let first = ports.items_mut().and_then(|items| items.first_mut());
            let first = first.ok_or(DefinitionError::Incomplete("port"))?;
            set(first, "containerPort", number)?;
            self.add_variable("PILOTFISH_LISTEN", &format!("0.0.0.0:{port}"))?;
        }
        if options.run_as == RunAs::Root {
            let context = part(&mut self.container, "securityContext")?;
            for (key, value) in [
                ("runAsUser", "0"),
                ("runAsGroup", "0"),
                ("runAsNonRoot", "false"),
                ("allowPrivilegeEscalation", "false"),
            ] {
                set(context, key, Node::literal(value))?;
            }
        }
        for (name, value) in &options.variables {
            self.add_variable(name, value)?;
        }
        Ok(())
    }

    fn add_variable(&mut self, name: &str, value: &str) -> Result<(), DefinitionError> {
        let environment = part(&mut self.container, "env")?;
        let is_there =
            |variable: &Node<'_>| variable.own("name").and_then(Node::as_text) == Some(name);
        if name == RECORD || environment.items().iter().any(is_there) {
            return Err(DefinitionError::VariableTwice(name.to_owned()));
        }
        let items = environment
            .items_mut()
            .ok_or(DefinitionError::Incomplete("env"))?;
        items.push(variable(name.to_owned(), value.to_owned()));
        Ok(())
    }

    /// The container, with the record of what was there.
    pub(super) fn container(&self, record: &[String]) -> Node<'static> {
        let mut container = self.container.clone();
        let environment = container
            .position("env")
            .and_then(|at| container.at_mut(&[at]));
        if let Some(items) = environment.and_then(Node::items_mut)
            && !record.is_empty()
        {
            items.push(variable(RECORD.to_owned(), record.join("\n")));
        }
        container
    }

    /// Whether container and volume are what would be added, but for the record and what the API server adds.
    pub(super) fn is_met_by(&self, container: &Node<'_>, volume: Option<&Node<'_>>) -> bool {
        covers(container, &self.container)
            && volume.is_some_and(|volume| covers(volume, &self.volume))
    }
}

fn variable(name: String, value: String) -> Node<'static> {
    Node::mapping(vec![
        Entry::new("name", Node::text(name)),
        Entry::new("value", Node::text(value)),
    ])
}

fn part<'n>(
    node: &'n mut Node<'static>,
    key: &'static str,
) -> Result<&'n mut Node<'static>, DefinitionError> {
    let position = node.position(key);
    position
        .and_then(|position| node.at_mut(&[position]))
        .ok_or(DefinitionError::Incomplete(key))
}

fn set(
    node: &mut Node<'static>,
    key: &'static str,
    value: Node<'static>,
) -> Result<(), DefinitionError> {
    *part(node, key)? = value;
    Ok(())
}

/// Fields that the API server adds to what is in `sidecar.yaml`, with the values that it gives them.
const SERVER_DEFAULTS: &[(&str, &str)] = &[
    ("apiVersion", "v1"),
    ("defaultMode", "420"),
    ("imagePullPolicy", "IfNotPresent"),
    ("imagePullPolicy", "Always"),
    ("scheme", "HTTP"),
    ("successThreshold", "1"),
    ("terminationMessagePath", "/dev/termination-log"),
    ("terminationMessagePolicy", "File"),
    ("timeoutSeconds", "1"),
];

/// Whether `actual` is `wanted`, in any order of keys, with nothing but defaults added.
fn covers(actual: &Node<'_>, wanted: &Node<'_>) -> bool {
    if wanted.entries().is_empty() && wanted.items().is_empty() {
        return actual.anchor == 0 && actual.means(wanted);
    }
    let items: Vec<&Node<'_>> = actual
        .items()
        .iter()
        .filter(|item| !is_record(item))
        .collect();
    items.len() == wanted.items().len()
        && items
            .iter()
            .zip(wanted.items())
            .all(|(item, wanted)| covers(item, wanted))
        && wanted.entries().iter().all(|entry| {
            let key = entry.key.as_text().unwrap_or_default();
            actual
                .own(key)
                .is_some_and(|value| covers(value, &entry.value))
        })
        && actual.entries().iter().all(|entry| {
            let key = entry.key.as_text().unwrap_or_default();
            wanted.own(key).is_some() || is_server_default(actual, key, &entry.value)
        })
}

fn is_server_default(parent: &Node<'_>, key: &str, value: &Node<'_>) -> bool {
    // On the host's network the port is the node's.
    let host_port =
        key == "hostPort" && parent.own("containerPort").and_then(Node::as_text) == value.as_text();
    host_port
        || SERVER_DEFAULTS
            .iter()
            .any(|&(name, default)| name == key && value.as_text() == Some(default))
}

fn is_record(variable: &Node<'_>) -> bool {
    variable.own("name").and_then(Node::as_text) == Some(RECORD)
}

/// The record in a container that was added, an entry per line.
pub(super) fn record_of(container: &Node<'_>) -> Vec<String> {
    let environment = container.own("env").map_or(&[][..], Node::items);
    let record = environment.iter().find(|variable| is_record(variable));
    let lines = record.and_then(|record| record.own("value")?.as_text());
    lines.map_or_else(Vec::new, |lines| lines.lines().map(str::to_owned).collect())
}

/// Whether a container of this name is one that was added here, by kustomize, the chart or the admission policy: a
/// native sidecar that runs `pilotfish sidecar`.
pub(super) fn is_ours<'t>(container: &'t Node<'t>, anchors: &Anchors<'t, '_>) -> bool {
    container.own("restartPolicy").and_then(Node::as_text) == Some("Always")
        && anchors
            .list(container, "args")
            .next()
            .and_then(Node::as_text)
            == Some("sidecar")
}
