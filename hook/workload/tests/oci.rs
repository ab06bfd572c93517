//! Identities from what OCI runtimes are told, as each manager writes it.

mod runtimes;

use std::collections::BTreeMap;
use std::path::Path;

use pilotfish_workload::{IdSource, Identity, Image, Runtime, oci};
use runtimes::{
    ID, UID, containerd_bundle, containerd_container, containerd_sandbox, crio_container,
    crio_sandbox, map, nerdctl_container, podman_container, storage_bundle,
};

const DIGEST: &str = "sha256:6af79ae5de407283dcea8b00d5c37ace95441fd58a8b1d2aa1ed93f5511bb18c";

fn identity(annotations: &BTreeMap<String, String>, bundle: &str) -> Identity {
    Identity::from_annotations(ID, annotations, Path::new(bundle))
}

/// What is known of a container whose manager tells no names.
fn nameless(runtime: Option<Runtime>) -> Identity {
    Identity {
        container_id: Some(ID.to_owned()),
        id_source: Some(IdSource::Runtime),
        runtime,
        ..Identity::default()
    }
}

#[test]
fn a_container_of_containerds_cri() {
    let expected = Identity {
        container_name: Some("web".to_owned()),
        k8s_container_name: Some("web".to_owned()),
        pod_uid: Some(UID.to_owned()),
        pod_name: Some("shop-7d9f8c6b5-x2x4z".to_owned()),
        namespace: Some("default".to_owned()),
        image: Image {
            name: Some("docker.io/library/nginx".to_owned()),
            tags: vec!["1.27".to_owned()],
            repo_digests: Vec::new(),
        },
        ..nameless(Some(Runtime::Containerd))
    };
    let annotations = containerd_container();
    assert_eq!(
        identity(&annotations, &containerd_bundle("k8s.io")),
        expected
    );
    // Another state directory, a bundle that was given by hand, and containerd 1.5 that wrote no uid.
    let elsewhere = format!("/srv/k3s/io.containerd.runtime.v2.task/k8s.io/{ID}");
    assert_eq!(identity(&annotations, &elsewhere), expected);
    assert_eq!(identity(&annotations, "/srv/bundle"), expected);
    let mut old = annotations;
    old.remove("io.kubernetes.cri.sandbox-uid");
    assert_eq!(identity(&old, &containerd_bundle("k8s.io")).pod_uid, None);
    assert_eq!(oci::labels(&old), BTreeMap::new());
}

#[test]
fn a_container_of_crio() {
    let bundle = storage_bundle("/run/containers/storage");
    let expected = Identity {
        container_name: Some(
            "k8s_web_shop-0_default_8a6b2f64-1c0d-4e57-9c31-0f6de0a94b12_0".to_owned(),
        ),
        k8s_container_name: Some("web".to_owned()),
        pod_uid: Some(UID.to_owned()),
        pod_name: Some("shop-0".to_owned()),
        namespace: Some("default".to_owned()),
        image: Image::parse("quay.io/crio/redis:alpine").unwrap(),
        ..nameless(Some(Runtime::CriO))
    };
    let mut annotations = crio_container();
    assert_eq!(identity(&annotations, &bundle), expected);
    assert_eq!(oci::labels(&annotations), BTreeMap::new());
    annotations.remove("io.container.manager");
    assert_eq!(identity(&annotations, &bundle), expected);
    // The kubelet asks by id; the image has no name.
    let id = "98bd7cfc43b8ef0ff130465e3d5427c0771002c2f35a6a9b62cb2d04602bed0a";
    annotations.insert("io.kubernetes.cri-o.ImageName".to_owned(), String::new());
    annotations.insert("io.kubernetes.cri-o.Image".to_owned(), id.to_owned());
    assert_eq!(identity(&annotations, &bundle).image, Image::default());
}

#[test]
fn labels_that_name_the_service_are_picked_out_of_crios() {
    assert_eq!(
        oci::labels(&crio_sandbox()),
        map(&[
            ("app.kubernetes.io/name", "shop"),
            ("pod-template-hash", "7d9f8c6b5"),
        ])
    );
    for json in ["null", "", "[]", "{\"app.kubernetes.io/name\":1}"] {
        let annotations = map(&[("io.kubernetes.cri-o.Labels", json)]);
        assert_eq!(oci::labels(&annotations), BTreeMap::new(), "{json}");
    }
}

#[test]
fn sandboxes_are_told_apart() {
    assert!(oci::is_sandbox(&containerd_sandbox()));
    assert!(oci::is_sandbox(&crio_sandbox()));
    for annotations in [
        containerd_container(),
        crio_container(),
        podman_container(),
        BTreeMap::new(),
    ] {
        assert!(!oci::is_sandbox(&annotations));
    }
}

