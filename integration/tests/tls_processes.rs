//! Which processes are seen in plaintext: late ones, forked ones, no bystander, and none once the agent is gone.

use crate::privilege::{ENOUGH, Ground, setpriv};
use anyhow::{Context, Result, ensure};
use integration::nginx::Nginx;
use integration::process::{children, wait_for};
use integration::scene::free_port;
use integration::server::Server;
use integration::tls::client::Gate;
use integration::tls::coverage::{
    family, losses, must_be_lossless, wait_for_reason, wait_until_probed,
};
use integration::tls::load::Exchanges;
use integration::tls::memory::{differing_bytes, wait_until_untouched};
use integration::tls::server::{ServerKind, kind, scripted, start, wait_until_answers};
use integration::tls::{self, Certificate, load};
use integration::trial::Need;
use integration::{
    Finished, Kind, Outcome, Process, Scene, Tally, Trials, load as plain, place, server,
};
use nix::sys::signal::Signal;
use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

/// Bound for whatever a process does when it is told to.
const LIMIT: Duration = Duration::from_secs(30);

/// Time for which a late process has been observed before it loads TLS: most of the agent's own looks are over then.
const LATE: Duration = Duration::from_secs(2);

/// Requests of a late client after its first.
const LATER: u64 = 50;

/// The library whose text is looked at.
const LIBRARY: &str = "libssl.so.3";

pub(crate) fn register(trials: &mut Trials) {
    trials.subject("tls_processes");
    trials.add("client_loads_ssl_late", &["python3", "nginx"], late_client);
    trials.add("server_loads_ssl_late", &["python3"], late_server);
    trials.add("forked_before_the_attach", &["python3"], forked_before);
    trials.add("forked_after_the_attach", &["python3"], forked_after);
    trials.add("executes_again_and_again", &["python3"], executes);
    trials.add(
        "executed_by_another_thread",
        &["python3"],
        executed_by_another_thread,
    );
    trials.add("bystander", &["python3"], bystander);
    trials.add("switched_off_and_on", &["python3"], switched_off_and_on);
    trials.add("left_out_by_name", &["python3", "nginx"], left_out_by_name);
    trials.add("agent_is_killed", &["python3"], agent_is_killed);
    trials.add("agent_ends_nginx", &["nginx"], |scene| {
        agent_ends("nginx", LIBRARY, scene)
    });
    trials.add("agent_ends_go", &["go"], |scene| {
        agent_ends("go", "server.go.bin", scene)
    });
    let needs = [
        Need::Bpf,
        Need::Root,
        Need::Tool("bpftool"),
        Need::Tool("setpriv"),
        Need::Tool("nginx"),
    ];
    trials.add_with("three_capabilities_are_enough", &needs, least_privilege);
}

/// Fails unless a connection of which an exchange is missed is counted as encrypted; no more than the one that began before
/// its library was probed.
fn must_be_told(finished: &Finished, missed: u64) -> Result<()> {
    let told = finished.metrics.sum("pilotfish_flows_encrypted_total")?;
    ensure!(
        (missed..=1).contains(&told),
        "{missed} missed, {told} told; {:?}",
        losses(&finished.metrics)?
    );
    Ok(())
}

/// The first request goes out in the moment in which the library is loaded; it may be missed, and then it is counted.
fn late_client(scene: &Scene) -> Result<()> {
    let certificate = Certificate::new(scene)?;
    let nginx = Nginx::new(free_port()?).tls(&certificate);
    let server = start("nginx", nginx.command(scene)?, scene, nginx.port())?;
    let gate = Gate::new(scene, "gate")?;
    let mut command = place::command("python3")?;
    command
        .arg(place::fixture("late_client.py"))
        .arg(nginx.port().to_string())
        .arg(&certificate.chain)
        .arg(gate.path());
    let mut client = Process::start("client", command, scene.folder())?;
    let agent = tls::watch(scene, &[client.pid()])?;
    let mut gate = gate.hold()?;
    std::thread::sleep(LATE);
    gate.hand("1\n")?;
    done(&mut client, 1)?;
    wait_until_probed(&agent, &[client.pid()], "openssl")?;
    gate.hand(&format!("{LATER}\n"))?;
    drop(gate);
    done(&mut client, 2)?;
    let finished = agent.finish()?;
    server.finish()?;

    let logged = nginx.access_log(scene)?;
    ensure!(
        logged.total() == LATER + 1,
        "nginx served {}",
        logged.total()
    );
    let first = Outcome::new("GET", "/items/0", 200);
    let seen = Tally::of_spans(&finished.spans, Kind::Client)?;
    logged
        .without(&first)
        .must_equal(&seen.without(&first), "the access log", "spans")?;
    let missed = logged.total() - seen.total();
    must_be_told(&finished, missed)
}

