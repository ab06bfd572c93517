//! `--agent PATH`: where nobody has started an agent, the first container's hook does.

use crate::hook::{LIMIT, add, must_be_first, selected};
use anyhow::{Context, Result, ensure};
use integration::process::wait_for;
use integration::runtime::{Machine, hook};
use integration::scene::free_port;
use integration::{Scene, Trials, load, place, span};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use std::fs;
use std::path::Path;
use std::thread;

/// The agent in the machine.
pub(crate) const AGENT: &str = "/usr/local/bin/pilotfish";

/// An administrator's own way to start it.
const SCRIPT: &str = "/usr/local/bin/start-pilotfish";

/// Containers that start at once.
const TOGETHER: u16 = 10;

pub(crate) fn register(trials: &mut Trials) {
    trials.subject("hook_launch");
    add(
        trials,
        "the_first_container_starts_the_agent",
        starts_detached,
    );
    add(
        trials,
        "ten_at_once_start_one_which_ends_when_idle",
        ten_at_once,
    );
}

/// An agent that a hook started, by the number that it has outside.
pub(crate) fn started_agent(scene: &Scene, machine: &Machine) -> Result<u32> {
    let all = machine.running(&[AGENT, "node"])?;
    ensure!(all.len() == 1, "{} agents run", all.len());
    let outside = machine.outside(all[0]).context("the agent ended")?;
    ensure!(scene.remember_loaded(outside)? > 0, "it loaded nothing");
    Ok(outside)
}

/// Defaults of an agent that nobody gives arguments: the configuration file.
pub(crate) fn configure(scene: &Scene, machine: &Machine) -> Result<()> {
    machine.copy_in(&place::agent_binary()?, AGENT, 0o755)?;
    let configuration = format!(
        "print-file: {}\nlisten: 127.0.0.1:{}\n",
        scene.folder().join("spans.jsonl").display(),
        free_port()?
    );
    machine.write("/etc/pilotfish/config.yaml", configuration, 0o644)
}

