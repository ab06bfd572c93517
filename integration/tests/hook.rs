//! The OCI hook called by runc and crun: the first request of a container, and what the hook does at every stage.

use anyhow::{Context, Result, ensure};
use integration::agent::Setup;
use integration::metrics::Metrics;
use integration::process::wait_for;
use integration::runtime::{self, Bundle, Machine, hook};
use integration::{Agent, Kind, Need, Scene, Span, Trials, load};
use serde_json::{Value, json};
use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::thread;
use std::time::Duration;

/// Freshly started containers of each runtime whose first request has to be seen.
const CONTAINERS: usize = 50;

/// Requests to one container.
const REQUESTS: usize = 20;

/// Bound for what takes milliseconds.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// The container of every trial, and one that runs beside it.
pub(crate) const SERVER: &[&str] = &["prompt", "8080"];
const OTHER: &[&str] = &["prompt", "8081"];

/// What every trial needs that starts an agent in a machine.
pub(crate) fn needs() -> Vec<Need> {
    let agent = [Need::Bpf, Need::Tool("bpftool")];
    [runtime::needs(&[]), agent.into()].concat()
}

/// A trial with the hook in a machine, within the machine's network.
pub(crate) fn add(trials: &mut Trials, name: &str, run: fn(&Scene, &Machine) -> Result<()>) {
    trials.add_with(name, &needs(), move |scene| {
        let machine = Machine::start(scene)?;
        hook::install(&machine)?;
        machine.in_network(|| run(scene, &machine))
    });
}

pub(crate) fn register(trials: &mut Trials) {
    trials.subject("hook");
    add(trials, "first_request_of_50_with_runc", |scene, machine| {
        first_requests(scene, machine, "runc")
    });
    add(trials, "first_request_of_50_with_crun", |scene, machine| {
        first_requests(scene, machine, "crun")
    });
    add(trials, "no_annotation_no_record", unselected);
    add(trials, "all_stages_of_runc", |scene, machine| {
        stages(scene, machine, "runc")
    });
    add(trials, "all_stages_of_crun", |scene, machine| {
        stages(scene, machine, "crun")
    });
    add(trials, "exec_with_runc", |scene, machine| {
        exec(scene, machine, "runc")
    });
    add(trials, "exec_with_crun", |scene, machine| {
        exec(scene, machine, "crun")
    });
}

/// A bundle with the hook that its annotation selects.
pub(crate) fn selected<'machine>(
    machine: &'machine Machine,
    folder: &str,
    words: &[&str],
    options: &[&str],
) -> Result<Bundle<'machine>> {
    Bundle::make(machine, folder, words, |config| {
        hook::add(config, options);
        hook::select(config);
    })
}

/// Server spans of one container.
pub(crate) fn of_container<'a>(spans: &'a [Span], id: &str) -> Vec<&'a Span> {
    spans
        .iter()
        .filter(|span| span.kind == Kind::Server && span.resource["container.id"] == *id)
        .collect()
}

/// Records that the kernel's programs produced of what processes did with sockets; where control groups are of version
/// 1, a process that executes a program may have entered a container, and gives one record of that.
pub(crate) fn of_sockets(metrics: &Metrics) -> Result<u64> {
    let of_processes = metrics.sum("pilotfish_kernel_records_of_processes_total")?;
    Ok(metrics.produced()?.saturating_sub(of_processes))
}

/// The only request to a container has to be there.
pub(crate) fn must_be_first(spans: &[Span], id: &str, path: &str) -> Result<()> {
    let seen = of_container(spans, id);
    ensure!(
        seen.len() == 1 && seen[0].path() == path,
        "the first request of container {id}: {seen:?}"
    );
    Ok(())
}

