//! Where the changed manifests go.

use std::{
    ffi::OsString,
    fs::{self, File, Metadata, Permissions},
    io::{self, Write},
    os::unix::fs::{MetadataExt, PermissionsExt, fchown},
    path::Path,
};

/// Why a file of another user and group is left alone.
const NOT_OURS: &str =
    "its owner and group cannot be kept; run this as its owner, or write to another file";

/// Why the result is not written.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// A link to a file that does not exist.
    #[error("{0} is a link to nothing; name the file that it is to be, or remove the link")]
    Dangling(String),
    /// The system says no.
    #[error("cannot write {path}: {source}")]
    Write {
        /// Which file.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Writes it there; to standard output if there is no path, or it is `-`.
///
/// A file is replaced as a whole or stays as it was, and keeps its mode; what is no file (a device, a pipe) is written
/// to.
pub(super) fn write(output: Option<&Path>, text: &str) -> Result<(), OutputError> {
    let Some(path) = output.filter(|path| *path != Path::new("-")) else {
        return to_standard_output(text);
    };
    // What may not be written is not to be replaced either, though its directory may allow that.
    let outcome = match File::options().write(true).open(path) {
        Ok(mut there) => there.metadata().and_then(|metadata| {
            if metadata.is_file() {
                let file = fs::canonicalize(path)?;
                replace(&file, text, Some(&metadata))
            } else {
                there.write_all(text.as_bytes())
            }
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if path.is_symlink() {
                return Err(OutputError::Dangling(path.display().to_string()));
            }
            replace(path, text, None)
        }
        Err(error) => Err(error),
    };
    outcome.map_err(|source| failed(path, source))
}

/// Puts a new file there, with what the old one had.
fn replace(path: &Path, text: &str, old: Option<&Metadata>) -> io::Result<()> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let directory = path
        .parent()
        .filter(|parent| *parent != Path::new(""))
        .unwrap_or(Path::new("."));
    let mut prefix = OsString::from(".");
    prefix.push(name);
    prefix.push(".");
    // A new file has what the umask leaves of this, an old one gets its own mode once it is its owner's.
    let mode = if old.is_some() { 0o600 } else { 0o666 };
    let mut file = tempfile::Builder::new()
        .prefix(&prefix)
        .permissions(Permissions::from_mode(mode))
        .tempfile_in(directory)?;
    file.write_all(text.as_bytes())?;
    if let Some(old) = old {
        let new = file.as_file().metadata()?;
        if (old.uid(), old.gid()) != (new.uid(), new.gid()) {
            // Only root gives files away; then it is at least the same group that may read it.
            fchown(file.as_file(), Some(old.uid()), Some(old.gid()))
                .or_else(|_| fchown(file.as_file(), None, Some(old.gid())))
                .map_err(|error| io::Error::new(error.kind(), NOT_OURS))?;
        }
        file.as_file()
            .set_permissions(Permissions::from_mode(old.mode() & 0o777))?;
    }
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

fn to_standard_output(text: &str) -> Result<(), OutputError> {
    let mut output = io::stdout().lock();
    match output
        .write_all(text.as_bytes())
        .and_then(|()| output.flush())
    {
        // A reader that has seen enough is no failure.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(failed(Path::new("standard output"), error))
        }
        _ => Ok(()),
    }
}

fn failed(path: &Path, source: io::Error) -> OutputError {
    OutputError::Write {
        path: path.display().to_string(),
        source,
    }
}
