//! Faults around the agent: what cannot work is refused with a clear message, what can go on goes on.

use anyhow::{Context, Result, ensure};
use integration::agent::{self, Setup};
use integration::namespace::{hiding, wrapped};
use integration::process::wait_for;
use integration::scene::free_port;
use integration::server::kind;
use integration::trial::Need;
use integration::{Agent, Kind, Process, Scene, Tally, Trials, load, place};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

/// A process id above the kernel's limit (`PID_MAX_LIMIT`, 2^22): never in use.
const NO_PROCESS: u32 = 4_194_305;

pub(crate) fn register(trials: &mut Trials) {
    trials.subject("faults");
    trials.add("port_in_use", &["node"], port_in_use);
    trials.add("unwritable_print_file", &["node"], unwritable_print_file);
    trials.add("no_such_process", &[], no_such_process);
    trials.add(
        "target_exits_while_being_attached",
        &["busybox"],
        target_exits,
    );
    trials.add("unreachable_collector", &["node"], unreachable_collector);
    trials.add("garbage_on_the_wire", &["python3"], garbage);
    let hiding = ["bpftool", "unshare", "mount", "node"].map(Need::Tool);
    let hiding = [&[Need::Bpf, Need::Root], &hiding[..]].concat();
    trials.add_with("no_btf", &hiding, no_btf);
    trials.add_with("no_tracefs", &hiding, no_tracefs);
    trials.add("command_not_found", &[], command_not_found);
    trials.add("trace_that_cannot_begin", &["busybox"], cannot_begin);
    trials.add("recording_on_a_full_disk", &["node"], full_disk);
    trials.add("exit_code_of_the_command", &["busybox"], exit_code);
}

fn port_in_use(scene: &Scene) -> Result<()> {
    let server = kind("node")?.start(scene)?;
    let taken = TcpListener::bind(("127.0.0.1", 0))?;
    let port = taken.local_addr()?.port();
    let log = Setup::watching(scene, &[server.pid()])?
        .port(port)
        .refused()?;
    ensure!(
        log.contains(&port.to_string()) && log.contains("in use"),
        "the message does not say what is taken:\n{log}"
    );
    Ok(())
}

fn unwritable_print_file(scene: &Scene) -> Result<()> {
    let server = kind("node")?.start(scene)?;
    for file in [
        scene.folder().join("no-such-folder/spans"),
        scene.folder().to_path_buf(),
    ] {
        let log = Setup::watching(scene, &[server.pid()])?
            .print_file(&file)
            .refused()?;
        ensure!(
            log.contains(&file.display().to_string()),
            "the message does not name {}:\n{log}",
            file.display()
        );
    }
    Ok(())
}

fn no_such_process(scene: &Scene) -> Result<()> {
    let log = Setup::watching(scene, &[NO_PROCESS])?.refused()?;
    ensure!(
        log.contains(&NO_PROCESS.to_string()),
        "the message does not name the process:\n{log}"
    );
    Ok(())
}

/// The target's end falls anywhere into the agent's start: either the agent refuses because the process is gone,
/// or it gets ready; it never panics and never hangs.
fn target_exits(scene: &Scene) -> Result<()> {
    for delay in ["0.01", "0.05", "0.1", "0.2"] {
        let mut command = place::command("busybox")?;
        command.args(["sleep", delay]);
        let mut target = Process::start(&format!("target-{delay}"), command, scene.folder())?;
        match Agent::watch(scene, &[target.pid()]) {
            Ok(agent) => drop(agent.finish()?),
            Err(error) => {
                let text = format!("{error:#}");
                ensure!(
                    text.contains(&target.pid().to_string()) && !text.contains("panicked"),
                    "unclear: {text}"
                );
            }
        }
        target.wait(Duration::from_secs(5))?;
    }
    Ok(())
}

