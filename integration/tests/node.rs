//! The socket of a node agent under everything that a peer may do to it. The trial is the hook.

use crate::hook::{LIMIT, needs};
use anyhow::{Context, Result, ensure};
use integration::agent::Setup;
use integration::announce::{self, Dialogue, MOST_DESCRIPTORS};
use integration::holdings::Holdings;
use integration::namespace::inner_pid;
use integration::process::wait_for;
use integration::runtime::{Machine, hook};
use integration::{Agent, Process, Scene, Trials, load, program};
use pilotfish_workload::announcement::{HEADER, MAGIC, MAX_BODY, Reply, Request, VERSION, encode};
use std::fs::{self, File, Permissions};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

/// Requests at once: what a host may start in a minute, and the agent's bound of a burst.
const AT_ONCE: usize = 1000;

/// Silent connections at once: more than the agent serves at a time.
const SILENT: usize = 100;

/// Messages that bring as many descriptors as the kernel allows.
const FLOODS: usize = 20;

/// `nobody` on every distribution.
const NOBODY: &str = "65534";

/// Pause between the bytes of a peer that takes more than its time in all.
const TRICKLE: Duration = Duration::from_millis(300);

pub(crate) fn register(trials: &mut Trials) {
    trials.subject("node");
    let mut add = |name: &str, run: fn(&Ground) -> Result<()>| {
        trials.add_with(name, &needs(), move |scene| on_ground(scene, run));
    };
    add("other_users_are_refused", other_users);
    add("malformed_requests_are_refused", malformed);
    add("slow_peers_are_given_up", slow);
    add("descriptors_do_not_pile_up", descriptors);
    add("a_thousand_requests_at_once", at_once);
    add("status_shows_warnings", warnings);
}

/// A machine with an agent and a server that is a container as soon as somebody says so.
struct Ground<'scene> {
    machine: &'scene Machine,
    agent: Agent,
    server: Process,
    socket: PathBuf,
}

/// Whatever the trial does, the agent then works as before, and ends as it should.
fn on_ground(scene: &Scene, run: fn(&Ground) -> Result<()>) -> Result<()> {
    let machine = Machine::start(scene)?;
    machine.in_network(|| {
        let server = serve(&machine)?;
        let ground = Ground {
            agent: Setup::node(scene, &machine)?.start()?,
            machine: &machine,
            server,
            socket: machine.path(hook::SOCKET),
        };
        let before = Holdings::of(ground.agent.pid())?;
        run(&ground)?;
        ground.must_work()?;
        before.await_no_more_descriptors(ground.agent.pid())?;
        ground.agent.finish().map(drop)
    })
}

/// A server without a container around it.
pub(crate) fn serve(machine: &Machine) -> Result<Process> {
    machine.copy_in(
        &program::static_c("prompt.c")?,
        "/usr/local/bin/prompt",
        0o755,
    )?;
    let server = machine.spawn("server", machine.command("prompt", ["8080"]))?;
    load::ask_first(8080, "/")?;
    Ok(server)
}

impl Ground<'_> {
    /// A container is announced, traced and removed.
    fn must_work(&self) -> Result<()> {
        let pid = inner_pid(&self.server)?;
        let annotations = [(hook::INSTRUMENT, "true")];
        let reply = announce::attach(&self.socket, "good", pid, &annotations)?;
        ensure!(reply == Reply::Attached, "{reply:?}");
        load::ask_first(8080, "/good")?;
        wait_for("the span", LIMIT, || {
            let spans = self.agent.printed()?;
            Ok(spans
                .iter()
                .any(|span| span.path() == "/good")
                .then_some(()))
        })?;
        let reply = announce::remove(&self.socket, "good")?;
        ensure!(reply == Reply::Removed, "{reply:?}");
        hook::await_observed(&self.agent, self.machine, &[])
    }

    /// Waits until a counter of the socket has come to a value, which it does not pass.
    fn await_count(&self, name: &str, expected: usize) -> Result<()> {
        let series = format!("pilotfish_hook_{name}_total");
        let mut last = 0;
        wait_for(name, LIMIT, || {
            let metrics = self.agent.metrics()?;
            ensure!(metrics.has(&series), "no {series}");
            last = metrics.sum(&series)?;
            Ok((last >= expected as u64).then_some(()))
        })
        .with_context(|| format!("{name} is {last}"))?;
        ensure!(last == expected as u64, "{name} is {last}, not {expected}");
        Ok(())
    }

    /// A connection that has sent this.
    fn saying(&self, bytes: &[u8], descriptors: &[BorrowedFd]) -> Result<Dialogue> {
        let dialogue = Dialogue::open(&self.socket)?;
        dialogue.send(bytes, descriptors)?;
        Ok(dialogue)
    }
}

