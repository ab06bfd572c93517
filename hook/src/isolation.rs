//! Leaves behind what a runtime may pass on: environment, descriptors, masks.

use std::io;

/// Clears the environment, closes every descriptor above standard error, and makes new files the owner's only.
///
/// Returns the first failure after trying everything: none of it is a reason not to announce a container.
pub fn enter() -> io::Result<()> {
    // SAFETY: the hook never starts a thread.
    let environment = unsafe { nix::env::clearenv() }.map_err(io::Error::other);
    let descriptors = close_inherited();
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    environment.and(descriptors)
}

/// Since Linux 5.9.
fn close_inherited() -> io::Result<()> {
    // SAFETY: nothing in this process has opened a descriptor yet, so none that is owned is closed.
    let result = unsafe {
        nix::libc::syscall(
            nix::libc::SYS_close_range,
            3_u32,
            nix::libc::c_uint::MAX,
            0_u32,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
