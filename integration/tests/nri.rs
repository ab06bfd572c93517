//! A node agent as a plug-in of containerd by the Node Resource Interface: no hook, and nothing in the configuration of
//! the runtime about annotations.

use crate::containerd::{OTHER, add, first_request};
use crate::hook::{SERVER, must_trace, of_container};
use crate::identity::{must_have, must_name};
use anyhow::{Result, ensure};
use integration::agent::{Agent, Setup};
use integration::process::wait_for;
use integration::runtime::{Container, Containerd, Machine, Pod, Release, hook};
use integration::{Scene, Trials, load};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use std::thread;
use std::time::Duration;

/// Bound for the agent's way back to a runtime that restarts: it waits up to 30 s before it looks again.
const LIMIT: Duration = Duration::from_secs(45);

/// Fresh containers whose first request has to be traced.
const CONTAINERS: usize = 10;

pub(crate) fn register(trials: &mut Trials) {
    trials.subject("nri");
    add(trials, "containerd_1_7", Release::V1_7, plug_in);
    add(trials, "containerd_2", Release::V2, plug_in);
    add(trials, "ten_at_once", Release::V2, at_once);
    add(trials, "hung_agent_1_7", Release::V1_7, hung);
    add(trials, "hung_agent_2", Release::V2, hung);
    add(trials, "beside_the_hook", Release::V2, beside_the_hook);
}

/// The interface is switched off in 1.7 unless configured, and on in 2.x.
fn configuration(release: Release) -> String {
    release.configuration(match release {
        Release::V1_6 | Release::V1_7 => {
            "[plugins.\"io.containerd.nri.v1.nri\"]\ndisable = false\n"
        }
        Release::V2 => "",
    })
}

/// Only the container `server` of it is selected.
fn pod() -> Pod {
    Pod::new("shop", "cart")
        .label("app.kubernetes.io/name", "basket")
        .annotation(hook::INSTRUMENT, "server")
        .annotation("server.pilotfish.dev/routes", "/first")
}

/// With and without an agent, and across a restart of the runtime.
fn plug_in(scene: &Scene, machine: &Machine, release: Release) -> Result<()> {
    let mut containerd = Containerd::start(machine, &configuration(release))?;
    let cri = containerd.cri()?;
    let pod = pod();
    let sandbox = cri.run_pod(&pod)?;
    cri.run(&sandbox, &pod, &Container::new("other", OTHER))?;
    // No agent runs yet.
    let earlier = cri.run(&sandbox, &pod, &Container::new("server", SERVER))?;
    load::ask_first(8080, "/unseen")?;

    let agent = Setup::node(scene, machine)?.arg("--nri").start()?;
    hook::await_observed(&agent, machine, &[&earlier])?;
    must_trace(&agent, 8080, &earlier, "earlier")?;
    cri.remove(&earlier)?;
    hook::await_observed(&agent, machine, &[])?;

    let mut fresh = Vec::new();
    for _ in 0..CONTAINERS {
        let id = first_request(&cri, &sandbox, &pod, "server")?;
        load::fetch("http://127.0.0.1:8081/unseen")?;
        cri.remove(&id)?;
        fresh.push(id);
    }
    let lasting = first_request(&cri, &sandbox, &pod, "server")?;
    containerd.restart()?;
    await_connections(&agent, 2)?;
    hook::await_observed(&agent, machine, &[&lasting])?;
    must_trace(&agent, 8080, &lasting, "afterwards")?;
    let cri = containerd.cri()?;
    cri.remove(&lasting)?;
    hook::await_observed(&agent, machine, &[])?;
    fresh.push(lasting.clone());
    fresh.push(first_request(&cri, &sandbox, &pod, "server")?);

    let finished = agent.finish()?;
    for name in ["failed", "late", "malformed", "without_process"] {
        let count = finished
            .metrics
            .sum(&format!("pilotfish_nri_{name}_total"))?;
        ensure!(count == 0, "{name}: {count}");
    }
    for id in &fresh {
        let first = of_container(&finished.spans, id);
        let first: Vec<_> = first
            .into_iter()
            .filter(|span| span.path() == "/first")
            .collect();
        ensure!(first.len() == 1, "{id}: {first:?}; {}", finished.losses());
        must_name(first[0], id)?;
        must_have(first[0], &[("service.name", json!("basket"))])?;
        ensure!(first[0].text("http.route")? == "/first", "{first:?}");
    }
    let later = of_container(&finished.spans, &lasting).len()
        + of_container(&finished.spans, &earlier).len();
    let all = finished.spans.len();
    ensure!(
        all == later + fresh.len() - 1,
        "{all} spans: {:?}",
        finished.spans
    );

    // A runtime that has lost its plug-in starts pods as before.
    cri.remove(&fresh[fresh.len() - 1])?;
    first_request(&cri, &sandbox, &pod, "server").map(drop)
}