/// Nobody else gets as far as the socket; one who would, is not served.
fn other_users(ground: &Ground) -> Result<()> {
    let visit = r"
import json, socket, sys
connection = socket.socket(socket.AF_UNIX)
connection.settimeout(20)
try:
    connection.connect(sys.argv[1])
except PermissionError:
    print('no permission')
else:
    try:
        connection.sendall(bytes(json.loads(sys.argv[2])))
        print('answer', connection.recv(100))
    except (BrokenPipeError, ConnectionResetError):
        print('answer', b'')
";
    let frame = encode(&Request::Remove { id: "x".to_owned() })?;
    let frame = serde_json::to_string(&frame)?;
    let visitor = || {
        let user = ["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"];
        let words = ["python3", "-c", visit, hook::SOCKET, &frame];
        ground.machine.output("setpriv", user.iter().chain(&words))
    };
    let said = visitor()?;
    ensure!(said.trim() == "no permission", "{said}");
    ground.await_count("connections", 0)?;

    let folder = ground.socket.parent().context("a socket has a folder")?;
    fs::set_permissions(folder, Permissions::from_mode(0o711))?;
    fs::set_permissions(&ground.socket, Permissions::from_mode(0o666))?;
    let said = visitor()?;
    ensure!(said.trim() == "answer b''", "{said}");
    ground.await_count("peers_refused", 1)?;
    ground.await_count("removes", 0)
}

/// Header, body; each answered with the reason, or closed, and counted.
fn malformed(ground: &Ground) -> Result<()> {
    let frame = |version: u16, length: usize, body: &[u8]| {
        let mut frame = Vec::with_capacity(HEADER + body.len());
        frame.extend_from_slice(&MAGIC);
        frame.extend_from_slice(&version.to_le_bytes());
        frame.extend_from_slice(&[0; 2]);
        frame.extend_from_slice(&(length as u32).to_le_bytes());
        frame.extend_from_slice(body);
        frame
    };
    let whole = |body: &[u8]| frame(VERSION, body.len(), body);
    let nested = [b"[".repeat(100_000), b"]".repeat(100_000)].concat();
    let cases = [
        (
            b"GET / HTTP/1.1\r\nHost: agent\r\n\r\n".to_vec(),
            "does not speak",
        ),
        (vec![0; 4096], "does not speak"),
        (frame(VERSION, u32::MAX as usize, b"{"), "more than the"),
        (frame(VERSION, MAX_BODY + 1, b"{"), "more than the"),
        (whole(b""), "cannot be read"),
        (whole(b"{\"request\":"), "cannot be read"),
        (whole(b"{\"request\":\"explode\"}"), "cannot be read"),
        (
            whole(b"{\"request\":\"attach\",\"id\":5}"),
            "cannot be read",
        ),
        (whole(b"\xff\xfe\x00"), "cannot be read"),
        (whole(&nested), "cannot be read"),
    ];
    for (bytes, reason) in &cases {
        must_fail(ground.saying(bytes, &[])?, reason)?;
    }
    ground.await_count("requests_malformed", cases.len())?;

    must_fail(
        ground.saying(&frame(VERSION + 8, 2, b"{}"), &[])?,
        "version 9",
    )?;
    ground.await_count("requests_of_other_version", 1)?;

    let remove = encode(&Request::Remove {
        id: "../../etc/passwd".to_owned(),
    })?;
    must_fail(ground.saying(&remove, &[])?, "no container id")?;

    // Nothing at all, half a header, half a body.
    for bytes in [&b""[..], &MAGIC[..], &frame(VERSION, 100, b"{\"req")] {
        let dialogue = Dialogue::open(&ground.socket)?;
        if !bytes.is_empty() {
            dialogue.send(bytes, &[])?;
        }
    }
    ground.await_count("requests_absent", 3)
}

fn must_fail(dialogue: Dialogue, reason: &str) -> Result<()> {
    match dialogue.reply()? {
        Some(Reply::Failed { reason: told }) if told.contains(reason) => Ok(()),
        other => anyhow::bail!("expected {reason:?}, got {other:?}"),
    }
}

/// Silent ones, more than are served at a time, and one that sends a byte now and then: others wait, and are served.
fn slow(ground: &Ground) -> Result<()> {
    let silent = (0..SILENT)
        .map(|_| Dialogue::open(&ground.socket))
        .collect::<Result<Vec<_>>>()?;
    let reply = announce::remove(&ground.socket, "patient")?;
    ensure!(reply == Reply::Removed, "{reply:?}");
    for dialogue in silent {
        let reply = dialogue.reply()?;
        ensure!(reply.is_none(), "an answer to nothing: {reply:?}");
    }
    ground.await_count("requests_slow", SILENT)?;

    let frame = encode(&Request::Remove {
        id: "trickle".to_owned(),
    })?;
    let dialogue = Dialogue::open(&ground.socket)?;
    let taken = frame.iter().take_while(|byte| {
        thread::sleep(TRICKLE);
        dialogue.send(std::slice::from_ref(byte), &[]).is_ok()
    });
    let taken = taken.count();
    ensure!(taken < frame.len(), "it waited for all {taken} bytes");
    ground.await_count("requests_slow", SILENT + 1)
}

