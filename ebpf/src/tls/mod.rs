//! TLS: plaintext at the libraries' boundary, and the socket that carries its ciphertext.
//!
//! A record of plaintext looks like one of a socket, but for its flag and the name of its flow. Which socket carries a
//! connection is known from the socket operations that a TLS function makes. Where the library only writes into memory
//! (Node.js, Python's asyncio), two things have to agree: the socket from which the thread received right before it
//! called the library, and the one to which it sends right after, TLS of a fitting kind and length. A client's first
//! message has nothing before it, and tells its connection only if no other one waits for an answer. A connection of
//! which this cannot be told is seen without addresses.
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

pub use tie::{carried, ended, examine, failed, flags_of_end};

use crate::{kernel, maps::NO_PROGRAMS, maps::TLS_PROCESSES};
use aya_ebpf::{
    EbpfContext,
    helpers::generated::{bpf_get_current_pid_tgid, bpf_task_storage_get},
};
use core::ptr;
use pilotfish_abi::Member;

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

/// Tells the programs apart that a process executes, and processes that have the same id one after another: from its
/// executions and its start.
#[inline(always)]
fn program() -> u32 {
    let task = kernel::current_task();
    // SAFETY: the running task and its leader; members by BTF.
    let (executions, start) = unsafe {
        (
            kernel::load::<u64>(task.cast(), Member::TaskExecutions),
            kernel::load::<u64>(kernel::leader(task).cast(), Member::TaskStart),
        )
    };
    // The start in some milliseconds; a process that has the same id starts much later.
    (executions as u32) << 20 ^ (start >> 22) as u32
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
