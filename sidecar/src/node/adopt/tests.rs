use super::*;
use serde_json::json;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use tempfile::TempDir;

/// A host's root as far as runtimes write to it.
struct Host(TempDir);

impl Host {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, path: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    fn bundle(&self, id: &str, annotations: &serde_json::Value) -> PathBuf {
        let config = json!({"ociVersion": "1.0.2", "annotations": annotations});
        let path = format!("bundles/{id}/config.json");
        let file = self.write(&path, &config.to_string());
        file.parent().unwrap().to_owned()
    }

    fn runc(&self, root: &str, id: &str, bundle: &Path) -> PathBuf {
        // As runc writes it, shortened.
        let state = json!({
            "id": id,
            "init_process_pid": 4711,
            "init_process_start": 998_877,
            "created": "2024-05-01T10:00:00Z",
            "config": {
                "no_pivot_root": false,
                "labels": ["io.example=1", "bundle=/of/an/annotation", format!("bundle={}", bundle.display())],
            },
            "rootless": false,
        });
        self.write(&format!("{root}/{id}/state.json"), &state.to_string())
    }

    fn crun(&self, root: &str, id: &str, bundle: &Path) {
        let status = json!({
            "pid": 4712,
            "process-start-time": 1234,
            "cgroup-path": "/machine.slice",
            "bundle": bundle,
            "rootfs": "rootfs",
            "systemd-cgroup": false,
            "created": "2024-05-01T10:00:00Z",
        });
        self.write(&format!("{root}/{id}/status"), &status.to_string());
    }

    fn ids(&self) -> Vec<String> {
        let mut ids: Vec<_> = found(self.0.path())
            .into_iter()
            .map(|found| found.id)
            .collect();
        ids.sort();
        ids
    }
}

fn selecting() -> serde_json::Value {
    json!({"pilotfish.dev/instrument": "true", "io.kubernetes.cri.container-type": "container"})
}

#[test]
fn containers_of_every_place_are_found() {
    let host = Host::new();
    let bundle = host.bundle("b", &selecting());
    host.runc("run/containerd/runc/k8s.io", "in-kubernetes", &bundle);
    host.runc("run/containerd/runc/default", "of-ctr", &bundle);
    host.runc("run/docker/runtime-runc/moby", "in-docker", &bundle);
    host.runc("run/runc", "of-runc", &bundle);
    host.crun("run/crun", "of-podman", &bundle);
    host.crun("run/containerd/runc/k8s.io", "crun-of-containerd", &bundle);
    let expected = [
        "crun-of-containerd",
        "in-docker",
        "in-kubernetes",
        "of-ctr",
        "of-podman",
        "of-runc",
    ];
    assert_eq!(host.ids(), expected);
    let by_id = |id| find(host.0.path(), id).unwrap();
    let (runc, crun) = (by_id("of-runc"), by_id("of-podman"));
    assert_eq!((runc.pid, runc.start), (4711, 998_877));
    assert_eq!((crun.pid, crun.start), (4712, 1234));
    assert_eq!(runc.bundle, bundle);
    assert_eq!(crun.bundle, bundle);
    assert_eq!(find(host.0.path(), "of-nobody"), None);
    assert_eq!(find(host.0.path(), "../runc"), None);
}

#[test]
fn annotations_select() {
    let host = Host::new();
    for (id, annotations, selected) in [
        ("yes", selecting(), true),
        ("no", json!({"pilotfish.dev/instrument": "false"}), false),
        ("silent", json!({}), false),
        (
            "pause",
            json!({"pilotfish.dev/instrument": "true", "io.kubernetes.cri.container-type": "sandbox"}),
            false,
        ),
    ] {
        let bundle = host.bundle(id, &annotations);
        host.runc("run/runc", id, &bundle);
        let announced = announcement(&find(host.0.path(), id).unwrap());
        assert_eq!(announced.is_some(), selected, "{id}");
        if let Some(announced) = announced {
            assert_eq!((announced.id.as_str(), announced.pid), (id, 4711));
            assert_eq!(announced.identity.container_id.as_deref(), Some(id));
            assert_eq!(announced.annotations["pilotfish.dev/instrument"], "true");
            assert_eq!(announced.annotations.len(), 1);
        }
    }
}

#[test]
fn a_host_without_runtimes_has_no_containers() {
    assert!(Host::new().ids().is_empty());
}

#[test]
fn what_cannot_be_understood_or_trusted_is_passed_over() {
    let host = Host::new();
    let bundle = host.bundle("b", &selecting());
    let good = host.runc("run/runc", "good", &bundle);
    host.runc("run/runc", "-bad-id", &bundle);
    host.write("run/runc/empty/state.json", "");
    host.write(
        "run/runc/other/state.json",
        &fs::read_to_string(&good).unwrap(),
    );
    host.write("run/runc/list/state.json", "[1, 2]");
    host.write(
        "run/runc/no-bundle/state.json",
        r#"{"id":"no-bundle","init_process_pid":1,"init_process_start":1,"config":{}}"#,
    );
    host.write("run/runc/a-file", "");
    symlink(good.parent().unwrap(), host.0.path().join("run/runc/link")).unwrap();
    fs::create_dir(host.0.path().join("run/runc/linked-file")).unwrap();
    symlink(&good, host.0.path().join("run/runc/linked-file/state.json")).unwrap();
    let writable = host.runc("run/runc", "writable", &bundle);
    fs::set_permissions(&writable, fs::Permissions::from_mode(0o666)).unwrap();
    assert_eq!(host.ids(), ["good"]);
}

#[test]
fn a_bundle_that_cannot_be_used_announces_nothing() {
    let host = Host::new();
    let announced = |bundle: &Path| {
        host.runc("run/runc", "c", bundle);
        announcement(&find(host.0.path(), "c").unwrap())
    };
    assert!(announced(&host.bundle("good", &selecting())).is_some());
    assert!(announced(&host.0.path().join("absent")).is_none());
    host.write("bundles/broken/config.json", "{");
    assert!(announced(&host.0.path().join("bundles/broken")).is_none());
    host.write("bundles/bare/config.json", "{}");
    assert!(announced(&host.0.path().join("bundles/bare")).is_none());
    let linked = host.0.path().join("bundles/linked");
    fs::create_dir(&linked).unwrap();
    let good = host.0.path().join("bundles/good/config.json");
    symlink(good, linked.join("config.json")).unwrap();
    assert!(announced(&linked).is_none());
}
