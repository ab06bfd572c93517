//! A private machine: its own root, processes, network and control groups; all of it ends with one process.

use super::groups::Groups;
use super::tree::Tree;
use crate::namespace::inner_pid;
use crate::place;
use crate::process::{Process, wait_for};
use crate::scene::Scene;
use anyhow::{Context, Result, bail, ensure};
use nix::sched::{CloneFlags, setns};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

/// Bound for the start of a machine, which takes a tenth of a second.
const LIMIT: Duration = Duration::from_secs(10);

/// What `fixtures/machine.sh` says at the end.
const READY: &str = "the machine is ready";

/// Where Debian's programs are.
const SEARCH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

static STARTED: AtomicU32 = AtomicU32::new(0);

/// A running machine; dropping it kills every process in it and removes its control groups.
///
/// It shares with the host the trial's folder and the agent's binary, read-only, at the same places.
#[derive(Debug)]
pub struct Machine {
    // The order matters: with this process everything dies, then the groups can be removed.
    _process: Process,
    _groups: Groups,
    first: u32,
    nsenter: PathBuf,
    logs: PathBuf,
}

impl Machine {
    /// A Debian 13 machine with nothing running.
    pub fn start(scene: &Scene) -> Result<Self> {
        Self::layered(scene, &[])
    }

    /// The same, with the programs of other trees in place of its own; the first one lies on top.
    pub fn layered(scene: &Scene, above: &[Tree]) -> Result<Self> {
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let name = format!("machine-{number}");
        let scratch = scene.folder().join(&name);
        fs::create_dir(&scratch).with_context(|| format!("cannot create {}", scratch.display()))?;
        let groups = Groups::make(number)?;
        let command = first_process(&groups, &scratch, above, scene.folder())?;
        let mut process = Process::start(&name, command, scene.folder())?;
        let first = await_ready(&mut process)?;
        Ok(Self {
            _process: process,
            _groups: groups,
            first,
            nsenter: place::tool("nsenter").context("nsenter")?,
            logs: scene.folder().to_path_buf(),
        })
    }

    /// The machine's first process, by the number that it has outside.
    pub fn pid(&self) -> u32 {
        self.first
    }

    /// Where a file of the machine is from outside. A link in the path that starts at the root leads astray.
    pub fn path(&self, inside: &str) -> PathBuf {
        Path::new("/proc")
            .join(self.first.to_string())
            .join("root")
            .join(inside.trim_start_matches('/'))
    }

    /// Words that start a command inside, in the machine's namespaces and control groups, as `Setup::sharing_namespace`
    /// and `namespace::wrapped` take them. The process that runs them stays outside and waits: `namespace::inner_pid`.
    pub fn words(&self) -> Vec<OsString> {
        let target = format!("--target={}", self.first);
        let arguments = [
            &target,
            "--mount",
            "--pid",
            "--net",
            "--uts",
            "--ipc",
            "--cgroup",
            "--root",
            "--wd",
            "--",
            "join-machine",
        ];
        [self.nsenter.clone().into_os_string()]
            .into_iter()
            .chain(arguments.map(OsString::from))
            .collect()
    }

    /// A command that runs inside with an environment of its own: `PATH` and `HOME`, and what the trial adds.
    pub fn command(
        &self,
        program: &str,
        arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
    ) -> Command {
        let mut words = self.words().into_iter();
        let mut command = Command::new(words.next().unwrap_or_default());
        command
            .args(words)
            .arg(program)
            .args(arguments)
            .env_clear()
            .env("PATH", SEARCH)
            .env("HOME", "/root");
        command
    }

    /// Runs a command inside to its successful end and gives back its standard output.
    pub fn output(
        &self,
        program: &str,
        arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
    ) -> Result<String> {
        output(self.command(program, arguments))
    }

    /// Starts a command made by [`Machine::command`]; its log is `NAME.log` in the trial's folder.
    pub fn spawn(&self, name: &str, command: Command) -> Result<Process> {
        Process::start(name, command, &self.logs)
    }

    /// Copies a file of the host into the machine, its folder included.
    pub fn copy_in(&self, file: &Path, inside: &str, mode: u32) -> Result<()> {
        let bytes = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        self.write(inside, &bytes, mode)
    }

    /// Writes a file in the machine, its folder included.
    pub fn write(&self, inside: &str, bytes: impl AsRef<[u8]>, mode: u32) -> Result<()> {
        let path = self.path(inside);
        let folder = path.parent().context("a file has a folder")?;
        fs::create_dir_all(folder)
            .and_then(|()| fs::write(&path, bytes))
            .and_then(|()| fs::set_permissions(&path, Permissions::from_mode(mode)))
            .with_context(|| format!("cannot write {inside} in the machine"))
    }

