//! Files that a process has mapped: found in its `/proc/PID/maps`, opened without following where they might lead.

use super::image::{Role, role_of_library};
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{self, Read},
    os::{
        fd::AsRawFd,
        unix::fs::{FileExt, MetadataExt, OpenOptionsExt},
    },
    path::Path,
};

/// Bytes of `/proc/PID/maps` that are read: more than 65,530 mappings (`vm.max_map_count`) with long names.
const MAX_MAPS: u64 = 16 * 1024 * 1024;

/// Smallest page of the architectures that are covered. Bytes.
const PAGE: u64 = 4096;

/// Libraries of one process that are looked at.
const MAX_LIBRARIES: usize = 64;

/// A file that may have TLS functions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    /// As the process sees it; bytes that are no UTF-8 are replaced.
    pub path: String,
    /// Why it is one.
    pub role: Role,
    /// The process has it mapped; otherwise it is expected to.
    pub mapped: bool,
    /// Not there any more: only the process still has it.
    pub deleted: bool,
}

/// Libraries that a process has mapped.
#[derive(Debug, Default)]
pub(super) struct Libraries {
    /// Those that are worth a look, by path.
    pub found: Vec<Candidate>,
    /// How many there are beyond what is looked at.
    pub others: usize,
}

/// Which file it is, and which state of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct FileKey {
    device: u64,
    inode: u64,
    size: u64,
    /// Seconds and nanoseconds of the latest change.
    changed: (i64, i64),
}

