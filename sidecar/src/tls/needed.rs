//! TLS libraries that an executable will have mapped when it runs: those that it needs (`DT_NEEDED`), and those that these
//! need.
//!
//! They are looked for in the usual directories only. What is elsewhere, or loaded by the program itself, is found among the
//! mapped files, a little later.

use super::{
    files::{self, Candidate, FileKey},
    image::role_of_library,
};
use hashlink::LruCache;
use pilotfish_symbols::Binary;
use std::{
    collections::{BTreeSet, VecDeque},
    fs::File,
};

/// Where dynamic linkers look, in their order (ld.so(8), and the multiarch directories of Debian).
const DIRECTORIES: &[&str] = &[
    #[cfg(target_arch = "x86_64")]
    "/lib/x86_64-linux-gnu",
    #[cfg(target_arch = "x86_64")]
    "/usr/lib/x86_64-linux-gnu",
    #[cfg(target_arch = "aarch64")]
    "/lib/aarch64-linux-gnu",
    #[cfg(target_arch = "aarch64")]
    "/usr/lib/aarch64-linux-gnu",
    "/lib64",
    "/usr/lib64",
    "/usr/local/lib",
    "/lib",
    "/usr/lib",
];

/// Libraries that are looked at for one executable.
const MAX_LIBRARIES: usize = 96;

/// Files whose needs are remembered.
const MAX_FILES: usize = 1024;

/// Remembers what files need.
pub(super) struct Needed(LruCache<FileKey, Vec<String>>);

impl Default for Needed {
    fn default() -> Self {
        Self(LruCache::new(MAX_FILES))
    }
}

impl Needed {
    /// The TLS libraries that an executable needs, by the paths where a process finds them.
    pub(super) fn of(&mut self, pid: i32, (file, key): (File, FileKey)) -> Vec<Candidate> {
        let mut waiting = VecDeque::from(self.of_file(file, key));
        let mut known = BTreeSet::new();
        let mut found = Vec::new();
        while let Some(name) = waiting.pop_front()
            && known.len() < MAX_LIBRARIES
        {
            if !is_plain(&name) || !known.insert(name.clone()) {
                continue;
            }
            let Some((path, file, key)) = find(pid, &name) else {
                continue;
            };
            if let Some(role) = role_of_library(&name) {
                found.push(Candidate {
                    path,
                    role,
                    mapped: false,
                    deleted: false,
                });
            } else {
                waiting.extend(self.of_file(file, key));
            }
        }
        found
    }

    fn of_file(&mut self, file: File, key: FileKey) -> Vec<String> {
        if let Some(known) = self.0.get(&key) {
            return known.clone();
        }
        let needed = Binary::open(file)
            .and_then(|binary| binary.needed())
            .unwrap_or_default();
        self.0.insert(key, needed.clone());
        needed
    }
}

/// Whether it is a name to look for, and not a path.
fn is_plain(name: &str) -> bool {
    !name.is_empty() && !name.contains('/') && name != ".."
}

fn find(pid: i32, name: &str) -> Option<(String, File, FileKey)> {
    DIRECTORIES.iter().find_map(|directory| {
        let path = format!("{directory}/{name}");
        let (file, key) = files::open(pid, &path).ok()?;
        Some((path, file, key))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_no_paths() {
        assert!(is_plain("libssl.so.3"));
        for name in ["", "..", "/etc/libssl.so", "../libssl.so"] {
            assert!(!is_plain(name), "{name}");
        }
    }

    /// This test's own executable needs the C library and no TLS.
    #[test]
    fn the_same_answer_comes_from_memory() {
        let own = std::process::id().cast_signed();
        let mut needed = Needed::default();
        let mut of_own = || needed.of(own, files::open_executable(own).unwrap());
        let first = of_own();
        assert_eq!(of_own(), first);
        assert!(needed.0.len() > 1, "an executable and its libraries");
        assert!(first.is_empty(), "{first:?}");
    }
}
