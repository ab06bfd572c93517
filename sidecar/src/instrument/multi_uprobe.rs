//! `uprobe_multi` from user space: one link for all probes of one program in one file and one process.
//!
//! aya 0.14 loads uprobe programs for perf events only, which need `CAP_SYS_ADMIN`. The two calls here are `bpf(2)` itself
//! (include/uapi/linux/bpf.h, Linux 6.6): `CAP_BPF` and `CAP_PERFMON` are enough.

use nix::libc;
use pilotfish_abi::TlsCookie;
use std::{
    ffi::{CStr, CString},
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const BPF_LINK_CREATE: libc::c_int = 28;
const BPF_PROG_TYPE_KPROBE: u32 = 2;
const BPF_TRACE_UPROBE_MULTI: u32 = 48;
const BPF_F_UPROBE_MULTI_RETURN: u32 = 1;
/// Errors and a summary, without every instruction that led to them.
const BPF_LOG_STATS: u32 = 4;

/// The program-loading part of `union bpf_attr`, up to the last member that is used.
#[repr(C)]
struct LoadAttributes {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    interface: u32,
    attach_type: u32,
}

/// The link-creating part of `union bpf_attr` for `uprobe_multi`.
#[repr(C)]
struct LinkAttributes {
    program: u32,
    target: u32,
    attach_type: u32,
    link_flags: u32,
    path: u64,
    offsets: u64,
    reference_counters: u64,
    cookies: u64,
    count: u32,
    flags: u32,
    pid: u32,
    padding: u32,
}

/// The part of `union bpf_attr` that asks for what the kernel knows of an object.
#[repr(C)]
struct InfoAttributes {
    object: u32,
    length: u32,
    info: u64,
}

/// `struct bpf_link_info` with its part for `uprobe_multi` (Linux 6.8; before, that part stays as it was).
#[repr(C)]
#[derive(Default)]
struct LinkInfo {
    kind: u32,
    id: u32,
    program: u32,
    padding: u32,
    path: u64,
    offsets: u64,
    reference_counters: u64,
    cookies: u64,
    path_size: u32,
    count: u32,
    flags: u32,
    pid: u32,
}

/// When a program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum At {
    /// When the instruction at the offset is reached.
    Instruction,
    /// When the function that begins there returns.
    Return,
}

/// A place in a file, and the cookie that the program finds there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Byte offset in the file.
    pub offset: u64,
    /// What the function there does.
    pub cookie: TlsCookie,
}

/// Loads a program for `uprobe_multi`. An error carries the end of the verifier's log, if there is one.
pub(super) fn load(name: &str, instructions: &[u8], license: &CStr) -> io::Result<OwnedFd> {
    match try_load(name, instructions, license, &mut []) {
        Err(error) if error.raw_os_error() != Some(libc::EPERM) => {
            let mut log = vec![0; 4096];
            try_load(name, instructions, license, &mut log).map_err(|error| with_log(&error, &log))
        }
        loaded => loaded,
    }
}

fn try_load(
    name: &str,
    instructions: &[u8],
    license: &CStr,
    log: &mut [u8],
) -> io::Result<OwnedFd> {
    let mut attributes = LoadAttributes {
        program_type: BPF_PROG_TYPE_KPROBE,
        instruction_count: (instructions.len() / 8) as u32,
        instructions: instructions.as_ptr() as u64,
        license: license.as_ptr() as u64,
        log_level: if log.is_empty() { 0 } else { BPF_LOG_STATS },
        log_size: log.len() as u32,
        log: if log.is_empty() {
            0
        } else {
            log.as_mut_ptr() as u64
        },
        kernel_version: 0,
        flags: 0,
        name: [0; 16],
        interface: 0,
        attach_type: BPF_TRACE_UPROBE_MULTI,
    };
    // The last byte stays 0.
    for (target, source) in attributes.name.iter_mut().take(15).zip(name.bytes()) {
        *target = source;
    }
    bpf(BPF_PROG_LOAD, &attributes)
}

fn with_log(error: &io::Error, log: &[u8]) -> io::Error {
    let text = String::from_utf8_lossy(log);
    let text = text.trim_end_matches(['\0', '\n']);
    let tail: Vec<&str> = text.lines().rev().take(3).collect();
    let tail: Vec<&str> = tail.into_iter().rev().collect();
    io::Error::new(error.kind(), format!("{error}: {}", tail.join("; ")))
}

/// Attaches a program to places of a file in one process, all of its threads included. Dropping the descriptor detaches.
///
/// # Errors
/// `EINVAL` where the kernel has no `uprobe_multi` (before 6.6), `ESRCH` when there is no such process.
pub(super) fn link(
    program: BorrowedFd<'_>,
    file: BorrowedFd<'_>,
    at: At,
    probes: &[Probe],
    pid: i32,
) -> io::Result<OwnedFd> {
    // The file that is open, whatever its path leads to by now.
    let path = CString::new(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    let offsets: Vec<u64> = probes.iter().map(|probe| probe.offset).collect();
    let cookies: Vec<u64> = probes.iter().map(|probe| probe.cookie.0).collect();
    let attributes = LinkAttributes {
        program: program.as_raw_fd() as u32,
        target: 0,
        attach_type: BPF_TRACE_UPROBE_MULTI,
        link_flags: 0,
        path: path.as_ptr() as u64,
        offsets: offsets.as_ptr() as u64,
        reference_counters: 0,
        cookies: cookies.as_ptr() as u64,
        count: probes.len() as u32,
        flags: match at {
            At::Instruction => 0,
            At::Return => BPF_F_UPROBE_MULTI_RETURN,
        },
        pid: pid.unsigned_abs(),
        padding: 0,
    };
    bpf(BPF_LINK_CREATE, &attributes)
}

/// The process whose calls a link sees; `None` if there is none any more, or the kernel does not tell (before 6.8).
///
/// A link stands for the task that was its process's leader. When another thread executes a program, that task is gone
/// and the thread takes over its id, so that the link never sees anything again.
pub(super) fn process_of(link: BorrowedFd<'_>) -> io::Result<Option<i32>> {
    let mut info = LinkInfo::default();
    let attributes = InfoAttributes {
        object: link.as_raw_fd() as u32,
        length: size_of::<LinkInfo>() as u32,
        info: (&raw mut info) as u64,
    };
    call(BPF_OBJ_GET_INFO_BY_FD, &attributes)?;
    Ok(i32::try_from(info.pid).ok().filter(|pid| *pid > 0))
}

fn bpf<T>(command: libc::c_int, attributes: &T) -> io::Result<OwnedFd> {
    let descriptor = call(command, attributes)?;
    // SAFETY: the kernel has just made it, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

fn call<T>(command: libc::c_int, attributes: &T) -> io::Result<libc::c_int> {
    // SAFETY: the attributes, and whatever they point to, outlive the call; the kernel reads no more than their size, and
    // writes only where they say that there is room.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_ref(attributes),
            size_of::<T>(),
        )
    };
    match libc::c_int::try_from(result) {
        Ok(result) if result >= 0 => Ok(result),
        _ => Err(io::Error::last_os_error()),
    }
}
