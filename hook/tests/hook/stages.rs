//! The two stages that are the hook's, and all others.

use std::process::Command;

use pilotfish_workload::announcement::{Reply, Request};
use serde_json::json;

use crate::rig::{Rig, answer, ask, run};

#[test]
fn other_stages_are_told_off_and_do_no_harm() {
    for stage in [
        "prestart",
        "createContainer",
        "startContainer",
        "poststart",
        "tomorrow",
    ] {
        let rig = Rig::new();
        let agent = rig.agent();
        let mut state = rig.state();
        state["annotations"]["large"] = json!("x".repeat(1 << 20));
        rig.run(&state, &["--stage", stage, "--fail-closed"])
            .assert_starts_with_word(&format!("does nothing at stage {stage}"));
        assert!(agent.try_recv().is_err());
    }
}

#[test]
fn namespace_stages_are_recognised_without_being_named() {
    let rig = Rig::new();
    let agent = rig.agent();
    // runc, crun, youki; runc without a pid namespace, where the container is the hook's parent.
    for pid in [json!(1), json!(0), json!(null), json!(std::process::id())] {
        let mut state = rig.state();
        state["pid"] = pid;
        for arguments in [
            &["--fail-closed"][..],
            &["--fail-closed", "--stage", "createRuntime"],
        ] {
            rig.run(&state, arguments)
                .assert_starts_with_word("does nothing at a stage in the container's namespaces");
        }
    }
    assert!(agent.try_recv().is_err());
}

#[test]
fn a_running_container_is_not_about_to_start() {
    let rig = Rig::new();
    let mut state = rig.state();
    state["status"] = json!("running");
    for arguments in [
        &[][..],
        &["--stage", "createRuntime"],
        &["--stage", "poststop"],
    ] {
        rig.run(&state, arguments)
            .assert_starts_with_word("does nothing at a stage where the container");
    }
}

#[test]
fn a_stopped_container_is_signed_off() {
    let rig = Rig::new();
    let agent = rig.agent();
    let mut state = rig.state();
    state["status"] = json!("stopped");
    for (pid, arguments) in [(0, &[][..]), (424_242, &["--stage", "poststop"])] {
        state["pid"] = json!(pid);
        rig.run(&state, arguments).assert_silent();
        let asked = agent.recv().unwrap();
        assert_eq!(
            asked.request,
            Request::Remove {
                id: "c0ffee".to_owned()
            }
        );
        assert_eq!(asked.process, None);
    }
}

#[test]
fn a_sign_off_that_fails_is_only_said() {
    let rig = Rig::new();
    let mut state = rig.state();
    state["status"] = json!("stopped");
    let arguments = [
        "--stage",
        "poststop",
        "--fail-closed",
        "--agent",
        "/nonexistent",
    ];
    rig.run(&state, &arguments)
        .assert_starts_with_word("no agent listens");
    assert!(
        !rig.path("run/start.lock").exists(),
        "no agent is started for what is gone"
    );
    let mut command = rig.command();
    command.args(arguments);
    run(command, b"nonsense").assert_starts_with_word("not told that a container is gone");
    rig.serve(|mut stream| {
        let _ = ask(&mut stream);
        answer(&mut stream, &Reply::Attached);
    });
    rig.run(&state, &arguments)
        .assert_starts_with_word("does not fit the request");
}

#[test]
fn a_container_that_died_before_is_not_announced() {
    let rig = Rig::new();
    let agent = rig.agent();
    let mut dead = Command::new("true").spawn().unwrap();
    dead.wait().unwrap();
    let mut state = rig.state();
    state["pid"] = json!(dead.id());
    rig.run(&state, &[])
        .assert_starts_with_word("ended before it could be announced");
    rig.run(&state, &["--fail-closed"])
        .assert_refused_with_word("ended before it could be announced");
    assert!(agent.try_recv().is_err());
}

#[test]
fn a_wrong_option_in_a_runtimes_configuration_stops_no_container() {
    let rig = Rig::new();
    let code = |arguments: &[&str]| {
        let mut command = rig.command();
        command.args(arguments);
        let run = run(command, rig.state().to_string().as_bytes());
        assert!(run.stderr.contains("--wrong"), "{run:?}");
        run.code
    };
    assert_eq!(code(&["--stage", "createRuntime", "--wrong"]), Some(0));
    assert_eq!(
        code(&["--stage=createRuntime", "--fail-closed", "--wrong"]),
        Some(1)
    );
    // Nothing says that a runtime calls it, so the state is not waited for.
    let mut command = rig.command();
    command.arg("--wrong").stdin(std::process::Stdio::null());
    assert_eq!(command.output().unwrap().status.code(), Some(2));
}