impl FileKey {
    fn of(file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "it is not a regular file",
            ));
        }
        Ok(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

/// The executable of a process.
pub(super) fn executable(pid: i32) -> io::Result<Candidate> {
    let path = fs::read_link(format!("/proc/{pid}/exe"))?;
    Ok(Candidate {
        path: path.to_string_lossy().into_owned(),
        role: Role::Executable,
        mapped: true,
        deleted: false,
    })
}

/// The libraries of a process that are worth a look.
pub(super) fn libraries(pid: i32) -> io::Result<Libraries> {
    let mut maps = Vec::new();
    File::open(format!("/proc/{pid}/maps"))?
        .take(MAX_MAPS)
        .read_to_end(&mut maps)?;
    Ok(libraries_in(&maps))
}

/// Libraries with executable code, by `/proc/PID/maps` (`proc_pid_maps(5)`).
fn libraries_in(maps: &[u8]) -> Libraries {
    let mut found = BTreeMap::new();
    for line in maps.split(|byte| *byte == b'\n') {
        // Paths are any bytes but a line break.
        let line = String::from_utf8_lossy(line);
        let mut fields = line.splitn(6, ' ');
        let Some(permissions) = fields.nth(1) else {
            continue;
        };
        let Some(path) = fields.nth(3).map(str::trim_start) else {
            continue;
        };
        if !permissions.contains('x') || !path.starts_with('/') {
            continue;
        }
        let (path, deleted) = match path.strip_suffix(" (deleted)") {
            Some(path) => (path, true),
            None => (path, false),
        };
        let name = path.rsplit('/').next().unwrap_or(path);
        if let Some(role) = role_of_library(name) {
            found.insert(path.to_owned(), (role, deleted));
        }
    }
    let others = found.len().saturating_sub(MAX_LIBRARIES);
    let candidate = |(path, (role, deleted))| Candidate {
        path,
        role,
        mapped: true,
        deleted,
    };
    Libraries {
        found: found
            .into_iter()
            .take(MAX_LIBRARIES)
            .map(candidate)
            .collect(),
        others,
    }
}

/// Opens a process's executable: the file itself, wherever its path leads by now.
pub(super) fn open_executable(pid: i32) -> io::Result<(File, FileKey)> {
    let file = fs::OpenOptions::new()
        .read(true)
        .custom_flags((OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed())
        .open(format!("/proc/{pid}/exe"))?;
    let key = FileKey::of(&file)?;
    Ok((file, key))
}

/// Opens a file by a process's path: links are followed within the process's own root only, and nothing is opened that
/// could do something when it is.
pub(super) fn open(pid: i32, path: &str) -> io::Result<(File, FileKey)> {
    let root = fs::OpenOptions::new()
        .read(true)
        .custom_flags((OFlags::PATH | OFlags::DIRECTORY).bits().cast_signed())
        .open(format!("/proc/{pid}/root"))?;
    let named = openat2(
        &root,
        Path::new(path),
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
    )?;
    // What it is has to be known before it is opened for reading: a FIFO or a device would notice.
    let named = File::from(named);
    FileKey::of(&named)?;
    let file = File::open(format!("/proc/self/fd/{}", named.as_raw_fd()))?;
    let key = FileKey::of(&file)?;
    Ok((file, key))
}

/// Has these places of a file read into memory. The kernel needs the pages to make probes in them, and reads those that are
/// not there in a way that some file systems warn of (ext4, seen with 6.18).
pub(super) fn load(file: &File, offsets: impl Iterator<Item = u64>) -> io::Result<()> {
    let pages: BTreeSet<u64> = offsets.map(|offset| offset & !(PAGE - 1)).collect();
    for page in pages {
        file.read_exact_at(&mut [0], page)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::functions::Library;

    #[test]
    fn libraries_are_found_by_name_once_each() {
        let maps = b"\
55d0-55d1 r-xp 00000000 08:01 1 /usr/bin/libssl-tool
7f00-7f01 r--p 00000000 08:01 2                          /usr/lib/libssl.so.3
7f01-7f02 r-xp 00001000 08:01 2                          /usr/lib/libssl.so.3
7f02-7f03 r-xp 00003000 08:01 2                          /usr/lib/libssl.so.3
7f03-7f04 r-xp 00000000 08:01 3                          /opt/with space/libssl-3a880ef0.so.3 (deleted)
7f04-7f05 r-xp 00000000 08:01 4                          /usr/lib/libgnutls.so.30
7f05-7f06 r-xp 00000000 08:01 5                          /usr/lib/libc.so.6
7f06-7f07 r-xp 00000000 08:01 6                          /usr/lib/libssl3.so
7f06-7f07 r-xp 00000000 08:01 7                          /opt/\xff\xfe/libssl.so.1.1
7f07-7f08 r-xp 00000000 00:00 0                          [vdso]
7f08-7f09 r-xp 00000000 00:00 0
nonsense";
        let Libraries { found, others } = libraries_in(maps);
        let names: Vec<_> = found
            .iter()
            .map(|candidate| (candidate.path.as_str(), candidate.deleted))
            .collect();
        assert_eq!(
            names,
            [
                ("/opt/with space/libssl-3a880ef0.so.3", true),
                ("/opt/\u{fffd}\u{fffd}/libssl.so.1.1", false),
                ("/usr/bin/libssl-tool", false),
                ("/usr/lib/libgnutls.so.30", false),
                ("/usr/lib/libssl.so.3", false),
                ("/usr/lib/libssl3.so", false),
            ]
        );
        assert_eq!(others, 0);
        assert_eq!(found[3].role, Role::Library(Library::GnuTls));
        assert!(matches!(found[5].role, Role::Foreign(_)));
    }

    #[test]
    fn libraries_beyond_the_bound_are_counted() {
        let line = |number| format!("7f00-7f01 r-xp 0 08:01 {number} /lib/libssl-{number}.so\n");
        let maps: String = (0..MAX_LIBRARIES + 36).map(line).collect();
        let Libraries { found, others } = libraries_in(maps.as_bytes());
        assert_eq!((found.len(), others), (MAX_LIBRARIES, 36));
    }

    #[test]
    fn neither_a_fifo_nor_a_link_out_of_the_root_is_opened() {
        let own = std::process::id().cast_signed();
        let directory = tempfile::tempdir().unwrap();
        let fifo = directory.path().join("libssl.so.3");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &fifo,
            rustix::fs::FileType::Fifo,
            Mode::RUSR,
            0,
        )
        .unwrap();
        let error = open(own, fifo.to_str().unwrap()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        let link = directory.path().join("libgnutls.so.30");
        std::os::unix::fs::symlink("/proc/self/exe", &link).unwrap();
        assert!(open(own, link.to_str().unwrap()).is_err());
        assert!(open_executable(own).is_ok());
    }
}
