//! TLS: plaintext at the libraries' boundary, and the socket that carries its ciphertext.
//!
//! A record of plaintext looks like one of a socket, but for its flag and the name of its flow. Which socket carries a
//! connection is known from the socket operations that a TLS function makes; where the library only writes into memory
//! (Node.js, Python's asyncio), from what the same thread sends next, if that is TLS, of a fitting length, and not yet
//! known to be of another connection.
//!
//! Uprobe programs are preemptible and may run many times at once on one CPU: nothing here is per CPU without being
//! taken first, and no program may have a private stack ([`no_private_stack`]).

mod call;
mod connection;
mod go;
mod key;
mod native;
mod plaintext;
mod records;
mod registers;
mod sealed;
mod tie;

pub use tie::{carried, ended, examine, flags_of_end};

use crate::{kernel, maps::NO_PROGRAMS, maps::TLS_PROCESSES};
use aya_ebpf::{
    EbpfContext,
    helpers::generated::{bpf_get_current_pid_tgid, bpf_task_storage_get},
};
use core::ptr;

/// Bits of [`pilotfish_abi::tls_calls`] of the running process; 0 if it has no TLS probes.
#[inline(always)]
fn calls_of_process() -> u32 {
    // SAFETY: the helper takes the map and a task that the verifier knows; it returns null or a value.
    unsafe {
        bpf_task_storage_get(
            TLS_PROCESSES.as_ptr(),
            kernel::leader(kernel::current_task()),
            ptr::null_mut(),
            0,
        )
        .cast::<u32>()
        .as_ref()
        .copied()
        .unwrap_or(0)
    }
}

/// Thread-group id of the running process, in the initial namespace.
#[inline(always)]
fn process() -> u32 {
    // SAFETY: no arguments.
    (unsafe { bpf_get_current_pid_tgid() } >> 32) as u32
}

/// Keeps the kernel from giving the program a stack of its own per CPU, as 6.13 and later do with large ones: a uprobe
/// may be preempted by another task's, which would then share it. A program with a tail call gets none; this one is
/// never made, since no probe has the cookie 0.
#[inline(always)]
fn no_private_stack(context: &impl EbpfContext, cookie: u64) {
    if cookie == 0 {
        // SAFETY: the array is empty: the call fails and returns.
        unsafe { NO_PROGRAMS.tail_call(context, 0) };
    }
}
