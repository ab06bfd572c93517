//! The OCI hook called by runc and crun when something is wrong: with the agent, the container, its annotations.

use crate::hook::{LIMIT, SERVER, add, must_trace, selected};
use anyhow::{Context, Result, ensure};
use integration::agent::Setup;
use integration::runtime::{Bundle, Machine, hook};
use integration::{Scene, Trials, load, program};
use nix::sys::socket::{Shutdown, shutdown};
use serde_json::{Value, json};
use std::fs;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// What containers print that start all the same.
const LINE: &str = "the container started";

/// Bytes of routes in an annotation: as much as the hook reads at all, and more than that.
const ROUTES: [usize; 2] = [3 << 20, 20 << 20];

/// An agent that treats every connection the same way; the container's start goes on meanwhile.
type Manner = fn(&mut UnixStream);

/// Name, manner, and what the hook must say. Without a manner nobody listens.
const FAULTS: &[(&str, Option<Manner>, &str)] = &[
    ("absent", None, "no agent listens on"),
    ("silent", Some(silent), "did not reply within the deadline"),
    ("slow", Some(slow), "did not reply within the deadline"),
    (
        "of another version",
        Some(|stream| answer(stream, 9, b"{}")),
        "speaks version 9",
    ),
    (
        "refusing",
        Some(|stream| answer(stream, 1, br#"{"reply":"failed","reason":"no room here"}"#)),
        "the agent failed: no room here",
    ),
    (
        "closing",
        Some(|_| ()),
        "closed the connection without a reply",
    ),
];

pub(crate) fn register(trials: &mut Trials) {
    trials.subject("hook_faults");
    for runtime in ["runc", "crun"] {
        trials.add_with(
            &format!("agents_that_do_not_answer_{runtime}"),
            &integration::runtime::needs(&[]),
            move |scene| {
                let machine = Machine::start(scene)?;
                hook::install(&machine)?;
                agents(&machine, runtime)
            },
        );
    }
    add(trials, "a_container_that_dies_before_or_after", deaths);
    add(trials, "announced_twice", twice);
    add(trials, "hostile_environment", hostile_environment);
    add(trials, "megabytes_of_routes", megabytes);
}

/// The system's log of a machine: crun does not pass on what its hooks say.
struct SystemLog(UnixDatagram);

impl SystemLog {
    fn start(machine: &Machine) -> Result<Self> {
        let log = UnixDatagram::bind(machine.path("/dev/log")).context("cannot bind the log")?;
        log.set_nonblocking(true)?;
        Ok(Self(log))
    }

    /// What came since the last time.
    fn lines(&self) -> String {
        let mut lines = String::new();
        let mut line = [0; 4096];
        while let Ok(length) = self.0.recv(&mut line) {
            lines.push_str(&String::from_utf8_lossy(&line[..length]));
            lines.push('\n');
        }
        lines
    }
}

/// An agent of the trial's own, ended when dropped.
struct Impostor {
    listener: UnixListener,
    thread: Option<JoinHandle<()>>,
}

impl Impostor {
    fn start(machine: &Machine, manner: Manner) -> Result<Self> {
        let socket = machine.path(hook::SOCKET);
        fs::create_dir_all(socket.parent().context("a socket has a folder")?)?;
        let listener = UnixListener::bind(&socket).context("cannot listen")?;
        let accepting = listener.try_clone()?;
        let serve = move || {
            for mut stream in accepting.incoming().map_while(Result::ok) {
                let mut request = [0; 1 << 14];
                if stream.read(&mut request).is_ok() {
                    manner(&mut stream);
                }
            }
        };
        Ok(Self {
            listener,
            thread: Some(thread::spawn(serve)),
        })
    }
}

impl Drop for Impostor {
    fn drop(&mut self) {
        let address = self.listener.local_addr();
        // Its thread is not left waiting for a connection.
        let _ = shutdown(self.listener.as_raw_fd(), Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        if let Some(path) = address
            .as_ref()
            .ok()
            .and_then(|address| address.as_pathname())
        {
            let _ = fs::remove_file(path);
        }
    }
}

/// Until the hook has gone.
fn silent(stream: &mut UnixStream) {
    let _ = stream.read(&mut [0]);
}

/// A reply that is well begun and never done.
fn slow(stream: &mut UnixStream) {
    let _ = stream.write_all(&header(1, 100_000));
    while stream.write_all(b" ").is_ok() {
        thread::sleep(Duration::from_millis(20));
    }
}

fn answer(stream: &mut UnixStream, version: u16, body: &[u8]) {
    let _ = stream.write_all(&[&header(version, body.len() as u32), body].concat());
}

/// "pfsh", version, two bytes of zero, length; little-endian.
fn header(version: u16, length: u32) -> Vec<u8> {
    let (version, length) = (version.to_le_bytes(), length.to_le_bytes());
    [&b"pfsh"[..], &version, &[0, 0], &length].concat()
}

/// The container starts and does its work; with `--fail-closed` it is refused with the reason.
fn agents(machine: &Machine, runtime: &str) -> Result<()> {
    let script = format!("echo {LINE}");
    let words = ["sh", "-c", &script];
    let patience = ["--timeout", "300ms"];
    let open = selected(machine, "/open", &words, &patience)?;
    let strict = [&patience[..], &["--fail-closed"]].concat();
    let closed = selected(machine, "/closed", &words, &strict)?;
    let system = SystemLog::start(machine)?;
    for (number, (name, manner, reason)) in FAULTS.iter().enumerate() {
        let impostor = manner
            .map(|manner| Impostor::start(machine, manner))
            .transpose()?;
        let (started, log) = foreground(machine, runtime, &open, &format!("open-{number}"))?;
        ensure!(
            started && log.contains(LINE),
            "with an agent that is {name} the container did not start: {log}"
        );
        let told = system.lines();
        ensure!(
            told.contains("starts without being observed") && told.contains(reason),
            "the reason of an agent that is {name} is not logged: {told}"
        );
        let (started, log) = foreground(machine, runtime, &closed, &format!("closed-{number}"))?;
        ensure!(
            !started && !log.contains(LINE),
            "with an agent that is {name} the container started all the same: {log}"
        );
        let mut places = vec![system.lines()];
        if runtime == "runc" {
            places.push(log);
        }
        for place in places {
            ensure!(
                place.contains("is refused because of --fail-closed") && place.contains(reason),
                "the reason of an agent that is {name} is not told: {place}"
            );
        }
        drop(impostor);
    }
    Ok(())
}

/// Runs a container to its end: whether the runtime was content, and everything that was written.
fn foreground(
    machine: &Machine,
    runtime: &str,
    bundle: &Bundle,
    id: &str,
) -> Result<(bool, String)> {
    let command = machine.command(runtime, ["run", "--bundle", bundle.folder(), id]);
    let mut process = machine.spawn(id, command)?;
    let status = process.wait(LIMIT)?;
    Ok((status.success(), process.log()))
}

/// The first process ends before the hook holds it, or after the agent does: nothing of the container stays.
fn deaths(scene: &Scene, machine: &Machine) -> Result<()> {
    let script = r#"
        pid=$(tr -d ' \n' | sed 's/.*"pid":\([0-9]*\).*/\1/')
        kill -9 "$pid"
        while [ -e "/proc/$pid" ] && ! grep -q '^State:.*Z' "/proc/$pid/status"; do sleep 0.01; done
        while [ -e "/proc/$pid" ] && ! grep -q '^Threads:.*1$' "/proc/$pid/status"; do sleep 0.01; done"#;
    let killer =
        json!({ "path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin"] });
    let system = SystemLog::start(machine)?;
    let agent = Setup::node(scene, machine)?.start()?;
    for (folder, hook_is_first) in [("/before", false), ("/after", true)] {
        let bundle = Bundle::make(machine, folder, SERVER, |config| {
            hook::select(config);
            hook::add(config, &["--fail-closed"]);
            let hooks = config["hooks"]["createRuntime"].as_array_mut();
            if let Some(hooks) = hooks {
                hooks.insert(usize::from(hook_is_first), killer.clone());
            }
        })?;
        for runtime in ["runc", "crun"] {
            let id = format!("{}-{runtime}", &folder[1..]);
            let failure = bundle.run(runtime, &id);
            let Err(error) = failure else {
                anyhow::bail!("{id} runs although its first process was killed");
            };
            let told = system.lines();
            let expected = told.contains("ended before it could be announced") != hook_is_first;
            ensure!(expected, "{id}: {error:#}; logged: {told}");
            // It may be gone already.
            let _ = bundle.delete(runtime, &id);
        }
    }
    let announced = agent.metrics()?.sum("pilotfish_hook_attached_total")?;
    ensure!(announced == 2, "{announced} containers announced, not 2");
    hook::await_observed(&agent, machine, &[])?;
    agent.finish().map(drop)
}

/// A bundle that names the hook twice is one container.
fn twice(scene: &Scene, machine: &Machine) -> Result<()> {
    let bundle = Bundle::make(machine, "/bundle", SERVER, |config| {
        hook::select(config);
        hook::add(config, &["--fail-closed"]);
        for stage in ["createRuntime", "poststop"] {
            let entry = config["hooks"][stage][0].clone();
            config["hooks"][stage] = json!([entry, entry]);
        }
    })?;
    let agent = Setup::node(scene, machine)?.start()?;
    for runtime in ["runc", "crun"] {
        bundle.run(runtime, runtime)?;
        hook::await_observed(&agent, machine, &[runtime])?;
        must_trace(&agent, 8080, runtime, "once")?;
        bundle.delete(runtime, runtime)?;
        hook::await_observed(&agent, machine, &[])?;
    }
    let metrics = agent.finish()?.metrics;
    let attached = metrics.sum("pilotfish_hook_attached_total")?;
    let removed = metrics.sum("pilotfish_hook_removes_total")?;
    ensure!(attached == 4, "{attached} announcements, not 4");
    ensure!(removed >= 4, "{removed} removals, not 4");
    Ok(())
}

/// What whoever starts the runtime, or whoever wrote the bundle, has in the environment means nothing to the hook.
fn hostile_environment(scene: &Scene, machine: &Machine) -> Result<()> {
    let hostile = [
        "LD_PRELOAD=/preload.so",
        "LD_LIBRARY_PATH=/nowhere",
        "PATH=",
        "PILOTFISH_SOCKET=/nowhere/evil.sock",
        "PILOTFISH_HOOK_SOCKET=/nowhere/evil.sock",
        "RUST_BACKTRACE=full",
        "TZ=/dev/zero",
    ];
    let bundle = Bundle::make(machine, "/bundle", SERVER, |config| {
        hook::select(config);
        hook::add(config, &["--fail-closed"]);
        for stage in ["createRuntime", "poststop"] {
            config["hooks"][stage][0]["env"] = json!(hostile);
        }
    })?;
    // A program of that name that has a dynamic loader shows what would be seen of the hook.
    machine.copy_in(&program::c_library("preload.c")?, "/preload.so", 0o755)?;
    let marker = machine.path("/loaded-into-the-hook");
    machine.output(
        "bash",
        ["-c", "LD_PRELOAD=/preload.so exec -a pilotfish-hook true"],
    )?;
    fs::remove_file(&marker).context("the library was not loaded into a dynamic program")?;

    let agent = Setup::node(scene, machine)?.start()?;
    for runtime in ["runc", "crun"] {
        let path = machine.output("sh", ["-c", &format!("command -v {runtime}")])?;
        let run = bundle.run_words(runtime);
        let words = hostile.iter().copied().chain([path.trim()]);
        bundle.start(machine.command("env", words.chain(run)), runtime)?;
        load::ask_first(8080, "/")?;
        must_trace(&agent, 8080, runtime, "seen")?;
        bundle.delete(runtime, runtime)?;
    }
    ensure!(
        !marker.exists(),
        "the hook loaded a library that its environment names"
    );
    hook::await_observed(&agent, machine, &[])?;
    agent.finish().map(drop)
}

/// Too long a value is left out with a warning; a configuration too long to be read leaves the container alone.
fn megabytes(scene: &Scene, machine: &Machine) -> Result<()> {
    let agent = Setup::node(scene, machine)?.start()?;
    for (size, observed) in ROUTES.into_iter().zip([true, false]) {
        let folder = format!("/with-{size}");
        let bundle = Bundle::make(machine, &folder, SERVER, |config: &mut Value| {
            hook::select(config);
            hook::add(config, &[]);
            config["annotations"]["pilotfish.dev/routes"] = "/a/{b};".repeat(size / 7).into();
        })?;
        for runtime in ["runc", "crun"] {
            let id = format!("{runtime}-{size}");
            bundle.run(runtime, &id)?;
            load::ask_first(8080, "/")?;
            if observed {
                must_trace(&agent, 8080, &id, "seen")?;
                let status = agent.status()?;
                let warnings = status["containers"][0]["warnings"].to_string();
                ensure!(warnings.contains("pilotfish.dev/routes"), "{warnings}");
            } else {
                hook::await_observed(&agent, machine, &[])?;
            }
            bundle.delete(runtime, &id)?;
            hook::await_observed(&agent, machine, &[])?;
        }
    }
    agent.finish().map(drop)
}