/// Requests that are answered and printed while the agent runs: `/NAME/0` to `/NAME/19`.
pub(crate) fn must_trace(agent: &Agent, port: u16, id: &str, name: &str) -> Result<()> {
    wait_for("the server's start", LIMIT, || {
        Ok(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok())
    })?;
    for number in 0..REQUESTS {
        load::fetch(&format!("http://127.0.0.1:{port}/{name}/{number}"))?;
    }
    agent.settle()?;
    let mut seen = Vec::new();
    wait_for("the spans", LIMIT, || {
        let spans = agent.printed()?;
        let of_name = of_container(&spans, id).into_iter();
        seen = of_name
            .map(|span| span.path().to_owned())
            .filter(|path| path.starts_with(&format!("/{name}/")))
            .collect();
        Ok((seen.len() >= REQUESTS).then_some(()))
    })
    .with_context(|| format!("only {seen:?}"))?;
    let wanted = (0..REQUESTS).map(|number| format!("/{name}/{number}"));
    ensure!(seen.iter().cloned().eq(wanted), "{seen:?}");
    Ok(())
}

/// A client asks before the container runs, and goes on asking until its server answers.
fn first_requests(scene: &Scene, machine: &Machine, runtime: &str) -> Result<()> {
    let bundle = selected(machine, "/bundle", SERVER, &[])?;
    let agent = Setup::node(scene, machine)?.start()?;
    let ids: Vec<String> = (0..CONTAINERS)
        .map(|number| format!("first-{number}"))
        .collect();
    for id in &ids {
        thread::scope(|scope| {
            let client = scope.spawn(|| load::ask_first(8080, &format!("/{id}")));
            let started = bundle.run(runtime, id);
            let asked = client
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            started.and(asked)
        })?;
        bundle.delete(runtime, id)?;
    }
    hook::await_observed(&agent, machine, &[])?;
    let finished = agent.finish()?;
    for id in &ids {
        must_be_first(&finished.spans, id, &format!("/{id}")).with_context(|| finished.losses())?;
    }
    ensure!(finished.spans.len() == CONTAINERS, "{:?}", finished.spans);
    Ok(())
}

/// Two containers of one image: the one without the annotation has no slot and no record.
fn unselected(scene: &Scene, machine: &Machine) -> Result<()> {
    let chosen = selected(machine, "/chosen", SERVER, &[])?;
    let other = Bundle::make(machine, "/other", OTHER, |config| hook::add(config, &[]))?;
    let agent = Setup::node(scene, machine)?.start()?;
    other.run("runc", "other")?;
    load::ask_first(8081, "/unseen")?;
    let alone = agent.settle()?;
    ensure!(of_sockets(&alone)? == 0, "{}", alone.page());
    ensure!(alone.sum("pilotfish_hook_connections_total")? == 0);

    chosen.run("runc", "chosen")?;
    must_trace(&agent, 8080, "chosen", "seen")?;
    hook::await_observed(&agent, machine, &["chosen"])?;
    let before = of_sockets(&agent.settle()?)?;
    for number in 0..REQUESTS {
        load::fetch(&format!("http://127.0.0.1:8081/unseen/{number}"))?;
    }
    let finished = agent.finish()?;
    let after = of_sockets(&finished.metrics)?;
    ensure!(after == before, "{} records of the other", after - before);
    ensure!(finished.spans.len() == REQUESTS, "{:?}", finished.spans);
    Ok(())
}

