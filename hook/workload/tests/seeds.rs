//! The checked-in fuzz corpus of `hook/fuzz`: what runtimes and pods really write.
//!
//! `PILOTFISH_WRITE_SEEDS=1 cargo test -p pilotfish-workload --test seeds` writes it anew.

#[allow(dead_code, reason = "the tests of identities use more of it")]
mod runtimes;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pilotfish_workload::annotations::{KEYS, relevant};
use pilotfish_workload::announcement::{Announcement, Reply, Request, encode};
use pilotfish_workload::{Identity, oci};
use runtimes::ID;
use serde_json::json;

/// Each manager's annotations and bundle.
fn containers() -> Vec<(&'static str, BTreeMap<String, String>, String)> {
    let storage = runtimes::storage_bundle("/run/containers/storage");
    let cri = runtimes::containerd_bundle("k8s.io");
    vec![
        ("containerd", runtimes::containerd_container(), cri.clone()),
        ("containerd-sandbox", runtimes::containerd_sandbox(), cri),
        ("crio", runtimes::crio_container(), storage.clone()),
        ("crio-sandbox", runtimes::crio_sandbox(), storage.clone()),
        ("podman", runtimes::podman_container(), storage),
        (
            "nerdctl",
            runtimes::nerdctl_container(),
            runtimes::containerd_bundle("default"),
        ),
        (
            "docker",
            runtimes::map(&[("pilotfish.dev/instrument", "true")]),
            runtimes::containerd_bundle("moby"),
        ),
    ]
}

fn annotations() -> Vec<(&'static str, String)> {
    let keys: Vec<_> = KEYS
        .iter()
        .map(|key| {
            (
                key.full().replace("ATTRIBUTE", "service.version"),
                key.example,
            )
        })
        .collect();
    let downward = |(key, value): &(String, &str)| format!("{key}={value:?}\n");
    let pairs = |(key, value): &(String, &str)| format!("{key} {value}\nweb.{key} {value}\n");
    vec![
        ("downward", keys.iter().map(downward).collect()),
        (
            "escapes",
            "pilotfish.dev/service-name=\"\\x41\\u00fc\\U0001f41f \\\"a\\\\b\\\"\\n\"\n".to_owned(),
        ),
        ("pairs", keys.iter().map(pairs).collect()),
        (
            "nested",
            "io.kubernetes.cri-o.Annotations {\"pilotfish.dev/ports\":\"80,443\"}\n".to_owned(),
        ),
        (
            "mistakes",
            "pilotfish.dev/route /a\na.b.pilotfish.dev/ports 80\npilotfish.dev/ports 0\n\
             resource.opentelemetry.io/k8s.pod.name x\n"
                .to_owned(),
        ),
    ]
}

fn references() -> [(&'static str, &'static str); 3] {
    [
        ("reference", "docker.io/library/nginx:1.27"),
        (
            "reference-digest",
            "[::1]:5000/a__b/c-d:1@sha256:6af79ae5de407283dcea8b00d5c37ace95441fd58a8b1d2aa1ed93f5511bb18c",
        ),
        (
            "reference-id",
            "sha256:6af79ae5de407283dcea8b00d5c37ace95441fd58a8b1d2aa1ed93f5511bb18c",
        ),
    ]
}

fn announcement(annotations: &BTreeMap<String, String>, bundle: &str) -> Announcement {
    let (kept, warnings) = relevant(annotations);
    Announcement {
        id: ID.to_owned(),
        pid: 4711,
        identity: Identity::from_annotations(ID, annotations, Path::new(bundle)),
        annotations: kept,
        labels: oci::labels(annotations),
        warnings,
        program: None,
    }
}

/// Frames, in front of each the size of the pieces that it comes in.
fn frames() -> Vec<(String, Vec<u8>)> {
    let reason = "no memory".to_owned();
    let replies = [
        Reply::Attached,
        Reply::Removed,
        Reply::Ignored {
            reason: reason.clone(),
        },
        Reply::Failed { reason },
    ];
    let remove = Request::Remove { id: ID.to_owned() };
    let mut frames = vec![("remove".to_owned(), encode(&remove))];
    for (number, reply) in replies.iter().enumerate() {
        frames.push((format!("reply-{number}"), encode(reply)));
    }
    for (name, annotations, bundle) in containers() {
        let attach = Request::Attach(Box::new(announcement(&annotations, &bundle)));
        frames.push((format!("attach-{name}"), encode(&attach)));
    }
    frames
        .into_iter()
        .zip(1..)
        .map(|((name, frame), size)| (name, [vec![size], frame.unwrap()].concat()))
        .collect()
}

/// A state, a zero byte, and a configuration.
fn hook_inputs() -> Vec<(String, String)> {
    containers()
        .into_iter()
        .map(|(name, annotations, bundle)| {
            let state = json!({
                "ociVersion": "1.2.0",
                "id": ID,
                "status": "creating",
                "pid": 4711,
                "bundle": bundle,
                "annotations": annotations,
            });
            let config = json!({
                "ociVersion": "1.2.0",
                "process": { "args": ["/bin/web"], "cwd": "/", "user": { "uid": 0, "gid": 0 } },
                "root": { "path": "rootfs" },
                "annotations": annotations,
            });
            (name.to_owned(), format!("{state:#}\0{config}"))
        })
        .collect()
}

fn seeds() -> Vec<(String, Vec<u8>)> {
    let mut seeds = Vec::new();
    for (name, text) in annotations() {
        seeds.push((format!("annotations/{name}"), text.into_bytes()));
    }
    for (name, frame) in frames() {
        seeds.push((format!("announcement/{name}"), frame));
    }
    for (name, text) in hook_inputs() {
        seeds.push((format!("hook/{name}"), text.into_bytes()));
    }
    for (name, annotations, bundle) in containers() {
        let json = serde_json::to_string(&annotations).unwrap();
        seeds.push((format!("oci/{name}"), format!("{bundle}\n{json}").into()));
    }
    for (name, reference) in references() {
        seeds.push((format!("oci/{name}"), reference.into()));
    }
    seeds
}

#[test]
fn the_corpus_is_the_samples() {
    let write = std::env::var_os("PILOTFISH_WRITE_SEEDS").is_some();
    let corpus = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
    for (name, seed) in seeds() {
        let path = corpus.join(name);
        if write {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, &seed).unwrap();
        }
        assert!(
            std::fs::read(&path).is_ok_and(|found| found == seed),
            "{} is out of date",
            path.display()
        );
    }
}
