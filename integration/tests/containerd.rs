//! containerd as `pilotfish-hook install` leaves it: pods through the CRI, and `ctr`.

use crate::hook::{LIMIT, SERVER, must_trace, of_container};
use crate::identity::{must_have, must_name, must_run_its_program};
use anyhow::{Context, Result, ensure};
use integration::agent::Setup;
use integration::process::wait_for;
use integration::runtime::{self, Container, Containerd, Cri, Machine, Pod, Release, hook, image};
use integration::{Agent, Kind, Need, Scene, Trials, load};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;

/// Requests to each container.
pub(crate) const REQUESTS: u64 = 20;

/// Commands in a container that ask its server.
const PROBES: u64 = 30;

/// A container beside the one of [`SERVER`].
pub(crate) const OTHER: &[&str] = &["prompt", "8081"];

/// containerd's configuration.
const CONFIGURATION: &str = "/etc/containerd/config.toml";

/// Somebody else's.
const DROP_IN: &str = "/etc/containerd/conf.d/50-other.toml";

/// What the installer writes for the handler `runc`.
const BASE_SPEC: &str = "/etc/containerd/pilotfish-base-spec-runc.json";

/// Settings of a runtime handler that the installer makes, sorted.
const OURS: [&str; 3] = [
    "base_runtime_spec",
    "container_annotations",
    "pod_annotations",
];

/// What [`settings`] tells: of all files, or of none.
const IN_FORCE: &str = "dump";
const BY_DEFAULT: &str = "default";

/// An OCI runtime that leaves a note; a trial's configuration names it.
const NOTING: &str = "#!/bin/sh\n: >>/run/noted\nexec runc \"$@\"\n";

pub(crate) fn register(trials: &mut Trials) {
    trials.subject("containerd");
    add(trials, "installed_1_6", Release::V1_6, installed);
    add(trials, "installed_1_7", Release::V1_7, installed);
    add(trials, "installed_2", Release::V2, installed);
    add(
        trials,
        "installed_beside_a_drop_in",
        Release::V1_7,
        beside_a_drop_in,
    );
    for (name, release) in [
        ("no_configuration_1_6", Release::V1_6),
        ("no_configuration_1_7", Release::V1_7),
        ("no_configuration_2", Release::V2),
    ] {
        add(trials, name, release, no_configuration);
    }
    add(trials, "refused_without_an_agent", Release::V2, refused);
    add(trials, "one_pid_namespace", Release::V1_7, sharing);
    add(trials, "ctr_with_the_base_spec", Release::V1_7, ctr);
}

/// A trial in a machine with this containerd and the hook, within the machine's network.
pub(crate) fn add(
    trials: &mut Trials,
    name: &str,
    release: Release,
    run: fn(&Scene, &Machine, Release) -> Result<()>,
) {
    let agent = [Need::Bpf, Need::Tool("bpftool")];
    let needs = [runtime::needs(release.trees()), agent.into()].concat();
    trials.add_with(name, &needs, move |scene| {
        let machine = Machine::layered(scene, release.trees())?;
        hook::install(&machine)?;
        machine.in_network(|| run(scene, &machine, release))
    });
}

/// 1.6 has no handler but its own; the others have one that somebody has set up, 2 a drop-in as well.
fn tables(release: Release) -> String {
    let plugin = match release {
        Release::V1_6 => return String::new(),
        Release::V1_7 => "io.containerd.grpc.v1.cri",
        Release::V2 => "io.containerd.cri.v1.runtime",
    };
    format!(
        "[plugins.\"{plugin}\".containerd.runtimes.runc]\n  runtime_type = \"io.containerd.runc.v2\"\n  \
         pod_annotations = [\"example.com/*\"]\n  # stays\n  \
         [plugins.\"{plugin}\".containerd.runtimes.runc.options]\n    BinaryName = \"/usr/local/sbin/noting\"\n"
    )
}

/// Starts containerd with the hook that the installer has added to its configuration.
pub(crate) fn start<'machine>(
    machine: &'machine Machine,
    configuration: &str,
) -> Result<Containerd<'machine>> {
    let mut containerd = Containerd::start(machine, configuration)?;
    let said = machine.output(hook::HOOK, ["install", "--runtime=containerd"])?;
    ensure!(said.contains("restart containerd"), "{said}");
    containerd.restart()?;
    Ok(containerd)
}

