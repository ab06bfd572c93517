//! Files and directories that nobody but root could have written.

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, RawMode, fstat, openat, statat};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Group or others may write.
const WRITABLE: RawMode = 0o022;

/// Why a file or directory is not used.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// It cannot be opened or read.
    #[error("{path}: {source}")]
    Open {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It belongs to somebody else.
    #[error("{path} belongs to user {uid}, not to root: remove it, or name another path")]
    Owner {
        /// Which.
        path: PathBuf,
        /// Whose.
        uid: u32,
    },
    /// Others may write to it.
    #[error("{path} can be written by its group or by others (mode {mode:04o}): `chmod go-w` it")]
    Writable {
        /// Which.
        path: PathBuf,
        /// Its permissions.
        mode: RawMode,
    },
    /// A link, FIFO, device or the like.
    #[error("{path} is not a {expected}")]
    Kind {
        /// Which.
        path: PathBuf,
        /// What it should be.
        expected: &'static str,
    },
    /// It has more bytes than are read.
    #[error("{path} is longer than {limit} bytes")]
    TooLong {
        /// Which.
        path: PathBuf,
        /// The bound.
        limit: usize,
    },
}

impl TrustError {
    /// True when it is another user's to open or to make.
    pub fn is_denied(&self) -> bool {
        matches!(self, Self::Open { source, .. } if source.kind() == io::ErrorKind::PermissionDenied)
    }

    /// True when there is no such file.
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Open { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// A directory of root's (or of our own user) that nobody else may write to, held open.
#[derive(Debug)]
pub(super) struct Directory {
    fd: OwnedFd,
    path: PathBuf,
}

impl Directory {
    /// Opens one; its last component may not be a link.
    pub(super) fn open(path: &Path) -> Result<Self, TrustError> {
        Self::open_at(CWD, path, path.to_owned())
    }

    /// Opens one, made with mode 0700 (as are its parents) where it is not there.
    pub(super) fn create(path: &Path) -> Result<Self, TrustError> {
        use std::os::unix::fs::DirBuilderExt;
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(|source| open_error(path, source))?;
        Self::open(path)
    }

    /// Opens a directory in this one.
    pub(super) fn directory(&self, name: &OsStr) -> Result<Self, TrustError> {
        Self::open_at(self.fd.as_fd(), Path::new(name), self.path.join(name))
    }

    fn open_at(at: BorrowedFd<'_>, name: &Path, path: PathBuf) -> Result<Self, TrustError> {
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = openat(at, name, flags, Mode::empty()).map_err(|error| match error {
            Errno::NOTDIR | Errno::LOOP => TrustError::Kind {
                path: path.clone(),
                expected: "directory",
            },
            error => open_error(&path, error.into()),
        })?;
        check_owner(&fd, &path)?;
        Ok(Self { fd, path })
    }

    /// Where it was when it was opened.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Names of at most `limit` entries, in no order, and whether there are more.
    pub(super) fn names(&self, limit: usize) -> Result<(Vec<PathBuf>, bool), TrustError> {
        let fail = |error: Errno| open_error(&self.path, error.into());
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.fd).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            if names.len() == limit {
                return Ok((names, true));
            }
            let name: &OsStr = std::os::unix::ffi::OsStrExt::from_bytes(name);
            names.push(PathBuf::from(name));
        }
        Ok((names, false))
    }

    /// The content of a regular file in it, of root's and at most `limit` bytes. A FIFO in its place does not block.
    pub(super) fn read(&self, name: &Path, limit: usize) -> Result<Vec<u8>, TrustError> {
        let path = self.path.join(name);
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = openat(&self.fd, name, flags, Mode::empty()).map_err(|error| match error {
            Errno::LOOP => not_regular(&path),
            error => open_error(&path, error.into()),
        })?;
        let stat = check_owner(&fd, &path)?;
        if rustix::fs::FileType::from_raw_mode(stat.st_mode) != rustix::fs::FileType::RegularFile {
            return Err(not_regular(&path));
        }
        let mut content = Vec::new();
        File::from(fd)
            .take(limit as u64 + 1)
            .read_to_end(&mut content)
            .map_err(|source| open_error(&path, source))?;
        if content.len() > limit {
            return Err(TrustError::TooLong { path, limit });
        }
        Ok(content)
    }

