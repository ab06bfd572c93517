//! What a runtime, or whoever configured it, passes on besides the state.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::Path;

use nix::sys::signal::{SigSet, Signal};

use crate::rig::{Rig, run};

#[test]
fn descriptors_directory_mask_and_environment_are_left_behind() {
    let rig = Rig::new();
    let agent = rig.agent();
    let secret = File::open("/etc/hostname").unwrap();
    let mut command = rig.command();
    command.arg("--fail-closed");
    for (name, value) in [
        ("PATH", "/nonexistent"),
        ("HOME", "/proc/1/root"),
        ("TMPDIR", "/proc/1/root/tmp"),
        ("MALLOC_CONF", "junk:true"),
        ("RUST_BACKTRACE", "full"),
        ("PILOTFISH_SOCKET", "/nonexistent"),
        ("CLICOLOR_FORCE", "1"),
    ] {
        command.env(name, value);
    }
    // SAFETY: only async-signal-safe functions are called between fork and exec.
    unsafe {
        command.pre_exec(move || {
            for number in [3, 9, 100] {
                nix::libc::dup2(secret.as_raw_fd(), number);
            }
            // An alarm that cannot ring would be none.
            SigSet::all().thread_set_mask()?;
            Ok(())
        });
    }
    run(command, rig.state().to_string().as_bytes()).assert_silent();
    let asked = agent.recv().unwrap();
    // Standard streams, the connection, the pidfd.
    assert_eq!(asked.descriptors, 5);
    assert_eq!(asked.directory, Path::new("/"));
}

#[test]
fn nobody_reads_what_the_hook_says() {
    let rig = Rig::new();
    let mut command = rig.command();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    command.stdin(std::process::Stdio::null()).stderr(writer);
    let status = command.status().unwrap();
    assert_eq!(status.code(), Some(0));
}

/// A pipe that is full and that nobody empties.
fn full_pipe() -> (std::io::PipeReader, std::io::PipeWriter) {
    let (reader, writer) = std::io::pipe().unwrap();
    let set = |flags| nix::fcntl::fcntl(&writer, nix::fcntl::FcntlArg::F_SETFL(flags)).unwrap();
    set(nix::fcntl::OFlag::O_NONBLOCK);
    while nix::unistd::write(&writer, &[b'x'; 4096]).is_ok() {}
    set(nix::fcntl::OFlag::empty());
    (reader, writer)
}

#[test]
fn nobody_empties_the_pipe_that_the_hook_complains_to() {
    for (argument, code) in [
        (&["--stage", "createRuntime"][..], 0),
        (&["--fail-closed"], 1),
        (&["--stage", "createRuntime", "--wrong"], 0),
    ] {
        let rig = Rig::new();
        let (_reader, writer) = full_pipe();
        let mut command = rig.command();
        command.args(["--timeout", "100ms"]).args(argument);
        let child = command
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::piped())
            .stderr(writer)
            .spawn()
            .unwrap();
        assert_eq!(crate::rig::finish(child).code, Some(code), "{argument:?}");
    }
}

#[test]
fn ignored_and_blocked_signals_do_not_keep_it() {
    let rig = Rig::new();
    let mut command = rig.command();
    command.args(["--timeout", "100ms"]);
    // SAFETY: only async-signal-safe functions are called between fork and exec.
    unsafe {
        command.pre_exec(|| {
            nix::libc::signal(Signal::SIGALRM as i32, nix::libc::SIG_IGN);
            SigSet::all().thread_set_mask()?;
            Ok(())
        });
    }
    let mut child = crate::rig::spawn(&mut command);
    let open = child.stdin.take();
    assert_eq!(crate::rig::finish(child).code, Some(0));
    drop(open);
}
