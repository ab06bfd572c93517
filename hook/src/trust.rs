//! Who else could change what root runs or writes.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Why somebody other than root and the hook's own user could change a file or the entries of a directory.
pub(crate) fn others_may_write(metadata: &Metadata) -> Option<String> {
    if metadata.uid() != 0 && metadata.uid() != nix::unistd::geteuid().as_raw() {
        return Some(format!("it belongs to user {}", metadata.uid()));
    }
    let mode = metadata.mode() & 0o7777;
    (mode & 0o022 != 0).then(|| format!("its mode is {mode:o}, others may write to it"))
}

/// The first directory above a file in which somebody else could put another one in the file's place, and why. Both
/// the directories of the path as it is written and those behind its links count.
///
/// # Errors
/// A directory on the way cannot be looked at.
pub(crate) fn others_may_replace(file: &Path) -> io::Result<Option<(PathBuf, String)>> {
    let written = file.ancestors().skip(1);
    let behind = file.parent().unwrap_or(file).canonicalize()?;
    for directory in written.chain(behind.ancestors()) {
        let metadata = fs::metadata(directory)?;
        // In a sticky directory only the owner of a file can replace it.
        if metadata.mode() & nix::libc::S_ISVTX != 0 {
            continue;
        }
        if let Some(why) = others_may_write(&metadata) {
            return Ok(Some((directory.to_owned(), why)));
        }
    }
    Ok(None)
}
