//! Hook files of podman and CRI-O against the rules of oci-hooks(5), schema 1.0.0.

use super::host::{HOOK, Host, round_trip};
use regex::Regex;
use serde_json::Value;

const DIRECTORY: &str = "/usr/share/containers/oci/hooks.d";

/// The schema of oci-hooks(5): nothing but these members, of these types.
fn check_schema(hook: &Value) {
    let members = |value: &Value| -> Vec<String> {
        let object = value.as_object().expect("an object");
        object.keys().cloned().collect()
    };
    let only = |value: &Value, allowed: &[&str]| {
        for member in members(value) {
            assert!(
                allowed.contains(&member.as_str()),
                "`{member}` is not in the schema"
            );
        }
    };
    only(hook, &["version", "hook", "when", "stages"]);
    assert_eq!(hook["version"], "1.0.0");
    only(&hook["hook"], &["path", "args", "env", "timeout"]);
    assert!(hook["hook"]["path"].as_str().unwrap().starts_with('/'));
    let arguments = hook["hook"]["args"].as_array().unwrap();
    assert!(arguments.iter().all(Value::is_string));
    assert!(hook["hook"]["timeout"].as_u64().unwrap() >= 1);
    only(
        &hook["when"],
        &["always", "annotations", "commands", "hasBindMounts"],
    );
    assert!(!members(&hook["when"]).is_empty());
    for (key, value) in hook["when"]["annotations"].as_object().unwrap() {
        Regex::new(key).unwrap();
        Regex::new(value.as_str().unwrap()).unwrap();
    }
    let stages = hook["stages"].as_array().unwrap();
    assert!(!stages.is_empty());
    for stage in stages {
        let known = [
            "prestart",
            "createRuntime",
            "createContainer",
            "startContainer",
            "poststart",
            "poststop",
        ];
        assert!(known.contains(&stage.as_str().unwrap()), "{stage}");
    }
}

#[test]
fn files_follow_the_schema_and_name_their_stage() {
    for runtime in ["podman", "crio"] {
        let host = Host::new(runtime);
        host.install(&[
            "--socket",
            "/run/p.sock",
            "--fail-closed",
            "--kill-after",
            "20",
        ])
        .succeeded();
        assert_eq!(host.files().len(), 2);
        for stage in ["createRuntime", "poststop"] {
            let hook = host.json(&format!("{DIRECTORY}/pilotfish-{stage}.json"));
            check_schema(&hook);
            assert_eq!(hook["hook"]["path"], HOOK);
            assert_eq!(hook["hook"]["timeout"], 20);
            assert_eq!(hook["stages"], serde_json::json!([stage]));
            let arguments = serde_json::json!([
                "pilotfish-hook",
                "--stage",
                stage,
                "--socket",
                "/run/p.sock",
                "--fail-closed"
            ]);
            assert_eq!(hook["hook"]["args"], arguments);
        }
    }
}

#[test]
fn patterns_match_whole_annotations() {
    let host = Host::new("podman");
    host.install(&[]).succeeded();
    let hook = host.json(&format!("{DIRECTORY}/pilotfish-createRuntime.json"));
    let annotations = hook["when"]["annotations"].as_object().unwrap();
    let (key, value) = annotations.iter().next().unwrap();
    let (key, value) = (
        Regex::new(key).unwrap(),
        Regex::new(value.as_str().unwrap()).unwrap(),
    );
    let cases = [
        ("pilotfish.dev/instrument", "true", true),
        ("app.pilotfish.dev/instrument", "true", true),
        ("pilotfish.dev/instrument", "app,web", true),
        ("pilotfish.dev/instrument", "", false),
        ("pilotfish.dev/instrument2", "true", false),
        ("pilotfish.dev/routes", "/a", false),
        ("notpilotfish.dev/instrument", "true", false),
        ("pilotfishXdev/instrument", "true", false),
        ("a/pilotfish.dev/instrument", "true", false),
        (".pilotfish.dev/instrument", "true", false),
    ];
    for (name, text, expected) in cases {
        assert_eq!(
            key.is_match(name) && value.is_match(text),
            expected,
            "{name}={text}"
        );
    }
}

#[test]
fn round_trips() {
    for runtime in ["podman", "crio"] {
        let file = format!("{DIRECTORY}/oci-nvidia-hook.json");
        round_trip(&Host::new(runtime).with(&file, "{}"), &[]);
    }
}

#[test]
fn another_directory_can_be_named() {
    let host = Host::new("crio");
    let directory = "/etc/containers/oci/hooks.d";
    host.install(&["--hooks-dir", directory]).succeeded();
    assert!(host.files().keys().all(|path| path.starts_with(directory)));
    host.run("uninstall", &["--hooks-dir", directory])
        .succeeded();
    assert!(host.files().is_empty());
}
