//! podman with the files that `pilotfish-hook install` writes, above runc and crun.

use crate::hook::{LIMIT, must_be_first, must_trace, needs, of_container, of_sockets};
use anyhow::{Context, Result, ensure};
use integration::agent::Setup;
use integration::process::wait_for;
use integration::runtime::{Machine, Podman, hook, image};
use integration::{Scene, Trials, load};
use serde_json::Value;
use std::fs;
use std::thread;

/// Where podman is told to look.
const HOOKS: &str = "/etc/pilotfish/hooks.d";

/// Where it looks by itself.
const DEFAULT_HOOKS: &str = "/usr/share/containers/oci/hooks.d";

/// Containers of each low-level runtime.
const CONTAINERS: usize = 5;

const SELECTED: &str = "--annotation=pilotfish.dev/instrument=true";

pub(crate) fn register(trials: &mut Trials) {
    trials.subject("podman");
    let mut add = |name: &str, run: fn(&Scene, &Machine) -> Result<()>| {
        trials.add_with(name, &needs(), move |scene| {
            let machine = Machine::start(scene)?;
            hook::install(&machine)?;
            machine.in_network(|| run(scene, &machine))
        });
    };
    add("first_requests_with_runc", |scene, machine| {
        first_requests(scene, machine, "runc")
    });
    add("first_requests_with_crun", |scene, machine| {
        first_requests(scene, machine, "crun")
    });
    add("identity_exec_and_bystander", life);
    add("the_files_are_podmans", files);
}

/// Runs `pilotfish-hook install` or `uninstall` in the machine.
fn installer(machine: &Machine, verb: &str, options: &[&str]) -> Result<String> {
    let words = [verb, "--runtime", "podman"];
    machine.output(hook::HOOK, words.iter().chain(options))
}

/// Starts a container that serves on a port, and gives back its id.
fn run(podman: &Podman, options: &[&str], port: u16) -> Result<String> {
    let port = port.to_string();
    let words = ["run", "--detach", "--network=host"]
        .iter()
        .chain(options)
        .copied()
        .chain([image::PROMPT, "prompt", &port]);
    Ok(podman.output(words)?.trim().to_owned())
}

fn remove(podman: &Podman, id: &str) -> Result<()> {
    podman.output(["rm", "--force", "--time=0", id]).map(drop)
}

fn first_requests(scene: &Scene, machine: &Machine, runtime: &str) -> Result<()> {
    let directory = format!("--hooks-dir={HOOKS}");
    installer(machine, "install", &[&directory, "--fail-closed"])?;
    let podman = Podman::prepare(machine, runtime, &[&directory])?;
    let agent = Setup::node(scene, machine)?.start()?;
    let mut asked = Vec::new();
    for number in 0..CONTAINERS {
        let path = format!("/first/{number}");
        let id = thread::scope(|scope| {
            let client = scope.spawn(|| load::ask_first(8080, &path));
            let id = run(&podman, &[SELECTED], 8080);
            let answered = client
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            id.and_then(|id| answered.map(|()| id))
        })?;
        remove(&podman, &id)?;
        asked.push((id, path));
    }
    hook::await_observed(&agent, machine, &[])?;
    let finished = agent.finish()?;
    for (id, path) in &asked {
        must_be_first(&finished.spans, id, path).with_context(|| finished.losses())?;
    }
    ensure!(finished.spans.len() == CONTAINERS, "{:?}", finished.spans);
    Ok(())
}

/// From the directory that podman reads by itself: one container that is selected, one that is not.
fn life(scene: &Scene, machine: &Machine) -> Result<()> {
    let said = installer(machine, "install", &[])?;
    ensure!(said.contains(DEFAULT_HOOKS), "{said}");
    let podman = Podman::prepare(machine, "crun", &[])?;
    let early = run(&podman, &[SELECTED], 8083)?;
    let agent = Setup::node(scene, machine)?.start()?;
    hook::await_observed(&agent, machine, &[&early])?;
    remove(&podman, &early)?;
    let bystander = run(&podman, &[], 8081)?;
    load::ask_first(8081, "/unseen")?;
    let records = of_sockets(&agent.settle()?)?;
    ensure!(records == 0, "{records} records of the bystander");

    let options = [
        "--name=cart",
        SELECTED,
        "--annotation=pilotfish.dev/service-name=shop",
        "--annotation=resource.opentelemetry.io/service.version=1.4.2",
        "--annotation=resource.opentelemetry.io/container.id=another",
    ];
    let id = run(&podman, &options, 8080)?;
    must_trace(&agent, 8080, &id, "seen")?;
    hook::await_observed(&agent, machine, &[&id])?;
    load::fetch("http://127.0.0.1:8081/unseen")?;

    podman.output(["exec", "--detach", "cart", "prompt", "8082"])?;
    wait_for("the agent's notice", LIMIT, || {
        Ok((hook::processes(&agent, &id)? >= 2).then_some(()))
    })?;
    must_trace(&agent, 8082, &id, "entered")?;

    remove(&podman, "cart")?;
    hook::await_observed(&agent, machine, &[])?;
    remove(&podman, &bystander)?;
    let spans = agent.finish()?.spans;
    let of_cart = of_container(&spans, &id);
    ensure!(of_cart.len() == spans.len(), "{spans:?}");
    let resource = &of_cart.first().context("no span")?.resource;
    // podman tells neither names nor images.
    for (key, value) in [
        ("container.id", &*id),
        ("container.runtime", "podman"),
        ("service.name", "shop"),
        ("service.version", "1.4.2"),
    ] {
        ensure!(
            resource.get(key) == Some(&Value::from(value)),
            "{key}: {resource:?}"
        );
    }
    Ok(())
}

/// podman checks the schema of every file; the installer's are accepted, and gone after `uninstall`.
fn files(_: &Scene, machine: &Machine) -> Result<()> {
    let directory = format!("--hooks-dir={HOOKS}");
    installer(
        machine,
        "install",
        &[&directory, "--fail-closed", "--timeout=300ms"],
    )?;
    let podman = Podman::prepare(machine, "runc", &[&directory])?;
    // Nobody listens: that the container is refused shows that the hook was called.
    let error = run(&podman, &[SELECTED], 8080)
        .err()
        .context("it started")?;
    ensure!(
        format!("{error:#}").contains("no agent listens on"),
        "{error:#}"
    );
    remove(&podman, &run(&podman, &[], 8080)?)?;
    for no in [
        "--annotation=pilotfish.dev/instrument=",
        "--annotation=xpilotfish.dev/instrument=true",
        "--annotation=pilotfish.dev/instrument=false",
    ] {
        remove(&podman, &run(&podman, &[no], 8080)?)?;
    }

    let mut files: Vec<_> = fs::read_dir(machine.path(HOOKS))?
        .flatten()
        .map(|entry| entry.path())
        .collect();
    files.sort_unstable();
    ensure!(files.len() == 2, "{files:?}");
    let good = fs::read_to_string(&files[0])?;
    let bad = good.replace("\"1.0.0\"", "\"9.0.0\"");
    ensure!(good != bad, "no version in {good}");
    fs::write(&files[0], bad)?;
    let error = run(&podman, &[SELECTED], 8080)
        .err()
        .context("podman checks nothing")?;
    ensure!(format!("{error:#}").contains("version"), "{error:#}");
    fs::write(&files[0], good)?;

    installer(machine, "uninstall", &[&directory])?;
    ensure!(
        fs::read_dir(machine.path(HOOKS))?.next().is_none(),
        "files are left"
    );
    remove(&podman, &run(&podman, &[SELECTED], 8080)?)
}
