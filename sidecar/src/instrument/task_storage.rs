//! Task storage from user space: the key is a pidfd, so no recycled pid can ever be put in scope.
//!
//! aya has no type for this map; the update is one `bpf(2)` call.

use nix::libc;
use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

const BPF_MAP_UPDATE_ELEM: libc::c_int = 2;
const BPF_MAP_DELETE_ELEM: libc::c_int = 3;

/// The element part of `union bpf_attr` (include/uapi/linux/bpf.h).
#[repr(C)]
struct ElementAttributes {
    map_fd: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// Sets the value of the task behind `pidfd` (a thread-group leader's).
pub(super) fn update<T: zerocopy::IntoBytes + zerocopy::Immutable>(
    map: BorrowedFd<'_>,
    pidfd: BorrowedFd<'_>,
    value: &T,
) -> io::Result<()> {
    element(
        BPF_MAP_UPDATE_ELEM,
        map,
        pidfd,
        value.as_bytes().as_ptr() as u64,
    )
}

/// Removes the value of the task behind `pidfd`.
pub(super) fn remove(map: BorrowedFd<'_>, pidfd: BorrowedFd<'_>) -> io::Result<()> {
    element(BPF_MAP_DELETE_ELEM, map, pidfd, 0)
}

fn element(
    command: libc::c_int,
    map: BorrowedFd<'_>,
    pidfd: BorrowedFd<'_>,
    value: u64,
) -> io::Result<()> {
    let key: i32 = pidfd.as_raw_fd();
    let attributes = ElementAttributes {
        map_fd: map.as_raw_fd() as u32,
        padding: 0,
        key: (&raw const key) as u64,
        value,
        flags: 0,
    };
    // SAFETY: the attributes, the key and the value (of the size that the map was made with) outlive the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            &raw const attributes,
            size_of::<ElementAttributes>(),
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
