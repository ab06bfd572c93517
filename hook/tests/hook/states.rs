//! States on standard input that no runtime should write, and those that some do.

use std::process::{Command, Stdio};

use pilotfish_hook::state::MAX_STATE;
use pilotfish_workload::announcement::Request;
use serde_json::json;

use crate::rig::{Rig, SELECTED, finish, run, spawn};

/// Bad states and what the hook must say.
fn bad_states(rig: &Rig) -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let good = rig.state().to_string();
    let with = |key: &str, value: serde_json::Value| {
        let mut state = rig.state();
        state[key] = value;
        state.to_string().into_bytes()
    };
    let syntax = "not what the OCI runtime specification defines";
    vec![
        ("empty", Vec::new(), syntax),
        (
            "truncated",
            good.as_bytes()[..good.len() - 2].to_vec(),
            syntax,
        ),
        (
            "followed by more",
            [good.as_bytes(), b"{}"].concat(),
            syntax,
        ),
        ("binary", vec![0xff; 4096], syntax),
        (
            "not UTF-8",
            with("id", json!("X"))
                .iter()
                .map(|byte| if *byte == b'X' { 0xff } else { *byte })
                .collect(),
            syntax,
        ),
        ("no id", b"{\"pid\": 7}".to_vec(), "missing field `id`"),
        ("id of another type", with("id", json!(7)), syntax),
        ("pid of another type", with("pid", json!("7")), syntax),
        ("pid beyond", with("pid", json!(1_u64 << 40)), syntax),
        (
            "annotations of another type",
            with("annotations", json!({"a": ["b"]})),
            syntax,
        ),
        (
            "id that is a path",
            with("id", json!("../../etc/passwd")),
            "is none that a runtime makes",
        ),
        (
            "id of control characters",
            with("id", json!("a\nb")),
            "is none that a runtime makes",
        ),
        (
            "huge",
            with("x", json!("y".repeat(MAX_STATE))),
            "longer than the",
        ),
        (
            "deep",
            [&b"{\"annotations\":"[..], &b"{\"a\":".repeat(200_000)].concat(),
            syntax,
        ),
        (
            "deep and unknown",
            [&b"{\"x\":"[..], &b"[".repeat(1_000_000)].concat(),
            syntax,
        ),
    ]
}

#[test]
fn every_bad_state_lets_the_container_start() {
    let rig = Rig::new();
    for (name, state, word) in bad_states(&rig) {
        println!("{name}");
        let mut command = rig.command();
        command.args(["--stage", "createRuntime"]);
        run(command, &state).assert_starts_with_word(word);
    }
}

#[test]
fn every_bad_state_stops_the_container_if_that_is_wanted() {
    let rig = Rig::new();
    for (name, state, word) in bad_states(&rig) {
        println!("{name}");
        let mut command = rig.command();
        command.args(["--stage", "createRuntime", "--fail-closed"]);
        run(command, &state).assert_refused_with_word(word);
    }
}

#[test]
fn a_standard_input_that_never_ends_is_given_up() {
    let rig = Rig::new();
    for (arguments, code) in [
        (&["--timeout", "300ms"][..], 0),
        (&["--timeout", "300ms", "--fail-closed"], 1),
    ] {
        let mut command = rig.command();
        command.args(arguments);
        let mut child = spawn(&mut command);
        let open = child.stdin.take();
        let ended = finish(child);
        assert_eq!(ended.code, Some(code), "{ended:?}");
        assert!(ended.stderr.contains("did not finish writing"), "{ended:?}");
        drop(open);
    }
}

#[test]
fn a_standard_input_that_is_no_pipe() {
    let rig = Rig::new();
    for redirection in ["<&-", "</dev/null", "</", "</dev/full"] {
        let mut command = Command::new("sh");
        let hook = rig.command();
        let script = format!("exec \"$0\" \"$@\" {redirection}");
        command
            .args(["-c", &script])
            .arg(hook.get_program())
            .args(hook.get_args());
        command.args(["--fail-closed", "--timeout", "500ms"]);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        finish(command.spawn().unwrap()).assert_refused_with_word("state");
    }
}

#[test]
fn states_as_runtimes_write_them_are_read() {
    let rig = Rig::new();
    let agent = rig.agent();
    let mut sparse = rig.state();
    for key in ["ociVersion", "status", "bundle"] {
        sparse.as_object_mut().unwrap().remove(key);
    }
    let mut more = rig.state();
    more["root"] = json!("/rootfs");
    more["owner"] = json!({"name": ["root", null]});
    let pretty = serde_json::to_string_pretty(&rig.state()).unwrap();
    for state in [
        sparse.to_string(),
        more.to_string(),
        format!("\n{pretty}\n"),
    ] {
        let mut command = rig.command();
        command.arg("--fail-closed");
        let ended = run(command, state.as_bytes());
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert!(matches!(agent.recv().unwrap().request, Request::Attach(_)));
    }
}

#[test]
fn annotations_of_megabytes_cost_only_themselves() {
    let rig = Rig::new();
    let agent = rig.agent();
    let mut state = rig.state();
    let routes = "/users/{id};".repeat(200_000);
    state["annotations"] = json!({SELECTED: "true", "pilotfish.dev/routes": routes});
    let ended = rig.run(&state, &["--fail-closed", "--timeout", "60s"]);
    ended.assert_starts_with_word("pilotfish.dev/routes");
    let Request::Attach(announcement) = agent.recv().unwrap().request else {
        panic!("it was not announced");
    };
    assert!(
        !announcement
            .annotations
            .contains_key("pilotfish.dev/routes")
    );
    assert!(
        announcement
            .warnings
            .iter()
            .any(|warning| warning.contains("pilotfish.dev/routes"))
    );
}