    /// Device and inode of an entry, a link not followed; `None` when there is none.
    pub(super) fn identity(&self, name: &Path) -> Option<(u64, u64)> {
        let stat = statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        Some((stat.st_dev, stat.st_ino))
    }
}

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn check_owner(fd: &OwnedFd, path: &Path) -> Result<rustix::fs::Stat, TrustError> {
    let stat = fstat(fd).map_err(|error| open_error(path, error.into()))?;
    let own = rustix::process::geteuid().as_raw();
    if stat.st_uid != 0 && stat.st_uid != own {
        return Err(TrustError::Owner {
            path: path.to_owned(),
            uid: stat.st_uid,
        });
    }
    if stat.st_mode & WRITABLE != 0 {
        return Err(TrustError::Writable {
            path: path.to_owned(),
            mode: stat.st_mode & 0o7777,
        });
    }
    Ok(stat)
}

fn open_error(path: &Path, source: io::Error) -> TrustError {
    TrustError::Open {
        path: path.to_owned(),
        source,
    }
}

fn not_regular(path: &Path) -> TrustError {
    TrustError::Kind {
        path: path.to_owned(),
        expected: "regular file",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn read(directory: &Path, name: &str) -> Result<Vec<u8>, TrustError> {
        Directory::open(directory)?.read(Path::new(name), 8)
    }

    #[test]
    fn only_regular_bounded_files_are_read() {
        let held = tempfile::tempdir().unwrap();
        let scratch = held.path();
        fs::write(scratch.join("ok"), b"12345678").unwrap();
        fs::write(scratch.join("long"), b"123456789").unwrap();
        fs::create_dir(scratch.join("directory")).unwrap();
        symlink(scratch.join("ok"), scratch.join("link")).unwrap();
        nix::unistd::mkfifo(&scratch.join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(read(scratch, "ok").unwrap(), b"12345678");
        assert!(matches!(
            read(scratch, "long"),
            Err(TrustError::TooLong { limit: 8, .. })
        ));
        for name in ["link", "fifo", "directory"] {
            let refused = read(scratch, name);
            assert!(
                matches!(refused, Err(TrustError::Kind { .. })),
                "{name}: {refused:?}"
            );
        }
        assert!(read(scratch, "absent").unwrap_err().is_absent());
    }

    #[test]
    fn what_others_may_write_is_refused() {
        let held = tempfile::tempdir().unwrap();
        let scratch = held.path();
        fs::write(scratch.join("file"), b"1").unwrap();
        fs::set_permissions(scratch.join("file"), fs::Permissions::from_mode(0o620)).unwrap();
        assert!(matches!(
            read(scratch, "file"),
            Err(TrustError::Writable { mode: 0o620, .. })
        ));
        fs::set_permissions(scratch, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(
            Directory::open(scratch),
            Err(TrustError::Writable { .. })
        ));
    }

    #[test]
    fn a_foreign_directory_is_refused() {
        let held = tempfile::tempdir().unwrap();
        let scratch = held.path();
        let theirs = scratch.join("theirs");
        fs::create_dir(&theirs).unwrap();
        // Without the right to give a directory away there is nothing foreign to refuse.
        match std::os::unix::fs::chown(&theirs, Some(4321), None) {
            Ok(()) => assert!(matches!(
                Directory::open(&theirs),
                Err(TrustError::Owner { uid: 4321, .. })
            )),
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::PermissionDenied),
        }
    }

    #[test]
    fn a_link_to_a_directory_is_refused() {
        let held = tempfile::tempdir().unwrap();
        let scratch = held.path();
        symlink("/", scratch.join("link")).unwrap();
        assert!(matches!(
            Directory::open(&scratch.join("link")),
            Err(TrustError::Kind { .. })
        ));
    }

    #[test]
    fn names_are_bounded() {
        let held = tempfile::tempdir().unwrap();
        let scratch = held.path();
        for name in ["a", "b", "c"] {
            fs::write(scratch.join(name), b"").unwrap();
        }
        let directory = Directory::open(scratch).unwrap();
        assert_eq!(directory.names(3).unwrap().0.len(), 3);
        assert!(!directory.names(3).unwrap().1);
        assert_eq!(directory.names(2).unwrap().0.len(), 2);
        assert!(directory.names(2).unwrap().1);
    }
}
