//! Container ids, runtimes and pod uids from `/proc/PID/cgroup` texts as the runtimes write them.

use pilotfish_workload::{CgroupIdentity, Isolation, MAX_LINES, Runtime, cgroup_paths};

const ID: &str = "3f1c0de1a5b04a7d9c2e8f60718293a4b5c6d7e8f9012345678901234567abcd";
const OUTER: &str = "00000de1a5b04a7d9c2e8f60718293a4b5c6d7e8f90123456789012345670000";
const UID: &str = "8a6b2f64-1c0d-4e57-9c31-0f6de0a94b12";
const SLICE_UID: &str = "8a6b2f64_1c0d_4e57_9c31_0f6de0a94b12";
const STATIC_UID: &str = "6d1f2a7c9b0e4d538a7c6b5e4f3d2c1b";

fn fill(text: &str) -> String {
    text.replace("{ID}", ID)
        .replace("{OUTER}", OUTER)
        .replace("{UID}", UID)
        .replace("{S}", SLICE_UID)
        .replace("{H}", STATIC_UID)
}

/// One case per line: `name | id runtime pod-uid | line; line; ...`, with `-` for what must not be found.
const CASES: &str = "\
docker, v1, cgroupfs | {ID} docker - | 12:pids:/docker/{ID}; 11:cpu,cpuacct:/docker/{ID}; 1:name=systemd:/docker/{ID}; 0::/system.slice/containerd.service
docker, v1, systemd | {ID} docker - | 9:memory:/system.slice/docker-{ID}.scope; 1:name=systemd:/system.slice/docker-{ID}.scope
docker, v2, systemd | {ID} docker - | 0::/system.slice/docker-{ID}.scope
docker, v2, cgroupfs | {ID} docker - | 0::/docker/{ID}
docker, v2, seen from a sibling's cgroup namespace | {ID} docker - | 0::/../docker-{ID}.scope
docker, v2, cgroupfs, seen from a sibling | {ID} - - | 0::/../{ID}
docker rootless | {ID} docker - | 0::/user.slice/user-1000.slice/user@1000.service/user.slice/docker-{ID}.scope
docker with systemd inside | {ID} docker - | 0::/system.slice/docker-{ID}.scope/system.slice/nginx.service
docker with an init scope inside, v1 | {ID} docker - | 1:name=systemd:/docker/{ID}/init.scope
ECS | {ID} - - | 5:memory:/ecs/0123456789abcdef0123456789abcdef/{ID}
podman rootful | {ID} podman - | 0::/machine.slice/libpod-{ID}.scope/container
podman rootful, v1 | {ID} podman - | 4:memory:/machine.slice/libpod-{ID}.scope; 0::/machine.slice/libpod-{ID}.scope
podman rootless | {ID} podman - | 0::/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope/container
podman, cgroupfs | {ID} podman - | 0::/libpod_parent/libpod-{ID}
podman in a unit, split cgroups | {ID} podman - | 0::/system.slice/web.service/libpod-payload-{ID}
podman in a pod slice | {ID} podman - | 0::/machine.slice/machine-libpod_pod_{OUTER}.slice/libpod-{ID}.scope/container
podman's conmon | - - - | 0::/machine.slice/libpod-conmon-{ID}.scope
podman's conmon, cgroupfs | - - - | 0::/libpod_parent/libpod-conmon-{ID}
podman's conmon inside docker | {OUTER} docker - | 0::/docker/{OUTER}/libpod_parent/libpod-conmon-{ID}
CRI-O's conmon | - - {UID} | 0::/kubepods.slice/kubepods-pod{S}.slice/crio-conmon-{ID}.scope
containerd CRI, systemd | {ID} containerd {UID} | 0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{S}.slice/cri-containerd-{ID}.scope
containerd CRI, guaranteed | {ID} containerd {UID} | 0::/kubepods.slice/kubepods-pod{S}.slice/cri-containerd-{ID}.scope
containerd CRI, cgroupfs | {ID} - {UID} | 7:pids:/kubepods/burstable/pod{UID}/{ID}; 3:cpu,cpuacct:/kubepods/burstable/pod{UID}/{ID}
containerd CRI, drivers that disagree | {ID} containerd {UID} | 0::/system.slice/containerd.service/kubepods-burstable-pod{S}.slice:cri-containerd:{ID}
containerd CRI, seen from the pod's sidecar | {ID} containerd - | 0::/../cri-containerd-{ID}.scope
a static pod | {ID} containerd {H} | 0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{H}.slice/cri-containerd-{ID}.scope
CRI-O | {ID} cri-o {UID} | 0::/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{S}.slice/crio-{ID}.scope
CRI-O, nested container cgroup | {ID} cri-o {UID} | 0::/kubepods.slice/kubepods-pod{S}.slice/crio-{ID}.scope/container
CRI-O, cgroupfs | {ID} cri-o {UID} | 0::/kubepods/besteffort/pod{UID}/crio-{ID}
k3s | {ID} - {UID} | 0::/kubepods/besteffort/pod{UID}/{ID}
kind: a pod inside a docker container | {ID} containerd {UID} | 0::/system.slice/docker-{OUTER}.scope/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/kubelet-kubepods-besteffort-pod{S}.slice/cri-containerd-{ID}.scope
kind, v1 | {ID} - {UID} | 6:memory:/docker/{OUTER}/kubelet/kubepods/pod{UID}/{ID}
nerdctl | {ID} containerd - | 0::/system.slice/nerdctl-{ID}.scope
nerdctl, cgroupfs | {ID} containerd - | 0::/default/{ID}
ctr with a chosen id | shop-api containerd - | 0::/default/shop-api
runc with a cgroupsPath, v1 beside an empty v2 | app - - | 4:memory:/pilotfish-demo/app; 3:pids:/pilotfish-demo/app; 2:cpu:/; 0::/
crun with a cgroupsPath | app - - | 0::/pilotfish-demo/app
a chosen id, seen from a sibling | app - - | 0::/../app
chosen ids that disagree | - - - | 4:memory:/demo/app; 3:pids:/demo/other
a chosen id that no runtime accepts | - - - | 0::/demo/a pp
the kubelet's own cgroups | - - {UID} | 0::/kubepods/burstable/pod{UID}
a private cgroup namespace | - - - | 0::/
the parent of a cgroup namespace | - - - | 0::/..
plain host, v1 | - - - | 2:cpu,cpuacct:/user.slice; 1:name=systemd:/user.slice/user-1000.slice/session-3.scope; 0::/user.slice/user-1000.slice/session-3.scope
plain host, v2 | - - - | 0::/system.slice/sshd.service
a desktop's scope | - - - | 0::/user.slice/user-1000.slice/user@1000.service/app.slice/app-firefox-4242.scope
systemd-nspawn | - - - | 0::/machine.slice/systemd-nspawn@debian.service/payload/system.slice/cron.service
systemd-nspawn's payload | - - - | 0::/machine.slice/machine-debian.scope/payload
63 digits | - - - | 0::/system.slice/docker-3f1c0de1a5b04a7d9c2e8f60718293a4b5c6d7e8f9012345678901234567abc.scope
upper-case digits | - - - | 0::/system.slice/docker-3F1C0DE1A5B04A7D9C2E8F60718293A4B5C6D7E8F9012345678901234567ABCD.scope
podruntime.slice is not a pod | - - - | 0::/podruntime.slice/kubelet.service
nothing | - - - | 
noise | - - - | ::; :; 12; 0:/x; 0::relative; �";

