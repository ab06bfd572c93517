//! What is done about one process: its files are examined, probed, or told not to be covered.

use super::{
    detacher::Detacher,
    exclusions::Exclusions,
    files::{self, Candidate, FileKey},
    functions::Library,
    image::{self, Image, Plan, Role},
    needed::Needed,
    process::{Probed, Process},
    status::{NotCovered, TlsStats},
};
use crate::instrument::TlsPrograms;
use hashlink::LruCache;
use pilotfish_abi::tls_calls;
use pilotfish_symbols::SymbolError;
use std::{
    fs::File,
    io, mem,
    os::fd::{AsFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// Files whose examination is remembered.
const MAX_FILES: usize = 512;

/// Probed files of one process.
const MAX_PROBED: usize = 16;

/// Examines files and makes probes in them.
pub(super) struct Prober {
    programs: TlsPrograms,
    exclusions: Exclusions,
    images: LruCache<(FileKey, Role), Image>,
    needed: Needed,
    pub(super) detacher: Detacher,
    stats: Arc<TlsStats>,
}

impl Prober {
    pub(super) fn new(programs: TlsPrograms, exclusions: Exclusions, stats: Arc<TlsStats>) -> Self {
        Self {
            programs,
            exclusions,
            images: LruCache::new(MAX_FILES),
            needed: Needed::default(),
            detacher: Detacher::default(),
            stats,
        }
    }

    /// Looks at a process that runs.
    pub(super) fn look(&mut self, process: &mut Process) {
        // What is read is of the process that the descriptor stands for, if that still lives when probes are made.
        let Ok(executable) = files::executable(process.pid) else {
            return;
        };
        let opened = files::open_executable(process.pid);
        process.switched_off = self.is_switched_off(process.slot);
        match self.exclusion(process.slot, &executable.path, opened.as_ref().ok()) {
            Some(reason) => self.exclude(process, &executable.path, reason),
            None => self.search(process, &executable, opened),
        }
    }

    /// Attaches to what a process will need when it executes this program.
    pub(super) fn foresee(
        &mut self,
        process: &mut Process,
        program: &str,
        (file, key): (File, FileKey),
    ) {
        let executable = Candidate {
            path: program.to_owned(),
            role: Role::Executable,
            mapped: false,
            deleted: false,
        };
        let again = file.try_clone().map(|file| (file, key));
        let opened = (file, key);
        if self
            .exclusion(process.slot, program, Some(&opened))
            .is_none()
        {
            self.settle(process, &executable, again);
            self.settle_needed(process, opened);
        }
    }

    /// Whether nothing must be probed in a container.
    pub(super) fn is_switched_off(&self, slot: u32) -> bool {
        self.exclusions.container(slot).is_some()
    }

    /// Why a process must not be probed, if so.
    fn exclusion(
        &mut self,
        slot: u32,
        path: &str,
        executable: Option<&(File, FileKey)>,
    ) -> Option<&'static str> {
        let exclusions = &self.exclusions;
        let said = exclusions.container(slot);
        said.or_else(|| exclusions.executable(path)).or_else(|| {
            let (file, key) = executable?;
            match self.image(file, *key, Role::Executable) {
                Image::Excluded(reason) => Some(reason),
                _ => None,
            }
        })
    }

    /// Takes every probe of a process away.
    fn exclude(&self, process: &mut Process, path: &str, reason: &'static str) {
        self.detacher.detach(process.take_links().into_iter());
        if !process.excluded {
            // Of this program or of one before it, if there was any.
            let _ = self.programs.unmark(process.pidfd());
            process.calls = 0;
        }
        process.excluded = true;
        process.start_over();
        process.status.not_covered.push(NotCovered {
            path: path.to_owned(),
            reason: reason.to_owned(),
        });
    }

    /// Attaches to what a process has mapped, and to what it will map.
    fn search(
        &mut self,
        process: &mut Process,
        executable: &Candidate,
        opened: io::Result<(File, FileKey)>,
    ) {
        if mem::take(&mut process.excluded) {
            process.start_over();
        }
        process.status.others = 0;
        self.settle(process, executable, opened);
        match files::libraries(process.pid) {
            Ok(libraries) => {
                process.status.others += libraries.others;
                for library in &libraries.found {
                    let opened = files::open(process.pid, &library.path);
                    self.settle(process, library, opened);
                }
            }
            Err(_) if process.is_ending() => return,
            Err(error) => {
                let reason = format!("its mapped files cannot be listed: {error}");
                self.not_covered(process, &executable.path, None, &reason);
            }
        }
        // What the dynamic linker will map is probed before it does.
        if !process.foreseen
            && let Ok(executable) = files::open_executable(process.pid)
        {
            process.foreseen = true;
            self.settle_needed(process, executable);
        }
    }

    fn settle_needed(&mut self, process: &mut Process, executable: (File, FileKey)) {
        for library in self.needed.of(process.pid, executable) {
            let opened = files::open(process.pid, &library.path);
            self.settle(process, &library, opened);
        }
    }

    /// Attaches to a file of a process, or finds out why not; once for each file.
    fn settle(
        &mut self,
        process: &mut Process,
        candidate: &Candidate,
        opened: io::Result<(File, FileKey)>,
    ) {
        let path = &candidate.path;
        if candidate.deleted {
            if !process.probed.values().any(|probed| probed.path == *path) {
                let reason = "the file was replaced while the process ran; restart the process to have it covered";
                self.not_covered(process, path, None, reason);
            }
            return;
        }
        let (file, key) = match opened {
            Ok(opened) => opened,
            Err(_) if process.is_ending() => return,
            Err(error) => {
                let reason = format!("it cannot be opened: {error}");
                self.not_covered(process, path, None, &reason);
                return;
            }
        };
        if process.is_settled(candidate, key) {
            return;
        }
        if !process.has_room() {
            process.status.others += 1;
            return;
        }
        match self.image(&file, key, candidate.role) {
            Image::Unrelated => {
                process.settle(path, Some(key));
            }
            Image::NotCovered(reason) | Image::Excluded(reason) => {
                self.not_covered(process, path, Some(key), reason);
            }
            Image::Unreadable(reason) => self.not_covered(process, path, Some(key), &reason),
            Image::Covered(plan) => self.cover(process, candidate, (&file, key), &plan),
        }
    }

    fn cover(
        &self,
        process: &mut Process,
        candidate: &Candidate,
        (file, key): (&File, FileKey),
        plan: &Plan,
    ) {
        let (pid, path) = (process.pid, &candidate.path);
        match self.attach(process, (file, key), plan) {
            Ok(links) => {
                let library = plan.library.map_or("", Library::name);
                tracing::info!(pid, path, library, "probing a TLS library");
                let probed = Probed {
                    path: path.clone(),
                    library,
                    stepped: plan.stepped,
                    links,
                    mapped: false,
                };
                process.probed.insert(key, probed);
                process.is_settled(candidate, key);
            }
            Err(_) if process.is_ending() => {}
            Err(error) => {
                count(&self.stats.failures);
                let reason = format!("the kernel refused the probes: {error}");
                self.not_covered(process, path, Some(key), &reason);
            }
        }
    }

    /// What a file has, examined once.
    fn image(&mut self, file: &File, key: FileKey, role: Role) -> Image {
        if let Some(known) = self.images.get(&(key, role)) {
            return known.clone();
        }
        let examined = file
            .try_clone()
            .map_err(SymbolError::from)
            .and_then(|file| image::examine(file, role));
        let image = match examined {
            Ok(image) => image,
            // It may be readable the next time.
            Err(SymbolError::Read(error)) => {
                return Image::Unreadable(format!("it cannot be read: {error}"));
            }
            // An executable may be anything.
            Err(SymbolError::NotElf | SymbolError::Unsupported(_)) if role == Role::Executable => {
                Image::Unrelated
            }
            Err(error) => Image::Unreadable(format!("its symbol table cannot be read: {error}")),
        };
        self.images.insert((key, role), image.clone());
        image
    }

    fn attach(
        &self,
        process: &mut Process,
        (file, key): (&File, FileKey),
        plan: &Plan,
    ) -> io::Result<Vec<OwnedFd>> {
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
        self.programs.mark(process.pidfd(), calls)?;
        process.calls = calls;
        if let Some(links) = process.former.remove(&key) {
            let mut sees = links
                .iter()
                .map(|link| self.programs.sees(link.as_fd(), process.pid));
            if sees.all(|sees| sees) {
                return Ok(links);
            }
            // Before new ones are made: what two of them see counts twice. They see nothing from the moment in which
            // their taking away begins.
            self.detacher.detach(links.into_iter());
        }
        for (_, probes) in &plan.probes {
            files::load(file, probes.iter().map(|probe| probe.offset))?;
        }
        let links = plan
            .probes
            .iter()
            .filter(|(_, probes)| !probes.is_empty())
            .map(|(program, probes)| {
                self.programs
                    .link(*program, file.as_fd(), probes, process.pid)
            })
            .collect::<io::Result<Vec<_>>>()?;
        if process.has_ended() {
            // Its id may be another process's by now.
            self.detacher.detach(links.into_iter());
            return Err(io::Error::other("the process has ended"));
        }
        count(&self.stats.attached);
        Ok(links)
    }

    fn not_covered(&self, process: &mut Process, path: &str, key: Option<FileKey>, reason: &str) {
        if process.not_covered(path, key, reason) {
            count(&self.stats.not_covered);
            tracing::info!(path, reason, "TLS is not seen in plaintext");
        }
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
