//! `pilotfish sidecar` without `--pid`: a pid namespace shared by containers, as in a pod.

use anyhow::{Context, Result, ensure};
use integration::agent::{self, Setup};
use integration::namespace::{
    ControlGroup, Pod, TOOLS, entering, in_own_pid_namespace, inner_pid, wrapped,
};
use integration::process::wait_for;
use integration::scene::free_port;
use integration::server::{Server, kind};
use integration::trial::Need;
use integration::{Agent, Finished, Kind, Outcome, Process, Scene, Tally, Trials, load, server};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::ffi::OsString;
use std::time::Duration;

/// Bound for what the agent has to notice by itself; its slow pass over /proc comes every ten seconds.
const NOTICE_LIMIT: Duration = Duration::from_secs(25);
/// Bound for a refusal.
const REFUSAL_LIMIT: Duration = Duration::from_secs(20);
/// A master and two workers.
const NGINX_PROCESSES: u64 = 3;

pub(crate) fn register(trials: &mut Trials) {
    trials.subject("namespace");
    let needs = |tools: &[&'static str]| {
        let tools = TOOLS.iter().chain(tools).copied().map(Need::Tool);
        let needs = [Need::Bpf, Need::Root, Need::Tool("bpftool")];
        needs.into_iter().chain(tools).collect::<Vec<_>>()
    };
    trials.add_with(
        "every_server_of_the_namespace_and_nothing_else",
        &needs(&["node", "python3", "nginx"]),
        everything_inside,
    );
    trials.add_with(
        "entered_and_restarted_later",
        &needs(&["node", "python3", "nginx"]),
        entered_later,
    );
    trials.add_with(
        "workers_of_a_restarted_container",
        &needs(&["nginx"]),
        workers_of_a_restarted_container,
    );
    trials.add_with(
        "ended_processes_free_their_entries",
        &needs(&["node", "nginx"]),
        ended,
    );
    trials.add_with(
        "refuses_the_hosts_pid_namespace",
        &[Need::Bpf, Need::HostPidNamespace],
        refuses_the_host,
    );
    let with_cgroups = [needs(&["node", "python3"]), vec![Need::Cgroup2]].concat();
    trials.add_with("cgroup_v2_entry", &with_cgroups, cgroup_entry);
}

/// A server of the table, started through a wrapper.
fn serve(scene: &Scene, name: &str, words: &[OsString]) -> Result<Server> {
    let port = free_port()?;
    let command = (kind(name)?.command)(scene, port)?;
    Server::start(name, wrapped(words, &command)?, scene, port)
}

fn start_agent(scene: &Scene, pod: &Pod) -> Result<Agent> {
    Setup::sharing_namespace(scene, pod.new_container()?)?.start()
}

/// Waits for an exact number of processes in scope.
fn must_follow(agent: &Agent, processes: u64) -> Result<()> {
    let mut last = 0;
    wait_for("the expected number of processes", NOTICE_LIMIT, || {
        last = agent.metrics()?.sum("pilotfish_processes")?;
        Ok((last == processes).then_some(()))
    })
    .with_context(|| format!("expected {processes}, last seen {last}"))
}

/// No span but those of `tally`; the question whether a server is up is not counted where it may be missed.
fn must_match_but_probes(mut finished: Finished, tally: &Tally) -> Result<()> {
    finished.spans.retain(|span| span.path() != PROBE_PATH);
    finished.must_match(tally, Kind::Server)?;
    ensure!(
        finished.spans.len() as u64 == tally.total(),
        "{} spans of {} exchanges",
        finished.spans.len(),
        tally.total()
    );
    Ok(())
}

/// [`server::PROBE`] without its query.
const PROBE_PATH: &str = "/small";

/// Two containers, one of them with a process that was brought in, the agent's own, and the world outside.
fn everything_inside(scene: &Scene) -> Result<()> {
    let pod = Pod::start(scene)?;
    let first = serve(scene, "node", &pod.new_container()?)?;
    let beside = serve(
        scene,
        "python_http_server",
        &entering(inner_pid(&first.process)?)?,
    )?;
    let second = serve(scene, "nginx", &pod.new_container()?)?;
    let outside = kind("node")?.start(scene)?;
    let agent = start_agent(scene, &pod)?;
    let own = serve(scene, "python_http_server", &entering(agent.pid())?)?;

    let before = agent.settle()?;
    // The first process of the pod is a container as well.
    for (gauge, expected) in [
        ("pilotfish_containers", 3),
        ("pilotfish_processes", 3 + NGINX_PROCESSES),
    ] {
        let found = before.sum(gauge)?;
        ensure!(found == expected, "{gauge} is {found}, not {expected}");
    }
    for unseen in [&own, &outside] {
        let count = load::run(unseen.port, &load::mix(2, 10))?.total();
        ensure!(count > 150, "only {count} requests");
    }
    let after = agent.settle()?;
    ensure!(
        before.produced()? == after.produced()?,
        "{} records of what is not to be observed",
        after.produced()? - before.produced()?
    );

    let mut tally = Tally::default();
    for server in [&first, &beside, &second] {
        tally.merge(load::run(server.port, &load::mix(3, 10))?);
    }
    let finished = agent.finish()?;
    finished.must_match(&tally, Kind::Server)?;
    ensure!(
        finished.spans.len() as u64 == tally.total(),
        "{} spans of {} exchanges",
        finished.spans.len(),
        tally.total()
    );
    Ok(())
}

