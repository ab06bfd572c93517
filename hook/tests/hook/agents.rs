//! Agents that serve, fail, lie and hang.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread;
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, listen, socket,
};
use pilotfish_workload::announcement::{HEADER, MAGIC, Reply, Request, encode};
use std::os::fd::AsRawFd;

use crate::rig::{Rig, answer, ask};

/// An agent that treats every connection the same way.
type Manner = fn(UnixStream);

/// Manner, `--timeout`, and what the hook must say.
const FAULTS: &[(&str, Manner, &str, &str)] = &[
    (
        "silent",
        silent,
        "300ms",
        "did not reply within the deadline",
    ),
    (
        "slow",
        a_byte_now_and_then,
        "300ms",
        "did not reply within the deadline",
    ),
    ("deaf", deaf, "300ms", "within the deadline"),
    (
        "other version",
        |stream| reply_raw(stream, &header(2, 2)),
        "30s",
        "speaks version 2",
    ),
    (
        "garbage",
        |stream| reply_raw(stream, b"HTTP/1.1 400 Bad Request\r\n"),
        "30s",
        "does not speak pilotfish's protocol",
    ),
    (
        "huge",
        |stream| reply_raw(stream, &header(1, u32::MAX)),
        "30s",
        "more than the",
    ),
    (
        "not JSON",
        |stream| reply_raw(stream, &[&header(1, 2)[..], b"{{"].concat()),
        "30s",
        "cannot be read",
    ),
    (
        "closing",
        drop,
        "30s",
        "closed the connection without a reply",
    ),
    (
        "closing late",
        |stream| reply_raw(stream, &header(1, 9)),
        "30s",
        "closed the connection without a reply",
    ),
    ("failing", failing, "30s", "the agent failed: no room"),
    (
        "confused",
        |stream| reply(stream, &Reply::Removed),
        "30s",
        "does not fit the request",
    ),
];

/// Keeps the connection.
fn silent(mut stream: UnixStream) {
    let _ = ask(&mut stream);
    std::mem::forget(stream);
}

/// Reads nothing either.
fn deaf(stream: UnixStream) {
    std::mem::forget(stream);
}

/// A reply that is well begun and never done.
fn a_byte_now_and_then(mut stream: UnixStream) {
    let _ = ask(&mut stream);
    let _ = stream.write_all(&header(1, 200_000));
    while stream.write_all(b" ").is_ok() {
        thread::sleep(Duration::from_millis(10));
    }
}

fn reply(mut stream: UnixStream, reply: &Reply) {
    let _ = ask(&mut stream);
    answer(&mut stream, reply);
}

fn failing(stream: UnixStream) {
    let reason = "no room".to_owned();
    reply(stream, &Reply::Failed { reason });
}

fn reply_raw(mut stream: UnixStream, bytes: &[u8]) {
    let _ = ask(&mut stream);
    let _ = stream.write_all(bytes);
}

fn header(version: u16, length: u32) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[..4].copy_from_slice(&MAGIC);
    header[4..6].copy_from_slice(&version.to_le_bytes());
    header[8..].copy_from_slice(&length.to_le_bytes());
    header
}

#[test]
fn an_attached_container_starts_without_a_word() {
    let rig = Rig::new();
    let agent = rig.agent();
    rig.run(&rig.state(), &["--stage", "createRuntime"])
        .assert_silent();
    let asked = agent.recv().unwrap();
    assert_eq!(asked.process, Some(rig.pid().cast_signed()));
    let Request::Attach(announcement) = asked.request else {
        panic!("{asked:?}");
    };
    assert_eq!(announcement.id, "c0ffee");
    assert_eq!(
        announcement.identity.container_id.as_deref(),
        Some("c0ffee")
    );
    assert_eq!(announcement.annotations["pilotfish.dev/instrument"], "true");
    assert_eq!(announcement.warnings, Vec::<String>::new());
}

#[test]
fn every_fault_of_an_agent_lets_the_container_start() {
    for (name, manner, timeout, word) in FAULTS {
        println!("{name}");
        let rig = Rig::new();
        rig.serve(*manner);
        let arguments = ["--stage", "createRuntime", "--timeout", timeout];
        let run = rig.run(&rig.state(), &arguments);
        run.assert_starts_with_word(word);
        assert!(
            run.stderr
                .contains("container c0ffee starts without being observed")
        );
    }
}

