//! The machine: what to say about it, and which of its processors does what.

use anyhow::{Context, Result, ensure};
use integration::place;
use nix::sched::{CpuSet, sched_getaffinity};
use nix::sys::utsname::uname;
use nix::unistd::Pid;
use serde_json::Value;
use std::ffi::OsString;
use std::fs;
use std::process::Command;

/// Where observation is attached, in the kernel's words.
const HOOKS: [&str; 2] = ["sock_send_length", "sock_recv_length"];

/// The processors of the two sides of a load. The agent is left to the scheduler, as it is in a container.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cores {
    /// Of the observed server.
    pub(crate) server: usize,
    /// Of the client, and of programs that nothing else should disturb.
    pub(crate) client: usize,
}

impl Cores {
    /// The first two processors that this program may use.
    pub(crate) fn choose() -> Result<Self> {
        let allowed = sched_getaffinity(Pid::from_raw(0)).context("cannot read the affinity")?;
        let mut numbers =
            (0..CpuSet::count()).filter(|&number| allowed.is_set(number).unwrap_or(false));
        let (server, client) = numbers.next().zip(numbers.next()).context(
            "server and client need a processor each, and this program may use fewer than two",
        )?;
        Ok(Self { server, client })
    }

    /// The program and arguments that put another program on one processor.
    pub(crate) fn pin(core: usize) -> Vec<OsString> {
        ["taskset".into(), "-c".into(), core.to_string().into()].into()
    }

    /// A command that runs `program` on one processor.
    pub(crate) fn pinned(core: usize, program: &Command) -> Command {
        let words = Self::pin(core);
        let mut command = Command::new(&words[0]);
        command
            .args(&words[1..])
            .arg(program.get_program())
            .args(program.get_args());
        command
    }
}

/// The lines above the table.
pub(crate) fn describe(quick: bool) -> Result<Vec<String>> {
    let system = uname().context("cannot name the system")?;
    let processors = std::thread::available_parallelism()?;
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let memory = field("/proc/meminfo", "MemTotal");
    let agent = place::agent_binary()?;
    let version = Command::new(&agent).arg("--version").output()?;
    ensure!(version.status.success(), "{} does not run", agent.display());
    let mut lines = vec![
        format!(
            "{} {} {}, {processors} processors ({}), {memory} memory",
            system.sysname().to_string_lossy(),
            system.release().to_string_lossy(),
            system.machine().to_string_lossy(),
            field("/proc/cpuinfo", "model name"),
        ),
        format!(
            "{}, release build; load average before the start {}",
            String::from_utf8_lossy(&version.stdout).trim(),
            load.split(' ').next().unwrap_or("unknown"),
        ),
        "`cargo xtask bench`: nginx (one process, no log) and wrk (one thread, 64 connections) on a processor each, \
         client, server and collector on this machine, the agent where the scheduler puts it"
            .to_owned(),
    ];
    if quick {
        lines.push("a quick run: few short rounds, a look rather than a result".to_owned());
    }
    let others = attached_by_others()?;
    if others > 0 {
        lines.push(format!(
            "**disturbed**: {others} eBPF programs of others were attached to the same hooks at the start"
        ));
    }
    Ok(lines)
}

/// The value of the first line `KEY : VALUE` of a file.
fn field(file: &str, key: &str) -> String {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.trim() == key)
        .map_or("unknown".to_owned(), |(_, value)| value.trim().to_owned())
}

/// Programs at the hooks before the first of ours.
fn attached_by_others() -> Result<usize> {
    let output = place::command("bpftool")?
        .args(["--json", "link", "show"])
        .output()
        .context("cannot run bpftool")?;
    let links: Value = serde_json::from_slice(&output.stdout).context("bpftool's list of links")?;
    let at_hooks = |link: &&Value| HOOKS.iter().any(|hook| link["tp_name"] == *hook);
    Ok(links
        .as_array()
        .map_or(0, |links| links.iter().filter(at_hooks).count()))
}