/// containerd 1.7 takes the section of a plug-in from the last file that has one, and forgets what others say.
fn beside_a_drop_in(scene: &Scene, machine: &Machine, release: Release) -> Result<()> {
    let whole = release
        .configuration(&tables(release))
        .replace("imports", "# imports");
    machine.write(DROP_IN, &whole, 0o644)?;
    installed(scene, machine, release)?;
    let left = fs::read_to_string(machine.path(DROP_IN))?;
    ensure!(left == whole, "the drop-in is now\n{left}");
    Ok(())
}

/// From the installation to its end: the chosen container is seen from its first request on, and nothing else is.
fn installed(scene: &Scene, machine: &Machine, release: Release) -> Result<()> {
    machine.write("/usr/local/sbin/noting", NOTING, 0o755)?;
    if release == Release::V2 {
        let other =
            "[plugins.\"io.containerd.cri.v1.runtime\"]\nmax_container_log_line_size = 4321\n";
        machine.write(DROP_IN, other, 0o644)?;
    }
    let configuration = release.configuration(&tables(release));
    machine.write(CONFIGURATION, &configuration, 0o644)?;
    let before = settings(machine, IN_FORCE)?;
    let mut containerd = start(machine, &configuration)?;
    must_only_add(&before, &settings(machine, IN_FORCE)?)?;
    let again = machine.output(hook::HOOK, ["install", "--runtime=containerd"])?;
    ensure!(again.contains("nothing to change"), "{again}");

    let agent = Setup::node(scene, machine)?.start()?;
    let cri = containerd.cri()?;
    let pod = Pod::new("shop", "cart").annotation(hook::INSTRUMENT, "server,sidecar");
    let sandbox = cri.run_pod(&pod)?;
    let server = first_request(&cri, &sandbox, &pod, "server")?;
    let other = cri.run(&sandbox, &pod, &Container::new("other", OTHER))?;
    load::ask_first(8081, "/unseen")?;
    hook::await_observed(&agent, machine, &[&server])?;
    must_trace(&agent, 8080, &server, "seen")?;
    let labels = [("k8s_container_name", "server")];
    let measured = agent
        .metrics()?
        .sum_where("http_server_request_duration_seconds_count", &labels)?;
    ensure!(measured == 1 + REQUESTS, "{measured} requests measured");
    must_be_silent(&agent, 8081)?;
    let noted = machine.path("/run/noted").exists();
    ensure!(noted == (release != Release::V1_6), "another OCI runtime");

    for container in [&server, &other] {
        cri.remove(container)?;
    }
    hook::await_observed(&agent, machine, &[])?;
    cri.remove_pod(&sandbox)?;
    drop(cri);
    machine.output(hook::HOOK, ["uninstall", "--runtime=containerd"])?;
    let left = fs::read_to_string(machine.path(CONFIGURATION))?;
    ensure!(left == configuration, "the configuration is now\n{left}");
    ensure!(settings(machine, IN_FORCE)? == before, "other settings");
    containerd.restart()?;
    let cri = containerd.cri()?;
    let sandbox = cri.run_pod(&pod)?;
    cri.run(&sandbox, &pod, &Container::new("server", SERVER))?;
    load::ask_first(8080, "/unseen")?;

    let finished = agent.finish()?;
    let announced = finished.metrics.sum("pilotfish_hook_attaches_total")?;
    ensure!(announced == 1, "{announced} containers were announced");
    let spans = of_container(&finished.spans, &server);
    ensure!(spans.len() == finished.spans.len(), "{:?}", finished.spans);
    ensure!(spans.len() as u64 == 1 + REQUESTS, "{spans:?}");
    must_name(spans[0], &server)
}

/// Without a file of its own containerd has defaults, and they stay.
fn no_configuration(_: &Scene, machine: &Machine, _: Release) -> Result<()> {
    machine.output("rm", ["-rf", "/etc/containerd"])?;
    machine.output(hook::HOOK, ["install", "--runtime=containerd"])?;
    let before = settings(machine, BY_DEFAULT)?;
    must_only_add(&before, &settings(machine, IN_FORCE)?)?;
    machine.output(hook::HOOK, ["uninstall", "--runtime=containerd"])?;
    let left = machine.output("find", ["/etc/containerd", "-type", "f"])?;
    ensure!(left.is_empty(), "left: {left}");
    Ok(())
}