/// Spans still reach the file; what the collector did not take is counted.
fn unreachable_collector(scene: &Scene) -> Result<()> {
    let server = kind("node")?.start(scene)?;
    for protocol in ["grpc", "http/protobuf"] {
        let agent = Setup::watching(scene, &[server.pid()])?
            .env(
                "OTEL_EXPORTER_OTLP_ENDPOINT",
                &format!("http://127.0.0.1:{}", free_port()?),
            )
            .env("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
            // The longest time that the exporter keeps trying, milliseconds.
            .env("OTEL_BSP_EXPORT_TIMEOUT", "500")
            .env("OTEL_BSP_SCHEDULE_DELAY", "100")
            .start()?;
        let tally = load::run(server.port, &load::numbered(2, 40))?;
        wait_for("a counted failure", Duration::from_secs(15), || {
            Ok((agent.metrics()?.sum("pilotfish_export_failed_total")? > 0).then_some(()))
        })
        .with_context(|| format!("with {protocol}"))?;
        agent.finish()?.must_match(&tally, Kind::Server)?;
    }
    Ok(())
}

/// A server that repeats whatever it gets: random bytes, and bytes that begin like HTTP and go wrong.
fn garbage(scene: &Scene) -> Result<()> {
    let port = free_port()?;
    let mut command = place::command("python3")?;
    command.arg(place::fixture("echo.py")).arg(port.to_string());
    let server = Process::start("echo", command, scene.folder())?;
    wait_for("the echo server's start", Duration::from_secs(10), || {
        Ok(TcpStream::connect(("127.0.0.1", port)).ok().map(drop))
    })?;
    let agent = Agent::watch(scene, &[server.pid()])?;
    for seed in 1..=50 {
        exchange(port, &noise(seed, 5000))?;
    }
    for bytes in [
        &b"GET \x00\x01\x02 HTTP/1.1\r\n\r\n"[..],
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nNo colon here\r\n\r\n",
        b"HTTP/1.1 999999 \r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzzzz\r\n",
        b"\x16\x03\x01\x00\xff\x01\x00\x00\xfb\x03\x03",
    ] {
        exchange(port, bytes)?;
    }
    let status = agent.status()?;
    ensure!(status.is_object(), "/status: {status}");
    let finished = agent.finish()?;
    ensure!(
        finished.metrics.produced()? > 100,
        "the agent saw the traffic"
    );
    ensure!(
        Tally::of_spans(&finished.spans, Kind::Server)?.total() == 0,
        "spans of garbage: {:?}",
        finished.spans
    );
    ensure!(
        Tally::of_spans(&finished.spans, Kind::Client)?.total() == 0,
        "spans of garbage: {:?}",
        finished.spans
    );
    Ok(())
}

/// Sends bytes to the echo server and reads them all back.
fn exchange(port: u16, bytes: &[u8]) -> Result<()> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(bytes)?;
    let mut echo = vec![0; bytes.len()];
    stream.read_exact(&mut echo)?;
    ensure!(echo == bytes, "the echo differs");
    Ok(())
}

/// Reproducible noise (xorshift).
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..length).map(|_| next()).collect()
}

/// Without the kernel's types nothing can be loaded, and both commands name the file.
fn no_btf(scene: &Scene) -> Result<()> {
    const NAMED: &str = "/sys/kernel/btf/vmlinux";
    let server = kind("node")?.start(scene)?;
    let hidden = hiding(&["/sys"])?;
    let log = Setup::watching(scene, &[server.pid()])?
        .wrapped(hidden.clone(), &place::agent_binary()?)
        .refused()?;
    ensure!(log.contains(NAMED), "the message does not name it:\n{log}");
    for arguments in [&["check"][..], &["check", "--json"]] {
        let output = wrapped(&hidden, &agent::command(arguments)?)?.output()?;
        let report = String::from_utf8_lossy(&output.stdout);
        ensure!(
            output.status.code() == Some(1),
            "{arguments:?} ended with {}:\n{report}",
            output.status
        );
        ensure!(
            report.contains(NAMED),
            "{arguments:?} does not name it:\n{report}"
        );
    }
    Ok(())
}

