//! What becomes of containers when the agent ends and another one starts, and when nobody signs them off.

use crate::hook::{LIMIT, SERVER, add, must_trace, selected};
use anyhow::{Context, Result, ensure};
use integration::agent::Setup;
use integration::process::wait_for;
use integration::runtime::{Bundle, Machine, hook};
use integration::{Agent, Scene, Trials, load};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use std::fs;
use std::thread;

pub(crate) fn register(trials: &mut Trials) {
    trials.subject("hook_restart");
    add(trials, "a_new_agent_finds_all_containers", restarts);
    add(trials, "killed_while_a_container_starts", killed_meanwhile);
    add(trials, "without_poststop_all_is_freed", no_poststop);
}

/// Containers of both runtimes, some announced to the first agent, some started while there was none.
fn restarts(scene: &Scene, machine: &Machine) -> Result<()> {
    let mut running = Vec::new();
    let mut start = |runtime: &str, id: &'static str| -> Result<()> {
        let port = 8080 + running.len() as u16;
        let words = ["prompt", &port.to_string()];
        let bundle = selected(machine, &format!("/bundle-{id}"), &words, &[])?;
        bundle.run(runtime, id)?;
        load::ask_first(port, "/")?;
        running.push((bundle, runtime.to_owned(), id, port));
        Ok(())
    };
    let first = Setup::node(scene, machine)?.start()?;
    start("runc", "known-runc")?;
    start("crun", "known-crun")?;
    hook::await_observed(&first, machine, &["known-runc", "known-crun"])?;
    first.kill()?;

    start("runc", "missed-runc")?;
    start("crun", "missed-crun")?;
    let bystander = Bundle::make(machine, "/bystander", &["prompt", "8090"], |config| {
        hook::add(config, &[]);
    })?;
    bystander.run("runc", "bystander")?;
    load::ask_first(8090, "/")?;

    let all = ["known-runc", "known-crun", "missed-runc", "missed-crun"];
    for (restored, adopted) in [(2, 2), (4, 0)] {
        let agent = Setup::node(scene, machine)?.start()?;
        // All of it is done before the agent says that it is ready.
        must_hold_all(&agent, &all)?;
        hook::await_observed(&agent, machine, &all)?;
        let metrics = agent.metrics()?;
        let counted = |name| metrics.sum(&format!("pilotfish_hook_{name}_total"));
        ensure!(
            (counted("restored")?, counted("adopted")?) == (restored, adopted),
            "{}",
            metrics.page()
        );
        for (_, _, id, port) in &running {
            must_trace(&agent, *port, id, "after")?;
        }
        load::fetch("http://127.0.0.1:8090/unseen")?;
        let spans = agent.printed()?;
        ensure!(
            spans.iter().all(|span| span.path() != "/unseen"),
            "{spans:?}"
        );
        agent.kill()?;
    }

    // One ends while no agent runs: the next one has nothing to do with it.
    let (bundle, runtime, id, _) = running.remove(0);
    bundle.delete(&runtime, id)?;
    let agent = Setup::node(scene, machine)?.start()?;
    must_hold_all(&agent, &all[1..])?;
    for (bundle, runtime, id, _) in running {
        bundle.delete(&runtime, id)?;
    }
    hook::await_observed(&agent, machine, &[])?;
    agent.finish().map(drop)
}

fn must_hold_all(agent: &Agent, ids: &[&str]) -> Result<()> {
    let mut wanted = ids.to_vec();
    wanted.sort_unstable();
    let found = hook::observed(agent)?;
    ensure!(found == wanted, "{found:?} instead of {wanted:?}");
    Ok(())
}

/// The agent is killed at the one moment that matters: the hook has asked and waits for the answer.
fn killed_meanwhile(scene: &Scene, machine: &Machine) -> Result<()> {
    let bundle = selected(machine, "/bundle", SERVER, &["--timeout", "20s"])?;
    for runtime in ["runc", "crun"] {
        let agent = Setup::node(scene, machine)?.start()?;
        kill(Pid::from_raw(agent.pid() as i32), Signal::SIGSTOP)?;
        thread::scope(|scope| {
            let started = scope.spawn(|| bundle.run(runtime, runtime));
            let waits = wait_for("the hook's wait for the agent", LIMIT, || {
                Ok(has_asked(machine)?.then_some(()))
            });
            let killed = agent.kill();
            let started = started
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            waits.and(killed).and(started)
        })?;
        load::ask_first(8080, "/unseen")?;

        let agent = Setup::node(scene, machine)?.start()?;
        must_hold_all(&agent, &[runtime])?;
        must_trace(&agent, 8080, runtime, "found")?;
        bundle.delete(runtime, runtime)?;
        hook::await_observed(&agent, machine, &[])?;
        agent.finish()?;
    }
    Ok(())
}

/// True once a hook has its connection and sleeps until the answer comes.
fn has_asked(machine: &Machine) -> Result<bool> {
    for pid in machine.running(&["pilotfish-hook"])? {
        let process = machine.path(&format!("/proc/{pid}"));
        // It may have ended meanwhile.
        let stat = fs::read_to_string(process.join("stat")).unwrap_or_default();
        let mut descriptors = fs::read_dir(process.join("fd"))
            .into_iter()
            .flatten()
            .flatten();
        let connected = descriptors.any(|descriptor| {
            fs::read_link(descriptor.path())
                .is_ok_and(|target| target.to_string_lossy().starts_with("socket:"))
        });
        if connected && stat.contains(") S ") {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Bundles that name only createRuntime, and a container whose runtime is never asked to delete it.
fn no_poststop(scene: &Scene, machine: &Machine) -> Result<()> {
    let agent = Setup::node(scene, machine)?.start()?;
    let bundle = Bundle::make(machine, "/silent", SERVER, |config| {
        hook::select(config);
        config["hooks"] = json!({ "createRuntime": [hook::entry("createRuntime", &[])] });
    })?;
    for runtime in ["runc", "crun"] {
        bundle.run(runtime, runtime)?;
        must_trace(&agent, 8080, runtime, "seen")?;
        bundle.delete(runtime, runtime)?;
    }
    let undeleted = selected(machine, "/undeleted", SERVER, &[])?;
    undeleted.run("runc", "undeleted")?;
    must_trace(&agent, 8080, "undeleted", "seen")?;
    machine.output("runc", ["kill", "undeleted", "KILL"])?;
    hook::await_observed(&agent, machine, &[]).context("slots are not freed")?;
    let removals = agent.metrics()?.sum("pilotfish_hook_removes_total")?;
    ensure!(removals == 0, "{removals} removals were announced");
    agent.finish().map(drop)
}
