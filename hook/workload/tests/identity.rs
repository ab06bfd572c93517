//! Identities from cgroup and mountinfo texts together, as containers of each runtime show them.

use pilotfish_workload::{IdSource, Identity, Image, Isolation, MountIdentity, Runtime};

const ID: &str = "3f1c0de1a5b04a7d9c2e8f60718293a4b5c6d7e8f9012345678901234567abcd";
const SANDBOX: &str = "00000de1a5b04a7d9c2e8f60718293a4b5c6d7e8f90123456789012345670000";
const UID: &str = "8a6b2f64-1c0d-4e57-9c31-0f6de0a94b12";

/// Mounts that every container has.
const COMMON: &str = "\
812 700 0:120 / / rw,relatime master:301 - overlay overlay rw,lowerdir=/var/lib/a:/var/lib/b,upperdir=/var/lib/u\n\
813 812 0:124 / /proc rw,nosuid,nodev,noexec,relatime - proc proc rw\n\
814 812 0:125 / /dev rw,nosuid - tmpfs tmpfs rw,size=65536k,mode=755\n\
816 812 0:127 / /sys ro,nosuid,nodev,noexec,relatime - sysfs sysfs ro\n\
817 816 0:29 / /sys/fs/cgroup ro,nosuid,nodev,noexec,relatime - cgroup2 cgroup rw\n";

fn bind(source: &str, point: &str) -> String {
    format!("830 812 8:1 {source} {point} rw,relatime shared:5 master:2 - ext4 /dev/sda1 rw\n")
}

fn docker() -> String {
    let directory = format!("/var/lib/docker/containers/{ID}");
    [
        COMMON,
        &bind(&format!("{directory}/resolv.conf"), "/etc/resolv.conf"),
        &bind(&format!("{directory}/hostname"), "/etc/hostname"),
        &bind(&format!("{directory}/hosts"), "/etc/hosts"),
    ]
    .concat()
}

fn containerd_pod() -> String {
    let sandbox = format!("/var/lib/containerd/io.containerd.grpc.v1.cri/sandboxes/{SANDBOX}");
    [
        COMMON,
        &bind(
            &format!("/var/lib/kubelet/pods/{UID}/etc-hosts"),
            "/etc/hosts",
        ),
        &bind(
            &format!("/var/lib/kubelet/pods/{UID}/containers/web/1f2e3d4c"),
            "/dev/termination-log",
        ),
        &bind(&format!("{sandbox}/hostname"), "/etc/hostname"),
        &bind(&format!("{sandbox}/resolv.conf"), "/etc/resolv.conf"),
    ]
    .concat()
}

fn crio_pod(containerenv: bool) -> String {
    let storage = "/containers/storage/overlay-containers";
    let own = if containerenv {
        bind(
            &format!("{storage}/{ID}/userdata/.containerenv"),
            "/run/.containerenv",
        )
    } else {
        String::new()
    };
    [
        COMMON,
        &bind(
            &format!("{storage}/{SANDBOX}/userdata/resolv.conf"),
            "/etc/resolv.conf",
        ),
        &bind(
            &format!("{storage}/{SANDBOX}/userdata/hostname"),
            "/etc/hostname",
        ),
        &own,
        &bind(
            &format!("/var/lib/kubelet/pods/{UID}/etc-hosts"),
            "/etc/hosts",
        ),
        &bind(
            &format!("/var/lib/kubelet/pods/{UID}/containers/web/1f2e3d4c"),
            "/dev/termination-log",
        ),
    ]
    .concat()
}

fn podman(storage: &str) -> String {
    let other = format!("{storage}/{SANDBOX}/userdata");
    [
        COMMON,
        &bind(&format!("{other}/hosts"), "/etc/hosts"),
        &bind(
            &format!("{storage}/{ID}/userdata/.containerenv"),
            "/run/.containerenv",
        ),
    ]
    .concat()
}

#[test]
fn docker_behind_a_private_cgroup_namespace() {
    let expected = Identity {
        container_id: Some(ID.to_owned()),
        id_source: Some(IdSource::Mount),
        runtime: Some(Runtime::Docker),
        ..Identity::default()
    };
    assert_eq!(
        Identity::from_text("0::/\n", &docker(), Isolation::Foreign),
        expected
    );
}

#[test]
fn containerd_pod_takes_the_id_from_the_cgroup_and_the_rest_from_mounts() {
    let cgroup = format!("0::/../cri-containerd-{ID}.scope\n");
    let expected = Identity {
        container_id: Some(ID.to_owned()),
        id_source: Some(IdSource::Cgroup),
        container_name: Some("web".to_owned()),
        k8s_container_name: Some("web".to_owned()),
        runtime: Some(Runtime::Containerd),
        pod_uid: Some(UID.to_owned()),
        ..Identity::default()
    };
    assert_eq!(
        Identity::from_text(&cgroup, &containerd_pod(), Isolation::Foreign),
        expected
    );
}

