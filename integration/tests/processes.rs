//! Which processes are seen: children from before and after the attach, threads, commands that the agent starts.

use anyhow::{Context, Result, ensure};
use integration::agent::Setup;
use integration::process::{children, wait_for};
use integration::scene::free_port;
use integration::server::{self, Server, gunicorn, kind, wait_until_answers};
use integration::{Agent, Kind, Outcome, Scene, Span, Tally, Trials, load, place};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeSet;
use std::time::Duration;

/// Bound for anything that a process manager does on a signal.
const LIMIT: Duration = Duration::from_secs(20);

pub(crate) fn register(trials: &mut Trials) {
    trials.subject("processes");
    trials.add(
        "workers_forked_after_the_attach",
        &["gunicorn"],
        workers_forked_later,
    );
    trials.add(
        "command_started_by_the_agent",
        &["gunicorn"],
        command_of_the_agent,
    );
    trials.add(
        "first_request_of_a_new_worker",
        &["gunicorn"],
        first_request,
    );
    trials.add("many_threads", &["python3"], many_threads);
    trials.add(
        "short_lived_children",
        &["busybox", "nginx", "curl"],
        short_lived_children,
    );
    trials.add("two_servers_in_one_scope", &["node", "ruby"], two_servers);
}

/// HUP makes gunicorn replace all workers: every request is served by a process that did not exist at the attach.
fn workers_forked_later(scene: &Scene) -> Result<()> {
    let server = kind("gunicorn_threads")?.start(scene)?;
    let old = children(server.pid())?;
    let agent = Agent::watch(scene, &[server.pid()])?;
    replace_workers(&server, &old)?;
    let mut tally = load::run(server.port, &load::numbered(4, 60))?;
    // The question whether the new workers are up is a request as any other.
    tally.add(Outcome::new("GET", server::PROBE, 200));
    agent.finish()?.must_match(&tally, Kind::Server)
}

fn replace_workers(server: &Server, old: &BTreeSet<u32>) -> Result<()> {
    server.process.signal(Signal::SIGHUP)?;
    wait_for("new gunicorn workers", LIMIT, || {
        let now = children(server.pid())?;
        Ok((now.len() == 2 && now.is_disjoint(old)).then_some(()))
    })?;
    wait_until_answers(server.port, || true)
}

/// The agent is there before the first instruction of the server, so nothing at all is missed.
fn command_of_the_agent(scene: &Scene) -> Result<()> {
    let port = free_port()?;
    let agent = Setup::running(scene, &gunicorn(port, "gthread")?)?.start()?;
    wait_until_answers(port, || true)?;
    let mut tally = load::run(port, &load::numbered(4, 60))?;
    // The question whether the server is up is a request as any other; refused connections are not.
    tally.add(Outcome::new("GET", server::PROBE, 200));
    agent.finish()?.must_match(&tally, Kind::Server)?;
    let still_listening = std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
    ensure!(
        !still_listening,
        "the command outlived the agent that started it"
    );
    Ok(())
}

/// A worker that replaces a killed one is observed from its first request on.
fn first_request(scene: &Scene) -> Result<()> {
    let server = kind("gunicorn_sync")?.start(scene)?;
    let agent = Agent::watch(scene, &[server.pid()])?;
    let mut tally = Tally::default();
    for round in 0..5 {
        let old = children(server.pid())?;
        for worker in &old {
            kill(Pid::from_raw(*worker as i32), Signal::SIGKILL)?;
        }
        wait_for("new gunicorn workers", LIMIT, || {
            Ok(children(server.pid())?.is_disjoint(&old).then_some(()))
        })?;
        tally.merge(load::run(
            server.port,
            &vec![vec![load::Ask::Get(format!("/items/{round}"))]],
        )?);
    }
    agent.finish()?.must_match(&tally, Kind::Server)
}

/// A thread per connection, 40 at a time, all started after the attach.
fn many_threads(scene: &Scene) -> Result<()> {
    let server = kind("python_http_server")?.start(scene)?;
    let agent = Agent::watch(scene, &[server.pid()])?;
    let tally = load::run(server.port, &load::numbered(40, 12))?;
    agent.finish()?.must_match(&tally, Kind::Server)
}

/// A shell that starts one client process per request, each gone within milliseconds.
fn short_lived_children(scene: &Scene) -> Result<()> {
    let nginx = integration::nginx::Nginx::new(free_port()?);
    let server = Server::start("nginx", nginx.command(scene)?, scene, nginx.port())?;
    let mut shell = place::command("busybox")?;
    let script =
        r#"i=0; while [ $i -lt 40 ]; do "$1" -s -o /dev/null "$2/items/$i"; i=$((i+1)); done"#;
    shell
        .args(["sh", "-c", script, "sh"])
        .arg(place::tool("curl").context("curl")?)
        .arg(format!("http://127.0.0.1:{}", nginx.port()));
    let (status, spans, log) = Setup::running(scene, &shell)?.complete(LIMIT)?;
    server.finish()?;
    ensure!(status.success(), "{status}:\n{log}");
    let logged = nginx.access_log(scene)?;
    ensure!(
        logged.total() == 40,
        "nginx served {} requests",
        logged.total()
    );
    logged.must_equal(
        &Tally::of_spans(&spans, Kind::Client)?,
        "the access log",
        "spans",
    )
}

/// Two processes that have nothing in common but the agent: each gets its own identity.
fn two_servers(scene: &Scene) -> Result<()> {
    let node = kind("node")?.start(scene)?;
    let ruby = kind("ruby")?.start(scene)?;
    let agent = Agent::watch(scene, &[node.pid(), ruby.pid()])?;
    let mut tally = load::run(node.port, &load::numbered(2, 30))?;
    tally.merge(load::run(ruby.port, &load::numbered(2, 30))?);
    let finished = agent.finish()?;
    finished.must_match(&tally, Kind::Server)?;
    for (server, name) in [(&node, "node"), (&ruby, "ruby")] {
        let port = Some(i64::from(server.port));
        let own = |span: &&Span| span.integer("server.port") == port;
        let spans: Vec<&Span> = finished.spans.iter().filter(own).collect();
        ensure!(spans.len() == 60, "{} spans of {name}", spans.len());
        for span in spans {
            let service = span
                .resource
                .get("service.name")
                .and_then(|name| name.as_str());
            ensure!(
                service.is_some_and(|service| service.starts_with(name)),
                "not called {name}: {span:?}"
            );
        }
    }
    Ok(())
}
