//! How a node agent starts and ends: beside another one, when nobody needs it, with a file, with few privileges.

use crate::hook::{LIMIT, needs};
use crate::node::serve;
use anyhow::{Context, Result, ensure};
use integration::agent::Setup;
use integration::announce;
use integration::namespace::inner_pid;
use integration::process::wait_for;
use integration::runtime::{Machine, hook};
use integration::{Agent, Scene, Trials, load, place};
use pilotfish_workload::announcement::Reply;
use serde_json::{Value, json};
use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::thread;
use std::time::Duration;

/// `nobody` on every distribution.
const NOBODY: u32 = 65534;

/// What the agent needs as another user than root.
const ENOUGH: &[&str] = &["bpf", "perfmon", "sys_ptrace"];

/// How long an agent of these trials stays without being needed, and how long a container keeps it, seconds.
const IDLE: u64 = 1;
const KEPT: Duration = Duration::from_secs(3);

/// Where the configuration file is looked for.
const CONFIGURATION: &str = "/etc/pilotfish/config.yaml";

/// Where an agent of user 65534 has its socket.
const NOBODYS: &str = "/run/of-nobody";

pub(crate) fn register(trials: &mut Trials) {
    trials.subject("node_start");
    let mut add = |name: &str, run: fn(&Scene, &Machine) -> Result<()>| {
        trials.add_with(name, &needs(), move |scene| {
            let machine = Machine::start(scene)?;
            machine.in_network(|| run(scene, &machine))
        });
    };
    add("a_second_agent_refuses_to_start", second);
    add("an_idle_agent_ends", idle);
    add("flag_environment_file", precedence);
    add("faulty_files_are_refused", faulty_files);
    add("three_capabilities_are_enough", unprivileged);
    add("without_cap_sys_ptrace_containers_are_observed", blind);
    add("without_a_capability_it_refuses", incapable);
}

/// The one that runs goes on; one that was killed is in nobody's way.
fn second(scene: &Scene, machine: &Machine) -> Result<()> {
    let first = Setup::node(scene, machine)?.start()?;
    let log = Setup::node(scene, machine)?.refused()?;
    ensure!(
        log.contains("already running") && log.contains(hook::SOCKET),
        "the message does not say so:\n{log}"
    );
    must_serve(machine, &first, hook::SOCKET)?;
    first.kill()?;
    let next = Setup::node(scene, machine)?.start()?;
    must_serve(machine, &next, hook::SOCKET)?;
    next.finish().map(drop)
}

/// A container is announced, traced and removed.
fn must_serve(machine: &Machine, agent: &Agent, socket: &str) -> Result<()> {
    let server = serve(machine)?;
    let socket = machine.path(socket);
    let select = [(hook::INSTRUMENT, "true")];
    let reply = announce::attach(&socket, "served", inner_pid(&server)?, &select)?;
    ensure!(reply == Reply::Attached, "{reply:?}");
    load::ask_first(8080, "/served")?;
    wait_for("the span", LIMIT, || {
        let spans = agent.printed()?;
        Ok(spans
            .iter()
            .any(|span| span.path() == "/served")
            .then_some(()))
    })?;
    let reply = announce::remove(&socket, "served")?;
    ensure!(reply == Reply::Removed, "{reply:?}");
    wait_for("the end of the container", LIMIT, || {
        Ok(hook::observed(agent)?.is_empty().then_some(()))
    })
}

/// It stays for a container, also beyond its time, and leaves neither socket nor lock.
fn idle(scene: &Scene, machine: &Machine) -> Result<()> {
    let server = serve(machine)?;
    let mut agent = Setup::node(scene, machine)?
        .arg("--exit-when-idle")
        .arg(IDLE.to_string())
        .start()?;
    let socket = machine.path(hook::SOCKET);
    let select = [(hook::INSTRUMENT, "true")];
    let reply = announce::attach(&socket, "kept", inner_pid(&server)?, &select)?;
    ensure!(reply == Reply::Attached, "{reply:?}");
    thread::sleep(KEPT);
    ensure!(agent.process().is_running(), "it ended under a container");
    hook::await_observed(&agent, machine, &["kept"])?;
    drop(server);
    let status = agent.process().wait(LIMIT)?;
    ensure!(
        status.success(),
        "it ended with {status}:\n{}",
        agent.process().log_tail()
    );
    let folder = socket.parent().context("a socket has a folder")?;
    let left: Vec<OsString> = fs::read_dir(folder)?
        .flatten()
        .map(|entry| entry.file_name())
        .filter(|name| name != "containers")
        .collect();
    ensure!(left.is_empty(), "it leaves {left:?}");
    ensure!(
        hook::remembered(machine)?.is_empty(),
        "it remembers a container"
    );
    Ok(())
}

/// The same setting in all three places, in two, in one; and the file that nobody has named.
fn precedence(scene: &Scene, machine: &Machine) -> Result<()> {
    let file = "/etc/other.yaml";
    machine.write(
        file,
        "capture-bytes: 300\nignore-path:\n  - /from/file\n",
        0o644,
    )?;
    for (variable, flag, capture) in [
        (None, None, 300),
        (Some("400"), None, 400),
        (Some("400"), Some("--capture-bytes=500"), 500),
    ] {
        let setup = Setup::node(scene, machine)?.arg("--config").arg(file);
        let setup = variable.into_iter().fold(setup, |setup, value| {
            setup.env("PILOTFISH_CAPTURE_BYTES", value)
        });
        let settings = settings(machine, flag.into_iter().fold(setup, Setup::arg))?;
        ensure!(
            settings["capture_bytes"] == capture,
            "not {capture}: {settings}"
        );
        ensure!(
            settings["ignore_paths"] == json!(["/from/file"]),
            "{settings}"
        );
    }
    machine.write(CONFIGURATION, "capture-bytes: 600\n", 0o644)?;
    let settings = settings(machine, Setup::node(scene, machine)?)?;
    ensure!(settings["capture_bytes"] == 600, "{settings}");
    Ok(())
}