#[test]
fn a_sandbox_id_is_never_the_containers() {
    let docker_sandbox = containerd_pod().replace(
        "/var/lib/containerd/io.containerd.grpc.v1.cri/sandboxes",
        "/var/lib/docker/containers",
    );
    for mounts in [containerd_pod(), crio_pod(false), docker_sandbox] {
        let found = Identity::from_text("0::/\n", &mounts, Isolation::Foreign);
        assert_eq!((found.container_id, found.id_source), (None, None));
        assert_eq!(
            (found.container_name, found.pod_uid),
            (Some("web".to_owned()), Some(UID.to_owned()))
        );
    }
    // A pod known by its cgroup alone is as good a reason.
    let cgroup = format!("0::/kubepods/burstable/pod{UID}\n");
    assert_eq!(
        Identity::from_text(&cgroup, &docker(), Isolation::Foreign).container_id,
        None
    );
}

#[test]
fn crio_pod_behind_a_private_cgroup_namespace() {
    let found = Identity::from_text("0::/\n", &crio_pod(true), Isolation::Foreign);
    assert_eq!(
        (found.container_id, found.runtime),
        (Some(ID.to_owned()), Some(Runtime::CriO))
    );
}

#[test]
fn podman_prefers_its_own_file_over_shared_ones() {
    for storage in [
        "/containers/storage/overlay-containers",
        "/containers/overlay-containers",
        "/home/u/.local/share/containers/storage/vfs-containers",
    ] {
        let found = Identity::from_text("0::/\n", &podman(storage), Isolation::Foreign);
        assert_eq!(
            (found.container_id, found.runtime),
            (Some(ID.to_owned()), Some(Runtime::Podman)),
            "{storage}"
        );
    }
    let older = bind(
        &format!("/containers/storage/overlay-containers/{ID}/userdata/hostname"),
        "/etc/hostname",
    );
    assert_eq!(
        MountIdentity::parse(&older).container_id,
        Some(ID.to_owned())
    );
}

#[test]
fn nerdctl_files_name_the_container() {
    let mounts = bind(
        &format!("/var/lib/nerdctl/1935db59/containers/default/{ID}/hostname"),
        "/etc/hostname",
    );
    let found = MountIdentity::parse(&mounts);
    assert_eq!(
        (found.container_id, found.runtime),
        (Some(ID.to_owned()), Some(Runtime::Containerd))
    );
}

#[test]
fn sources_are_read_relative_to_their_file_system_and_unescaped() {
    let on_own_disk = bind(
        &format!("/pods/{UID}/containers/web/1f2e3d4c"),
        "/var/log/my\\040end",
    );
    let spaced = bind(
        &format!("/my\\040disk/kubelet/pods/{UID}/containers/web/1f2e3d4c"),
        "/dev/termination-log",
    );
    for mounts in [on_own_disk, spaced] {
        let found = MountIdentity::parse(&mounts);
        assert_eq!(
            (found.container_name, found.pod_uid),
            (Some("web".to_owned()), Some(UID.to_owned()))
        );
    }
}

#[test]
fn mounts_that_look_alike_are_not_believed() {
    for mounts in [
        // A volume that a workload mounts where it likes.
        bind(
            &format!("/var/lib/docker/containers/{ID}/hostname"),
            "/mnt/hostname",
        ),
        bind(
            &format!("/var/lib/docker/containers/{ID}/hostname/deeper"),
            "/etc/hostname",
        ),
        bind(
            &format!("/var/lib/kubelet/pods/{UID}/etc-hosts"),
            "/mnt/hosts",
        ),
        bind(
            "/var/lib/kubelet/pods/not-a-uid/containers/web/1f2e3d4c",
            "/dev/termination-log",
        ),
        bind(
            &format!("/var/lib/kubelet/pods/{UID}/containers/We..b/1f2e3d4c"),
            "/dev/termination-log",
        ),
        bind(
            &format!("/var/lib/kubelet/pods/{UID}/containers/web/not-hex"),
            "/dev/termination-log",
        ),
        bind("/etc/hostname", "/etc/hostname"),
        COMMON.to_owned(),
        "1 2 3\n\n \\ \n1 2 3 /\n".to_owned(),
    ] {
        assert_eq!(
            MountIdentity::parse(&mounts),
            MountIdentity::default(),
            "{mounts}"
        );
    }
}

#[test]
fn mounts_added_later_do_not_overrule_the_runtimes() {
    let forged = bind(
        &format!(
            "/var/lib/kubelet/pods/{}/containers/other/1",
            UID.replace('8', "9")
        ),
        "/mnt/log",
    );
    let found = MountIdentity::parse(&(containerd_pod() + &forged));
    assert_eq!(
        (found.container_name, found.pod_uid),
        (Some("web".to_owned()), Some(UID.to_owned()))
    );
}