/// Programs are attached by the kernel's types; tracefs and debugfs are not needed.
fn no_tracefs(scene: &Scene) -> Result<()> {
    let server = kind("node")?.start(scene)?;
    let hidden = hiding(&["/sys/kernel/tracing", "/sys/kernel/debug"])?;
    let agent = Setup::watching(scene, &[server.pid()])?
        .wrapped(hidden.clone(), &place::agent_binary()?)
        .start()?;
    let check = wrapped(&hidden, &agent::command(&["check"])?)?.output()?;
    ensure!(
        check.status.success(),
        "check ended with {}:\n{}",
        check.status,
        String::from_utf8_lossy(&check.stdout)
    );
    let tally = load::run(server.port, &load::mix(2, 10))?;
    agent.finish()?.must_match(&tally, Kind::Server)
}

fn command_not_found(scene: &Scene) -> Result<()> {
    let missing = scene.folder().join("no-such-command");
    let log = Setup::running(scene, &Command::new(&missing))?.refused()?;
    ensure!(
        log.contains("no-such-command"),
        "the message does not name the command:\n{log}"
    );
    Ok(())
}

/// A command whose trace cannot begin is not run, and no process of it stays behind: it would hold standard output.
fn cannot_begin(_scene: &Scene) -> Result<()> {
    let taken = TcpListener::bind(("127.0.0.1", 0))?;
    let address = taken.local_addr()?.to_string();
    let busybox = place::command("busybox")?;
    let program = busybox.get_program().to_string_lossy();
    let mut agent = agent::command(&["run", "--listen", &address, "--", &program, "echo", "ran"])?;
    let output = output_within(&mut agent, Duration::from_secs(20))?;
    ensure!(
        output.status.code() == Some(1),
        "it ended with {}",
        output.status
    );
    ensure!(output.stdout.is_empty(), "the command was run");
    Ok(())
}

/// A recording that cannot be written ends by itself and says why.
fn full_disk(scene: &Scene) -> Result<()> {
    let server = kind("node")?.start(scene)?;
    let pid = server.pid().to_string();
    let mut agent = agent::command(&["record", "/dev/full", "--pid", &pid])?;
    // The clock alone fills the writer's buffer in time; requests, which last until the agent ends, do so at once.
    let ended = Arc::new(AtomicBool::new(false));
    let load = thread::spawn({
        let address = format!("127.0.0.1:{}", server.port);
        let ended = Arc::clone(&ended);
        move || {
            while !ended.load(Ordering::Relaxed) {
                let Ok(mut stream) = TcpStream::connect(&address) else {
                    return;
                };
                let _ = stream
                    .write_all(b"GET /small HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
                let _ = stream.read_to_end(&mut Vec::new());
            }
        }
    });
    let output = output_within(&mut agent, Duration::from_secs(30));
    ended.store(true, Ordering::Relaxed);
    ensure!(load.join().is_ok(), "the load failed");
    let output = output?;
    let log = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.code() == Some(1) && log.contains("/dev/full"),
        "it ended with {}:\n{log}",
        output.status
    );
    Ok(())
}

/// Runs a command to the end of its output, which a process left behind would hold open.
fn output_within(command: &mut Command, limit: Duration) -> Result<Output> {
    let (done, end) = mpsc::channel();
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    thread::spawn(move || done.send(child.wait_with_output()));
    Ok(end
        .recv_timeout(limit)
        .context("its output did not end in time")??)
}

/// The command's exit code is the agent's.
fn exit_code(scene: &Scene) -> Result<()> {
    for code in [0, 7] {
        let mut command = place::command("busybox")?;
        command.args(["sh", "-c", &format!("exit {code}")]);
        let (status, spans, log) =
            Setup::running(scene, &command)?.complete(Duration::from_secs(20))?;
        ensure!(
            status.code() == Some(code),
            "the command ended with {code}, the agent with {status}:\n{log}"
        );
        ensure!(spans.is_empty(), "spans of a command that talked to nobody");
    }
    Ok(())
}
