//! What is announced of a container that a runtime tells of.

use pilotfish_nri::api::{Container, PodSandbox};
use pilotfish_workload::announcement::{Announcement, unread_wish};
use pilotfish_workload::{IdSource, Identity, Runtime, annotations, naming_labels};
use std::path::Path;

/// The runtime that names itself so in NRI (`version.Name` of containerd, `internal/nri` of CRI-O).
pub(super) fn runtime(name: &str) -> Option<Runtime> {
    match name {
        "containerd" => Some(Runtime::Containerd),
        "cri-o" => Some(Runtime::CriO),
        _ => None,
    }
}

/// The announcement, if the annotations of the pod and the container select it.
pub(super) fn selected(
    runtime: Option<Runtime>,
    pod: &PodSandbox,
    container: &Container,
) -> Option<Announcement> {
    let written = pod.annotations.iter().chain(&container.annotations);
    let (annotations, warnings) = annotations::relevant(written.clone());
    let identity = identity(runtime, pod, container);
    if let Some(reason) = unread_wish(written, &identity) {
        tracing::warn!(
            container = container.id,
            reason,
            "a container is not observed"
        );
    }
    let announcement = Announcement {
        id: container.id.clone(),
        pid: i32::try_from(container.pid).unwrap_or_default(),
        identity,
        annotations,
        labels: naming_labels(&pod.labels),
        warnings,
        program: None,
    };
    let program = container.args.first().map(String::as_str);
    announcement
        .is_selected()
        .then(|| announcement.about_to_execute(program))
}

/// NRI's own fields come first: a container's creator may write annotations of any name.
fn identity(runtime: Option<Runtime>, pod: &PodSandbox, container: &Container) -> Identity {
    let written = Identity::from_annotations(&container.id, &container.annotations, Path::new(""));
    let name = told(&container.name).or(written.k8s_container_name);
    Identity {
        container_id: Some(container.id.clone()),
        id_source: Some(IdSource::Runtime),
        container_name: written.container_name.or_else(|| name.clone()),
        k8s_container_name: name,
        runtime: runtime.or(written.runtime),
        pod_uid: told(&pod.uid).or(written.pod_uid),
        pod_name: told(&pod.name).or(written.pod_name),
        namespace: told(&pod.namespace).or(written.namespace),
        image: written.image,
    }
}

/// Protobuf has no absent texts, only empty ones.
fn told(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}