/// With `--fail-closed` and no agent, the selected container does not start, and the kubelet hears why. Its sandbox and
/// its neighbour start. Without the option it starts, too.
fn refused(_: &Scene, machine: &Machine, release: Release) -> Result<()> {
    let mut containerd = start(machine, &release.configuration(""))?;
    let pod = Pod::new("shop", "cart").annotation(hook::INSTRUMENT, "server");
    let cri = containerd.cri()?;
    let sandbox = cri.run_pod(&pod)?;
    let open = first_request(&cri, &sandbox, &pod, "server")?;
    cri.remove(&open)?;
    cri.remove_pod(&sandbox)?;
    drop(cri);

    let options = ["install", "--runtime=containerd", "--fail-closed"];
    machine.output(hook::HOOK, options)?;
    containerd.restart()?;
    let cri = containerd.cri()?;
    let sandbox = cri.run_pod(&pod)?;
    cri.run(&sandbox, &pod, &Container::new("other", OTHER))?;
    load::ask_first(8081, "/")?;
    let closed = cri.create(&sandbox, &pod, &Container::new("server", SERVER))?;
    let error = cri.start(&closed).err().context("it starts")?;
    let error = format!("{error:#}");
    for word in ["pilotfish-hook", closed.as_str(), hook::SOCKET] {
        ensure!(error.contains(word), "no {word:?} in {error}");
    }
    ensure!(machine.running(SERVER)?.is_empty(), "it runs");
    cri.remove(&closed)
}

/// Containers that see each other's processes are told apart all the same.
fn sharing(scene: &Scene, machine: &Machine, release: Release) -> Result<()> {
    let containerd = start(machine, &release.configuration(""))?;
    let agent = Setup::node(scene, machine)?.start()?;
    let cri = containerd.cri()?;
    let pod = Pod::new("shop", "cart")
        .sharing_processes()
        .annotation(hook::INSTRUMENT, "server,second");
    let sandbox = cri.run_pod(&pod)?;
    cri.run(&sandbox, &pod, &Container::new("other", OTHER))?;
    load::ask_first(8081, "/unseen")?;
    let server = first_request(&cri, &sandbox, &pod, "server")?;
    let second = Container::new("second", &["prompt", "8082"]);
    let second = load::first_request(8082, "/second", || cri.run(&sandbox, &pod, &second))?;
    let visible = cri.exec(&server, &["ps"])?.output;
    let visible = String::from_utf8_lossy(&visible).into_owned();
    ensure!(visible.contains("sleep infinity"), "no sandbox:\n{visible}");
    hook::await_observed(&agent, machine, &[&server, &second])?;
    must_trace(&agent, 8080, &server, "seen")?;
    must_trace(&agent, 8082, &second, "seen")?;
    must_be_silent(&agent, 8081)?;
    must_survive_probes(&agent, &cri, &server)?;
    cri.remove(&second)?;
    hook::await_observed(&agent, machine, &[&server])?;
    cri.remove_pod(&sandbox)?;
    hook::await_observed(&agent, machine, &[])?;

    let finished = agent.finish()?;
    let of = |id: &str| of_container(&finished.spans, id);
    ensure!(of(&second)[0].path() == "/second", "{:?}", of(&second));
    // The probes' own spans, as clients, depend on how soon the agent hears of these processes.
    let servers = finished.spans.iter();
    let servers = servers.filter(|span| span.kind == Kind::Server).count();
    let known = of(&server).len() + of(&second).len();
    ensure!(known == servers, "{known} of {servers} server spans");
    let expected = 2 * (1 + REQUESTS) + PROBES;
    ensure!(
        servers as u64 == expected,
        "{servers}, not {expected} spans"
    );
    must_name(of(&server)[0], &server)
}

/// As the kubelet probes a container by commands in it: each request is seen, and nothing is left of their processes.
fn must_survive_probes(agent: &Agent, cri: &Cri, server: &str) -> Result<()> {
    let url = "http://127.0.0.1:8080/probe";
    for _ in 0..PROBES {
        let answer = cri.exec(server, &["wget", "-q", "-O", "/dev/null", url])?;
        ensure!(answer.code == 0, "{answer:?}");
    }
    let mut left = 0;
    wait_for("the end of the probes", LIMIT, || {
        left = hook::processes(agent, server)?;
        Ok((left == 1).then_some(()))
    })
    .with_context(|| format!("{left} processes"))
}

/// A container that a client asks before it runs; gives back its id. Fails unless the answer comes.
pub(crate) fn first_request(cri: &Cri, sandbox: &str, pod: &Pod, name: &str) -> Result<String> {
    load::first_request(8080, "/first", || {
        cri.run(sandbox, pod, &Container::new(name, SERVER))
    })
}

