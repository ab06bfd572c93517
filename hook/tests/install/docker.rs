//! daemon.json.

use super::host::{HOOK, Host, fixture, round_trip};
use serde_json::{Value, json};

const CONFIG: &str = "/etc/docker/daemon.json";

fn host(text: &str) -> Host {
    Host::new("docker").with(CONFIG, text)
}

#[test]
fn round_trips() {
    let files = [
        fixture("daemon.json"),
        "{}".to_owned(),
        "{}\n".to_owned(),
        String::new(),
        r#"{"runtimes":null,"debug":true}"#.to_owned(),
        "{\n\t\"runtimes\": {}\n}".to_owned(),
    ];
    for file in files {
        round_trip(&host(&file), &[]);
        round_trip(&host(&file), &["--default"]);
    }
    round_trip(&Host::new("docker"), &["--default"]);
}

#[test]
fn runtime_is_added_and_nothing_else_changes() {
    let host = host(&fixture("daemon.json"));
    host.install(&[
        "--fail-closed",
        "--timeout",
        "2s",
        "--agent",
        "/usr/bin/pilotfish",
    ])
    .succeeded();
    let mut after = host.json(CONFIG);
    let ours = after["runtimes"]
        .as_object_mut()
        .unwrap()
        .remove("pilotfish");
    let expected = json!({
        "path": HOOK,
        "runtimeArgs": [
            "runtime", "--real-runtime", "runc", "--kill-after", "7", "--agent", "/usr/bin/pilotfish",
            "--timeout", "2000ms", "--fail-closed", "--"
        ],
    });
    assert_eq!(ours, Some(expected));
    let before: Value = serde_json::from_str(&fixture("daemon.json")).unwrap();
    assert_eq!(after, before);
    // Lines of the administrator are as they were, in their order.
    let text = host.read(CONFIG);
    let mut lines = text.lines();
    for line in fixture("daemon.json")
        .lines()
        .filter(|line| line.trim() != "}")
    {
        assert!(lines.any(|there| there == line), "`{line}` is gone");
    }
}

#[test]
fn default_runtime_is_wrapped_and_comes_back() {
    let host = host(&fixture("daemon.json"));
    host.install(&["--default"]).succeeded();
    let config = host.json(CONFIG);
    assert_eq!(config["default-runtime"], "pilotfish");
    let arguments = &config["runtimes"]["pilotfish"]["runtimeArgs"];
    assert_eq!(arguments[2], "/usr/bin/nvidia-container-runtime");

    // The administrator works on; what is theirs stays.
    let edited = host.read(CONFIG).replace("\"10m\"", "\"20m\"");
    host.write(CONFIG, &edited);
    host.uninstall().succeeded();
    assert_eq!(
        host.read(CONFIG),
        fixture("daemon.json").replace("\"10m\"", "\"20m\"")
    );
    let backup = format!("{CONFIG}.pilotfish-backup");
    assert_eq!(host.read(&backup), fixture("daemon.json"));

    // A stale backup gives nothing back.
    host.write(CONFIG, "{\"default-runtime\": \"crun\"}");
    host.install(&["--default"]).succeeded();
    host.uninstall().succeeded();
    assert_eq!(host.read(CONFIG), "{\"default-runtime\": \"crun\"}");
}

#[test]
fn a_second_installation_replaces_the_first() {
    let host = host(&fixture("daemon.json"));
    host.install(&["--default"]).succeeded();
    host.install(&["--fail-closed"]).succeeded();
    let config = host.json(CONFIG);
    assert_eq!(config["default-runtime"], "nvidia");
    assert!(host.read(CONFIG).contains("--fail-closed"));
    assert_eq!(
        host.read(&format!("{CONFIG}.pilotfish-backup")),
        fixture("daemon.json")
    );
    host.uninstall().succeeded();
    assert_eq!(
        host.texts(),
        [(CONFIG.to_owned(), fixture("daemon.json"))].into()
    );
}

#[test]
fn what_cannot_be_understood_is_left_alone() {
    let cases = [
        (
            "{\n  \"debug\": true,\n}",
            &["not valid JSON", "line 3"][..],
        ),
        ("{\"a\": 1} {", &["not valid JSON"]),
        ("[]", &["not valid JSON", "line 1"]),
        ("{\"runtimes\": 7}", &["`runtimes` is not an object"]),
    ];
    for (text, words) in cases {
        let host = host(text);
        let before = host.files();
        host.install(&[]).failed_with(words);
        host.install(&[])
            .failed_with(&["daemon.json", "nothing was changed"]);
        host.uninstall().failed_with(words);
        assert_eq!(host.files(), before);
    }
}

#[test]
fn a_default_runtime_with_arguments_has_to_be_named() {
    let text =
        r#"{"default-runtime": "x", "runtimes": {"x": {"path": "/x", "runtimeArgs": ["-v"]}}}"#;
    let host = host(text);
    host.install(&["--default"])
        .failed_with(&["`x`", "--real-runtime"]);
    host.install(&["--default", "--real-runtime", "/opt/x"])
        .succeeded();
    let config = host.json(CONFIG);
    assert_eq!(config["runtimes"]["pilotfish"]["runtimeArgs"][2], "/opt/x");
}

/// `io.containerd.runc.v2` and the like are names of shims, which no wrapper can execute.
#[test]
fn a_default_runtime_that_is_a_shim_is_not_wrapped() {
    let named = host(r#"{"default-runtime": "io.containerd.runc.v2"}"#);
    named.install(&["--default"]).succeeded();
    let config = named.json(CONFIG);
    assert_eq!(
        config["runtimes"]["pilotfish"]["runtimeArgs"][2], "runc",
        "{config}"
    );
    for shim in ["io.containerd.kata.v2", "/usr/bin/containerd-shim-runsc-v1"] {
        let other = host(&format!(r#"{{"default-runtime": "{shim}"}}"#));
        other
            .install(&["--default"])
            .failed_with(&[shim, "--real-runtime"]);
    }
}