/// As `docker exec` does it, and as a restarted container comes: exact as soon as the agent has found them.
fn entered_later(scene: &Scene) -> Result<()> {
    let pod = Pod::start(scene)?;
    let first = serve(scene, "node", &pod.new_container()?)?;
    let agent = start_agent(scene, &pod)?;
    must_follow(&agent, 2)?;

    let member = inner_pid(&first.process)?;
    let entered = serve(scene, "python_http_server", &entering(member)?)?;
    must_follow(&agent, 3)?;
    let mut tally = load::run(entered.port, &load::numbered(3, 40))?;

    drop(first);
    let restarted = serve(scene, "nginx", &pod.new_container()?)?;
    must_follow(&agent, 2 + NGINX_PROCESSES)?;
    for server in [&restarted, &entered] {
        tally.merge(load::run(server.port, &load::numbered(3, 40))?);
    }
    must_match_but_probes(agent.finish()?, &tally)
}

/// A master that forks before the agent has heard of it: its workers are found with it, not by the slow pass.
fn workers_of_a_restarted_container(scene: &Scene) -> Result<()> {
    let pod = Pod::start(scene)?;
    let agent = start_agent(scene, &pod)?;
    must_follow(&agent, 1)?;
    let restarted = serve(scene, "nginx", &pod.new_container()?)?;
    must_follow(&agent, 1 + NGINX_PROCESSES)?;
    let tally = load::run(restarted.port, &load::numbered(2, 20))?;
    let finished = agent.finish()?;
    let late = finished.metrics.sum("pilotfish_missed_by_records_total")?;
    ensure!(late == 0, "the slow pass had to find {late} processes");
    must_match_but_probes(finished, &tally)
}

/// What ends by itself and what is killed leaves the table.
fn ended(scene: &Scene) -> Result<()> {
    let pod = Pod::start(scene)?;
    let steady = serve(scene, "node", &pod.new_container()?)?;
    let ending = serve(scene, "nginx", &pod.new_container()?)?;
    let agent = start_agent(scene, &pod)?;
    must_follow(&agent, 2 + NGINX_PROCESSES)?;
    let mut tally = load::run(ending.port, &load::numbered(2, 20))?;
    let master = inner_pid(&ending.process)?;
    kill(Pid::from_raw(master as i32), Signal::SIGQUIT)?;
    must_follow(&agent, 2)?;
    for round in 0..3 {
        let killed = serve(scene, "nginx", &pod.new_container()?)?;
        must_follow(&agent, 2 + NGINX_PROCESSES).with_context(|| format!("round {round}"))?;
        drop(killed);
        must_follow(&agent, 2).with_context(|| format!("round {round}"))?;
    }
    tally.merge(load::run(steady.port, &load::numbered(2, 20))?);
    must_match_but_probes(agent.finish()?, &tally)
}

/// Every process of the machine is nobody's container.
fn refuses_the_host(scene: &Scene) -> Result<()> {
    let command = agent::command(&["sidecar", "--listen", "off", "--print", "text"])?;
    let mut process = Process::start("unscoped", command, scene.folder())?;
    let status = process.wait(REFUSAL_LIMIT)?;
    let log = process.log();
    ensure!(status.code() == Some(1), "{status}:\n{log}");
    for word in ["host's pid namespace", "--pid", "pilotfish run"] {
        ensure!(log.contains(word), "the message lacks {word:?}:\n{log}");
    }
    Ok(())
}

/// A process of another pid namespace joins the container's control group and then executes a server. The agent
/// cannot see it in /proc; the kernel knows it by its group, from its first instruction on.
fn cgroup_entry(scene: &Scene) -> Result<()> {
    let group = ControlGroup::make()?;
    let pod = Pod::start(scene)?;
    let inside: Vec<OsString> = [pod.new_container()?, group.moving().into()].concat();
    let first = serve(scene, "node", &inside)?;
    let agent = start_agent(scene, &pod)?;
    must_follow(&agent, 2)?;

    let elsewhere = in_own_pid_namespace()?;
    let stranger = serve(scene, "python_http_server", &elsewhere)?;
    let before = agent.settle()?.produced()?;
    load::run(stranger.port, &load::mix(2, 5))?;
    let after = agent.settle()?.produced()?;
    ensure!(before == after, "records of a process in neither");

    let joining: Vec<OsString> = [elsewhere, group.moving().into()].concat();
    let joined = serve(scene, "python_http_server", &joining)?;
    let mut tally = load::run(joined.port, &load::mix(2, 10))?;
    tally.add(Outcome::new("GET", server::PROBE, 200));
    tally.merge(load::run(first.port, &load::mix(2, 10))?);
    let finished = agent.finish()?;
    let unknown = finished
        .metrics
        .sum("pilotfish_records_without_process_total")?;
    ensure!(
        unknown >= 1,
        "the agent knows the process by other means than its control group"
    );
    finished.must_match(&tally, Kind::Server)
}
