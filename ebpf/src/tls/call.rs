//! Which TLS function a thread or goroutine is in.

use super::{connection, process, registers};
use crate::{
    kernel,
    maps::{self, GO_CALLS, TLS_CALLS, TlsCall, TlsKey},
};
use aya_ebpf::{
    bindings::BPF_LOCAL_STORAGE_GET_F_CREATE,
    helpers::generated::{bpf_task_pt_regs, bpf_task_storage_get},
};
use core::{ffi::c_void, ptr};
use pilotfish_abi::{Counter, tls_calls};

/// [`TlsCall::stack`] of a call whose end no probe tells.
pub const OPEN_ENDED: u64 = 0;

static NO_CALL: TlsCall = TlsCall {
    object: 0,
    buffer: 0,
    count: 0,
    stack: 0,
    writes: false,
    outer_object: 0,
    outer_buffer: 0,
    outer_count: 0,
    outer_stack: 0,
    waiting: 0,
    waiting_bytes: 0,
    stack_low: 0,
    stack_high: 0,
};

/// What a function was entered with.
#[derive(Clone, Copy)]
pub struct Entry {
    pub object: u64,
    pub buffer: u64,
    pub count: u64,
    pub stack: u64,
    pub writes: bool,
}

/// The running thread's calls; made if there are none yet.
#[inline(always)]
pub fn of_thread(slot: u32) -> Option<&'static mut TlsCall> {
    let call = storage(BPF_LOCAL_STORAGE_GET_F_CREATE.into());
    if call.is_none() {
        maps::count(slot, Counter::TlsStorage, 1);
    }
    call
}

/// The running thread's calls, if it has made any.
#[inline(always)]
pub fn known_of_thread() -> Option<&'static mut TlsCall> {
    storage(0)
}

#[inline(always)]
fn storage(flags: u64) -> Option<&'static mut TlsCall> {
    // SAFETY: the helper takes the map and the running task, and returns null or the task's own entry.
    unsafe {
        bpf_task_storage_get(
            TLS_CALLS.as_ptr(),
            kernel::current_task(),
            ptr::null_mut(),
            flags,
        )
        .cast::<TlsCall>()
        .as_mut()
    }
}

/// A goroutine's calls; made if there are none yet.
#[inline(always)]
pub fn of_goroutine(goroutine: u64, slot: u32) -> Option<&'static mut TlsCall> {
    if known_of_goroutine(goroutine).is_none() {
        // The value is a constant of the object and not on the stack, which has to stay small.
        let _ = GO_CALLS.insert(key(goroutine), &NO_CALL, 0);
    }
    let call = known_of_goroutine(goroutine);
    if call.is_none() {
        maps::count(slot, Counter::TlsStorage, 1);
    }
    call
}

/// A goroutine's calls, if it has made any.
#[inline(always)]
pub fn known_of_goroutine(goroutine: u64) -> Option<&'static mut TlsCall> {
    let call = GO_CALLS.get_ptr_mut(key(goroutine))?;
    // SAFETY: a goroutine runs on one thread at a time; the element is valid for the program's run.
    unsafe { call.as_mut() }
}

#[inline(always)]
fn key(goroutine: u64) -> TlsKey {
    TlsKey {
        process: process(),
        reserved: 0,
        address: goroutine,
    }
}

/// The calls of whoever makes the running system call; `calls` are the bits of its process.
#[inline(always)]
pub fn of_system_call(calls: u32) -> Option<&'static mut TlsCall> {
    if calls & tls_calls::GOROUTINE != 0 {
        // SAFETY: the helper returns the saved registers of a task that is in a system call.
        let goroutine = unsafe {
            let registers = bpf_task_pt_regs(kernel::current_task()) as *const c_void;
            registers::goroutine_in_system_call(registers)
        };
        let call = known_of_goroutine(goroutine);
        if call.is_some() {
            return call;
        }
    }
    if calls & tls_calls::THREAD != 0 {
        return known_of_thread();
    }
    None
}

/// Takes note that a function was entered; false inside another one, which is what the program called.
///
/// But a callback in a read or a handshake is the program's own, and may write: Node.js does so when a handshake is done.
#[inline(always)]
pub fn enter(call: &mut TlsCall, entry: Entry, slot: u32) -> bool {
    if call.object != 0 && call.stack != OPEN_ENDED {
        if entry.stack < call.stack {
            if !entry.writes || call.writes || call.outer_object != 0 {
                return false;
            }
            call.outer_object = call.object;
            call.outer_buffer = call.buffer;
            call.outer_count = call.count;
            call.outer_stack = call.stack;
        } else if entry.stack != call.stack || entry.object != call.object {
            // At the same height a function goes over into another of the same object (a tail call), which then returns
            // for both. Otherwise the former call is gone: a jump past its return, or another stack.
            maps::count(slot, Counter::TlsUnended, 1);
            connection::restart(call.object);
            call.outer_object = 0;
        }
    }
    call.object = entry.object;
    call.buffer = entry.buffer;
    call.count = entry.count;
    call.stack = entry.stack;
    call.writes = entry.writes;
    call.waiting = entry.object;
    call.waiting_bytes = 0;
    true
}

/// Takes note that the function which was entered at this height of the stack has returned, and gives what it was entered
/// with.
#[inline(always)]
pub fn leave(call: &mut TlsCall, stack: u64) -> Option<Entry> {
    if call.object == 0 {
        return None;
    }
    let has_outer = call.outer_object != 0;
    if call.stack != stack {
        if !has_outer || call.outer_stack != stack {
            return None;
        }
        // The inner one will not return any more.
        resume_outer(call);
    } else if has_outer {
        let entry = current(call);
        resume_outer(call);
        return Some(entry);
    }
    let entry = current(call);
    call.object = 0;
    Some(entry)
}

#[inline(always)]
fn current(call: &TlsCall) -> Entry {
    Entry {
        object: call.object,
        buffer: call.buffer,
        count: call.count,
        stack: call.stack,
        writes: call.writes,
    }
}

#[inline(always)]
fn resume_outer(call: &mut TlsCall) {
    call.object = call.outer_object;
    call.buffer = call.outer_buffer;
    call.count = call.outer_count;
    call.stack = call.outer_stack;
    call.writes = false;
    call.outer_object = 0;
}
