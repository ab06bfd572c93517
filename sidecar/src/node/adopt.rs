//! Containers that were started while no agent ran: what the low-level runtimes keep about their containers leads to
//! the bundles, and those to the annotations.

use super::trusted::{Directory, TrustError};
use pilotfish_workload::announcement::{Announcement, is_container_id};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// Containers of one runtime's directory that are looked at.
const MAX_CONTAINERS: usize = 4096;

/// Namespaces of one runtime's directory (containerd's) that are looked at.
const MAX_NAMESPACES: usize = 64;

/// Longest `state.json`, `status` or `config.json`; a runtime's has tens of kilobytes.
const MAX_FILE: usize = 4 * 1024 * 1024;

/// Where runc and crun keep their containers, `--root` as the managers above give it; and whether containerd's
/// namespaces lie between. Either runtime may be configured in every place.
const ROOTS: &[(&str, bool)] = &[
    ("run/containerd/runc", true),
    ("run/docker/runtime-runc", true),
    ("run/runc", false),
    ("run/crun", false),
];

/// A container that runs or did, as its runtime has written it down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// Container id.
    pub id: String,
    /// Its first process.
    pub pid: i32,
    /// Start time of that process, clock ticks since boot.
    pub start: u64,
    /// Directory of its `config.json`.
    pub bundle: PathBuf,
}

/// runc's `state.json` (libcontainer `State`).
#[derive(Deserialize)]
struct RuncState {
    id: String,
    init_process_pid: i32,
    init_process_start: u64,
    config: RuncConfig,
}

#[derive(Deserialize)]
struct RuncConfig {
    #[serde(default)]
    labels: Vec<String>,
}

/// crun's `status` (`libcrun_write_container_status`).
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct CrunStatus {
    pid: i32,
    process_start_time: u64,
    bundle: PathBuf,
}

/// What is used of `config.json`.
#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

/// All containers that the runtimes below `root` (`/`) have written down.
pub(super) fn found(root: &Path) -> Vec<Found> {
    let mut found = Vec::new();
    for directory in directories(root) {
        in_directory(&directory, &mut found);
    }
    found
}

/// The container of this id, if a runtime below `root` has written it down.
pub(super) fn find(root: &Path, id: &str) -> Option<Found> {
    if !is_container_id(id) {
        return None;
    }
    directories(root)
        .iter()
        .find_map(|directory| entry(directory, id))
}

/// Every directory with one directory per container.
fn directories(root: &Path) -> Vec<Directory> {
    let mut directories = Vec::new();
    for (path, namespaced) in ROOTS {
        let Some(directory) = usable(Directory::open(&root.join(path))) else {
            continue;
        };
        if *namespaced {
            let namespaces = names(&directory, MAX_NAMESPACES);
            let inner = namespaces
                .iter()
                .filter_map(|namespace| usable(directory.directory(namespace.as_os_str())));
            directories.extend(inner);
        } else {
            directories.push(directory);
        }
    }
    directories
}

/// What is to be announced of a container: nothing if its annotations do not select it, or its bundle is not there.
pub(super) fn announcement(found: &Found) -> Option<Box<Announcement>> {
    let bundle = usable(Directory::open(&found.bundle))?;
    let text = usable(bundle.read(Path::new("config.json"), MAX_FILE))?;
    let written = serde_json::from_slice::<Config>(&text).ok()?.annotations?;
    let id = &found.id;
    let announcement = Announcement::of_container(id.clone(), found.pid, &written, &found.bundle);
    if announcement.is_none()
        && let Some(reason) = Announcement::unread_wish(id, &written, &found.bundle)
    {
        tracing::warn!(container = id, reason, "a container is not observed");
    }
    announcement.map(Box::new)
}

fn in_directory(directory: &Directory, found: &mut Vec<Found>) {
    for name in names(directory, MAX_CONTAINERS) {
        let id = name.to_str().filter(|id| is_container_id(id));
        found.extend(id.and_then(|id| entry(directory, id)));
    }
}

fn entry(directory: &Directory, id: &str) -> Option<Found> {
    let entry = usable(directory.directory(OsStr::new(id)))?;
    runc(&entry, id).or_else(|| crun(&entry, id))
}

fn runc(directory: &Directory, id: &str) -> Option<Found> {
    let text = usable(directory.read(Path::new("state.json"), MAX_FILE))?;
    let state: RuncState = serde_json::from_slice(&text).ok()?;
    // runc appends its own label to those that it makes of the annotations, which may have the same name.
    let mut labels = state.config.labels.iter().rev();
    let bundle = labels.find_map(|label| label.strip_prefix("bundle="))?;
    (state.id == id).then(|| Found {
        id: state.id,
        pid: state.init_process_pid,
        start: state.init_process_start,
        bundle: bundle.into(),
    })
}

fn crun(directory: &Directory, id: &str) -> Option<Found> {
    let text = usable(directory.read(Path::new("status"), MAX_FILE))?;
    let status: CrunStatus = serde_json::from_slice(&text).ok()?;
    Some(Found {
        id: id.to_owned(),
        pid: status.pid,
        start: status.process_start_time,
        bundle: status.bundle,
    })
}

fn names(directory: &Directory, limit: usize) -> Vec<PathBuf> {
    usable(directory.names(limit)).map_or_else(Vec::new, |(names, more)| {
        if more {
            tracing::warn!(
                directory = %directory.path().display(), limit,
                "a runtime's directory has more entries than are looked at"
            );
        }
        names
    })
}

/// What is not there is no news: nobody has every runtime.
fn usable<T>(result: Result<T, TrustError>) -> Option<T> {
    result
        .inspect_err(|error| {
            if !error.is_absent() {
                tracing::debug!(%error, "not looked at for running containers");
            }
        })
        .ok()
}

#[cfg(test)]
mod tests;
