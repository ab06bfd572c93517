//! Which process has which probes, and when it is looked at again.

use super::{
    Event, Launching,
    detacher::Detacher,
    files::{self, Candidate, FileKey},
    functions::Library,
    image::{self, Image, Plan, Role},
    needed::Needed,
    status::{NotCovered, ProcessStatus, Status, TlsStats},
};
use crate::instrument::TlsPrograms;
use hashlink::LruCache;
use pilotfish_abi::tls_calls;
use pilotfish_symbols::SymbolError;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io,
    os::fd::{AsFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// When a process is looked at after it executed a program, each time after the one before: its libraries come one after the
/// other. One that has forked may be about to execute a program and is spared the first look.
const LOOKS: [Duration; 7] = [
    Duration::ZERO,
    Duration::from_millis(3),
    Duration::from_millis(12),
    Duration::from_millis(50),
    Duration::from_millis(200),
    Duration::from_secs(1),
    Duration::from_secs(5),
];

/// Shortest time between two looks because of encrypted flows.
const AGAIN: Duration = Duration::from_millis(100);

/// Processes that are followed.
const MAX_PROCESSES: usize = 16_384;

/// Files whose examination is remembered.
const MAX_FILES: usize = 512;

/// Probed files of one process.
const MAX_PROBED: usize = 16;

/// The state of one process.
#[derive(Default)]
struct Process {
    /// Looks since it appeared or executed a program.
    looks: usize,
    /// When it is looked at next.
    due: Option<Instant>,
    /// When it was looked at last.
    looked: Option<Instant>,
    /// Links by file.
    probed: BTreeMap<FileKey, Vec<OwnedFd>>,
    /// Links from before it executed a program: they go on if that has the same files, and are taken away with the last
    /// look if not.
    former: BTreeMap<FileKey, Vec<OwnedFd>>,
    /// Files that are settled without probes.
    settled: BTreeSet<(String, Option<FileKey>)>,
    /// The libraries that its executable needs have been looked for.
    foreseen: bool,
    /// Bits of [`tls_calls`].
    calls: u32,
    status: ProcessStatus,
}

/// Attaches and detaches.
pub(super) struct Attacher {
    programs: TlsPrograms,
    processes: BTreeMap<i32, Process>,
    due: BTreeSet<(Instant, i32)>,
    images: LruCache<FileKey, Image>,
    needed: Needed,
    detacher: Detacher,
    stats: Arc<TlsStats>,
    status: Status,
}

impl Attacher {
    pub(super) fn new(
        programs: TlsPrograms,
        detacher: Detacher,
        stats: Arc<TlsStats>,
        found: Status,
    ) -> Self {
        Self {
            programs,
            processes: BTreeMap::new(),
            due: BTreeSet::new(),
            images: LruCache::new(MAX_FILES),
            needed: Needed::default(),
            detacher,
            stats,
            status: found,
        }
    }

    /// When there is something to look at though nothing happens.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }

    pub(super) fn on_event(&mut self, event: Event, now: Instant) {
        match event {
            Event::Added(pid) => self.begin(pid, 1, now),
            Event::Executed(pid) => self.begin(pid, 0, now),
            Event::Removed(pid) => self.forget(pid),
            Event::Encrypted(pid) => self.look_again(pid, now),
        }
    }

    /// Attaches to what a process that waits to execute a program will need, so that its first request is seen.
    pub(super) fn prepare(&mut self, launching: &Launching) {
        let Launching { pid, program } = launching;
        let (Ok(pidfd), Ok((file, key))) = (open_pidfd(*pid), files::open(*pid, program)) else {
            return;
        };
        let mut process = Process::default();
        let executable = Candidate {
            path: program.clone(),
            role: Role::Executable,
            deleted: false,
        };
        let opened = file.try_clone().map(|file| (file, key));
        self.settle(*pid, &pidfd, &mut process, &executable, opened);
        self.settle_needed(*pid, &pidfd, &mut process, (file, key));
        self.processes.insert(*pid, process);
    }

    /// A new program.
    fn begin(&mut self, pid: i32, looks: usize, now: Instant) {
        let former = self.remove(pid);
        self.status.remove(pid);
        if self.processes.len() >= MAX_PROCESSES {
            count(&self.stats.processes_beyond_bound);
            self.detacher.detach(former.into_values().flatten());
            return;
        }
        let process = Process {
            looks,
            former,
            ..Process::default()
        };
        self.processes.insert(pid, process);
        self.plan_look(pid, now);
    }

    /// Plans the next of the young process's looks.
    fn plan_look(&mut self, pid: i32, now: Instant) {
        let Some(process) = self.processes.get_mut(&pid) else {
            return;
        };
        if let Some(wait) = LOOKS.get(process.looks) {
            process.looks += 1;
            plan(&mut self.due, process, pid, now + *wait);
        } else if !process.former.is_empty() {
            let former = std::mem::take(&mut process.former);
            self.detacher.detach(former.into_values().flatten());
        }
    }

    fn look_again(&mut self, pid: i32, now: Instant) {
        let Some(process) = self.processes.get_mut(&pid) else {
            return;
        };
        let earliest = process.looked.map_or(now, |looked| looked + AGAIN);
        plan(&mut self.due, process, pid, earliest.max(now));
    }

    fn forget(&mut self, pid: i32) {
        let links = self.remove(pid);
        if !links.is_empty() {
            self.detacher.detach(links.into_values().flatten());
        }
        self.status.remove(pid);
    }

    /// Drops what is known of a process, and gives its links.
    fn remove(&mut self, pid: i32) -> BTreeMap<FileKey, Vec<OwnedFd>> {
        let Some(mut process) = self.processes.remove(&pid) else {
            return BTreeMap::new();
        };
        if let Some(due) = process.due {
            self.due.remove(&(due, pid));
        }
        process.probed.append(&mut process.former);
        process.probed
    }

    /// Looks at the processes whose time has come.
    pub(super) fn look_at_due(&mut self, now: Instant) {
        while let Some(&(due, pid)) = self.due.first()
            && due <= now
        {
            self.due.pop_first();
            let Some(mut process) = self.processes.remove(&pid) else {
                continue;
            };
            process.due = None;
            process.looked = Some(now);
            count(&self.stats.looks);
            self.look(pid, &mut process);
            self.processes.insert(pid, process);
            self.plan_look(pid, now);
        }
    }

    fn look(&mut self, pid: i32, process: &mut Process) {
        // A pidfd first: what is read afterwards is of the process that it stands for, if that still lives at the end.
        let Ok(pidfd) = open_pidfd(pid) else {
            return;
        };
        let Ok(candidates) = files::candidates(pid) else {
            return;
        };
        let before = process.status.clone();
        for candidate in &candidates {
            let opened = match candidate.role {
                Role::Executable => files::open_executable(pid),
                _ => files::open(pid, &candidate.path),
            };
            self.settle(pid, &pidfd, process, candidate, opened);
        }
        // What the dynamic linker will map is probed before it does.
        if !process.foreseen
            && let Ok(executable) = files::open_executable(pid)
        {
            process.foreseen = true;
            self.settle_needed(pid, &pidfd, process, executable);
        }
        if process.status != before {
            self.status.set(pid, process.status.clone());
        }
    }

    fn settle_needed(
        &mut self,
        pid: i32,
        pidfd: &OwnedFd,
        process: &mut Process,
        executable: (File, FileKey),
    ) {
        for library in self.needed.of(pid, executable) {
            let opened = files::open(pid, &library.path);
            self.settle(pid, pidfd, process, &library, opened);
        }
    }

    /// Attaches to a file of a process, or finds out why not; once for each file.
    fn settle(
        &mut self,
        pid: i32,
        pidfd: &OwnedFd,
        process: &mut Process,
        candidate: &Candidate,
        opened: io::Result<(File, FileKey)>,
    ) {
        let path = &candidate.path;
        if candidate.deleted {
            let probed = &process.status.probed;
            if probed.iter().any(|(known, _)| known == path) {
                return;
            }
            let reason = "the file was replaced while the process ran; restart the process to have it covered";
            self.not_covered(process, (path.clone(), None), path, reason);
            return;
        }
        let (file, key) = match opened {
            Ok(opened) => opened,
            Err(_) if is_ending(pid) => return,
            Err(error) => {
                self.not_covered(
                    process,
                    (path.clone(), None),
                    path,
                    &format!("it cannot be opened: {error}"),
                );
                return;
            }
        };
        let settled = (path.clone(), Some(key));
        if process.probed.contains_key(&key) || process.settled.contains(&settled) {
            return;
        }
        match self.image(&file, key, candidate.role) {
            Image::Unrelated => {
                process.settled.insert(settled);
            }
            Image::NotCovered(reason) => self.not_covered(process, settled, path, reason),
            Image::Covered(plan) => match self.attach(pid, pidfd, process, (&file, key), &plan) {
                Ok(()) => {
                    let library = plan.library.map_or("", Library::name);
                    tracing::info!(pid, path, library, "TLS is seen in plaintext");
                    process.status.probed.push((path.clone(), library));
                    process.status.stepped += plan.stepped;
                }
                Err(_) if is_ending(pid) => {}
                Err(error) => {
                    count(&self.stats.failures);
                    let reason = format!("the kernel refused the probes: {error}");
                    self.not_covered(process, settled, path, &reason);
                }
            },
        }
    }

    /// What a file has, examined once.
    fn image(&mut self, file: &File, key: FileKey, role: Role) -> Image {
        if let Some(known) = self.images.get(&key) {
            return known.clone();
        }
        let examined = file
            .try_clone()
            .map_err(SymbolError::from)
            .and_then(|file| image::examine(file, role));
        let image = examined.unwrap_or_else(|error| {
            tracing::debug!(%error, "a file could not be searched for TLS functions");
            match role {
                // An executable may be anything.
                Role::Executable => Image::Unrelated,
                _ => Image::NotCovered("its symbol table cannot be read"),
            }
        });
        self.images.insert(key, image.clone());
        image
    }

    fn attach(
        &self,
        pid: i32,
        pidfd: &OwnedFd,
        process: &mut Process,
        (file, key): (&File, FileKey),
        plan: &Plan,
    ) -> io::Result<()> {
        if process.probed.len() >= MAX_PROBED {
            return Err(io::Error::other("the process has too many TLS libraries"));
        }
        // The kernel looks for a call at socket operations from now on; before there is any, it finds none.
        let calls = process.calls
            | match plan.library {
                Some(Library::Go) => tls_calls::GOROUTINE,
                Some(Library::Rustls) => tls_calls::RECORDS,
                _ => tls_calls::THREAD,
            };
        self.programs.mark(pidfd.as_fd(), calls)?;
        process.calls = calls;
        if let Some(links) = process.former.remove(&key) {
            process.probed.insert(key, links);
            return Ok(());
        }
        for (_, probes) in &plan.probes {
            files::load(file, probes.iter().map(|probe| probe.offset))?;
        }
        let links = plan
            .probes
            .iter()
            .filter(|(_, probes)| !probes.is_empty())
            .map(|(program, probes)| self.programs.link(*program, file.as_fd(), probes, pid))
            .collect::<io::Result<Vec<_>>>()?;
        process.probed.insert(key, links);
        count(&self.stats.attached);
        Ok(())
    }

    fn not_covered(
        &self,
        process: &mut Process,
        settled: (String, Option<FileKey>),
        path: &str,
        reason: &str,
    ) {
        if !process.settled.insert(settled) {
            return;
        }
        count(&self.stats.not_covered);
        tracing::debug!(path, reason, "TLS is not seen in plaintext");
        process.status.not_covered.push(NotCovered {
            path: path.to_owned(),
            reason: reason.to_owned(),
        });
    }
}

/// What is still attached goes the way of all links.
impl Drop for Attacher {
    fn drop(&mut self) {
        let processes = std::mem::take(&mut self.processes);
        let links = processes.into_values().flat_map(|process| {
            process
                .probed
                .into_values()
                .chain(process.former.into_values())
        });
        self.detacher.detach(links.flatten());
    }
}

/// Moves a process's next look to a time, unless it is earlier already.
fn plan(due: &mut BTreeSet<(Instant, i32)>, process: &mut Process, pid: i32, at: Instant) {
    match process.due {
        Some(planned) if planned <= at => return,
        Some(planned) => {
            due.remove(&(planned, pid));
        }
        None => {}
    }
    process.due = Some(at);
    due.insert((at, pid));
}

fn open_pidfd(pid: i32) -> io::Result<OwnedFd> {
    let pid = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidInput)?;
    Ok(pidfd_open(pid, PidfdFlags::empty())?)
}

/// True of a process that is on its way out: its memory goes first, its root and whatever else afterwards.
fn is_ending(pid: i32) -> bool {
    fs::read_link(format!("/proc/{pid}/exe")).is_err()
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
