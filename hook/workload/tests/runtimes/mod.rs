//! What the managers of containers write into `config.json` and the OCI state.

use std::collections::BTreeMap;

pub(crate) const ID: &str = "3f1c0de1a5b04a7d9c2e8f60718293a4b5c6d7e8f9012345678901234567abcd";
pub(crate) const UID: &str = "8a6b2f64-1c0d-4e57-9c31-0f6de0a94b12";

pub(crate) fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

pub(crate) fn containerd_bundle(namespace: &str) -> String {
    format!("/run/containerd/io.containerd.runtime.v2.task/{namespace}/{ID}")
}

/// A bundle of podman and CRI-O.
pub(crate) fn storage_bundle(storage: &str) -> String {
    format!("{storage}/overlay-containers/{ID}/userdata")
}

pub(crate) fn containerd_container() -> BTreeMap<String, String> {
    map(&[
        ("io.kubernetes.cri.container-name", "web"),
        ("io.kubernetes.cri.container-type", "container"),
        (
            "io.kubernetes.cri.image-name",
            "docker.io/library/nginx:1.27",
        ),
        (
            "io.kubernetes.cri.sandbox-id",
            "00000de1a5b04a7d9c2e8f60718293a4b5c6d7e8f90123456789012345670000",
        ),
        ("io.kubernetes.cri.sandbox-name", "shop-7d9f8c6b5-x2x4z"),
        ("io.kubernetes.cri.sandbox-namespace", "default"),
        ("io.kubernetes.cri.sandbox-uid", UID),
        ("pilotfish.dev/instrument", "true"),
    ])
}

pub(crate) fn containerd_sandbox() -> BTreeMap<String, String> {
    map(&[
        ("io.kubernetes.cri.container-type", "sandbox"),
        (
            "io.kubernetes.cri.podsandbox.image-name",
            "registry.k8s.io/pause:3.10",
        ),
        ("io.kubernetes.cri.sandbox-cpu-period", "100000"),
        ("io.kubernetes.cri.sandbox-cpu-quota", "0"),
        ("io.kubernetes.cri.sandbox-cpu-shares", "2"),
        ("io.kubernetes.cri.sandbox-id", ID),
        (
            "io.kubernetes.cri.sandbox-log-directory",
            "/var/log/pods/default_shop-7d9f8c6b5-x2x4z_8a6b2f64",
        ),
        ("io.kubernetes.cri.sandbox-memory", "0"),
        ("io.kubernetes.cri.sandbox-name", "shop-7d9f8c6b5-x2x4z"),
        ("io.kubernetes.cri.sandbox-namespace", "default"),
        ("io.kubernetes.cri.sandbox-uid", UID),
    ])
}

pub(crate) fn crio_container() -> BTreeMap<String, String> {
    map(&[
        ("io.container.manager", "cri-o"),
        ("io.kubernetes.container.hash", "2e5e3ad6"),
        ("io.kubernetes.container.name", "web"),
        ("io.kubernetes.container.restartCount", "0"),
        (
            "io.kubernetes.cri-o.Annotations",
            "{\"io.kubernetes.container.hash\":\"2e5e3ad6\"}",
        ),
        ("io.kubernetes.cri-o.ContainerID", ID),
        ("io.kubernetes.cri-o.ContainerType", "container"),
        (
            "io.kubernetes.cri-o.Created",
            "2026-01-07T11:33:26.50092793Z",
        ),
        ("io.kubernetes.cri-o.IP.0", "10.244.0.3"),
        ("io.kubernetes.cri-o.Image", "quay.io/crio/redis:alpine"),
        ("io.kubernetes.cri-o.ImageName", "quay.io/crio/redis:alpine"),
        (
            "io.kubernetes.cri-o.ImageRef",
            "98bd7cfc43b8ef0ff130465e3d5427c0771002c2f35a6a9b62cb2d04602bed0a",
        ),
        (
            "io.kubernetes.cri-o.Labels",
            "{\"io.kubernetes.container.name\":\"web\",\"io.kubernetes.pod.name\":\"shop-0\",\
             \"io.kubernetes.pod.namespace\":\"default\"}",
        ),
        ("io.kubernetes.cri-o.Metadata", "{\"name\":\"web\"}"),
        (
            "io.kubernetes.cri-o.Name",
            "k8s_web_shop-0_default_8a6b2f64-1c0d-4e57-9c31-0f6de0a94b12_0",
        ),
        (
            "io.kubernetes.cri-o.SandboxName",
            "k8s_shop-0_default_8a6b2f64_0",
        ),
        ("io.kubernetes.pod.name", "shop-0"),
        ("io.kubernetes.pod.namespace", "default"),
        ("io.kubernetes.pod.uid", UID),
        ("pilotfish.dev/instrument", "true"),
    ])
}

pub(crate) fn crio_sandbox() -> BTreeMap<String, String> {
    map(&[
        ("io.container.manager", "cri-o"),
        ("io.kubernetes.container.name", "POD"),
        (
            "io.kubernetes.cri-o.ContainerName",
            "k8s_POD_shop-0_default_8a6b2f64-1c0d-4e57-9c31-0f6de0a94b12_0",
        ),
        ("io.kubernetes.cri-o.ContainerType", "sandbox"),
        ("io.kubernetes.cri-o.KubeName", "shop-0"),
        (
            "io.kubernetes.cri-o.Labels",
            "{\"app.kubernetes.io/name\":\"shop\",\"io.kubernetes.container.name\":\"POD\",\
             \"pod-template-hash\":\"7d9f8c6b5\",\"run\":\"shop\"}",
        ),
        ("run", "shop"),
    ])
}

pub(crate) fn podman_container() -> BTreeMap<String, String> {
    map(&[
        ("io.container.manager", "libpod"),
        (
            "io.kubernetes.cri-o.Created",
            "2024-07-29T11:36:40.51830451+05:30",
        ),
        ("io.kubernetes.cri-o.TTY", "true"),
        ("io.podman.annotations.autoremove", "TRUE"),
        ("io.podman.annotations.init", "FALSE"),
        ("io.podman.annotations.privileged", "FALSE"),
        ("io.podman.annotations.publish-all", "FALSE"),
        ("org.opencontainers.image.base.digest", ""),
        ("org.opencontainers.image.stopSignal", "15"),
        ("pilotfish.dev/instrument", "true"),
    ])
}

pub(crate) fn nerdctl_container() -> BTreeMap<String, String> {
    map(&[
        ("nerdctl/hostname", "3f1c0de1a5b0"),
        ("nerdctl/name", "shop-1a2b3"),
        ("nerdctl/namespace", "default"),
        ("nerdctl/networks", "[\"bridge\"]"),
        (
            "nerdctl/state-dir",
            "/var/lib/nerdctl/1935db59/containers/default/3f1c",
        ),
    ])
}
