//! What one trial owns: a folder, and the eBPF objects that its agents put into the kernel.

use crate::place;
use crate::process::wait_for;
use anyhow::{Context, Result, bail};
use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// The kernel frees programs after a grace period, not at once.
const RELEASE: Duration = Duration::from_secs(5);

/// An eBPF program or link by the id under which the kernel knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum KernelObject {
    /// A loaded program.
    Program(u32),
    /// An attachment.
    Link(u32),
}

impl KernelObject {
    /// Asks bpftool; ids are not used again while the machine runs, so a hit is the object itself.
    fn exists(self) -> Result<bool> {
        let (noun, id) = match self {
            Self::Program(id) => ("prog", id),
            Self::Link(id) => ("link", id),
        };
        let output = place::command("bpftool")?
            .args([noun, "show", "id", &id.to_string()])
            .output()?;
        Ok(output.status.success())
    }
}

/// One trial's belongings.
#[derive(Debug)]
pub struct Scene {
    folder: tempfile::TempDir,
    loaded: Mutex<BTreeSet<KernelObject>>,
}

impl Scene {
    /// An empty scene. Its folder is readable for every user, because some servers and agents change theirs.
    pub fn new() -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("pilotfish-trial-")
            .tempdir()
            .context("cannot create a temporary folder")?;
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755))?;
        Ok(Self {
            folder,
            loaded: Mutex::default(),
        })
    }

    /// The trial's folder, removed at its end.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Remembers what process `pid` has loaded, as its descriptors tell, and gives back the number of objects.
    pub fn remember_loaded(&self, pid: u32) -> Result<usize> {
        let found = objects_of(pid)?;
        let count = found.len();
        self.loaded
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(found);
        Ok(count)
    }

    /// Fails if a remembered program or link outlives its agent.
    pub fn check_nothing_left(&self) -> Result<()> {
        let loaded = self
            .loaded
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let mut left: Vec<KernelObject> = loaded.into_iter().collect();
        let outcome = wait_for("the release of all eBPF objects", RELEASE, || {
            let mut still = Vec::new();
            for object in left.drain(..) {
                if object.exists()? {
                    still.push(object);
                }
            }
            left = still;
            Ok(left.is_empty().then_some(()))
        });
        if !left.is_empty() {
            bail!("eBPF objects are left after the agent's end: {left:?}");
        }
        outcome
    }
}

/// Programs and links held by the descriptors of a process.
fn objects_of(pid: u32) -> Result<BTreeSet<KernelObject>> {
    let folder = format!("/proc/{pid}/fdinfo");
    let entries = fs::read_dir(&folder).with_context(|| format!("cannot list {folder}"))?;
    // A descriptor may be closed between listing and reading.
    let texts = entries
        .flatten()
        .filter_map(|entry| fs::read_to_string(entry.path()).ok());
    Ok(texts.flat_map(|text| objects_in(&text)).collect())
}

fn objects_in(fdinfo: &str) -> Vec<KernelObject> {
    let number = |key: &str| {
        fdinfo
            .lines()
            .find_map(|line| line.strip_prefix(key))
            .and_then(|value| value.trim().parse::<u32>().ok())
    };
    let link = number("link_id:").map(KernelObject::Link);
    let program = number("prog_id:").map(KernelObject::Program);
    link.into_iter().chain(program).collect()
}

/// A TCP port of the loopback interface that was free a moment ago.
pub fn free_port() -> Result<u16> {
    let listener =
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("cannot bind a loopback port")?;
    Ok(listener.local_addr()?.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_objects_are_read_from_fdinfo() {
        let link = "pos:\t0\nflags:\t02000002\nlink_type:\ttracing\nlink_id:\t7\nprog_tag:\tabc\nprog_id:\t31\n";
        assert_eq!(
            objects_in(link),
            [KernelObject::Link(7), KernelObject::Program(31)]
        );
        assert_eq!(objects_in("pos:\t0\nmap_type:\t1\nmap_id:\t9\n"), []);
    }
}