/// Containers that start at the same time are all seen from their first request on.
fn at_once(scene: &Scene, machine: &Machine, release: Release) -> Result<()> {
    let containerd = Containerd::start(machine, &configuration(release))?;
    let agent = Setup::node(scene, machine)?.arg("--nri").start()?;
    await_connections(&agent, 1)?;
    let pod = Pod::new("shop", "cart").annotation(hook::INSTRUMENT, "true");
    let sandbox = containerd.cri()?.run_pod(&pod)?;
    let start = |number: usize| {
        let port = 8080 + number as u16;
        let container = Container::new(&format!("server-{number}"), &["prompt", &port.to_string()]);
        let cri = containerd.cri()?;
        load::first_request(port, "/first", || cri.run(&sandbox, &pod, &container))
    };
    let started: Result<Vec<String>> = thread::scope(|scope| {
        let threads: Vec<_> = (0..CONTAINERS)
            .map(|number| scope.spawn(move || start(number)))
            .collect();
        let ended = threads.into_iter().map(thread::ScopedJoinHandle::join);
        ended
            .map(|id| id.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    let ids = started?;
    let observed: Vec<&str> = ids.iter().map(String::as_str).collect();
    hook::await_observed(&agent, machine, &observed)?;
    containerd.cri()?.remove_pod(&sandbox)?;
    hook::await_observed(&agent, machine, &[])?;
    let finished = agent.finish()?;
    for id in &ids {
        let spans = of_container(&finished.spans, id);
        ensure!(spans.len() == 1, "{id}: {spans:?}; {}", finished.losses());
    }
    ensure!(finished.spans.len() == CONTAINERS, "{:?}", finished.spans);
    Ok(())
}

/// The runtime gives up on an agent that does not answer, and starts the container. The agent comes back by itself.
fn hung(scene: &Scene, machine: &Machine, release: Release) -> Result<()> {
    let containerd = Containerd::start(machine, &configuration(release))?;
    let mut agent = Setup::node(scene, machine)?.arg("--nri").start()?;
    await_connections(&agent, 1)?;
    let cri = containerd.cri()?;
    let pod = pod();
    let sandbox = cri.run_pod(&pod)?;
    let process = Pid::from_raw(agent.pid() as i32);
    kill(process, Signal::SIGSTOP)?;
    let server = first_request(&cri, &sandbox, &pod, "server");
    kill(process, Signal::SIGCONT)?;
    // nsenter stops itself with its child.
    agent.process().signal(Signal::SIGCONT)?;
    let server = server?;
    hook::await_observed(&agent, machine, &[&server])?;
    must_trace(&agent, 8080, &server, "late")?;
    cri.remove(&server)?;
    hook::await_observed(&agent, machine, &[])?;

    let again = first_request(&cri, &sandbox, &pod, "server")?;
    let finished = agent.finish()?;
    let spans = of_container(&finished.spans, &again);
    ensure!(spans.len() == 1, "{spans:?}; {}", finished.losses());
    must_name(spans[0], &again)
}

/// A container that both announce is observed once, also by the next agent, which could find it in three ways.
fn beside_the_hook(scene: &Scene, machine: &Machine, release: Release) -> Result<()> {
    let mut containerd = Containerd::start(machine, &configuration(release))?;
    machine.output(hook::HOOK, ["install", "--runtime=containerd"])?;
    containerd.restart()?;
    let killed = Setup::node(scene, machine)?.arg("--nri").start()?;
    await_connections(&killed, 1)?;
    let cri = containerd.cri()?;
    let pod = pod();
    let sandbox = cri.run_pod(&pod)?;
    let server = first_request(&cri, &sandbox, &pod, "server")?;
    hook::await_observed(&killed, machine, &[&server])?;
    let metrics = killed.settle()?;
    for front in ["nri_attached", "hook_attached"] {
        let count = metrics.sum(&format!("pilotfish_{front}_total"))?;
        ensure!(count == 1, "{front}: {count}");
    }
    must_trace(&killed, 8080, &server, "before")?;
    let spans = killed.printed()?;
    let first = spans.iter().filter(|span| span.path() == "/first");
    ensure!(first.count() == 1, "{spans:?}");
    must_name(&spans[0], &server)?;
    killed.kill()?;

    let agent = Setup::node(scene, machine)?.arg("--nri").start()?;
    await_connections(&agent, 1)?;
    wait_for("the runtime's snapshot", LIMIT, || {
        let attached = agent.metrics()?.sum("pilotfish_nri_attached_total")?;
        Ok((attached == 1).then_some(()))
    })?;
    hook::await_observed(&agent, machine, &[&server])?;
    must_trace(&agent, 8080, &server, "after")?;
    cri.remove(&server)?;
    hook::await_observed(&agent, machine, &[])?;
    let finished = agent.finish()?;
    let restored = finished.metrics.sum("pilotfish_hook_restored_total")?;
    ensure!(restored == 1, "{restored} found in the state directory");
    ensure!(finished.metrics.sum("pilotfish_hook_adopted_total")? == 0);
    let spans = of_container(&finished.spans, &server);
    ensure!(spans.len() == finished.spans.len(), "{:?}", finished.spans);
    Ok(())
}

/// Waits until the agent has come to the runtime so often, and is there.
fn await_connections(agent: &Agent, count: u64) -> Result<()> {
    wait_for("the agent's connection to the runtime", LIMIT, || {
        let metrics = agent.metrics()?;
        let connections = metrics.sum("pilotfish_nri_connections_total")?;
        let connected = metrics.sum("pilotfish_nri_connected")?;
        Ok((connections >= count && connected == 1).then_some(()))
    })
}