#[test]
fn podman_docker_ctr_and_runc_tell_no_names() {
    let podman = storage_bundle("/var/lib/containers/storage");
    assert_eq!(
        identity(&podman_container(), &podman),
        nameless(Some(Runtime::Podman))
    );
    let annotations = map(&[("pilotfish.dev/instrument", "true")]);
    for (bundle, runtime) in [
        (containerd_bundle("moby"), Some(Runtime::Docker)),
        (
            format!("/run/docker/containerd/daemon/io.containerd.runtime.v2.task/moby/{ID}"),
            Some(Runtime::Docker),
        ),
        (
            format!("/run/containerd/io.containerd.runtime.v1.linux/moby/{ID}"),
            Some(Runtime::Docker),
        ),
        (containerd_bundle("default"), Some(Runtime::Containerd)),
        ("/srv/bundle".to_owned(), None),
        (format!("/moby/{ID}"), None),
        (String::new(), None),
        ("/".to_owned(), None),
    ] {
        assert_eq!(
            identity(&annotations, &bundle),
            nameless(runtime),
            "{bundle}"
        );
    }
}

#[test]
fn nerdctl_names_its_containers() {
    let annotations = nerdctl_container();
    assert_eq!(
        identity(&annotations, &containerd_bundle("default")),
        Identity {
            container_name: Some("shop-1a2b3".to_owned()),
            ..nameless(Some(Runtime::Containerd))
        }
    );
}

#[test]
fn keys_of_kubernetes_are_not_believed_where_there_is_none() {
    let mut forged = containerd_container();
    forged.extend(crio_container());
    forged.remove("io.container.manager");
    assert_eq!(
        identity(&forged, &containerd_bundle("moby")),
        nameless(Some(Runtime::Docker))
    );
    forged.insert("io.container.manager".to_owned(), "libpod".to_owned());
    assert_eq!(
        identity(&forged, "/srv/bundle"),
        nameless(Some(Runtime::Podman))
    );
    // The bundle is containerd's: another manager's name is the creator's own idea.
    assert_eq!(
        identity(&forged, &containerd_bundle("k8s.io")).runtime,
        Some(Runtime::Containerd)
    );
}

#[test]
fn values_that_are_no_names_are_left_out() {
    for value in ["", "a\nb", "\u{1b}[31m", &"n".repeat(513)] {
        let mut annotations = containerd_container();
        for name in annotations.values_mut() {
            value.clone_into(name);
        }
        assert_eq!(
            identity(&annotations, &containerd_bundle("k8s.io")),
            nameless(Some(Runtime::Containerd)),
            "{value:?}"
        );
    }
}

#[test]
fn image_references() {
    let with_digest = |name: &str| format!("{name}@{DIGEST}");
    for (reference, name, tag, digest) in [
        ("nginx", "nginx", None, false),
        ("nginx:1.27", "nginx", Some("1.27"), false),
        (
            "docker.io/library/nginx:1.27",
            "docker.io/library/nginx",
            Some("1.27"),
            true,
        ),
        ("localhost:5000/a/b", "localhost:5000/a/b", None, true),
        (
            "localhost:5000/a/b:v1_x-2",
            "localhost:5000/a/b",
            Some("v1_x-2"),
            false,
        ),
        ("127.0.0.1:5000/a", "127.0.0.1:5000/a", None, false),
        ("[::1]:5000/a", "[::1]:5000/a", None, false),
        ("[2001:db8::1]/a:t", "[2001:db8::1]/a", Some("t"), false),
        (
            "Registry.Example/a__b/c---d/e.f",
            "Registry.Example/a__b/c---d/e.f",
            None,
            false,
        ),
        ("a:5000", "a", Some("5000"), false),
        ("sha256:v1", "sha256", Some("v1"), false),
        ("sha256/x", "sha256/x", None, true),
    ] {
        let text = if digest {
            with_digest(reference)
        } else {
            reference.to_owned()
        };
        let expected = Image {
            name: Some(name.to_owned()),
            tags: tag.map(str::to_owned).into_iter().collect(),
            repo_digests: digest.then(|| with_digest(name)).into_iter().collect(),
        };
        assert_eq!(Image::parse(&text), Some(expected), "{text}");
    }
    for no_reference in [
        "",
        ":",
        "@",
        "/",
        "a/",
        "/a",
        "a//b",
        "a:",
        "a@",
        "a:-t",
        "A",
        "a/B",
        "a..b",
        "a___b",
        "a._b",
        "-a",
        "a-",
        "a b",
        "a:t:u",
        "a@sha256:",
        "a@sha256:0123",
        "a@sha256",
        "a@:0123456789abcdef0123456789abcdef",
        "a@sha256:0123456789abcdef0123456789abcdeg",
        "host:port/a",
        "host:/a",
        "ho_st:80/a",
        "[::g]/a",
        "[::1/a",
        "a\u{0}",
        "ü",
        ID,
        DIGEST,
        &format!("{ID}:tag"),
        &format!("a:{}", "t".repeat(129)),
        &"a".repeat(256),
    ] {
        assert_eq!(Image::parse(no_reference), None, "{no_reference:?}");
    }
}
