//! What a later agent needs to know of the containers that this one observes: one file each, in a directory of
//! root's.

use super::activity::Activity;
use super::stats::{NodeStats, count};
use super::trusted::{Directory, TrustError};
use crate::announced::Ledger;
use pilotfish_workload::announcement::{Announcement, MAX_BODY, is_container_id};
use rustix::fs::{AtFlags, Mode, OFlags, openat, renameat, unlinkat};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// Files that are read at start; there are slots for 511 containers.
const MAX_FILES: usize = 4096;

/// Longest file: an announcement and some numbers.
const MAX_FILE: usize = MAX_BODY + 4096;

/// Ending of every file; what is being written ends with [`UNFINISHED`].
const ENDING: &str = ".json";

/// Ending of a file that is not whole yet.
const UNFINISHED: &str = ".tmp";

/// A container as it is remembered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remembered {
    /// What the runtime said.
    pub announcement: Announcement,
    /// Its first process, in our pid namespace.
    pub pid: i32,
    /// Start time of that process, clock ticks since boot.
    pub start: u64,
    /// The boot that both are of (`/proc/sys/kernel/random/boot_id`).
    pub boot: String,
}

/// The directory. Clones are the same one.
#[derive(Clone, Debug)]
pub struct StateDirectory(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    directory: Directory,
    boot: String,
    known: BTreeSet<String>,
    activity: Activity,
    stats: Arc<NodeStats>,
}

impl StateDirectory {
    /// Opens it, made with mode 0700 where it is not there.
    pub fn open(
        path: &Path,
        activity: Activity,
        stats: Arc<NodeStats>,
    ) -> Result<Self, TrustError> {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        Ok(Self(Arc::new(Mutex::new(Inner {
            directory: Directory::create(path)?,
            boot: boot.trim().to_owned(),
            known: BTreeSet::new(),
            activity,
            stats,
        }))))
    }

    /// The containers of a former agent whose first process still runs, `start_of` telling the start time of a
    /// process. Files of others, and those that cannot be understood, are removed; files that are not ours stay.
    pub fn remembered(
        &self,
        start_of: impl Fn(i32) -> Option<u64>,
    ) -> Result<Vec<Remembered>, TrustError> {
        let inner = self.lock();
        let (names, more) = inner.directory.names(MAX_FILES)?;
        if more {
            tracing::warn!(
                directory = %inner.directory.path().display(), bound = MAX_FILES,
                "the state directory has too many files: the others are left unread"
            );
        }
        let alive = names.iter().filter_map(|name| {
            let id = match Name::of(name) {
                Name::Container(id) => id,
                Name::Unfinished => return inner.discard(name),
                Name::Foreign => return None,
            };
            let entry = inner.read(name, id)?;
            let runs = entry.boot == inner.boot && start_of(entry.pid) == Some(entry.start);
            if runs {
                Some(entry)
            } else {
                inner.discard(name)
            }
        });
        Ok(alive.collect())
    }

    /// True for a container that is remembered, or was since start.
    pub fn knows(&self, id: &str) -> bool {
        self.lock().known.contains(id)
    }

    /// Forgets a container that this agent does not observe.
    pub fn forget(&self, id: &str) {
        self.lock().remove(id);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ledger for StateDirectory {
    fn attached(&mut self, announcement: &Announcement, pid: i32, start: u64) {
        let mut inner = self.lock();
        let entry = Remembered {
            announcement: announcement.clone(),
            pid,
            start,
            boot: inner.boot.clone(),
        };
        inner.write(&entry);
        inner.known.insert(entry.announcement.id);
        inner.activity.set_containers(inner.known.len());
    }

    fn removed(&mut self, id: &str) {
        self.lock().remove(id);
    }
}

impl Inner {
    fn read(&self, name: &Path, id: &str) -> Option<Remembered> {
        let text = match self.directory.read(name, MAX_FILE) {
            Ok(text) => text,
            Err(error) => {
                tracing::warn!(%error, "a file of the state directory is not used");
                return match error {
                    TrustError::TooLong { .. } => self.discard(name),
                    _ => None,
                };
            }
        };
        match serde_json::from_slice::<Remembered>(&text) {
            Ok(entry) if entry.announcement.id == id => Some(entry),
            Ok(_) => {
                tracing::warn!(
                    container = id,
                    "a state file named another container and is removed"
                );
                self.discard(name)
            }
            Err(error) => {
                tracing::warn!(container = id, %error, "a state file cannot be understood and is removed");
                self.discard(name)
            }
        }
    }

    /// A container that cannot be written down is observed all the same; only a restart will not know it.
    fn write(&self, entry: &Remembered) {
        let id = &entry.announcement.id;
        if let Err(error) = self.replace(id, entry) {
            count(&self.stats.state_failures);
            tracing::warn!(
                container = id, %error, directory = %self.directory.path().display(),
                "a container was not written to the state directory: a restart of the agent may not find it again"
            );
        }
    }

    /// Writes a file whole or not at all. Nothing is synchronised: after a crash of the machine nobody needs it.
    fn replace(&self, id: &str, entry: &Remembered) -> io::Result<()> {
        let unfinished = format!("{id}{UNFINISHED}");
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(&self.directory, &unfinished, flags, Mode::RUSR | Mode::WUSR)?;
        let written = serde_json::to_vec(entry)
            .map_err(io::Error::from)
            .and_then(|text| File::from(file).write_all(&text))
            .and_then(|()| {
                let name = format!("{id}{ENDING}");
                Ok(renameat(
                    &self.directory,
                    &unfinished,
                    &self.directory,
                    name,
                )?)
            });
        if written.is_err() {
            let _ = unlinkat(&self.directory, &unfinished, AtFlags::empty());
        }
        written
    }

    fn remove(&mut self, id: &str) {
        // The id names a file: nothing else may be removed by it.
        if is_container_id(id) {
            let _: Option<()> = self.discard(Path::new(&format!("{id}{ENDING}")));
        }
        self.known.remove(id);
        self.activity.set_containers(self.known.len());
    }

    /// Removes a file; always `None`, the container that it stood for.
    fn discard<T>(&self, name: &Path) -> Option<T> {
        match unlinkat(&self.directory, name, AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => {}
            Err(error) => {
                count(&self.stats.state_failures);
                tracing::warn!(file = %name.display(), %error, "a state file cannot be removed");
            }
        }
        None
    }
}

/// Whose a file is, by its name.
enum Name<'name> {
    Container(&'name str),
    Unfinished,
    Foreign,
}

impl<'name> Name<'name> {
    fn of(name: &'name Path) -> Self {
        let Some(name) = name.to_str() else {
            return Self::Foreign;
        };
        if let Some(id) = name.strip_suffix(ENDING).filter(|id| is_container_id(id)) {
            return Self::Container(id);
        }
        match name.strip_suffix(UNFINISHED) {
            Some(id) if is_container_id(id) => Self::Unfinished,
            _ => Self::Foreign,
        }
    }
}

#[cfg(test)]
mod tests;
