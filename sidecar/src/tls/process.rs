//! What is known of one process.

use super::{
    files::{Candidate, FileKey},
    status::{NotCovered, ProcessStatus},
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, pidfd_open},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io, mem,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::{Duration, Instant},
};

/// Shortest time between two looks because of encrypted flows.
const AGAIN: Duration = Duration::from_millis(100);

/// Longest time between two such looks, after many that found nothing new.
const AGAIN_AT_LAST: Duration = Duration::from_secs(30);

/// Files of one process that are settled without probes.
const MAX_SETTLED: usize = 64;

/// A probed file.
pub(super) struct Probed {
    pub path: String,
    /// Name of its library.
    pub library: &'static str,
    /// Probes whose instruction has to be single-stepped.
    pub stepped: usize,
    pub links: Vec<OwnedFd>,
    /// Whether the process was seen to have it mapped.
    pub mapped: bool,
}

/// A process that is followed.
pub(super) struct Process {
    pub pid: i32,
    /// Stands for this process and no later one of its id.
    pidfd: OwnedFd,
    /// Slot of its container.
    pub slot: u32,
    /// Looks since it appeared or executed a program.
    pub looks: usize,
    /// When it is looked at next.
    pub due: Option<Instant>,
    /// When it was looked at last.
    looked: Option<Instant>,
    /// Shortest time from then to a look because of an encrypted flow.
    pause: Duration,
    pub probed: BTreeMap<FileKey, Probed>,
    /// Links from before it executed a program: they go on if that has the same files, and are taken away with the last
    /// look if not.
    pub former: BTreeMap<FileKey, Vec<OwnedFd>>,
    /// Files that are settled without probes.
    settled: BTreeSet<(String, Option<FileKey>)>,
    /// The libraries that its executable needs have been looked for.
    pub foreseen: bool,
    /// Nothing of it must be probed.
    pub excluded: bool,
    /// Nothing in its container must be, as it was when this was looked at last.
    pub switched_off: bool,
    /// Bits of [`pilotfish_abi::tls_calls`].
    pub calls: u32,
    pub status: ProcessStatus,
}

impl Process {
    /// A process of which nothing is known yet.
    pub(super) fn open(pid: i32, slot: u32, looks: usize) -> io::Result<Self> {
        let of_pid = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(Self {
            pid,
            pidfd: pidfd_open(of_pid, PidfdFlags::empty())?,
            slot,
            looks,
            due: None,
            looked: None,
            pause: AGAIN,
            probed: BTreeMap::new(),
            former: BTreeMap::new(),
            settled: BTreeSet::new(),
            foreseen: false,
            excluded: false,
            switched_off: false,
            calls: 0,
            status: ProcessStatus::default(),
        })
    }

