//! Bundles as they should be, and as somebody might have prepared them.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use nix::sys::stat::Mode;
use pilotfish_hook::spec::MAX_SPEC;
use pilotfish_workload::announcement::Request;
use serde_json::json;

use crate::rig::{Rig, SELECTED};

/// What is done to `config.json`, given the bundle, and what the hook must say.
type Damage = (&'static str, fn(&Path), &'static str);

const DAMAGES: &[Damage] = &[
    ("absent", |_| {}, "cannot be opened"),
    (
        "no bundle",
        |bundle| fs::remove_dir(bundle).unwrap(),
        "cannot be opened",
    ),
    (
        "a link",
        |bundle| symlink("../config.json", bundle.join("config.json")).unwrap(),
        "cannot be opened",
    ),
    (
        "a link to nothing",
        |bundle| symlink("/nowhere", bundle.join("config.json")).unwrap(),
        "cannot be opened",
    ),
    (
        "a FIFO",
        |bundle| nix::unistd::mkfifo(&bundle.join("config.json"), Mode::S_IRWXU).unwrap(),
        "not a regular file",
    ),
    (
        "a directory",
        |bundle| fs::create_dir(bundle.join("config.json")).unwrap(),
        "not a regular file",
    ),
    (
        "a socket",
        |bundle| drop(std::os::unix::net::UnixListener::bind(bundle.join("config.json")).unwrap()),
        "cannot be opened",
    ),
    ("huge", huge, "longer than the"),
    ("sparse", sparse, "longer than the"),
    (
        "of another type",
        of_another_type,
        "not what the OCI runtime specification defines",
    ),
    (
        "empty",
        |bundle| fs::write(bundle.join("config.json"), "").unwrap(),
        "not what the OCI runtime specification defines",
    ),
    (
        "truncated",
        |bundle| fs::write(bundle.join("config.json"), "{\"annotations\":{").unwrap(),
        "not what the OCI runtime specification defines",
    ),
    (
        "deep",
        |bundle| fs::write(bundle.join("config.json"), "{\"process\":".repeat(100_000)).unwrap(),
        "not what the OCI runtime specification defines",
    ),
];

fn huge(bundle: &Path) {
    let text = vec![b' '; MAX_SPEC as usize + 1];
    fs::write(bundle.join("config.json"), text).unwrap();
}

fn of_another_type(bundle: &Path) {
    let text = json!({"annotations": "x".repeat(1 << 20)}).to_string();
    fs::write(bundle.join("config.json"), text).unwrap();
}

fn sparse(bundle: &Path) {
    let file = fs::File::create(bundle.join("config.json")).unwrap();
    file.set_len(1 << 40).unwrap();
}

/// A rig whose configuration is damaged. Beside the bundle lies one that would select.
fn damaged(damage: fn(&Path)) -> Rig {
    let rig = Rig::new();
    fs::rename(rig.bundle().join("config.json"), rig.path("config.json")).unwrap();
    damage(&rig.bundle());
    rig
}

#[test]
fn without_a_configuration_the_annotations_of_the_state_count() {
    for (name, damage, word) in DAMAGES {
        println!("{name}");
        let rig = damaged(*damage);
        let agent = rig.agent();
        let mut command = rig.command();
        command.arg("--fail-closed").current_dir("/");
        let run = crate::rig::run(command, rig.state().to_string().as_bytes());
        run.assert_starts_with_word(word);
        let Request::Attach(announcement) = agent.recv().unwrap().request else {
            panic!("{name}: it was not announced");
        };
        assert!(announcement.warnings[0].contains(word), "{announcement:?}");
    }
}

#[test]
fn without_any_annotations_nobody_knows() {
    for (name, damage, word) in DAMAGES {
        println!("{name}");
        let rig = damaged(*damage);
        let mut state = rig.state();
        state.as_object_mut().unwrap().remove("annotations");
        for (arguments, code) in [
            (&["--stage", "createRuntime"][..], 0),
            (&["--fail-closed"], 1),
        ] {
            let mut command = rig.command();
            command.args(arguments).current_dir("/");
            let run = crate::rig::run(command, state.to_string().as_bytes());
            assert_eq!(run.code, Some(code), "{run:?}");
            assert!(run.stderr.contains(word), "{run:?}");
            assert!(run.stderr.contains("cannot be told whether"), "{run:?}");
        }
    }
}

#[test]
fn a_file_that_may_not_be_read() {
    let rig = Rig::new();
    let file = rig.bundle().join("config.json");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o000)).unwrap();
    let mut state = rig.state();
    state.as_object_mut().unwrap().remove("annotations");
    if nix::unistd::geteuid().is_root() {
        // Root reads everything.
        let agent = rig.agent();
        rig.run(&state, &["--fail-closed"]).assert_silent();
        assert!(agent.recv().is_ok());
    } else {
        rig.run(&state, &["--fail-closed"])
            .assert_refused_with_word("Permission denied");
    }
}