/// Too many, too few, others than a pidfd: all are closed.
fn descriptors(ground: &Ground) -> Result<()> {
    let pid = inner_pid(&ground.server)?;
    let frame = encode(&announce::announcement(
        "flood",
        pid,
        &[(hook::INSTRUMENT, "true")],
    ))?;
    let (pidfd, file) = (announce::pidfd(pid)?, File::open("/dev/null")?);
    must_fail(ground.saying(&frame, &[])?, "no pidfd came")?;
    must_fail(ground.saying(&frame, &[file.as_fd()])?, "is no pidfd")?;
    must_fail(ground.saying(&frame, &[pidfd.as_fd(); 2])?, "more than one")?;
    for _ in 0..FLOODS {
        let dialogue = ground.saying(&frame, &[pidfd.as_fd(); MOST_DESCRIPTORS])?;
        must_fail(dialogue, "more than one")?;
    }
    // One with every piece of a request that is never whole.
    let dialogue = Dialogue::open(&ground.socket)?;
    for byte in &frame[..HEADER] {
        dialogue.send(
            std::slice::from_ref(byte),
            &[pidfd.as_fd(); MOST_DESCRIPTORS],
        )?;
    }
    drop(dialogue);
    ground.await_count("descriptors_refused", 3 + FLOODS)?;
    ground.await_count("attached", 0)
}

/// All connections are there before the first answer is read. One container is announced by all of them, and has one
/// slot; all of them say that it has ended, which is true once and for all.
fn at_once(ground: &Ground) -> Result<()> {
    let pid = inner_pid(&ground.server)?;
    let pidfd = announce::pidfd(pid)?;
    let attach = announce::announcement("crowd", pid, &[(hook::INSTRUMENT, "true")]);
    let remove = Request::Remove {
        id: "crowd".to_owned(),
    };
    all_get(ground, &attach, &[pidfd.as_fd()], &Reply::Attached)?;
    hook::await_observed(&ground.agent, ground.machine, &["crowd"])?;
    all_get(ground, &remove, &[], &Reply::Removed)?;
    hook::await_observed(&ground.agent, ground.machine, &[])?;
    ground.await_count("attached", AT_ONCE)?;
    ground.await_count("removes", AT_ONCE)?;
    for none in [
        "announcements_throttled",
        "observer_busy",
        "observer_silent",
        "failed",
    ] {
        ground.await_count(none, 0)?;
    }
    Ok(())
}

/// So many connections send the same and get the same.
fn all_get(
    ground: &Ground,
    request: &Request,
    descriptors: &[BorrowedFd],
    expected: &Reply,
) -> Result<()> {
    let frame = encode(request)?;
    let dialogues = (0..AT_ONCE)
        .map(|_| ground.saying(&frame, descriptors))
        .collect::<Result<Vec<_>>>()?;
    for dialogue in dialogues {
        let reply = dialogue.reply()?;
        ensure!(reply.as_ref() == Some(expected), "{reply:?}");
    }
    Ok(())
}

/// What cannot be obeyed is named for each container and counted; the rest is obeyed.
fn warnings(ground: &Ground) -> Result<()> {
    let annotations = [
        (hook::INSTRUMENT, "true"),
        ("pilotfish.dev/rotes", "/users/{id}"),
        ("pilotfish.dev/sample-ratio", "7"),
        ("pilotfish.dev/protocols", "http1,gopher"),
        ("pilotfish.dev/ignore-paths", "/quiet"),
        ("resource.opentelemetry.io/container.id", "forged"),
    ];
    let pid = inner_pid(&ground.server)?;
    let reply = announce::attach(&ground.socket, "warned", pid, &annotations)?;
    ensure!(reply == Reply::Attached, "{reply:?}");
    let status = ground.agent.status()?;
    let container = &status["containers"][0];
    let warnings = container["warnings"].as_array().context("warnings")?;
    for words in [
        &["pilotfish.dev/rotes", "pilotfish.dev/routes"][..],
        &["pilotfish.dev/sample-ratio", "7"],
        &["protocols", "gopher"],
        &["container.id"],
    ] {
        let names = |warning: &serde_json::Value| {
            let text = warning.as_str().unwrap_or_default();
            words.iter().all(|word| text.contains(word))
        };
        ensure!(
            warnings.iter().any(names),
            "nothing says {words:?}: {warnings:#?}"
        );
    }
    ensure!(warnings.len() == 4, "{warnings:#?}");
    ensure!(
        container["settings"]["ignore_paths"] == serde_json::json!(["/quiet"]),
        "{container:#}"
    );
    ensure!(
        container["resource"]["container.id"] == "warned",
        "{container:#}"
    );
    let counted = ground
        .agent
        .metrics()?
        .sum("pilotfish_annotation_warnings")?;
    ensure!(counted == 4, "counted are {counted}");
    let reply = announce::remove(&ground.socket, "warned")?;
    ensure!(reply == Reply::Removed, "{reply:?}");
    hook::await_observed(&ground.agent, ground.machine, &[])
}