/// Waits until a process has printed "done" so often.
fn done(process: &mut Process, times: usize) -> Result<()> {
    wait_for("what a client was told to do", LIMIT, || {
        let finished = process.log().matches("done").count();
        ensure!(
            finished >= times || process.is_running(),
            "it ended:\n{}",
            process.log_tail()
        );
        Ok((finished >= times).then_some(()))
    })
}

/// One connection asks from the moment in which the server listens; the rest comes when the agent says that it is probed.
fn late_server(scene: &Scene) -> Result<()> {
    let certificate = Certificate::new(scene)?;
    let (port, gate) = (free_port()?, Gate::new(scene, "gate")?);
    let mut command = scripted("python3", "late_server.py", port, &certificate)?;
    command.arg(gate.path());
    let mut process = Process::start("server", command, scene.folder())?;
    let agent = tls::watch(scene, &[process.pid()])?;
    std::thread::sleep(LATE);
    gate.open("")?;
    wait_until_answers(port, || process.is_running()).with_context(|| process.log_tail())?;
    wait_until_probed(&agent, &[process.pid()], "openssl")?;
    let exchanges = load::run(port, &plain::numbered(4, 30))?;
    let mut finished = agent.finish()?;

    let first = server::PROBE.split('?').next().unwrap_or_default();
    let seen = finished.spans.len();
    finished.spans.retain(|span| span.path() != first);
    let seen = seen - finished.spans.len();
    ensure!(seen <= 1, "one first request, {seen} spans");
    exchanges.must_be_all(&finished, port)?;
    let missed = 1 - seen as u64;
    must_be_told(&finished, missed)
}

/// A server whose children each serve one connection at a time.
const PREFORK: ServerKind = ServerKind {
    name: "prefork",
    tools: &["python3"],
    library: "openssl",
    command: |_, port, certificate| scripted("python3", "prefork.py", port, certificate),
};

fn forked_before(scene: &Scene) -> Result<()> {
    let certificate = Certificate::new(scene)?;
    let server = PREFORK.start(scene, &certificate)?;
    let agent = tls::watch(scene, &[server.pid()])?;
    let family = family(server.pid())?;
    ensure!(family.len() == 4, "a parent and three children: {family:?}");
    wait_until_probed(&agent, &family, PREFORK.library)?;
    let exchanges = by_all_children(server.port)?;
    let finished = agent.finish()?;
    exchanges.must_be_all(&finished, server.port)?;
    must_be_lossless(&finished.metrics)
}

/// Three connections at a time, which only three children can serve, four times.
fn by_all_children(port: u16) -> Result<Exchanges> {
    let mut exchanges = Exchanges::default();
    for _ in 0..4 {
        exchanges.merge(load::run(port, &plain::numbered(3, 40))?);
    }
    Ok(exchanges)
}

fn forked_after(scene: &Scene) -> Result<()> {
    let certificate = Certificate::new(scene)?;
    let server = PREFORK.start(scene, &certificate)?;
    let agent = tls::watch(scene, &[server.pid()])?;
    let old = children(server.pid())?;
    let mut exchanges = Exchanges::default();
    for _ in 0..3 {
        let before = children(server.pid())?;
        server.process.signal(Signal::SIGHUP)?;
        let new = new_children(&server, &before)?;
        ensure!(new.is_disjoint(&old), "children from before the attach");
        let new: Vec<u32> = new.into_iter().collect();
        wait_until_probed(&agent, &new, PREFORK.library)?;
        exchanges.merge(by_all_children(server.port)?);
    }
    let finished = agent.finish()?;
    exchanges.must_be_all(&finished, server.port)?;
    must_be_lossless(&finished.metrics)
}

fn new_children(server: &Server, before: &BTreeSet<u32>) -> Result<BTreeSet<u32>> {
    wait_for("new children", LIMIT, || {
        let now = children(server.pid())?;
        Ok((now.len() == 3 && now.is_disjoint(before)).then_some(now))
    })
}