#[test]
fn annotations_come_from_either_place() {
    let rig = Rig::new();
    let agent = rig.agent();
    rig.configure(&json!({
        "ociVersion": "1.0.2",
        "annotations": {SELECTED: "true", "pilotfish.dev/ports": "80"},
    }));
    let mut state = rig.state();
    state["annotations"] = json!({"pilotfish.dev/ports": "8080"});
    rig.run(&state, &["--fail-closed"]).assert_silent();
    let Request::Attach(announcement) = agent.recv().unwrap().request else {
        panic!("it was not announced");
    };
    assert_eq!(announcement.annotations[SELECTED], "true");
    assert_eq!(announcement.annotations["pilotfish.dev/ports"], "8080");
}

#[test]
fn a_relative_bundle_is_the_runtimes() {
    let rig = Rig::new();
    let agent = rig.agent();
    let mut state = rig.state();
    state["bundle"] = json!(".");
    state.as_object_mut().unwrap().remove("annotations");
    rig.run(&state, &["--fail-closed"]).assert_silent();
    assert!(agent.recv().is_ok());
}

#[test]
fn what_is_not_selected_is_left_alone() {
    for annotations in [
        json!({}),
        json!({SELECTED: "false"}),
        json!({"pilotfish.dev/routes": "/a"}),
        json!({SELECTED: "true", "io.kubernetes.cri.container-type": "sandbox"}),
        json!({SELECTED: "true", "io.kubernetes.cri-o.ContainerType": "sandbox"}),
    ] {
        let rig = Rig::new();
        let agent = rig.agent();
        rig.configure(&json!({"ociVersion": "1.0.2", "annotations": annotations}));
        for stage in ["createRuntime", "poststop"] {
            let mut state = rig.state();
            state["annotations"] = annotations.clone();
            state["status"] = json!(if stage == "poststop" {
                "stopped"
            } else {
                "created"
            });
            rig.run(
                &state,
                &["--stage", stage, "--fail-closed", "--agent", "/nonexistent"],
            )
            .assert_silent();
        }
        assert!(agent.try_recv().is_err(), "{annotations} was announced");
    }
}

#[test]
fn a_wish_that_cannot_be_read_is_said() {
    for (annotations, word) in [
        (json!({SELECTED: "yes"}), "neither true nor false"),
        (json!({SELECTED: "maybe"}), "write true or false"),
        (json!({SELECTED: "one,other"}), "write true or false"),
        (json!({SELECTED: "a\u{0}b"}), "control characters"),
        (
            json!({"web.pilotfish.dev/instrument": "true"}),
            "does not tell",
        ),
    ] {
        let rig = Rig::new();
        let agent = rig.agent();
        rig.configure(&json!({"ociVersion": "1.0.2", "annotations": annotations}));
        let mut state = rig.state();
        state["annotations"] = annotations.clone();
        let run = rig.run(&state, &["--stage", "createRuntime", "--fail-closed"]);
        run.assert_starts_with_word("container c0ffee is not observed");
        assert!(run.stderr.contains(word), "{run:?}");
        assert!(agent.try_recv().is_err(), "{annotations} was announced");
        // Once is enough.
        state["status"] = json!("stopped");
        rig.run(&state, &["--stage", "poststop"]).assert_silent();
    }
}

#[test]
fn one_container_of_a_pod_is_selected_by_its_name() {
    let rig = Rig::new();
    let agent = rig.agent();
    let mut state = rig.state();
    state["annotations"] = json!({
        SELECTED: "web,cache",
        "io.kubernetes.cri.container-type": "container",
        "io.kubernetes.cri.container-name": "web",
        "io.kubernetes.cri.sandbox-name": "shop-0",
        "io.kubernetes.cri.sandbox-namespace": "prod",
    });
    rig.configure(&json!({"ociVersion": "1.0.2"}));
    rig.run(&state, &["--fail-closed"]).assert_silent();
    let Request::Attach(announcement) = agent.recv().unwrap().request else {
        panic!("it was not announced");
    };
    assert_eq!(
        announcement.identity.k8s_container_name.as_deref(),
        Some("web")
    );
    assert_eq!(announcement.identity.pod_name.as_deref(), Some("shop-0"));
    state["annotations"]["io.kubernetes.cri.container-name"] = json!("db");
    rig.run(&state, &["--fail-closed"]).assert_silent();
    assert!(agent.try_recv().is_err());
}
