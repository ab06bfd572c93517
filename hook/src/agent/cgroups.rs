//! Out of the runtime's cgroups: an agent in them would be accounted to, limited by and ended with whatever started
//! the container.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use procfs::process::Process;

/// Where the agent goes if the top of a hierarchy takes no process (a cgroup namespace's top is an inner cgroup,
/// which cgroup v2 leaves empty once controllers are enabled).
const CHILD: &str = "pilotfish";

/// Moves the calling process to the top of every hierarchy that is mounted, version 1 and 2. Returns what did not
/// work; the process stays where it is there.
pub(super) fn leave() -> Vec<String> {
    match hierarchies() {
        Ok(tops) => tops
            .iter()
            .filter_map(|top| {
                let error = enter_top(top).err()?;
                Some(format!(
                    "stays in the runtime's cgroup of {}: {error}",
                    top.display()
                ))
            })
            .collect(),
        Err(error) => vec![format!("stays in the runtime's cgroups: {error}")],
    }
}

fn enter_top(top: &Path) -> io::Result<()> {
    enter(top).or_else(|_| {
        let child = top.join(CHILD);
        match fs::create_dir(&child) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => enter(&child),
        }
    })
}

fn enter(cgroup: &Path) -> io::Result<()> {
    // 0 is the writing process (cgroups(7)).
    fs::write(cgroup.join("cgroup.procs"), "0")
}

/// The mount points of all hierarchies, one each.
fn hierarchies() -> Result<Vec<PathBuf>, procfs::ProcError> {
    let mut seen = Vec::new();
    let mut tops = Vec::new();
    for mount in Process::myself()?.mountinfo()? {
        let cgroup = matches!(mount.fs_type.as_str(), "cgroup" | "cgroup2");
        if cgroup && !seen.contains(&mount.majmin) {
            seen.push(mount.majmin);
            tops.push(mount.mount_point);
        }
    }
    Ok(tops)
}