/// Installed everywhere, the hook works where it is meant to and says so everywhere else.
fn stages(scene: &Scene, machine: &Machine, runtime: &str) -> Result<()> {
    // Two stages are run with the container's root: there the hook is on another path.
    let inside = "/bundle/rootfs/pilotfish-hook";
    let bundle = selected(machine, "/bundle", SERVER, &["--fail-closed"])?;
    machine.output("cp", [hook::HOOK, inside])?;
    let agent = Setup::node(scene, machine)?.start()?;
    for (stage, path) in [
        ("prestart", hook::HOOK),
        ("createContainer", hook::HOOK),
        ("startContainer", "/pilotfish-hook"),
        ("poststart", hook::HOOK),
    ] {
        // Once as the administrator would name it, once as if it were the right stage.
        for named in [stage, "createRuntime"] {
            let entry = speaking(stage, path, named);
            edit(machine, |config| {
                config["root"]["readonly"] = false.into();
                config["hooks"] = json!({
                    stage: [entry],
                    "poststop": [hook::entry("poststop", &[])],
                });
            })?;
            let at = || format!("at {stage}, as {named}");
            bundle.run(runtime, "one").with_context(at)?;
            load::ask_first(8080, "/").with_context(at)?;
            bundle.delete(runtime, "one")?;
            let said = said(machine, stage)?;
            // Before the container's program runs, in the runtime's namespaces, it can do its work: runc's poststart
            // is there too.
            let may_work = matches!(stage, "prestart" | "poststart") && named != stage;
            ensure!(
                said.contains("does nothing at") || may_work && said.is_empty(),
                "{}, the hook said {said:?}",
                at()
            );
        }
    }
    hook::await_observed(&agent, machine, &[])?;

    edit(machine, |config| hook::add(config, &["--fail-closed"]))?;
    bundle.run(runtime, "two")?;
    must_trace(&agent, 8080, "two", "observed")?;
    bundle.delete(runtime, "two")?;
    hook::await_observed(&agent, machine, &[])?;
    let finished = agent.finish()?;
    let removals = finished.metrics.sum("pilotfish_hook_removes_total")?;
    ensure!(removals >= 1, "poststop was not announced");
    Ok(())
}

/// Runtimes show what a hook says only when it fails.
fn speaking(stage: &str, path: &str, named: &str) -> Value {
    let script = format!("{path} --stage {named} --fail-closed 2>>/said-{stage}");
    let shell = if path == hook::HOOK {
        "/bin/sh"
    } else {
        "/bin/busybox"
    };
    json!({ "path": shell, "args": ["sh", "-c", script], "timeout": 30 })
}

fn said(machine: &Machine, stage: &str) -> Result<String> {
    let outside = machine.path(&format!("/said-{stage}"));
    let inside = machine.path(&format!("/bundle/rootfs/said-{stage}"));
    let file = if outside.exists() { outside } else { inside };
    let text = fs::read_to_string(&file).with_context(|| format!("nothing said at {stage}"))?;
    fs::remove_file(file)?;
    Ok(text)
}

/// Changes the configuration of the only bundle.
fn edit(machine: &Machine, change: impl FnOnce(&mut Value)) -> Result<()> {
    let file = machine.path("/bundle/config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&file)?)?;
    change(&mut config);
    Ok(fs::write(file, serde_json::to_vec(&config)?)?)
}

/// What enters a running container belongs to it, as a server and as a client.
fn exec(scene: &Scene, machine: &Machine, runtime: &str) -> Result<()> {
    let bundle = selected(machine, "/bundle", SERVER, &[])?;
    let agent = Setup::node(scene, machine)?.start()?;
    bundle.run(runtime, "one")?;
    load::ask_first(8080, "/")?;
    let known = |count| {
        wait_for("the agent's notice", LIMIT, || {
            Ok((hook::processes(&agent, "one")? >= count).then_some(()))
        })
    };
    let server = ["exec", "--detach", "one"].iter().chain(OTHER);
    machine
        .spawn("server", machine.command(runtime, server))?
        .succeed(LIMIT)?;
    known(2)?;
    must_trace(&agent, 8081, "one", "entered")?;

    let script =
        "until [ -e /go ]; do sleep 0.02; done; wget -q -O /dev/null http://127.0.0.1:8081/asked";
    let client = machine.command(runtime, ["exec", "one", "sh", "-c", script]);
    let client = machine.spawn("client", client)?;
    known(3)?;
    machine.write("/bundle/rootfs/go", "", 0o644)?;
    client.succeed(LIMIT)?;
    let finished = agent.finish()?;
    for kind in [Kind::Client, Kind::Server] {
        let asked = finished.spans.iter().filter(|span| {
            span.kind == kind && span.path() == "/asked" && span.resource["container.id"] == "one"
        });
        ensure!(asked.count() == 1, "{kind:?}: {:?}", finished.spans);
    }
    Ok(())
}
