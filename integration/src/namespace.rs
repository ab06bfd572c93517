//! Containers without a runtime: namespaces and control groups made with util-linux, as a pod has them.

use crate::process::{Process, wait_for};
use crate::scene::Scene;
use crate::{place, process};
use anyhow::{Context, Result};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Bound for starting a namespace and for emptying a control group.
const LIMIT: Duration = Duration::from_secs(10);

/// Gives a new mount namespace the procfs of its pid namespace, then becomes the command.
const WITH_OWN_PROC: &str = r#"mount -t proc proc /proc && exec "$@""#;

/// Programs without which nothing here works.
pub const TOOLS: &[&str] = &["unshare", "nsenter", "mount", "busybox"];

/// A pid namespace that containers share, as with `shareProcessNamespace`: it lives as long as this value.
#[derive(Debug)]
pub struct Pod {
    pause: Process,
}

impl Pod {
    /// Starts the namespace with a first process that only holds it open.
    pub fn start(scene: &Scene) -> Result<Self> {
        let mut command = place::command("unshare")?;
        command
            .args(["--fork", "--pid", "--mount-proc", "--kill-child"])
            .arg(place::tool("busybox").context("busybox")?)
            .args(["sleep", "3600"]);
        let pause = Process::start("pause", command, scene.folder())?;
        let busybox = place::tool("busybox").context("busybox")?;
        wait_for("the pod's first process", LIMIT, || {
            Ok(pause.descendant_running(&busybox).map(drop))
        })?;
        Ok(Self { pause })
    }

    /// Words that start a command as a new container: the pod's pid namespace, a mount namespace of its own.
    pub fn new_container(&self) -> Result<Vec<OsString>> {
        let unshare = place::tool("unshare").context("unshare")?;
        let nsenter = place::tool("nsenter").context("nsenter")?;
        let namespace = format!("--pid=/proc/{}/ns/pid_for_children", self.pause.pid());
        Ok([
            unshare.as_os_str(),
            "--mount".as_ref(),
            "--".as_ref(),
            nsenter.as_os_str(),
            namespace.as_ref(),
            "--".as_ref(),
            "sh".as_ref(),
            "-c".as_ref(),
            WITH_OWN_PROC.as_ref(),
            "sh".as_ref(),
        ]
        .map(OsStr::to_owned)
        .into())
    }
}

/// Words that start a command in the container of process `member`, as `docker exec` does.
pub fn entering(member: u32) -> Result<Vec<OsString>> {
    let nsenter = place::tool("nsenter").context("nsenter")?;
    let target = format!("--target={member}");
    Ok([
        nsenter.as_os_str(),
        target.as_ref(),
        "--mount".as_ref(),
        "--pid".as_ref(),
        "--".as_ref(),
    ]
    .map(OsStr::to_owned)
    .into())
}

/// Words that start a command in a pid namespace of its own, which ends with it.
pub fn in_own_pid_namespace() -> Result<Vec<OsString>> {
    let unshare = place::tool("unshare").context("unshare")?;
    let arguments = ["--fork", "--pid", "--mount-proc", "--kill-child", "--"];
    Ok([unshare.into_os_string()]
        .into_iter()
        .chain(arguments.map(OsString::from))
        .collect())
}

/// Words that start a command in a mount namespace where empty directories cover these.
pub fn hiding(folders: &[&str]) -> Result<Vec<OsString>> {
    let unshare = place::tool("unshare").context("unshare")?;
    let mut script: String = folders
        .iter()
        .flat_map(|folder| ["mount -t tmpfs none ", folder, " && "])
        .collect();
    script.push_str(r#"exec "$@""#);
    Ok([
        unshare.as_os_str(),
        "--mount".as_ref(),
        "--".as_ref(),
        "sh".as_ref(),
        "-c".as_ref(),
        script.as_ref(),
        "sh".as_ref(),
    ]
    .map(OsStr::to_owned)
    .into())
}

/// `command` with `words` before it.
pub fn wrapped(words: &[OsString], command: &Command) -> Result<Command> {
    let (first, rest) = words.split_first().context("no word")?;
    let mut wrapped = Command::new(first);
    wrapped
        .args(rest)
        .arg(command.get_program())
        .args(command.get_args());
    for (key, value) in command.get_envs() {
        match value {
            Some(value) => wrapped.env(key, value),
            None => wrapped.env_remove(key),
        };
    }
    Ok(wrapped)
}

/// A control group of version 2, removed with all processes in it when dropped.
#[derive(Debug)]
pub struct ControlGroup {
    folder: PathBuf,
}

impl ControlGroup {
    /// Makes one below the root of the hierarchy.
    pub fn make() -> Result<Self> {
        let root = unified_mount().context("no cgroup2 mount")?;
        let folder = root.join(format!("pilotfish-trial-{}", std::process::id()));
        fs::create_dir(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(Self { folder })
    }

    /// Words that start a command after the process has moved itself into the group.
    pub fn moving(&self) -> [OsString; 4] {
        // The number 0 stands for the writer, in whichever pid namespace it is.
        let script = format!(
            r#"echo 0 > {}/cgroup.procs && exec "$@""#,
            self.folder.display()
        );
        ["sh".into(), "-c".into(), script.into(), "sh".into()]
    }
}

impl Drop for ControlGroup {
    fn drop(&mut self) {
        // Linux 5.14; before that the groups of the started processes have taken care of it.
        let _ = fs::write(self.folder.join("cgroup.kill"), "1");
        let removed = wait_for("the control group's end", LIMIT, || {
            Ok(fs::remove_dir(&self.folder).ok())
        });
        if let Err(error) = removed {
            eprintln!("{} is left behind: {error:#}", self.folder.display());
        }
    }
}

/// Where the whole hierarchy of version 2 is mounted, if it is.
pub fn unified_mount() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    mounts.lines().find_map(|line| {
        let (mount, filesystem) = line.split_once(" - ")?;
        let fields: Vec<&str> = mount.split(' ').collect();
        (filesystem.starts_with("cgroup2 ") && fields.get(3) == Some(&"/"))
            .then(|| fields.get(4).map(PathBuf::from))?
    })
}

/// True if we are in the first pid namespace of the machine (`PROC_PID_INIT_INO`).
pub fn is_the_hosts() -> bool {
    fs::read_link("/proc/self/ns/pid")
        .is_ok_and(|link| link == Path::new(&format!("pid:[{}]", 0xEFFF_FFFC_u32)))
}

/// The process that a wrapper such as nsenter has forked to run its command.
pub fn inner_pid(wrapper: &Process) -> Result<u32> {
    wait_for("the wrapper's child", LIMIT, || {
        Ok(process::children(wrapper.pid())?.first().copied())
    })
}