#[test]
fn every_kubelets_root_directory_is_known_by_its_end() {
    for root in [
        "/var/lib/kubelet",
        "/var/lib/rancher/k3s/agent/kubelet",
        "/var/snap/microk8s/common/var/lib/kubelet",
        "/var/lib/k0s/kubelet",
        "",
    ] {
        let mounts = containerd_pod().replace("/var/lib/kubelet", root);
        let found = MountIdentity::parse(&mounts);
        assert_eq!(
            (found.container_name, found.pod_uid),
            (Some("web".to_owned()), Some(UID.to_owned())),
            "{root}"
        );
    }
}

/// `volumes`, a mounted subPath and a projected token, in the order of containerd: by the depth of their places.
#[test]
fn volumes_name_no_container() {
    let pod = format!("/var/lib/kubelet/pods/{UID}");
    let volumes = [
        bind(
            &format!("{pod}/volumes/kubernetes.io~empty-dir/data"),
            "/data",
        ),
        bind(&format!("{pod}/volume-subpaths/config/other/0"), "/etc/app"),
        bind(
            &format!(
                "{pod}/volumes/kubernetes.io~empty-dir/data/pods/{UID}/containers/forged/1f2e3d4c"
            ),
            "/mnt",
        ),
        bind(
            &format!("{pod}/volumes/kubernetes.io~projected/kube-api-access-x2x9z"),
            "/run/secrets/kubernetes.io/serviceaccount",
        ),
    ];
    let of_volumes = MountIdentity::parse(&[&volumes[..2], &volumes[3..]].concat().concat());
    assert_eq!(of_volumes, MountIdentity::default());
    let found = MountIdentity::parse(&(volumes.concat() + &containerd_pod()));
    assert_eq!(
        (found.container_name, found.pod_uid),
        (Some("web".to_owned()), Some(UID.to_owned()))
    );
}

#[test]
fn every_prefix_is_survived() {
    for text in [
        docker(),
        containerd_pod(),
        crio_pod(true),
        podman("/x/overlay-containers"),
    ] {
        for (end, _) in text.char_indices() {
            let found = MountIdentity::parse(&text[..end]);
            assert!(
                found
                    .container_id
                    .is_none_or(|id| id == ID || id == SANDBOX)
            );
        }
    }
}

#[test]
fn serialises_as_the_status_page_shows_it() {
    let runtimes = [
        Runtime::Docker,
        Runtime::Containerd,
        Runtime::CriO,
        Runtime::Podman,
    ];
    for runtime in runtimes {
        assert_eq!(serde_json::to_value(runtime).unwrap(), runtime.as_str());
    }
    let found = Identity::from_text("0::/\n", &docker(), Isolation::Foreign);
    let json = serde_json::to_value(&found).unwrap();
    assert_eq!(json["container_id"], ID);
    assert_eq!(json["id_source"], "mount");
    assert!(json["pod_uid"].is_null());
}

#[test]
fn what_the_runtime_announced_comes_first() {
    let announced = Identity {
        container_id: Some(ID.to_owned()),
        id_source: Some(IdSource::Runtime),
        container_name: Some("k8s_web_shop-0_default_uid_0".to_owned()),
        pod_name: Some("shop-0".to_owned()),
        image: Image::parse("shop:1").unwrap(),
        ..Identity::default()
    };
    let cgroup = format!("0::/kubepods/burstable/pod{UID}/cri-containerd-{ID}.scope\n");
    let from_proc = Identity::from_text(&cgroup, &containerd_pod(), Isolation::Foreign);
    assert_eq!(
        Identity::merge(announced.clone(), from_proc.clone()),
        Identity {
            k8s_container_name: Some("web".to_owned()),
            runtime: Some(Runtime::Containerd),
            pod_uid: Some(UID.to_owned()),
            ..announced.clone()
        }
    );
    assert_eq!(
        Identity::merge(Identity::default(), from_proc.clone()),
        from_proc
    );
    assert_eq!(
        Identity::merge(announced.clone(), Identity::default()),
        announced
    );
}

#[test]
fn another_containers_proc_adds_nothing() {
    let announced = Identity {
        container_id: Some(SANDBOX.to_owned()),
        id_source: Some(IdSource::Runtime),
        ..Identity::default()
    };
    let cgroup = format!("0::/../cri-containerd-{ID}.scope\n");
    let from_proc = Identity::from_text(&cgroup, &containerd_pod(), Isolation::Foreign);
    assert_eq!(Identity::merge(announced.clone(), from_proc), announced);
}

#[test]
fn a_live_process_is_read() {
    let directory = std::path::Path::new("/proc/self");
    let found = Identity::read(directory, Isolation::Unknown).unwrap();
    let read = |name| std::fs::read_to_string(directory.join(name)).unwrap();
    assert_eq!(
        found,
        Identity::from_text(&read("cgroup"), &read("mountinfo"), Isolation::Unknown)
    );
    let gone =
        Identity::read(std::path::Path::new("/proc/4194305"), Isolation::Unknown).unwrap_err();
    assert_eq!(gone.kind(), std::io::ErrorKind::NotFound);
}
