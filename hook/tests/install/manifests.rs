//! The samples in `manifests/` are what the installer writes. `PILOTFISH_WRITE_MANIFESTS=1` writes them anew.

use super::host::Host;
use std::{env, fs, path::Path};

#[track_caller]
fn same(host: &Host, written: &str, sample: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../manifests")
        .join(sample);
    let text = host.read(written);
    if env::var_os("PILOTFISH_WRITE_MANIFESTS").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &text).unwrap();
    }
    let sample = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        sample,
        text,
        "{} is not what the installer writes",
        path.display()
    );
}

#[test]
fn hooks_d() {
    let host = Host::new("podman");
    host.install(&[]).succeeded();
    for stage in ["createRuntime", "poststop"] {
        let written = format!("/usr/share/containers/oci/hooks.d/pilotfish-{stage}.json");
        same(&host, &written, &format!("hooks.d/pilotfish-{stage}.json"));
    }
}

#[test]
fn containerd() {
    let host = Host::new("containerd");
    host.install(&["--containerd-version", "2.1.0"]).succeeded();
    same(
        &host,
        "/etc/containerd/conf.d/99-pilotfish.toml",
        "containerd/99-pilotfish.toml",
    );
    same(
        &host,
        "/etc/containerd/config.toml",
        "containerd/config-v3.toml",
    );
    let host = Host::new("containerd");
    host.install(&["--containerd-version", "1.7.0"]).succeeded();
    same(
        &host,
        "/etc/containerd/config.toml",
        "containerd/config-v2.toml",
    );
}

#[test]
fn docker() {
    let host = Host::new("docker");
    host.install(&[]).succeeded();
    same(&host, "/etc/docker/daemon.json", "docker/daemon.json");
}