struct Case {
    name: &'static str,
    text: String,
    expected: CgroupIdentity,
}

fn cases() -> impl Iterator<Item = Case> {
    CASES.lines().map(|line| {
        let [name, expected, text] = line
            .splitn(3, " | ")
            .collect::<Vec<_>>()
            .try_into()
            .unwrap();
        let known = |word: &str| (word != "-").then(|| fill(word));
        let [id, runtime, pod] = expected.split(' ').collect::<Vec<_>>().try_into().unwrap();
        let expected = CgroupIdentity {
            container_id: known(id),
            runtime: runtime_named(runtime),
            pod_uid: known(pod),
        };
        Case {
            name,
            text: fill(text).replace("; ", "\n") + "\n",
            expected,
        }
    })
}

fn runtime_named(name: &str) -> Option<Runtime> {
    let all = [
        Runtime::Docker,
        Runtime::Containerd,
        Runtime::CriO,
        Runtime::Podman,
    ];
    all.into_iter().find(|runtime| runtime.as_str() == name)
}

#[test]
fn every_runtime_is_recognised() {
    for case in cases() {
        assert_eq!(
            CgroupIdentity::parse(&case.text, Isolation::Foreign),
            case.expected,
            "{}",
            case.name
        );
    }
}

#[test]
fn chosen_ids_need_a_foreign_mount_namespace() {
    for case in cases() {
        let generated = case.expected.container_id.filter(|id| id.len() == 64);
        let found = CgroupIdentity::parse(&case.text, Isolation::Unknown);
        assert_eq!(found.container_id, generated, "{}", case.name);
    }
}

#[test]
fn every_prefix_and_every_damaged_byte_is_survived() {
    for Case { name, text, .. } in cases() {
        for (end, _) in text.char_indices() {
            let found = CgroupIdentity::parse(&text[..end], Isolation::Foreign);
            assert!(
                found.container_id.is_none_or(|id| text.contains(&id)),
                "{name}"
            );
        }
        for at in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[at] = b'/';
            let damaged = String::from_utf8_lossy(&bytes);
            let found = CgroupIdentity::parse(&damaged, Isolation::Foreign);
            assert!(
                found.container_id.is_none_or(|id| damaged.contains(&id)),
                "{name}"
            );
        }
    }
}

#[test]
fn paths_keep_colons_and_stop_at_the_bound() {
    let paths: Vec<_> = cgroup_paths("1:name=systemd:/a:b\n0::/c\n").collect();
    assert_eq!(paths, ["/a:b", "/c"]);
    assert_eq!(
        cgroup_paths(&"0::/x\n".repeat(MAX_LINES + 10)).count(),
        MAX_LINES
    );
}
