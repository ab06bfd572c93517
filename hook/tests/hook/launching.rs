//! The hook starts the agent where nobody answers. The agent is a script that writes down where it finds itself; the
//! test then serves the socket in its place.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use crate::rig::{Rig, agent_at, finish, spawn};

/// Enough for a machine under load; nothing waits this long unless something is wrong.
const TIMEOUT: [&str; 2] = ["--timeout", "60s"];

/// Writes the program that stands for the agent.
fn program(rig: &Rig) -> PathBuf {
    let notes = rig.path("notes");
    fs::create_dir(&notes).unwrap();
    let notes = notes.display();
    let script = format!(
        "#!/bin/sh
echo started >> {notes}/starts
echo \"$@\" > {notes}/arguments
pwd > {notes}/directory
tr '\\0' '\\n' < /proc/$$/environ > {notes}/environment
ls -l /proc/$$/fd > {notes}/descriptors
cat /proc/self/status > {notes}/status
cat /proc/$$/stat > {notes}/stat
cat /proc/$$/cgroup > {notes}/cgroups
cat /proc/$$/oom_score_adj > {notes}/oom_score_adj
echo complaint >&2
mv {notes}/stat {notes}/ready
"
    );
    let program = rig.path("agent");
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    program
}

/// Waits for a file that the started program writes.
fn wait_for(path: &Path) {
    for _ in 0..30_000 {
        if path.exists() {
            return;
        }
        thread::sleep(Duration::from_millis(2));
    }
    panic!("{} does not appear: no agent was started", path.display());
}

#[test]
fn an_agent_is_started_detached_from_everything() {
    let rig = Rig::new();
    fs::remove_dir(rig.path("run")).unwrap();
    let mut command = rig.command();
    command
        .arg("--fail-closed")
        .arg("--agent")
        .arg(program(&rig))
        .args(TIMEOUT);
    command.env("SECRET", "of the runtime");
    let mut child = spawn(&mut command);
    serde_json::to_writer(child.stdin.take().unwrap(), &rig.state()).unwrap();
    let hook = child.id();
    let notes = rig.path("notes");
    wait_for(&notes.join("ready"));
    let asked = agent_at(&rig.socket());
    finish(child).assert_silent();
    assert_eq!(asked.recv().unwrap().process, Some(rig.pid().cast_signed()));

    let note = |name: &str| fs::read_to_string(notes.join(name)).unwrap();
    let expected = format!(
        "node --socket {} --exit-when-idle 60\n",
        rig.socket().display()
    );
    assert_eq!(note("arguments"), expected);
    assert_eq!(note("directory"), "/\n");
    assert_eq!(note("environment"), "");
    assert_eq!(note("oom_score_adj"), "0\n");
    let descriptors = note("descriptors");
    // Standard input and output; the shell may keep the latter under another number.
    assert!(
        descriptors.contains(" 0 -> /dev/null") && descriptors.matches("-> /dev/null").count() == 2,
        "{descriptors}"
    );
    assert!(
        !descriptors.contains("socket:") && !descriptors.contains("pipe:"),
        "{descriptors}"
    );
    assert!(
        !descriptors.contains("pidfd") && !descriptors.contains("start.lock"),
        "{descriptors}"
    );
    // proc_pid_stat(5): fields 4 to 6 are parent, process group, session.
    let stat = note("ready");
    let fields: Vec<i32> = stat
        .rsplit(") ")
        .next()
        .unwrap()
        .split(' ')
        .skip(1)
        .take(3)
        .map(|field| field.parse().unwrap())
        .collect();
    let own_session = nix::unistd::getsid(None).unwrap().as_raw();
    assert!(
        fields[0] != hook.cast_signed() && fields[2] != own_session,
        "{stat}"
    );
    let status = note("status");
    for kind in ["SigIgn:\t", "SigBlk:\t"] {
        let set = status.lines().find_map(|line| line.strip_prefix(kind));
        let set = u64::from_str_radix(set.unwrap(), 16).unwrap();
        // 32 and 33 are the C library's, which lets nobody change them.
        assert_eq!(set & !(3 << 31), 0, "{kind} {set:x}");
    }
    assert_outside_cgroups(
        &note("cgroups"),
        &fs::read_to_string(rig.path("run/agent.log")).unwrap(),
    );
    assert_eq!(
        fs::metadata(rig.path("run")).unwrap().permissions().mode() & 0o7777,
        0o700
    );
    assert_eq!(
        fs::metadata(rig.path("run/agent.log"))
            .unwrap()
            .permissions()
            .mode()
            & 0o7777,
        0o600
    );
}

/// At the top of each hierarchy, or the log says why not.
fn assert_outside_cgroups(cgroups: &str, log: &str) {
    assert!(log.contains("complaint"), "{log}");
    let inside = cgroups
        .lines()
        .filter(|line| !line.ends_with(":/") && !line.ends_with(":/pilotfish"))
        .count();
    let complaints = log.lines().filter(|line| line.contains("cgroup")).count();
    assert!(inside <= complaints, "{cgroups}{log}");
}

