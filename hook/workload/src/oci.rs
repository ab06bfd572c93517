//! What the OCI runtime is told about a container: the annotations and the place of its bundle.
//!
//! | runtime | keys, as its sources write them |
//! |---|---|
//! | containerd, CRI plug-in | `io.kubernetes.cri.*` (`internal/cri/annotations`) |
//! | CRI-O | `io.kubernetes.cri-o.*` (`pkg/annotations` of podman), and the kubelet's labels `io.kubernetes.pod.*`, `io.kubernetes.container.name` |
//! | podman | `io.container.manager: libpod`; it tells no names |
//! | nerdctl | its labels, as annotations: `nerdctl/name` (`pkg/labels`) |
//! | docker, ctr | none; the bundle's path is containerd's, the containerd namespace `moby` is docker's |
//!
//! A container's creator may write annotations of any name. The bundle's path is the runtime's own, so it comes
//! first, and of a runtime that cannot know of Kubernetes no such key is believed.

use std::collections::BTreeMap;
use std::path::Path;

use crate::identity::{IdSource, Identity, Runtime};
use crate::image::Image;
use crate::service::naming_labels;

/// Annotations of a container.
type Annotations = BTreeMap<String, String>;

/// Longest text that is taken from an annotation, bytes: more than any name that Kubernetes allows.
const MAX_NAME: usize = 512;

/// CRI-O's copy of the labels that it got from the kubelet, a JSON object.
const CRIO_LABELS: &str = "io.kubernetes.cri-o.Labels";

/// Whether this is a pod's sandbox ("pause"), not a container that somebody wants to see.
pub fn is_sandbox(annotations: &Annotations) -> bool {
    [
        "io.kubernetes.cri.container-type",
        "io.kubernetes.cri-o.ContainerType",
    ]
    .iter()
    .any(|key| annotations.get(*key).is_some_and(|kind| kind == "sandbox"))
}

/// The labels that name the service, see [`naming_labels`], where CRI-O tells them.
pub fn labels(annotations: &Annotations) -> BTreeMap<String, String> {
    annotations
        .get(CRIO_LABELS)
        .and_then(|text| serde_json::from_str::<BTreeMap<String, String>>(text).ok())
        .map(naming_labels)
        .unwrap_or_default()
}

impl Identity {
    /// Identity of the container `id` from the annotations of its OCI state or `config.json` and the path of its
    /// bundle.
    pub fn from_annotations(id: &str, annotations: &Annotations, bundle: &Path) -> Self {
        let runtime = runtime(annotations, bundle);
        let known = Self {
            container_id: Some(id.to_owned()),
            id_source: Some(IdSource::Runtime),
            runtime,
            ..Self::default()
        };
        match runtime {
            Some(Runtime::Containerd) => containerd(known, annotations),
            Some(Runtime::CriO) => crio(known, annotations),
            Some(Runtime::Docker | Runtime::Podman) | None => known,
        }
    }
}

/// The runtime: by the bundle's path, by the manager that podman and CRI-O name, by the CRI keys.
fn runtime(annotations: &Annotations, bundle: &Path) -> Option<Runtime> {
    if let Some(namespace) = containerd_namespace(bundle) {
        return Some(if namespace == "moby" {
            Runtime::Docker
        } else {
            Runtime::Containerd
        });
    }
    match annotations.get("io.container.manager").map(String::as_str) {
        Some("libpod") => return Some(Runtime::Podman),
        Some("cri-o") => return Some(Runtime::CriO),
        _ => {}
    }
    if annotations.contains_key("io.kubernetes.cri-o.ContainerType") {
        Some(Runtime::CriO)
    } else if annotations.contains_key("io.kubernetes.cri.container-type") {
        Some(Runtime::Containerd)
    } else {
        None
    }
}

/// The containerd namespace of a bundle, `STATE/io.containerd.runtime.v2.task/NAMESPACE/ID`.
fn containerd_namespace(bundle: &Path) -> Option<&str> {
    let mut components = bundle
        .components()
        .rev()
        .skip(1)
        .map(|component| component.as_os_str().to_str());
    let namespace = components.next()??;
    let plugin = components.next()??;
    plugin
        .starts_with("io.containerd.runtime.")
        .then_some(namespace)
}

fn containerd(known: Identity, annotations: &Annotations) -> Identity {
    let name = text(annotations, "io.kubernetes.cri.container-name");
    let image = annotations.get("io.kubernetes.cri.image-name");
    Identity {
        container_name: name.clone().or_else(|| text(annotations, "nerdctl/name")),
        k8s_container_name: name,
        pod_uid: text(annotations, "io.kubernetes.cri.sandbox-uid"),
        pod_name: text(annotations, "io.kubernetes.cri.sandbox-name"),
        namespace: text(annotations, "io.kubernetes.cri.sandbox-namespace"),
        image: image
            .and_then(|image| Image::parse(image))
            .unwrap_or_default(),
        ..known
    }
}

fn crio(known: Identity, annotations: &Annotations) -> Identity {
    // `ImageName` is the name that the stored image has; `Image` is what was asked for, often an id. `ImageRef` is
    // the image's id, no repository digest.
    let image = ["io.kubernetes.cri-o.ImageName", "io.kubernetes.cri-o.Image"]
        .iter()
        .find_map(|key| Image::parse(annotations.get(*key)?));
    Identity {
        container_name: text(annotations, "io.kubernetes.cri-o.Name"),
        k8s_container_name: text(annotations, "io.kubernetes.container.name"),
        pod_uid: text(annotations, "io.kubernetes.pod.uid"),
        pod_name: text(annotations, "io.kubernetes.pod.name"),
        namespace: text(annotations, "io.kubernetes.pod.namespace"),
        image: image.unwrap_or_default(),
        ..known
    }
}

/// A value that can be a name.
fn text(annotations: &Annotations, key: &str) -> Option<String> {
    annotations
        .get(key)
        .filter(|text| !text.is_empty() && text.len() <= MAX_NAME)
        .filter(|text| !text.chars().any(char::is_control))
        .cloned()
}
