//! Atomic replacement of a file.

use std::{
    ffi::OsString,
    fs::{File, Permissions},
    io::{self, Write},
    os::unix::fs::{PermissionsExt, fchown},
    path::Path,
};

/// Puts a file in place of what is there: whoever opens it sees the old or the new, whole. The directory must exist.
/// `owner` is user and group; a process that may not give files away gets an error.
pub(crate) fn replace(
    path: &Path,
    contents: &[u8],
    mode: u32,
    owner: Option<(u32, u32)>,
) -> io::Result<()> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let mut prefix = OsString::from(".");
    prefix.push(name);
    prefix.push(".");
    let mut file = tempfile::Builder::new()
        .prefix(&prefix)
        .tempfile_in(directory)?;
    file.write_all(contents)?;
    if let Some((user, group)) = owner {
        fchown(file.as_file(), Some(user), Some(group))?;
    }
    file.as_file()
        .set_permissions(Permissions::from_mode(mode))?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    File::open(directory)?.sync_all()
}