#[test]
fn many_hooks_start_one_agent() {
    let rig = Rig::new();
    let program = program(&rig);
    let hooks: Vec<_> = (0..8)
        .map(|_| {
            let mut command = rig.command();
            command
                .arg("--fail-closed")
                .arg("--agent")
                .arg(&program)
                .args(TIMEOUT);
            let mut child = spawn(&mut command);
            serde_json::to_writer(child.stdin.take().unwrap(), &rig.state()).unwrap();
            child
        })
        .collect();
    wait_for(&rig.path("notes/ready"));
    let asked = agent_at(&rig.socket());
    for hook in hooks {
        finish(hook).assert_silent();
    }
    assert_eq!(asked.try_iter().count(), 8);
    assert_eq!(
        fs::read_to_string(rig.path("notes/starts")).unwrap(),
        "started\n"
    );
}

#[test]
fn an_agent_that_does_not_come_up_is_given_up() {
    let rig = Rig::new();
    let program = program(&rig);
    let arguments = ["--agent", program.to_str().unwrap(), "--timeout", "400ms"];
    let run = rig.run(&rig.state(), &arguments);
    run.assert_starts_with_word("was started but did not listen");
    assert!(run.stderr.contains("run/agent.log"), "{run:?}");
    let arguments = [&arguments[..], &["--fail-closed"]].concat();
    rig.run(&rig.state(), &arguments)
        .assert_refused_with_word("was started but did not listen");
}

#[test]
fn a_log_begins_anew() {
    let rig = Rig::new();
    let program = program(&rig);
    fs::write(rig.path("run/agent.log"), "x".repeat(100_000)).unwrap();
    let arguments = ["--agent", program.to_str().unwrap(), "--timeout", "400ms"];
    rig.run(&rig.state(), &arguments)
        .assert_starts_with_word("did not listen");
    assert!(
        !fs::read_to_string(rig.path("run/agent.log"))
            .unwrap()
            .contains('x')
    );
}

#[test]
fn the_log_of_a_started_agent_stays_bounded() {
    let rig = Rig::new();
    let asked = rig.agent();
    let log = rig.path("run/agent.log");
    let program = program(&rig);
    let attach = |length: usize| {
        fs::write(&log, "x".repeat(length)).unwrap();
        rig.run(&rig.state(), &["--agent", program.to_str().unwrap()])
            .assert_silent();
        assert!(asked.recv().is_ok());
        fs::metadata(&log).unwrap().len()
    };
    assert_eq!(attach(1 << 10), 1 << 10);
    assert_eq!(attach((1 << 20) + 1), 0);
    // Where others may write, it could be any file.
    fs::set_permissions(rig.path("run"), fs::Permissions::from_mode(0o777)).unwrap();
    assert_eq!(attach(2 << 20), 2 << 20);
}

#[test]
fn no_program_of_somebody_elses_is_started() {
    let rig = Rig::new();
    let good = program(&rig);
    let copy = |name: &str, mode: u32| {
        let path = rig.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::copy(&good, &path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    };
    let link = rig.path("link");
    symlink(&good, &link).unwrap();
    let open = copy("open/agent", 0o755);
    fs::set_permissions(rig.path("open"), fs::Permissions::from_mode(0o777)).unwrap();
    let mut cases = vec![
        (PathBuf::from("agent"), "give an absolute path"),
        (rig.path("absent"), "install the agent there"),
        (rig.bundle(), "not a regular file"),
        (link, "not a regular file"),
        (copy("writable", 0o775), "others may write to it"),
        (open, "others may write to it"),
    ];
    if nix::unistd::geteuid().is_root() {
        let foreign = copy("foreign", 0o755);
        chown(&foreign, Some(65534), None).unwrap();
        cases.push((foreign, "it belongs to user 65534"));
        // Whose home it is can put another directory there.
        copy("home/bin/agent", 0o755);
        chown(rig.path("home"), Some(65534), None).unwrap();
        symlink(rig.path("home/bin"), rig.path("bin")).unwrap();
        cases.push((rig.path("bin/agent"), "it belongs to user 65534"));
    }
    for (program, word) in cases {
        let arguments = ["--agent", program.to_str().unwrap()];
        rig.run(&rig.state(), &arguments)
            .assert_starts_with_word(word);
        let arguments = [&arguments[..], &["--fail-closed"]].concat();
        rig.run(&rig.state(), &arguments)
            .assert_refused_with_word(word);
    }
    assert!(!rig.path("notes/starts").exists());
}

#[test]
fn a_directory_that_others_may_write_to_is_not_used() {
    let rig = Rig::new();
    let program = program(&rig);
    fs::set_permissions(rig.path("run"), fs::Permissions::from_mode(0o777)).unwrap();
    rig.run(
        &rig.state(),
        &["--fail-closed", "--agent", program.to_str().unwrap()],
    )
    .assert_refused_with_word("others may write to it");
    assert!(!rig.path("notes/starts").exists());
}