#[test]
fn every_fault_of_an_agent_stops_the_container_if_that_is_wanted() {
    for (name, manner, timeout, word) in FAULTS {
        println!("{name}");
        let rig = Rig::new();
        rig.serve(*manner);
        let arguments = [
            "--stage",
            "createRuntime",
            "--timeout",
            timeout,
            "--fail-closed",
        ];
        let run = rig.run(&rig.state(), &arguments);
        run.assert_refused_with_word(word);
        assert!(run.stderr.contains("container c0ffee is refused"));
    }
}

#[test]
fn nobody_on_the_socket() {
    let rig = Rig::new();
    rig.run(&rig.state(), &[])
        .assert_starts_with_word("no agent listens");
    drop(UnixListener::bind(rig.socket()).unwrap());
    rig.run(&rig.state(), &[])
        .assert_starts_with_word("no agent listens");
    rig.run(&rig.state(), &["--fail-closed"])
        .assert_refused_with_word("start `pilotfish node`");
}

#[test]
fn a_path_that_no_socket_can_have() {
    let rig = Rig::new();
    let long = format!("/{}", "a".repeat(200));
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_pilotfish-hook"));
    command.args(["--socket", &long, "--fail-closed"]);
    crate::rig::run(command, rig.state().to_string().as_bytes())
        .assert_refused_with_word("at most 107 bytes");
}

#[test]
fn a_queue_that_is_full_is_waited_for_until_the_deadline() {
    let rig = Rig::new();
    let address = UnixAddr::new(&rig.socket()).unwrap();
    let make = || {
        socket(
            AddressFamily::Unix,
            SockType::Stream,
            SockFlag::SOCK_NONBLOCK,
            None,
        )
        .unwrap()
    };
    let listener = make();
    bind(listener.as_raw_fd(), &address).unwrap();
    listen(&listener, Backlog::new(0).unwrap()).unwrap();
    let waiting = make();
    connect(waiting.as_raw_fd(), &address).unwrap();
    let run = rig.run(&rig.state(), &["--timeout", "300ms"]);
    run.assert_starts_with_word("did not accept the connection within the deadline");
}

#[test]
fn a_reply_a_byte_at_a_time_is_a_reply() {
    let rig = Rig::new();
    rig.serve(|mut stream| {
        let _ = ask(&mut stream);
        for byte in encode(&Reply::Attached).unwrap() {
            let _ = stream.write_all(&[byte]);
            thread::sleep(Duration::from_millis(2));
        }
        // Until the hook closes.
        let _ = stream.read(&mut [0]);
    });
    rig.run(&rig.state(), &["--timeout", "60s", "--fail-closed"])
        .assert_silent();
}

#[test]
fn an_agent_that_dies_is_asked_again() {
    let rig = Rig::new();
    let mut first = true;
    rig.serve(move |stream| {
        if !std::mem::take(&mut first) {
            reply(stream, &Reply::Attached);
        }
    });
    rig.run(&rig.state(), &["--timeout", "60s", "--fail-closed"])
        .assert_silent();
}

#[test]
fn what_the_agent_ignores_on_purpose_starts() {
    let rig = Rig::new();
    rig.serve(|stream| {
        let reason = "the operator\nexcludes it".to_owned();
        reply(stream, &Reply::Ignored { reason });
    });
    rig.run(&rig.state(), &["--fail-closed"])
        .assert_starts_with_word("on purpose: the operator excludes it");
}

#[test]
fn another_users_agent_is_not_believed() {
    if !nix::unistd::geteuid().is_root() {
        println!("only root can be another user");
        return;
    }
    let rig = Rig::new();
    let listener = socket(
        AddressFamily::Unix,
        SockType::Stream,
        SockFlag::empty(),
        None,
    )
    .unwrap();
    bind(listener.as_raw_fd(), &UnixAddr::new(&rig.socket()).unwrap()).unwrap();
    let listener = thread::spawn(move || {
        // SAFETY: the system call, unlike the C library's function, concerns this thread only, which then ends. A
        // peer's credentials are those of the thread that called listen(2).
        let changed = unsafe { nix::libc::syscall(nix::libc::SYS_setresuid, -1, 65534, -1) };
        assert_eq!(changed, 0);
        listen(&listener, Backlog::new(8).unwrap()).unwrap();
        listener
    })
    .join()
    .unwrap();
    rig.run(&rig.state(), &["--fail-closed"])
        .assert_refused_with_word("user 65534");
    drop(listener);
}