/// A process that executes itself 30 times, with the library loaded each time, is looked at and attached to in any state of
/// that; what becomes of it in the end is seen, and nothing is told to have failed.
fn executes(scene: &Scene) -> Result<()> {
    let certificate = Certificate::new(scene)?;
    let port = free_port()?;
    let gate = Gate::new(scene, "gate")?;
    let mut command = place::command("busybox")?;
    command
        .args(["sh", "-c", r#"busybox cat "$0"; exec "$@""#])
        .arg(gate.path())
        .arg(place::tool("python3").context("python3")?)
        .arg(place::fixture("execs.py"))
        .args(["30", &port.to_string()])
        .arg(&certificate.chain)
        .arg(&certificate.key)
        .env("PYTHONDONTWRITEBYTECODE", "1");
    let mut process = Process::start("server", command, scene.folder())?;
    let agent = tls::watch(scene, &[process.pid()])?;
    gate.open("")?;
    wait_until_answers(port, || process.is_running()).with_context(|| process.log_tail())?;
    wait_until_probed(&agent, &[process.pid()], "openssl")?;
    let exchanges = load::run(port, &plain::numbered(4, 30))?;
    let mut finished = agent.finish()?;
    let first = server::PROBE.split('?').next().unwrap_or_default();
    finished.spans.retain(|span| span.path() != first);
    exchanges.must_be_all(&finished, port)?;
    let failures = finished.metrics.sum("pilotfish_tls_failures_total")?;
    ensure!(failures == 0, "{failures} failures:\n{}", finished.log);
    Ok(())
}

/// Links stand for the task that was the process's leader, which is gone when another thread executes a program.
fn executed_by_another_thread(scene: &Scene) -> Result<()> {
    let certificate = Certificate::new(scene)?;
    let port = free_port()?;
    let command = scripted("python3", "execs_by_thread.py", port, &certificate)?;
    let server = start("server", command, scene, port)?;
    let agent = tls::watch(scene, &[server.pid()])?;
    wait_until_probed(&agent, &[server.pid()], "openssl")?;
    let mut exchanges = load::run(port, &plain::numbered(4, 30))?;
    server.process.signal(Signal::SIGHUP)?;
    wait_for("that the server executes itself", LIMIT, || {
        Ok(server
            .process
            .log()
            .contains("executed again")
            .then_some(()))
    })?;
    wait_until_answers(port, || true)?;
    wait_until_probed(&agent, &[server.pid()], "openssl")?;
    let after = load::run(port, &plain::numbered(4, 30))?;
    exchanges.merge(after);
    let mut finished = agent.finish()?;
    let first = server::PROBE.split('?').next().unwrap_or_default();
    finished.spans.retain(|span| span.path() != first);
    exchanges.must_be_all(&finished, port)?;
    let failures = finished.metrics.sum("pilotfish_tls_failures_total")?;
    ensure!(failures == 0, "{failures} failures:\n{}", finished.log);
    Ok(())
}

/// The pod's annotation takes every probe away while the server runs, and brings them back.
fn switched_off_and_on(scene: &Scene) -> Result<()> {
    let certificate = Certificate::new(scene)?;
    let kind = kind("python_http_server")?;
    let server = kind.start(scene, &certificate)?;
    let (pid, file) = (server.pid(), scene.folder().join("annotations"));
    let say = |value: &str| fs::write(&file, format!("pilotfish.dev/tls=\"{value}\"\n"));
    say("off")?;
    let agent = tls::setup(scene, &[pid])?
        .arg("--annotations-file")
        .arg(&file)
        .start()?;
    let mut seen = Exchanges::default();
    let mut unseen = 0;
    for _ in 0..2 {
        let reason = wait_for_reason(&agent, pid, "python")?;
        ensure!(reason.contains("annotations"), "the reason is {reason:?}");
        wait_until_untouched(pid, LIBRARY)?;
        unseen += load::run(server.port, &plain::numbered(2, 10))?.total();
        say("on")?;
        wait_until_probed(&agent, &[pid], kind.library)?;
        ensure!(
            differing_bytes(pid, LIBRARY)? > 0,
            "no breakpoint though it is switched on"
        );
        seen.merge(load::run(server.port, &plain::numbered(2, 10))?);
        say("off")?;
    }
    wait_for_reason(&agent, pid, "python")?;
    let finished = agent.finish()?;
    seen.must_be_all(&finished, server.port)?;
    ensure!(
        finished.spans.len() as u64 == seen.total(),
        "{} spans of {} requests, {unseen} of them while it was off",
        finished.spans.len(),
        seen.total() + unseen
    );
    let encrypted = finished.metrics.sum("pilotfish_flows_encrypted_total")?;
    ensure!(
        encrypted == 4,
        "{encrypted} of 4 connections told as encrypted"
    );
    Ok(())
}

/// An executable that the operator leaves out has no probe; another one beside it has.
fn left_out_by_name(scene: &Scene) -> Result<()> {
    let certificate = Certificate::new(scene)?;
    let left_out = kind("python_http_server")?.start(scene, &certificate)?;
    let kind = kind("nginx")?;
    let observed = kind.start(scene, &certificate)?;
    let executable = fs::read_link(format!("/proc/{}/exe", left_out.pid()))?;
    let name = executable.file_name().context("a file has a name")?;
    let family = family(observed.pid())?;
    let agent = tls::setup(scene, &[left_out.pid(), observed.pid()])?
        .arg("--tls-exclude")
        .arg(name)
        .start()?;
    wait_until_probed(&agent, &family, kind.library)?;
    let reason = wait_for_reason(&agent, left_out.pid(), &name.to_string_lossy())?;
    ensure!(reason.contains("--tls-exclude"), "the reason is {reason:?}");
    load::run(left_out.port, &plain::numbered(2, 10))?;
    let exchanges = load::run(observed.port, &plain::numbered(2, 10))?;
    let touched = differing_bytes(left_out.pid(), LIBRARY)?;
    ensure!(touched == 0, "{touched} bytes were changed");
    let finished = agent.finish()?;
    exchanges.must_be_all(&finished, observed.port)?;
    ensure!(
        finished.spans.len() as u64 == exchanges.total(),
        "spans of what was left out"
    );
    Ok(())
}

/// Another process with the same library: no byte of its text is touched, and none of its requests is seen.
fn bystander(scene: &Scene) -> Result<()> {
    let certificate = Certificate::new(scene)?;
    let kind = kind("python_http_server")?;
    let observed = kind.start(scene, &certificate)?;
    let other = kind.start(scene, &certificate)?;
    let agent = tls::watch(scene, &[observed.pid()])?;
    wait_until_probed(&agent, &[observed.pid()], kind.library)?;
    for _ in 0..3 {
        load::run(other.port, &plain::numbered(2, 20))?;
    }
    let exchanges = load::run(observed.port, &plain::numbered(2, 20))?;
    ensure!(
        differing_bytes(observed.pid(), LIBRARY)? > 0,
        "no breakpoint in the observed process: this trial would see none anywhere"
    );
    let touched = differing_bytes(other.pid(), LIBRARY)?;
    ensure!(touched == 0, "{touched} bytes of a bystander were changed");
    let finished = agent.finish()?;
    exchanges.must_be_all(&finished, observed.port)?;
    ensure!(
        finished.spans.len() as u64 == exchanges.total(),
        "spans of the bystander"
    );
    must_be_lossless(&finished.metrics)
}

/// After `kill -9` of the agent the text is the file's again, no link is left, and the server goes on.
fn agent_is_killed(scene: &Scene) -> Result<()> {
    let certificate = Certificate::new(scene)?;
    let kind = kind("python_http_server")?;
    let server = kind.start(scene, &certificate)?;
    for _ in 0..2 {
        let agent = tls::watch(scene, &[server.pid()])?;
        wait_until_probed(&agent, &[server.pid()], kind.library)?;
        load::run(server.port, &plain::numbered(2, 10))?;
        ensure!(
            differing_bytes(server.pid(), LIBRARY)? > 0,
            "no breakpoint while the agent is there"
        );
        // The links of the library are younger than what the agent had when it became ready.
        scene.remember_loaded(agent.pid())?;
        agent.kill()?;
        wait_until_untouched(server.pid(), LIBRARY)?;
    }
    let after = load::run(server.port, &plain::numbered(2, 10))?;
    ensure!(after.total() == 20, "the server answers as before");
    scene.check_nothing_left()
}

/// After the agent's orderly end the text of all processes is the file's again: a detaching that the end cuts short would
/// leave breakpoints for good.
fn agent_ends(name: &str, file: &str, scene: &Scene) -> Result<()> {
    let certificate = Certificate::new(scene)?;
    let kind = kind(name)?;
    let server = kind.start(scene, &certificate)?;
    let family = family(server.pid())?;
    for _ in 0..5 {
        let agent = tls::watch(scene, &[server.pid()])?;
        wait_until_probed(&agent, &family, kind.library)?;
        load::run(server.port, &plain::numbered(4, 30))?;
        agent.finish_at_once()?;
        for &pid in &family {
            wait_until_untouched(pid, file).with_context(|| {
                format!(
                    "{} bytes differ",
                    differing_bytes(pid, file).unwrap_or_default()
                )
            })?;
        }
    }
    Ok(())
}

/// As user 65534 with three capabilities, of a server that is root's.
fn least_privilege(scene: &Scene) -> Result<()> {
    let ground = Ground::prepare(scene)?;
    let certificate = Certificate::new(scene)?;
    let kind = kind("nginx")?;
    let server = kind.start(scene, &certificate)?;
    let agent = tls::setup(scene, &[server.pid()])?
        .wrapped(setpriv(ENOUGH)?, &ground.binary)
        .print_file(&ground.output.join("spans.jsonl"))
        .start()?;
    wait_until_probed(&agent, &family(server.pid())?, kind.library)?;
    let exchanges = load::run(server.port, &plain::mix(4, 10))?;
    let finished = agent.finish()?;
    exchanges.must_be_all(&finished, server.port)?;
    must_be_lossless(&finished.metrics)
}
