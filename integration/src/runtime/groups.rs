//! The control groups of a machine: one below the root of every hierarchy that it gets a view of.

use crate::process::wait_for;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Start of the name of every group; the owner's process id and a number follow.
pub const PREFIX: &str = "pilotfish-machine-";

/// Bound for the removal: the kernel takes a moment to let go of processes that were killed.
const LIMIT: Duration = Duration::from_secs(10);

/// The groups, removed with everything that runtimes made below them when dropped. All processes have to be dead.
#[derive(Debug)]
pub(super) struct Groups {
    folders: Vec<PathBuf>,
}

impl Groups {
    /// Makes one in every hierarchy of version 1, or in that of version 2 where there is no other.
    pub(super) fn make(number: u32) -> Result<Self> {
        let name = format!("{PREFIX}{}-{number}", std::process::id());
        let hierarchies = hierarchies()?;
        ensure!(
            !hierarchies.is_empty(),
            "no hierarchy of control groups is mounted"
        );
        let mut groups = Self {
            folders: Vec::new(),
        };
        for hierarchy in hierarchies {
            remove_orphans(&hierarchy);
            let folder = hierarchy.join(&name);
            fs::create_dir(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
            groups.folders.push(folder.clone());
            inherit_cpus(&hierarchy, &folder)?;
        }
        Ok(groups)
    }

    /// The files that processes are moved into the groups with.
    pub(super) fn doors(&self) -> impl Iterator<Item = PathBuf> {
        self.folders
            .iter()
            .map(|folder| folder.join("cgroup.procs"))
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        for folder in &self.folders {
            let removed = wait_for("the removal", LIMIT, || Ok(remove_tree(folder).ok()));
            if let Err(error) = removed {
                eprintln!("{} is left behind: {error:#}", folder.display());
            }
        }
    }
}

/// Mount points of the hierarchies.
fn hierarchies() -> Result<Vec<PathBuf>> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("cannot read mountinfo")?;
    let of = |filesystem: &str| mount_points(&mounts, filesystem);
    let first = of("cgroup");
    Ok(if first.is_empty() {
        of("cgroup2")
    } else {
        first
    })
}

/// Mount points of a type of file system that show it from its root, each file system once.
fn mount_points(mountinfo: &str, filesystem: &str) -> Vec<PathBuf> {
    let mut seen = Vec::new();
    let points = mountinfo.lines().filter_map(|line| {
        let (mount, source) = line.split_once(" - ")?;
        let fields: Vec<&str> = mount.split(' ').collect();
        let (&[_, _, device, "/", point, ..], true) = (
            fields.as_slice(),
            source.split(' ').next() == Some(filesystem),
        ) else {
            return None;
        };
        let is_new = !seen.contains(&device);
        seen.push(device);
        is_new.then(|| PathBuf::from(point))
    });
    points.collect()
}

/// A new group of version 1's `cpuset` has no CPU and takes no process.
fn inherit_cpus(hierarchy: &Path, folder: &Path) -> Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        // The root of version 2 has no such file.
        if let Ok(value) = fs::read(hierarchy.join(file)) {
            fs::write(folder.join(file), value)
                .with_context(|| format!("cannot write {file} of {}", folder.display()))?;
        }
    }
    Ok(())
}

/// Removes groups whose owner was killed before it could.
fn remove_orphans(hierarchy: &Path) {
    let entries = fs::read_dir(hierarchy).into_iter().flatten().flatten();
    for entry in entries {
        let name = entry.file_name();
        let owner = name
            .to_str()
            .and_then(|name| name.strip_prefix(PREFIX)?.split('-').next());
        if owner.is_some_and(|owner| !Path::new("/proc").join(owner).exists()) {
            // Somebody's processes may still be in it: then it stays.
            let _ = remove_tree(&entry.path());
        }
    }
}

/// Files of a control group cannot be removed, nor need they be.
fn remove_tree(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_are_found_once_and_from_their_roots() {
        let mounts = "30 24 0:26 / /sys/fs/cgroup rw - tmpfs cgroup rw\n\
                      31 30 0:27 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory\n\
                      32 30 0:28 / /sys/fs/cgroup/unified rw - cgroup2 none rw\n\
                      33 24 0:27 / /other rw - cgroup cgroup rw,memory\n\
                      34 24 0:29 /part /view rw - cgroup cgroup rw,pids\n";
        assert_eq!(
            mount_points(mounts, "cgroup"),
            [PathBuf::from("/sys/fs/cgroup/memory")]
        );
        assert_eq!(
            mount_points(mounts, "cgroup2"),
            [PathBuf::from("/sys/fs/cgroup/unified")]
        );
    }
}