/// Settings of a container whose annotations ask for nothing.
fn settings(machine: &Machine, setup: Setup) -> Result<Value> {
    let agent = setup.start()?;
    let server = serve(machine)?;
    let socket = machine.path(hook::SOCKET);
    let select = [(hook::INSTRUMENT, "true")];
    let reply = announce::attach(&socket, "any", inner_pid(&server)?, &select)?;
    ensure!(reply == Reply::Attached, "{reply:?}");
    let status = agent.status()?;
    agent.finish()?;
    Ok(status["containers"][0]["settings"].clone())
}

/// Text of the file, and what the refusal has to say beside its name.
fn faulty_files(scene: &Scene, machine: &Machine) -> Result<()> {
    for (text, words) in [
        (
            "capture-byte: 300\n",
            &["capture-byte", "capture-bytes", "line 1"][..],
        ),
        (
            "listen: 127.0.0.1:0\ncapture-bytes: many\n",
            &["capture-bytes", "many", "line 2"],
        ),
        ("capture-bytes: 1\n", &["capture-bytes", "64"]),
        ("- capture-bytes\n", &["expected lines such as"]),
        ("capture-bytes: [\n", &["expected lines such as"]),
    ] {
        machine.write(CONFIGURATION, text, 0o644)?;
        let log = Setup::node(scene, machine)?.refused()?;
        for word in [CONFIGURATION].iter().chain(words) {
            ensure!(
                log.contains(word),
                "{text:?}: nothing says {word:?}:\n{log}"
            );
        }
    }
    fs::remove_file(machine.path(CONFIGURATION))?;
    let log = Setup::node(scene, machine)?
        .arg("--config=/absent.yaml")
        .refused()?;
    ensure!(log.contains("/absent.yaml"), "{log}");
    Ok(())
}

/// Words that become user 65534 with these capabilities inside the machine.
fn with_capabilities(machine: &Machine, capabilities: &[&str]) -> Vec<OsString> {
    let list = capabilities
        .iter()
        .fold("-all".to_owned(), |list, name| format!("{list},+{name}"));
    let user = NOBODY.to_string();
    let words = [
        "setpriv",
        "--reuid",
        &user,
        "--regid",
        &user,
        "--clear-groups",
        "--no-new-privs",
        "--inh-caps",
        &list,
        "--ambient-caps",
        &list,
        "--bounding-set",
        &list,
    ];
    let words = words.map(OsString::from);
    machine.words().into_iter().chain(words).collect()
}

/// An agent of user 65534 with a directory of its own.
fn of_nobody<'scene>(
    scene: &'scene Scene,
    machine: &Machine,
    capabilities: &[&str],
) -> Result<Setup<'scene>> {
    let folder = machine.path(NOBODYS);
    if !folder.exists() {
        fs::create_dir(&folder)?;
        fs::set_permissions(&folder, Permissions::from_mode(0o700))?;
        chown(&folder, Some(NOBODY), Some(NOBODY))?;
    }
    let output = scene.folder().join("output");
    if !output.exists() {
        fs::create_dir(&output)?;
        chown(&output, Some(NOBODY), Some(NOBODY))?;
    }
    let setup = Setup::node(scene, machine)?
        .wrapped(
            with_capabilities(machine, capabilities),
            &place::agent_binary()?,
        )
        .print_file(&output.join("spans.jsonl"))
        .arg("--socket")
        .arg(Path::new(NOBODYS).join("hook.sock"));
    Ok(setup)
}

/// A container of root's is served by an agent that is not root: the directory of its socket is its own.
fn unprivileged(scene: &Scene, machine: &Machine) -> Result<()> {
    let agent = of_nobody(scene, machine, ENOUGH)?.start()?;
    let status = fs::read_to_string(format!("/proc/{}/status", agent.pid()))?;
    ensure!(
        status.contains("Uid:\t65534\t65534\t65534\t65534\n"),
        "{status}"
    );
    ensure!(status.contains("CapEff:\t000000c000080000\n"), "{status}");
    must_serve(machine, &agent, &format!("{NOBODYS}/hook.sock"))?;
    agent.finish().map(drop)
}

/// Who a container is, its runtime has said: without the right to look at processes of others it is observed all the
/// same.
fn blind(scene: &Scene, machine: &Machine) -> Result<()> {
    let agent = of_nobody(scene, machine, &ENOUGH[..2])?.start()?;
    must_serve(machine, &agent, &format!("{NOBODYS}/hook.sock"))?;
    let finished = agent.finish()?;
    let resource = &finished.spans.first().context("no span")?.resource;
    ensure!(resource["container.id"] == "served", "{resource:?}");
    Ok(())
}

/// The message names what is missing; so does the one about a directory of somebody else.
fn incapable(scene: &Scene, machine: &Machine) -> Result<()> {
    for missing in &ENOUGH[..2] {
        let left = ENOUGH.iter().copied().filter(|name| name != missing);
        let left: Vec<&str> = left.collect();
        let log = of_nobody(scene, machine, &left)?.refused()?;
        let named = format!("CAP_{}", missing.to_uppercase());
        ensure!(
            log.contains(&named),
            "the message does not name {named}:\n{log}"
        );
    }
    let folder = machine.path(NOBODYS);
    chown(&folder, Some(1), Some(1))?;
    let log = of_nobody(scene, machine, ENOUGH)?.refused()?;
    ensure!(
        log.contains(NOBODYS),
        "the message does not name the directory:\n{log}"
    );
    Ok(())
}
