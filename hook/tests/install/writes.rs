//! How files are written, whatever the runtime.

use super::host::{HOOK, Host};
use std::{
    fs::{self, Permissions},
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
};

const CONFIG: &str = "/etc/docker/daemon.json";

#[test]
fn mode_and_owner_are_kept_and_the_backup_is_as_private() {
    let host = Host::new("docker").with(CONFIG, "{}\n");
    let path = host.path(CONFIG);
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    host.install(&[]).succeeded();
    for file in [CONFIG.to_owned(), format!("{CONFIG}.pilotfish-backup")] {
        let metadata = fs::metadata(host.path(&file)).unwrap();
        assert_eq!(metadata.mode() & 0o7777, 0o600, "{file}");
    }
    let directory = fs::read_dir(path.parent().unwrap()).unwrap();
    assert_eq!(directory.count(), 2, "a temporary file was left");
}

#[test]
fn links_are_refused() {
    let host = Host::new("docker").with("/srv/daemon.json", "{}");
    fs::create_dir_all(host.path("/etc/docker")).unwrap();
    symlink(host.path("/srv/daemon.json"), host.path(CONFIG)).unwrap();
    host.install(&[])
        .failed_with(&["daemon.json is a symbolic link"]);

    let host = Host::new("docker");
    fs::create_dir_all(host.path("/etc")).unwrap();
    symlink("/srv", host.path("/etc/docker")).unwrap();
    host.install(&[])
        .failed_with(&["docker is a symbolic link"]);
}

#[test]
fn what_is_no_file_is_refused() {
    let host = Host::new("docker");
    fs::create_dir_all(host.path(CONFIG)).unwrap();
    host.install(&[]).failed_with(&["not a regular file"]);

    let host = Host::new("docker").with("/etc/docker/x", "");
    let fifo = nix::sys::stat::Mode::from_bits_truncate(0o600);
    nix::unistd::mkfifo(&host.path(CONFIG), fifo).unwrap();
    host.install(&[]).failed_with(&["not a regular file"]);
}

#[test]
fn hook_is_copied_and_named() {
    let host = Host::new("podman");
    let said = host
        .run("install", &["--copy-to", HOOK, "--dry-run"])
        .succeeded();
    assert!(said.contains("would copy this program"), "{said}");
    host.run("install", &["--copy-to", HOOK]).succeeded();
    let own = fs::read(env!("CARGO_BIN_EXE_pilotfish-hook")).unwrap();
    assert!(fs::read(host.path(HOOK)).unwrap() == own);
    assert_eq!(
        fs::metadata(host.path(HOOK)).unwrap().mode() & 0o7777,
        0o755
    );
    let hook = host.json("/usr/share/containers/oci/hooks.d/pilotfish-poststop.json");
    assert_eq!(hook["hook"]["path"], HOOK);
    let said = host.run("install", &["--copy-to", HOOK]).succeeded();
    assert_eq!(said, "nothing to change\n");
}

/// With a hook that is not there, containerd would start no container at all.
#[test]
fn a_hook_that_is_not_there_is_refused() {
    let host = Host::new("podman");
    host.run("install", &["--hook", "/opt/hook"])
        .failed_with(&["no program /opt/hook", "--copy-to"]);
    fs::set_permissions(host.path(HOOK), Permissions::from_mode(0o644)).unwrap();
    host.install(&[]).failed_with(&["no program"]);
    assert!(host.files().is_empty());
}

#[test]
fn arguments_that_a_configuration_could_misread_are_refused() {
    let cases = [
        (["--hook", "bin/hook"], "absolute path"),
        (["--hook", "/opt/my hook"], "letters, digits"),
        (["--socket", "/run/$(id)"], "letters, digits"),
        (["--agent", "pilotfish"], "absolute path"),
        (["--kill-after", "1"], "longer than the hook's own deadline"),
    ];
    for (options, words) in cases {
        let host = Host::new("docker");
        host.run("install", &options)
            .failed_with(&[options[0], words]);
        assert!(host.files().is_empty());
    }
}

/// A hook that the runtime kills cannot fail open.
#[test]
fn the_runtime_does_not_kill_the_hook_before_its_alarm() {
    let options = |kill_after| ["--timeout", "1900ms", "--kill-after", kill_after];
    Host::new("podman")
        .install(&options("2"))
        .failed_with(&["--kill-after"]);
    Host::new("podman").install(&options("3")).succeeded();
}

#[test]
fn a_hook_that_others_may_replace_is_pointed_out() {
    let host = Host::new("podman");
    let said = host.install(&[]).succeeded();
    assert!(!said.contains("could change"), "{said}");
    let directory = host.path(HOOK).parent().unwrap().to_owned();
    fs::set_permissions(&directory, Permissions::from_mode(0o777)).unwrap();
    let said = host.install(&["--fail-closed"]).succeeded();
    assert!(
        said.contains("others could change") && said.contains("its mode is 777"),
        "{said}"
    );
}

#[test]
fn options_of_another_runtime_are_refused() {
    let cases = [
        ("docker", &["--handler", "runc"][..]),
        ("docker", &["--hooks-dir", "/d"]),
        ("podman", &["--default"]),
        ("crio", &["--real-runtime", "crun"]),
        ("podman", &["--default-spec", "/s"]),
        ("containerd", &["--default"]),
    ];
    for (runtime, options) in cases {
        let host = Host::new(runtime);
        host.install(options)
            .failed_with(&[options[0], "means nothing"]);
        assert!(host.files().is_empty());
    }
}

#[test]
fn report_says_what_was_done_and_what_is_left_to_do() {
    let host = Host::new("docker").with(CONFIG, "{}");
    let said = host.install(&["--default"]).succeeded();
    let place = host.path(CONFIG);
    let expected = format!(
        "kept the original as {0}.pilotfish-backup\nchanged {0}\nreload docker",
        place.display()
    );
    assert!(said.starts_with(&expected), "{said}");
}

#[test]
fn a_root_that_is_not_there_is_named() {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_pilotfish-hook"))
        .args(["install", "--runtime", "docker", "--root", "/no/such/root"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("/no/such/root"));
}
