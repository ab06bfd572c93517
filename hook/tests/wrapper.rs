//! `pilotfish-hook runtime`, the real program before a runtime that writes down how it was called.

use serde_json::{Value, json};
use std::{
    fs::{self, Permissions},
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::{Command, Output},
};
use tempfile::TempDir;

const HOOK: &str = env!("CARGO_BIN_EXE_pilotfish-hook");

/// A bundle's spec as docker before 28 writes it: on one line, with a hook of its own, and with what no schema knows.
const SPEC: &str = r#"{"ociVersion":"1.0.2-dev","process":{"args":["sh"],"rlimits":[{"type":"RLIMIT_NOFILE","hard":18446744073709551615,"soft":1.50}]},"hostname":"caf\u00e9","hooks":{"prestart":[{"path":"/proc/42/exe","args":["libnetwork-setkey"]}]},"annotations":{"pilotfish.dev/instrument":"true"},"x-unknown":{"b":1,"a":[1e3,null]}}"#;

struct Trial {
    directory: TempDir,
}

impl Trial {
    fn new(spec: &str) -> Self {
        let trial = Self {
            directory: TempDir::new().unwrap(),
        };
        fs::create_dir(trial.path("bundle")).unwrap();
        fs::write(trial.config(), spec).unwrap();
        let script = format!(
            "#!/bin/sh\nprintf '%s\\n' \"$@\" > {0}/arguments\nenv | sort > {0}/environment\npwd > {0}/directory\n\
             cp {0}/bundle/config.json {0}/seen 2>/dev/null\nexit 7\n",
            trial.directory.path().display()
        );
        fs::write(trial.path("real"), script).unwrap();
        fs::set_permissions(trial.path("real"), Permissions::from_mode(0o755)).unwrap();
        trial
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn config(&self) -> PathBuf {
        self.path("bundle/config.json")
    }

    fn spec(&self) -> Value {
        serde_json::from_slice(&fs::read(self.config()).unwrap()).unwrap()
    }

    /// The wrapper as docker's script calls it.
    fn wrapper(&self, options: &[&str], arguments: &[&str]) -> Command {
        let mut command = Command::new(HOOK);
        command
            .args(["runtime", "--real-runtime"])
            .arg(self.path("real"))
            .args(options)
            .arg("--")
            .args(arguments);
        command
    }

    fn create(&self, options: &[&str]) -> Output {
        let bundle = self.path("bundle");
        let log = self.path("log.json");
        let arguments = [
            "--log",
            log.to_str().unwrap(),
            "--log-format",
            "json",
            "create",
            "--bundle",
            bundle.to_str().unwrap(),
            "--pid-file",
            "/p",
            "id",
        ];
        self.wrapper(options, &arguments).output().unwrap()
    }

    #[track_caller]
    fn started(&self, output: &Output) {
        assert_eq!(output.status.code(), Some(7), "{output:?}");
        let arguments = fs::read_to_string(self.path("arguments")).unwrap();
        assert!(
            arguments.lines().any(|word| word == "create"),
            "{arguments}"
        );
    }
}

fn hook(stage: &str, options: &[&str], timeout: u32) -> Value {
    let arguments = [&["pilotfish-hook", "--stage", stage], options].concat();
    json!({ "path": HOOK, "args": arguments, "timeout": timeout })
}

#[test]
fn hook_is_added_to_those_that_are_there_and_nothing_else_changes() {
    let trial = Trial::new(SPEC);
    fs::set_permissions(trial.config(), Permissions::from_mode(0o640)).unwrap();
    let output = trial.create(&["--kill-after", "9", "--socket", "/run/p.sock"]);
    trial.started(&output);
    assert!(output.stderr.is_empty(), "{output:?}");
    let options = ["--socket", "/run/p.sock"];
    let expected = json!({
        "prestart": [{ "path": "/proc/42/exe", "args": ["libnetwork-setkey"] }],
        "createRuntime": [hook("createRuntime", &options, 9)],
        "poststop": [hook("poststop", &options, 9)],
    });
    assert_eq!(trial.spec()["hooks"], expected);
    // All other members are the same text in the same order.
    let text = fs::read_to_string(trial.config()).unwrap();
    let (before, after) = SPEC.split_once(r#""hooks":{"#).unwrap();
    assert!(text.starts_with(before), "{text}");
    let (_, after) = after.split_once("]},").unwrap();
    assert!(text.ends_with(after), "{text}");
    assert_eq!(fs::metadata(trial.config()).unwrap().mode() & 0o7777, 0o640);
    assert_eq!(fs::read_dir(trial.path("bundle")).unwrap().count(), 1);
    // It was complete before the runtime began.
    assert_eq!(fs::read(trial.path("seen")).unwrap(), text.as_bytes());

    let inode = fs::metadata(trial.config()).unwrap().ino();
    trial.started(&trial.create(&["--kill-after", "9", "--socket", "/run/p.sock"]));
    assert_eq!(
        fs::metadata(trial.config()).unwrap().ino(),
        inode,
        "written a second time"
    );
}

#[test]
fn runtime_is_called_as_the_wrapper_was() {
    let trial = Trial::new(SPEC);
    let arguments = [
        "--root",
        "/r",
        "exec",
        "--process",
        "/p q",
        "",
        "--",
        "*",
        "id",
    ];
    let mut wrapper = trial.wrapper(&[], &arguments);
    wrapper
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("LD_PRELOAD_OF_NOBODY", "x")
        .env("_LIBCONTAINER_X", "a b")
        .current_dir(trial.path("bundle"));
    assert_eq!(wrapper.output().unwrap().status.code(), Some(7));
    let seen = |name| fs::read_to_string(trial.path(name)).unwrap();
    assert_eq!(
        seen("arguments"),
        arguments.map(|word| format!("{word}\n")).concat()
    );
    let environment = seen("environment");
    assert!(
        environment.contains("LD_PRELOAD_OF_NOBODY=x\n"),
        "{environment}"
    );
    assert!(
        environment.contains("_LIBCONTAINER_X=a b\n"),
        "{environment}"
    );
    let bundle = trial.path("bundle").canonicalize().unwrap();
    assert_eq!(seen("directory").trim(), bundle.to_str().unwrap());
    assert_eq!(fs::read_to_string(trial.config()).unwrap(), SPEC);
}

#[test]
fn bundle_is_the_working_directory_if_none_is_named() {
    let trial = Trial::new(SPEC);
    let mut wrapper = trial.wrapper(&[], &["run", "id"]);
    wrapper.current_dir(trial.path("bundle")).output().unwrap();
    assert!(trial.spec()["hooks"]["createRuntime"].is_array());
}

#[test]
fn bundles_that_do_not_ask_are_left_alone() {
    let annotations = [
        "null",
        "{}",
        "7",
        r#"{"pilotfish.dev/instrument":""}"#,
        r#"{"pilotfish.dev/instrument":true}"#,
        r#"{"pilotfish.dev/routes":"/a"}"#,
        r#"{"x/pilotfish.dev/instrument":"true"}"#,
        r#"{"notpilotfish.dev/instrument":"true"}"#,
    ];
    for annotations in annotations {
        let spec = format!("{{\"annotations\":{annotations},\"hooks\":7}}");
        let trial = Trial::new(&spec);
        let output = trial.create(&["--fail-closed"]);
        trial.started(&output);
        assert_eq!(fs::read_to_string(trial.config()).unwrap(), spec);
        assert!(output.stderr.is_empty(), "{output:?}");
    }
    let trial = Trial::new(&SPEC.replace("pilotfish.dev/", "app.pilotfish.dev/"));
    trial.started(&trial.create(&[]));
    assert!(trial.spec()["hooks"]["poststop"].is_array());
}

/// Makes a bundle that the wrapper cannot change.
type Spoil = fn(&Trial, &Path);

#[test]
fn whatever_fails_the_container_starts_or_with_fail_closed_does_not() {
    let cases: [(&str, Spoil, &str); 8] = [
        (
            "absent",
            |_, config| fs::remove_file(config).unwrap(),
            "cannot read",
        ),
        (
            "empty",
            |_, config| fs::write(config, "").unwrap(),
            "not an OCI spec",
        ),
        (
            "truncated",
            |_, config| fs::write(config, &SPEC[..90]).unwrap(),
            "not an OCI spec",
        ),
        (
            "deeply nested",
            |_, config| fs::write(config, "[".repeat(100_000)).unwrap(),
            "not an OCI spec",
        ),
        (
            "hooks of another type",
            |_, config| {
                let spec = r#"{"annotations":{"pilotfish.dev/instrument":"true"},"hooks":[]}"#;
                fs::write(config, spec).unwrap();
            },
            "`hooks` has another type",
        ),
        (
            "a link",
            |trial, config| {
                fs::rename(config, trial.path("elsewhere")).unwrap();
                symlink(trial.path("elsewhere"), config).unwrap();
            },
            "cannot read",
        ),
        (
            "a FIFO",
            |_, config| {
                fs::remove_file(config).unwrap();
                let mode = nix::sys::stat::Mode::from_bits_truncate(0o600);
                nix::unistd::mkfifo(config, mode).unwrap();
            },
            "cannot read",
        ),
        (
            "huge",
            |_, config| {
                let file = fs::File::create(config).unwrap();
                file.set_len(1 << 40).unwrap();
            },
            "cannot read",
        ),
    ];
    for (name, spoil, reason) in cases {
        for closed in [false, true] {
            let trial = Trial::new(SPEC);
            spoil(&trial, &trial.config());
            if name == "a FIFO" {
                // The runtime of this test copies the file; a FIFO would hold it.
                let script = format!(
                    "#!/bin/sh\necho create > {}\nexit 7\n",
                    trial.path("arguments").display()
                );
                fs::write(trial.path("real"), script).unwrap();
            }
            let output = trial.create(if closed { &["--fail-closed"] } else { &[] });
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(
                said.starts_with("pilotfish-hook: ") && said.contains(reason),
                "{name}: {said}"
            );
            if closed {
                assert_eq!(output.status.code(), Some(1), "{name}");
                assert!(
                    !trial.path("arguments").exists(),
                    "{name}: the runtime was started"
                );
                let log = fs::read_to_string(trial.path("log.json")).unwrap();
                let line: Value = serde_json::from_str(&log).unwrap();
                assert_eq!(line["level"], "error");
                assert!(
                    line["msg"].as_str().unwrap().contains(reason),
                    "{name}: {log}"
                );
            } else {
                trial.started(&output);
            }
        }
    }
}

#[test]
fn a_wrong_option_of_the_wrapper_stops_no_container() {
    let trial = Trial::new(SPEC);
    let output = trial.create(&["--of-tomorrow", "1"]);
    trial.started(&output);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("--of-tomorrow"), "{said}");
    assert!(said.contains("starts without its hook"), "{said}");
    assert_eq!(fs::read_to_string(trial.config()).unwrap(), SPEC);

    // Other commands have an output that is read by programs.
    let output = trial
        .wrapper(&["--of-tomorrow"], &["state", "id"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(7), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");

    let trial = Trial::new(SPEC);
    let output = trial.create(&["--of-tomorrow", "--fail-closed"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(!trial.path("arguments").exists());
    let log = fs::read_to_string(trial.path("log.json")).unwrap();
    assert!(log.contains("--of-tomorrow"), "{log}");
    let options = ["--of-tomorrow", "--fail-closed"];
    let output = trial.wrapper(&options, &["delete", "id"]).output().unwrap();
    assert_eq!(output.status.code(), Some(7), "{output:?}");
}

#[test]
fn a_runtime_that_is_not_there_is_named() {
    let trial = Trial::new(SPEC);
    fs::remove_file(trial.path("real")).unwrap();
    let output = trial.create(&[]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("cannot start the OCI runtime") && said.contains("/real"),
        "{said}"
    );
}