    /// Does something in the machine's network, such as sending requests to what runs there. It is done by a thread
    /// that ends afterwards: a [`Process`] that is started in it does not outlive it.
    pub fn in_network<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let network = File::open(format!("/proc/{}/ns/net", self.first))
            .context("cannot open the machine's network namespace")?;
        let entered = move || {
            setns(network, CloneFlags::CLONE_NEWNET)
                .context("cannot enter the machine's network namespace")?;
            work()
        };
        thread::scope(|scope| scope.spawn(entered).join())
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Processes whose command line starts with these words, by the numbers that they have inside.
    pub fn running(&self, words: &[&str]) -> Result<Vec<u32>> {
        let wanted: String = words.iter().flat_map(|word| [word, "\0"]).collect();
        let entries = fs::read_dir(self.path("/proc")).context("the machine has no /proc")?;
        Ok(entries
            .flatten()
            .filter_map(|entry| {
                let pid = entry.file_name().to_str()?.parse().ok()?;
                // A process may end while it is looked at.
                let line = fs::read(entry.path().join("cmdline")).ok()?;
                line.starts_with(wanted.as_bytes()).then_some(pid)
            })
            .collect())
    }

    /// The number outside of a process that has this number in the machine. It may be in a container's pid namespace.
    pub fn outside(&self, inside: u32) -> Option<u32> {
        let namespace = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
        let own = namespace(self.first)?;
        let depth = numbers(self.first)?.len().checked_sub(1)?;
        let processes = fs::read_dir("/proc").ok()?.flatten();
        processes
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(|&pid| numbers(pid).is_some_and(|all| all.get(depth) == Some(&inside)))
            .find(|&pid| namespace(pid).as_ref() == Some(&own) || self.is_ancestor_of(pid))
    }

    /// Containers descend from the machine's first process, which adopts orphans.
    fn is_ancestor_of(&self, pid: u32) -> bool {
        let parents = std::iter::successors(Some(pid), |&pid| parent(pid));
        parents
            .take_while(|&pid| pid > 1)
            .any(|pid| pid == self.first)
    }
}

/// A process's numbers in the pid namespaces that it is in, from outside to inside.
fn numbers(pid: u32) -> Option<Vec<u32>> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("NSpid:"))?;
    line.split_whitespace()
        .map(|number| number.parse().ok())
        .collect()
}

fn parent(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
    line.trim().parse().ok()
}

/// Waits until the machine is complete and gives back its first process.
fn await_ready(process: &mut Process) -> Result<u32> {
    wait_for("the machine's start", LIMIT, || {
        ensure!(process.is_running(), "the machine ended");
        Ok(process.log().contains(READY).then_some(()))
    })
    .with_context(|| format!("it logged:\n{}", process.log_tail()))?;
    inner_pid(process)
}

/// Moves itself into the machine's groups, so that they become the roots of its new cgroup namespace.
fn first_process(
    groups: &Groups,
    scratch: &Path,
    above: &[Tree],
    folder: &Path,
) -> Result<Command> {
    let layers = above.iter().copied().chain([Tree::Debian13]);
    let lower = layers
        .map(|tree| {
            if !tree.is_whole() {
                bail!("the tree {tree} is not there; run `cargo xtask setup` as root");
            }
            Ok(tree.path().into_os_string())
        })
        .collect::<Result<Vec<OsString>>>()?
        .join(OsStr::new(":"));
    let mut command = place::command("sh")?;
    command
        .arg("-c")
        .arg(
            r#"while [ "$1" != -- ]; do echo 0 >"$1" || exit; shift; done
            shift
            exec "$@""#,
        )
        .arg("sh")
        .args(groups.doors())
        .arg("--")
        .arg(place::tool("unshare").context("unshare")?)
        .args(["--mount", "--pid", "--net", "--uts", "--ipc", "--cgroup"])
        .args(["--fork", "--kill-child", "--", "sh"])
        .arg(place::fixture("machine.sh"))
        .arg(scratch)
        .arg(lower)
        .arg(folder)
        .arg(place::agent_binary()?);
    Ok(command)
}

/// Runs a command to its successful end and gives back its standard output.
pub(super) fn output(mut command: Command) -> Result<String> {
    let answer = command
        .output()
        .with_context(|| format!("cannot start {command:?}"))?;
    if !answer.status.success() {
        bail!(
            "{:?} ended with {}: {}",
            command.get_args().collect::<Vec<_>>(),
            answer.status,
            String::from_utf8_lossy(&answer.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&answer.stdout).into_owned())
}
