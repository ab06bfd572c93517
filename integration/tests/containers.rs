//! Many containers, one after the other and many at once: each is traced, and nothing is left of any.

use crate::hook::{LIMIT, add, selected};
use anyhow::{Context, Result, ensure};
use integration::agent::Setup;
use integration::holdings::Holdings;
use integration::process::wait_for;
use integration::runtime::{Machine, hook};
use integration::{Agent, Finished, Kind, Process, Scene, Trials, load, program};
use serde_json::Value;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

/// Bound for a round of containers, many times what an idle machine takes.
const ROUND: Duration = Duration::from_mins(4);

/// All containers, and those after which the agent has reached its size.
const ALL: usize = 1000;
const FIRST: usize = 100;

/// Growth of the agent's resident memory that the other 900 may cause, bytes: hardly more than a kilobyte each, less than
/// what is known of one container while it is observed. The allocator's own ups and downs are far below it.
const MOST_GROWTH: u64 = 1 << 20;

/// What each container asks for, and who answers. The server is in no container.
const CLIENT: &[&str] = &[
    "wget",
    "-q",
    "-O",
    "/dev/null",
    "http://127.0.0.1:8080/asked",
];
const SERVER: &str = "/usr/local/bin/prompt";

/// Runs one container after the other to its end, `$2` at a time. The runtime deletes each by itself, so that the hook
/// is called at both of its stages.
const RUN_EACH: &str =
    r#"seq "$3" "$4" | xargs -P "$2" -I NUMBER "$1" run --bundle /bundle of-many-NUMBER"#;

pub(crate) fn register(trials: &mut Trials) {
    trials.subject("containers");
    add(trials, "a_thousand_leave_nothing", leave_nothing);
    add(trials, "a_thousand_in_a_burst", burst);
}

/// Two at a time: one for each processor of a small machine.
fn leave_nothing(scene: &Scene, machine: &Machine) -> Result<()> {
    let _server = server(machine)?;
    selected(machine, "/bundle", CLIENT, &["--fail-closed"])?;
    let agent = Setup::node(scene, machine)?.start()?;
    run_each(machine, "runc", 2, 1..=FIRST)?;
    let before = at_rest(&agent, machine)?;
    run_each(machine, "runc", 2, FIRST + 1..=ALL)?;
    let after = at_rest(&agent, machine)?;

    before.await_no_more_descriptors(agent.pid())?;
    ensure!(
        after.resident <= before.resident + MOST_GROWTH,
        "it grew from {} to {} bytes",
        before.resident,
        after.resident
    );
    all_traced(&agent.finish()?)
}

/// As fast as the machine can, many more than it has processors.
fn burst(scene: &Scene, machine: &Machine) -> Result<()> {
    let _server = server(machine)?;
    selected(machine, "/bundle", CLIENT, &["--fail-closed"])?;
    let agent = Setup::node(scene, machine)?.start()?;
    run_each(machine, "crun", 8, 1..=ALL)?;
    at_rest(&agent, machine)?;
    all_traced(&agent.finish()?)
}

fn server(machine: &Machine) -> Result<Process> {
    machine.copy_in(&program::static_c("prompt.c")?, SERVER, 0o755)?;
    let server = machine.spawn("server", machine.command(SERVER, ["8080"]))?;
    load::ask_first(8080, "/")?;
    Ok(server)
}

fn run_each(
    machine: &Machine,
    runtime: &str,
    at_once: usize,
    numbers: RangeInclusive<usize>,
) -> Result<()> {
    let numbers = [at_once, *numbers.start(), *numbers.end()].map(|number| number.to_string());
    let mut command = machine.command("sh", ["-c", RUN_EACH, "sh", runtime]);
    command.args(numbers);
    machine
        .spawn("containers", command)?
        .succeed(ROUND)
        .map(drop)
}

/// What the agent holds once no container has a slot, a file or an entry of a map.
fn at_rest(agent: &Agent, machine: &Machine) -> Result<Holdings> {
    hook::await_observed(agent, machine, &[])?;
    agent.settle()?;
    let mut entries = BTreeMap::new();
    wait_for("that no map has an entry", LIMIT, || {
        let holdings = Holdings::of(agent.pid())?;
        entries.clone_from(&holdings.entries);
        Ok((entries.values().sum::<usize>() == 0).then_some(holdings))
    })
    .with_context(|| format!("entries: {entries:?}"))
}

/// Every container was announced, attached and removed once, and made one request.
fn all_traced(finished: &Finished) -> Result<()> {
    let count = |name: &str| finished.metrics.sum(name);
    for (name, expected) in [
        ("pilotfish_hook_attaches_total", ALL),
        ("pilotfish_hook_attached_total", ALL),
        ("pilotfish_hook_removes_total", ALL),
        ("pilotfish_hook_failed_total", 0),
        ("pilotfish_hook_announcements_throttled_total", 0),
        ("pilotfish_hook_observer_busy_total", 0),
        ("pilotfish_hook_observer_silent_total", 0),
        ("pilotfish_hook_state_failures_total", 0),
        ("pilotfish_containers_beyond_bound_total", 0),
        ("pilotfish_containers", 0),
        ("pilotfish_processes", 0),
    ] {
        let seen = count(name)?;
        ensure!(
            finished.metrics.has(name) && seen == expected as u64,
            "{name} is {seen}, not {expected}:\n{}",
            finished.metrics.page()
        );
    }
    let mut requests = BTreeMap::<&str, usize>::new();
    for span in &finished.spans {
        ensure!(
            span.kind == Kind::Client && span.path() == "/asked",
            "{span:?}"
        );
        let id = span.resource.get("container.id").and_then(Value::as_str);
        *requests.entry(id.context("no container.id")?).or_default() += 1;
    }
    let missing: Vec<String> = (1..=ALL)
        .map(|number| format!("of-many-{number}"))
        .filter(|id| requests.get(id.as_str()) != Some(&1))
        .collect();
    ensure!(
        requests.len() == ALL && missing.is_empty(),
        "{} containers are traced; not once: {missing:?}; {}",
        requests.len(),
        finished.losses()
    );
    Ok(())
}
