//! What `/proc/PID/cgroup` tells: container id, runtime, pod uid.

use crate::identity::{Isolation, Runtime};
use crate::syntax::{is_generated_id, is_oci_id, pod_uid};
use crate::text::lines;

/// The identity that a cgroup membership gives away.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CgroupIdentity {
    /// Container id.
    pub container_id: Option<String>,
    /// Runtime, where the path's form names one.
    pub runtime: Option<Runtime>,
    /// Kubernetes pod uid, with dashes.
    pub pod_uid: Option<String>,
}

/// Prefixes that runtimes put before a container id, in `PREFIX-ID.scope` and in `PREFIX-ID`.
const PREFIXES: &[(&str, Runtime)] = &[
    ("docker-", Runtime::Docker),
    ("cri-containerd-", Runtime::Containerd),
    ("nerdctl-", Runtime::Containerd),
    ("crio-", Runtime::CriO),
    ("libpod-payload-", Runtime::Podman),
    ("libpod-", Runtime::Podman),
];

/// Prefixes of the cgroups that hold a container's *monitor*, which is not in the container.
const MONITORS: &[&str] = &["libpod-conmon-", "crio-conmon-"];

/// Endings of systemd unit names: such a path is systemd's, its last component is not a container's id.
const UNIT_SUFFIXES: &[&str] = &[".slice", ".scope", ".service", ".socket", ".mount", ".swap"];

/// The paths of a `/proc/PID/cgroup` text (`HIERARCHY:CONTROLLERS:PATH`, cgroups(7)), in its order.
pub fn cgroup_paths(text: &str) -> impl Iterator<Item = &str> {
    lines(text)
        .filter_map(|line| line.splitn(3, ':').nth(2))
        .filter(|path| path.starts_with('/'))
}

impl CgroupIdentity {
    /// Reads the text of `/proc/PID/cgroup`: version 1, 2 or hybrid, absolute or relative to a cgroup namespace
    /// (`/../docker-ID.scope`).
    ///
    /// A generated id (64 hexadecimal digits) is believed wherever it stands; the innermost wins, so a container
    /// inside a container (kind) is told apart, and cgroups that a container makes below its own do not matter.
    ///
    /// An id of another form (`cgroupsPath` of runc and crun, `ctr run`) is the last component of the path, and is
    /// believed only if all of this holds: the process is [`Isolation::Foreign`], no component is a systemd unit,
    /// a monitor's or the kubelet's, the component is a valid OCI id, and all hierarchies that have such a
    /// path agree. Cgroups below such a container cannot be told from it.
    pub fn parse(text: &str, isolation: Isolation) -> Self {
        let pod_uid = cgroup_paths(text).find_map(path_pod_uid);
        if let Some((id, runtime)) = cgroup_paths(text).find_map(generated) {
            return Self {
                container_id: Some(id.to_owned()),
                runtime,
                pod_uid,
            };
        }
        if isolation == Isolation::Foreign
            && let Some((id, runtime)) = agreed_chosen(text)
        {
            return Self {
                container_id: Some(id.to_owned()),
                runtime,
                pod_uid,
            };
        }
        Self {
            pod_uid,
            ..Self::default()
        }
    }
}

/// The innermost generated id of one path.
fn generated(path: &str) -> Option<(&str, Option<Runtime>)> {
    let mut components = path.rsplit('/').peekable();
    while let Some(component) = components.next() {
        if is_monitor(component) {
            continue;
        }
        if let Some((id, runtime)) = generated_component(component) {
            let parent = components.peek().copied().unwrap_or_default();
            return Some((id, runtime.or_else(|| runtime_of_parent(parent))));
        }
    }
    None
}

fn generated_component(component: &str) -> Option<(&str, Option<Runtime>)> {
    // containerd's cgroupfs driver under a systemd-driven kubelet leaves `SLICE:cri-containerd:ID` unsplit.
    if let Some((rest, id)) = component.rsplit_once(':') {
        let prefix = rest.rsplit(':').next().unwrap_or_default();
        let runtime = PREFIXES
            .iter()
            .find(|(known, _)| known.strip_suffix('-') == Some(prefix));
        return is_generated_id(id).then_some((id, runtime.map(|(_, runtime)| *runtime)));
    }
    let name = component.strip_suffix(".scope").unwrap_or(component);
    if is_generated_id(name) {
        return Some((name, None));
    }
    for (prefix, runtime) in PREFIXES {
        if let Some(id) = name.strip_prefix(prefix)
            && is_generated_id(id)
        {
            return Some((id, Some(*runtime)));
        }
    }
    let (_, id) = name.rsplit_once('-')?;
    is_generated_id(id).then_some((id, None))
}

fn runtime_of_parent(parent: &str) -> Option<Runtime> {
    match parent {
        "docker" | "moby" => Some(Runtime::Docker),
        "default" | "k8s.io" => Some(Runtime::Containerd),
        "libpod_parent" => Some(Runtime::Podman),
        _ => None,
    }
}

/// The id that somebody chose, if every hierarchy that shows one shows the same.
fn agreed_chosen(text: &str) -> Option<(&str, Option<Runtime>)> {
    let mut found = None;
    for path in cgroup_paths(text) {
        let Some(chosen) = chosen(path) else { continue };
        if *found.get_or_insert(chosen) != chosen {
            return None;
        }
    }
    found
}

fn chosen(path: &str) -> Option<(&str, Option<Runtime>)> {
    let belongs_to_others = |component: &str| {
        UNIT_SUFFIXES
            .iter()
            .any(|suffix| component.ends_with(suffix))
            || is_monitor(component)
    };
    if path.split('/').any(belongs_to_others) {
        return None;
    }
    let mut components = path.rsplit('/').filter(|component| !component.is_empty());
    let id = components.next()?;
    let kubelets =
        matches!(id, "kubepods" | "burstable" | "besteffort") || component_pod_uid(id).is_some();
    if kubelets || !is_oci_id(id) {
        return None;
    }
    let parent = components.next().unwrap_or_default();
    let top_level = components.all(|component| component == "..");
    let runtime = if top_level {
        runtime_of_parent(parent)
    } else {
        None
    };
    Some((id, runtime))
}

fn is_monitor(component: &str) -> bool {
    MONITORS.iter().any(|prefix| component.starts_with(prefix))
}

/// The innermost pod uid of one path.
fn path_pod_uid(path: &str) -> Option<String> {
    path.rsplit('/').find_map(component_pod_uid)
}

/// `podUID`, `kubepods-burstable-podUID.slice`, or either before a `:` (see [`generated_component`]).
fn component_pod_uid(component: &str) -> Option<String> {
    let name = component.split(':').next().unwrap_or_default();
    match name.strip_suffix(".slice") {
        Some(slice) => pod_uid(slice.rsplit_once("-pod")?.1),
        None => pod_uid(name.strip_prefix("pod")?),
    }
}
