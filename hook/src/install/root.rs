//! The directory that stands for `/`, and bounded reads below it.

use super::Error;
use crate::trust::{others_may_replace, others_may_write};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Component, Path, PathBuf},
};

/// Largest configuration file that is read, bytes.
pub(crate) const MAX_FILE: u64 = 4 << 20;

/// What a file holds now.
#[derive(Clone, Debug)]
pub(super) struct Existing {
    pub(super) text: String,
    pub(super) mode: u32,
    pub(super) owner: (u32, u32),
}

/// The directory that stands for `/`.
pub(super) struct Root(PathBuf);

impl Root {
    pub(super) fn new(directory: &Path) -> Result<Self, Error> {
        let read = |source| Error::Read {
            path: directory.to_owned(),
            source,
        };
        let root = directory.canonicalize().map_err(read)?;
        if root.is_dir() {
            Ok(Self(root))
        } else {
            Err(read(io::ErrorKind::NotADirectory.into()))
        }
    }

    /// Whether it is the running system's own.
    pub(super) fn is_own(&self) -> bool {
        self.0 == Path::new("/")
    }

    pub(super) fn directory(&self) -> &Path {
        &self.0
    }

    /// Where an absolute path of that system lies for us. Links are refused where following them could leave the
    /// root (an absolute link in a host's tree means another file here), and as the file itself always: replacing a
    /// file by rename would replace the link, not what it points to.
    pub(super) fn locate(&self, path: &Path) -> Result<PathBuf, Error> {
        let mut place = self.0.clone();
        let names: Vec<_> = path
            .components()
            .filter(|component| *component != Component::RootDir)
            .collect();
        for (index, component) in names.iter().enumerate() {
            let Component::Normal(name) = component else {
                return Err(Error::Argument {
                    option: "path",
                    value: path.display().to_string(),
                    expected: "no `.` and `..` are possible",
                });
            };
            place.push(name);
            let last = index + 1 == names.len();
            if (last || !self.is_own()) && place.is_symlink() {
                return Err(Error::Link { path: place });
            }
        }
        Ok(place)
    }

    /// Whether a runtime of that system could execute the file. Links of another root are taken at their word.
    pub(super) fn has_program(&self, path: &str) -> bool {
        let place = self.0.join(path.trim_start_matches('/'));
        if !self.is_own() && place.is_symlink() {
            return true;
        }
        fs::metadata(place).is_ok_and(|file| file.is_file() && file.mode() & 0o111 != 0)
    }

    /// Why somebody other than root could change or replace a program. A path that is not there yet, or leads through
    /// links of another root, is judged as far as it can be seen.
    pub(super) fn others_may_change(&self, path: &str) -> Option<String> {
        let place = self.0.join(path.trim_start_matches('/'));
        let itself = fs::symlink_metadata(&place)
            .ok()
            .filter(|metadata| !metadata.is_symlink())
            .and_then(|metadata| others_may_write(&metadata));
        itself.or_else(|| {
            let (directory, why) = others_may_replace(&place).ok()??;
            Some(format!("of {}: {why}", directory.display()))
        })
    }

    /// A path below the root as that system names it.
    pub(super) fn name_inside(&self, place: &Path) -> PathBuf {
        match place.strip_prefix(&self.0) {
            Ok(rest) => Path::new("/").join(rest),
            Err(_) => place.to_owned(),
        }
    }

    /// The text of a file; `None` if there is none.
    pub(super) fn read(&self, path: &Path) -> Result<Option<Existing>, Error> {
        let place = self.locate(path)?;
        match read_text(&place) {
            Ok(existing) => Ok(Some(existing)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                Err(Error::NotAFile { path: place })
            }
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(Error::Shape {
                path: place,
                key: "the whole file".to_owned(),
                expected: "UTF-8 text",
            }),
            Err(source) => Err(Error::Read {
                path: place,
                source,
            }),
        }
    }
}

/// Opens a regular file without following a link and without waiting for a FIFO's writer.
///
/// # Errors
/// `InvalidInput` for anything but a regular file of at most [`MAX_FILE`] bytes; else what the system says.
pub(crate) fn open_regular(path: &Path) -> io::Result<(File, fs::Metadata)> {
    use nix::fcntl::OFlag;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits())
        .open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_file() && metadata.len() <= MAX_FILE {
        Ok((file, metadata))
    } else {
        Err(io::ErrorKind::InvalidInput.into())
    }
}

fn read_text(path: &Path) -> io::Result<Existing> {
    let (file, metadata) = open_regular(path)?;
    let mut text = String::new();
    file.take(MAX_FILE).read_to_string(&mut text)?;
    Ok(Existing {
        text,
        mode: metadata.mode() & 0o7777,
        owner: (metadata.uid(), metadata.gid()),
    })
}