    pub(super) fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// True once all of its threads have ended.
    pub(super) fn has_ended(&self) -> bool {
        let mut polled = [PollFd::new(&self.pidfd, PollFlags::IN)];
        poll(&mut polled, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
    }

    /// True of a process that is on its way out: its memory goes first, its root and whatever else afterwards.
    pub(super) fn is_ending(&self) -> bool {
        fs::read_link(format!("/proc/{}/exe", self.pid)).is_err() || self.has_ended()
    }

    /// The earliest time for a look because of an encrypted flow.
    pub(super) fn earliest(&self, now: Instant) -> Instant {
        self.looked
            .map_or(now, |looked| (looked + self.pause).max(now))
    }

    /// It was looked at. Encrypted flows of a process whose TLS is not seen never end, and should not cost a look each.
    pub(super) fn was_looked_at(&mut self, now: Instant, found_something: bool) {
        self.looked = Some(now);
        self.pause = if found_something {
            AGAIN
        } else {
            (self.pause * 2).min(AGAIN_AT_LAST)
        };
    }

    /// Every link that it has, taken out.
    pub(super) fn take_links(&mut self) -> Vec<OwnedFd> {
        let probed = mem::take(&mut self.probed).into_values();
        let former = mem::take(&mut self.former).into_values();
        probed
            .flat_map(|probed| probed.links)
            .chain(former.flatten())
            .collect()
    }

    /// Links by file, for the program that it executes now.
    pub(super) fn into_former(self) -> BTreeMap<FileKey, Vec<OwnedFd>> {
        let mut former = self.former;
        let probed = self.probed.into_iter();
        former.extend(probed.map(|(key, probed)| (key, probed.links)));
        former
    }

    /// Whether nothing is to be done about a file any more.
    pub(super) fn is_settled(&mut self, candidate: &Candidate, key: FileKey) -> bool {
        if let Some(probed) = self.probed.get_mut(&key) {
            if candidate.mapped && !probed.mapped {
                probed.mapped = true;
                self.status
                    .probed
                    .push((candidate.path.clone(), probed.library));
                self.status.stepped += probed.stepped;
            }
            return true;
        }
        self.settled.contains(&(candidate.path.clone(), Some(key)))
    }

    /// Whether there is room for one more settled file.
    pub(super) fn has_room(&self) -> bool {
        self.settled.len() < MAX_SETTLED
    }

    /// Settles a file; false if it is settled already, or there is no room.
    pub(super) fn settle(&mut self, path: &str, key: Option<FileKey>) -> bool {
        let file = (path.to_owned(), key);
        if self.settled.contains(&file) {
            return false;
        }
        let has_room = self.has_room();
        if has_room {
            self.settled.insert(file);
        } else {
            self.status.others += 1;
        }
        has_room
    }

    /// Settles a file with TLS that is not seen; false as [`Self::settle`].
    pub(super) fn not_covered(&mut self, path: &str, key: Option<FileKey>, reason: &str) -> bool {
        let is_new = self.settle(path, key);
        if is_new {
            self.status.not_covered.push(NotCovered {
                path: path.to_owned(),
                reason: reason.to_owned(),
            });
        }
        is_new
    }

    /// Forgets what was found, because other rules hold now.
    pub(super) fn start_over(&mut self) {
        self.settled.clear();
        self.foreseen = false;
        self.pause = AGAIN;
        self.status = ProcessStatus::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::{files, functions::Library, image::Role};

    fn own() -> Process {
        Process::open(std::process::id().cast_signed(), 1, 0).unwrap()
    }

    #[test]
    fn what_is_kept_of_a_process_is_bounded() {
        let mut process = own();
        for number in 0..1000 {
            let path = format!("/lib/libssl-{number}.so");
            assert_eq!(
                process.not_covered(&path, None, "no library"),
                number < MAX_SETTLED
            );
        }
        assert!(!process.not_covered("/lib/libssl-0.so", None, "no library"));
        assert_eq!(process.settled.len(), MAX_SETTLED);
        assert_eq!(process.status.not_covered.len(), MAX_SETTLED);
        assert_eq!(process.status.others, 1000 - MAX_SETTLED);
    }

    /// A library that is expected, and then is not the one that the process loads, is not told to be seen.
    #[test]
    fn only_what_is_mapped_is_told() {
        let mut process = own();
        let (_, key) = files::open_executable(process.pid).unwrap();
        let mut library = Candidate {
            path: "/lib/libssl.so.3".to_owned(),
            role: Role::Library(Library::OpenSsl),
            mapped: false,
            deleted: false,
        };
        assert!(!process.is_settled(&library, key));
        let probed = Probed {
            path: library.path.clone(),
            library: "openssl",
            stepped: 2,
            links: Vec::new(),
            mapped: false,
        };
        process.probed.insert(key, probed);
        assert!(process.is_settled(&library, key));
        assert_eq!(process.status, ProcessStatus::default());
        library.mapped = true;
        for _ in 0..2 {
            assert!(process.is_settled(&library, key));
            assert_eq!(process.status.probed.len(), 1);
            assert_eq!(process.status.stepped, 2);
        }
    }

    #[test]
    fn looks_that_find_nothing_become_rare() {
        let mut process = own();
        let mut now = Instant::now();
        let mut pauses = Vec::new();
        for _ in 0..12 {
            process.was_looked_at(now, false);
            pauses.push(process.earliest(now) - now);
            now = process.earliest(now);
        }
        assert!(pauses.is_sorted(), "{pauses:?}");
        assert_eq!(pauses.first(), Some(&(AGAIN * 2)));
        assert_eq!(pauses.last(), Some(&AGAIN_AT_LAST));
        process.was_looked_at(now, true);
        assert_eq!(process.earliest(now), now + AGAIN);
    }

    #[test]
    fn an_ended_process_is_known_by_its_descriptor() {
        let mut child = std::process::Command::new("sleep")
            .arg("1000")
            .spawn()
            .unwrap();
        let process = Process::open(child.id().cast_signed(), 1, 0).unwrap();
        assert!(!process.has_ended() && !process.is_ending());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(process.has_ended() && process.is_ending());
    }
}