/// The agent shares nothing with the runtime that its hook was called by.
fn starts_detached(scene: &Scene, machine: &Machine) -> Result<()> {
    configure(scene, machine)?;
    let options = ["--agent", AGENT, "--timeout", "20s", "--fail-closed"];
    let words = [
        "sh",
        "-c",
        "prompt 8080 & until wget -q -O - http://127.0.0.1:8080/first; do :; done",
    ];
    let bundle = selected(machine, "/bundle", &words, &options)?;
    let file = machine.path("/bundle/config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&fs::read(&file)?)?;
    config["hooks"]["createRuntime"][0]["env"] = json!(["LD_PRELOAD=/evil.so", "EVIL=1"]);
    fs::write(&file, config.to_string())?;
    // The runtime in control groups and with a protection of its own, as a service manager's daemon has them.
    let script = r#"
        for hierarchy in memory pids; do
            group=/sys/fs/cgroup/$hierarchy
            [ -d $group ] || group=/sys/fs/cgroup/init
            mkdir -p $group/runtime && echo 0 >$group/runtime/cgroup.procs
        done
        echo -500 >/proc/self/oom_score_adj
        exec setsid --wait runc run --bundle "$0" one"#;
    let runtime = machine.command("sh", ["-c", script, bundle.folder()]);
    // It ends although the agent goes on.
    let said = machine.spawn("runtime", runtime)?.succeed(LIMIT)?;
    ensure!(said.contains("prompt"), "{said}");

    let agent = started_agent(scene, machine)?;
    must_be_detached(machine, agent)?;
    kill(Pid::from_raw(agent as i32), Signal::SIGTERM)?;
    await_end(machine)?;
    let spans = span::read(&scene.folder().join("spans.jsonl"))?;
    must_be_first(&spans, "one", "/first")
}

fn must_be_detached(machine: &Machine, agent: u32) -> Result<()> {
    let process = Path::new("/proc").join(agent.to_string());
    let own = |name: &str| {
        fs::read_to_string(process.join(name)).with_context(|| format!("{name} of the agent"))
    };
    let first = format!("/proc/{}/cgroup", machine.pid());
    let (groups, outer) = (own("cgroup")?, fs::read_to_string(first)?);
    ensure!(
        !groups.contains("/runtime") && !groups.contains("/one"),
        "it is in the runtime's groups:\n{groups}\nthe machine's:\n{outer}"
    );
    let stat = own("stat")?;
    let (_, after_name) = stat.rsplit_once(") ").context("stat")?;
    let fields: Vec<i64> = after_name
        .split(' ')
        .skip(1)
        .take(4)
        .map(|field| field.parse().context("a number in stat"))
        .collect::<Result<_>>()?;
    // Parent, process group, session, terminal (proc_pid_stat(5)).
    let [parent, group, session, terminal] = fields[..] else {
        anyhow::bail!("{stat}");
    };
    ensure!(parent == i64::from(machine.pid()), "its parent is {parent}");
    ensure!(terminal == 0, "it has a terminal");
    ensure!(group == session, "its group is not its session's first");
    let leader = Path::new("/proc").join(session.to_string());
    ensure!(!leader.exists(), "its session has a leader that is alive");
    ensure!(own("environ")?.is_empty(), "it has an environment");
    ensure!(own("oom_score_adj")?.trim() == "0", "it is protected");
    let log = Path::new(hook::SOCKET).with_file_name("agent.log");
    let null = Path::new("/dev/null");
    for (name, target) in [
        ("fd/0", null),
        ("fd/1", null),
        ("fd/2", &log),
        ("cwd", Path::new("/")),
    ] {
        let found = fs::read_link(process.join(name))?;
        ensure!(found == target, "{name} is {}", found.display());
    }
    Ok(())
}

pub(crate) fn await_end(machine: &Machine) -> Result<()> {
    wait_for("the agent's end", LIMIT, || {
        Ok(machine.running(&[AGENT, "node"])?.is_empty().then_some(()))
    })
    .with_context(|| {
        fs::read_to_string(machine.path("/run/pilotfish/agent.log")).unwrap_or_default()
    })
}

/// One agent for all, which ends by itself when the containers are gone, twice in a row.
fn ten_at_once(scene: &Scene, machine: &Machine) -> Result<()> {
    configure(scene, machine)?;
    // The hook asks for an idle minute; the last of two equal options would be refused.
    let script = format!("#!/bin/sh\nexec {AGENT} node --socket \"$3\" --exit-when-idle 2\n");
    machine.write(SCRIPT, script, 0o755)?;
    let options = ["--agent", SCRIPT, "--timeout", "20s", "--fail-closed"];
    let bundles = (0..TOGETHER)
        .map(|number| {
            let port = 8080 + number;
            let words = ["prompt", &port.to_string()];
            let folder = format!("/bundle-{number}");
            Ok((selected(machine, &folder, &words, &options)?, port))
        })
        .collect::<Result<Vec<_>>>()?;
    for round in ["runc", "crun"] {
        let id = |port: &u16| format!("{round}-{port}");
        let bundles = &bundles;
        thread::scope(|scope| {
            let threads: Vec<_> = bundles
                .iter()
                .map(|(bundle, port)| {
                    scope.spawn(move || {
                        bundle.run(round, &id(port))?;
                        load::ask_first(*port, &format!("/{}", id(port)))
                    })
                })
                .collect();
            threads.into_iter().try_for_each(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
        })?;
        started_agent(scene, machine)?;
        for (bundle, port) in bundles {
            bundle.delete(round, &id(port))?;
        }
        await_end(machine)?;
        ensure!(!machine.path(hook::SOCKET).exists(), "the socket is left");
        ensure!(
            hook::remembered(machine)?.is_empty(),
            "state files are left"
        );
        let spans = span::read(&scene.folder().join("spans.jsonl"))?;
        for (_, port) in bundles {
            must_be_first(&spans, &id(port), &format!("/{}", id(port)))?;
        }
    }
    Ok(())
}