/// Requests to a container that is not observed leave no record.
pub(crate) fn must_be_silent(agent: &Agent, port: u16) -> Result<()> {
    let before = agent.settle()?.produced()?;
    for number in 0..REQUESTS {
        load::fetch(&format!("http://127.0.0.1:{port}/unseen/{number}"))?;
    }
    let after = agent.settle()?.produced()?;
    ensure!(before == after, "{} records", after - before);
    Ok(())
}

/// What containerd says of its configuration: `TABLE KEY = VALUE`. In `imports` it lists these files, in any order.
fn settings(machine: &Machine, which: &str) -> Result<BTreeSet<String>> {
    let dump = machine.output("containerd", ["config", which])?;
    let mut table = "";
    let mut settings = BTreeSet::new();
    for line in dump.lines().map(str::trim) {
        if line.starts_with('[') {
            table = line;
        } else if !line.is_empty() && !line.starts_with("imports = ") {
            settings.insert(format!("{table} {line}"));
        }
    }
    ensure!(!settings.is_empty(), "containerd has no configuration");
    Ok(settings)
}

/// Nothing is lost and nothing is added but what is to be, and values that mean the same when they are absent: empty
/// ones, and the default sandbox mode, without which [`installed`] runs pods.
fn must_only_add(before: &BTreeSet<String>, after: &BTreeSet<String>) -> Result<()> {
    let telling = |setting: &String| {
        let (_, setting) = setting.rsplit_once("] ").unwrap_or(("", setting));
        let (key, value) = setting.split_once(" = ").unwrap_or((setting, ""));
        let is_default = ["\"\"", "[]", "false", "0", "\"podsandbox\""].contains(&value);
        (!is_default).then(|| key.to_owned())
    };
    for setting in before.difference(after) {
        let lost = telling(setting).is_some_and(|key| !OURS.contains(&key.as_str()));
        ensure!(!lost, "lost: {setting}");
    }
    let added: BTreeSet<String> = after.difference(before).filter_map(telling).collect();
    ensure!(added.iter().eq(OURS), "added: {added:?}, not {OURS:?}");
    Ok(())
}

/// `ctr` reads no configuration of the CRI: it is given the base spec, completed as a user would.
fn ctr(scene: &Scene, machine: &Machine, release: Release) -> Result<()> {
    let containerd = start(machine, &release.configuration(""))?;
    machine.write("/one/layer.tar", image::layer()?, 0o644)?;
    machine.output("mkdir", ["/one/rootfs"])?;
    machine.output("tar", ["-xf", "/one/layer.tar", "-C", "/one/rootfs"])?;
    let base = fs::read(machine.path(BASE_SPEC)).context("no base spec")?;
    let mut spec: Value = serde_json::from_slice(&base)?;
    spec["process"]["args"] = json!(SERVER);
    spec["process"]["env"] = json!(["PATH=/bin"]);
    spec["root"]["path"] = json!("/one/rootfs");
    spec["linux"]["namespaces"]
        .as_array_mut()
        .context("the base spec has namespaces")?
        .retain(|namespace| namespace["type"] != "network");

    let agent = Setup::node(scene, machine)?.start()?;
    for id in ["unselected", "selected"] {
        machine.write(&format!("/one/{id}.json"), spec.to_string(), 0o644)?;
        load::first_request(8080, "/first", || {
            let config = format!("--config=/one/{id}.json");
            containerd.ctr(["run", "--detach", &config, id])
        })?;
        if id == "selected" {
            must_trace(&agent, 8080, id, "seen")?;
        }
        containerd.ctr(["task", "rm", "--force", id])?;
        containerd.ctr(["container", "rm", id])?;
        wait_for("the container's end", LIMIT, || {
            Ok(machine.running(SERVER)?.is_empty().then_some(()))
        })?;
        hook::select(&mut spec);
    }
    hook::await_observed(&agent, machine, &[])?;
    let finished = agent.finish()?;
    ensure!(finished.metrics.sum("pilotfish_hook_attaches_total")? == 1);
    let spans = of_container(&finished.spans, "selected");
    ensure!(spans.len() as u64 == 1 + REQUESTS, "{spans:?}");
    ensure!(spans.len() == finished.spans.len(), "{:?}", finished.spans);
    ensure!(spans[0].path() == "/first", "{spans:?}");
    must_run_its_program(spans[0])?;
    must_have(
        spans[0],
        &[
            ("container.runtime", json!("containerd")),
            ("service.name", json!("prompt")),
        ],
    )
}
