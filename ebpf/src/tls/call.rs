//! Which TLS function a thread or goroutine is in.

use super::{connection, registers};
use crate::{
    kernel,
    maps::{self, GO_CALLS, SEVERAL, TLS_CALLS, TlsCall, TlsConnection},
};
use aya_ebpf::{
    bindings::BPF_LOCAL_STORAGE_GET_F_CREATE,
    helpers::generated::{bpf_get_current_pid_tgid, bpf_task_pt_regs, bpf_task_storage_get},
};
use core::{ffi::c_void, ptr};
use pilotfish_abi::{Counter, tls_calls};

/// [`TlsCall::stack`] of a call whose end no probe tells.
pub const OPEN_ENDED: u64 = 0;

/// Bytes of stack within which a deeper call counts as made inside another one of the same object. Further away is another
/// stack, of a coroutine. A callback of JavaScript needs some 10,000.
const NEAR: u64 = 64 * 1024;

/// The same for a call on another object, which is more likely to be a coroutine's. TLS inside of TLS needs some 1,000.
const NEAR_OTHER: u64 = 16 * 1024;

/// Calls on other objects after which the one that they seem to be inside of must have been left by a jump.
const MOST_INNER: u32 = 256;

/// Most bytes of plaintext in a TLS record (RFC 8446, section 5.1).
const RECORD_PLAINTEXT: u64 = 1 << 14;

static NO_CALL: TlsCall = TlsCall {
    object: 0,
    buffer: 0,
    count: 0,
    stack: 0,
    writes: false,
    did_io: false,
    inner: 0,
    outer_object: 0,
    outer_buffer: 0,
    outer_count: 0,
    outer_stack: 0,
    waiting: 0,
    waiting_bytes: 0,
    waiting_records: 0,
    heard: 0,
    hellos: 0,
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
        let _ = GO_CALLS.insert(connection::own_key(goroutine), &NO_CALL, 0);
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
    let call = GO_CALLS.get_ptr_mut(connection::own_key(goroutine))?;
    // SAFETY: a goroutine runs on one thread at a time; the element is valid for the program's run.
    unsafe { call.as_mut() }
}

/// Whether a goroutine is known to be inside a read of this object.
#[inline(always)]
pub fn goroutine_reads(goroutine: u64, object: u64) -> bool {
    known_of_goroutine(goroutine).is_some_and(|call| inside(call) == object)
}

/// The object of the call that a thread or goroutine is in; 0 if it is in none.
#[inline(always)]
pub fn inside(call: &TlsCall) -> u64 {
    if call.stack == OPEN_ENDED {
        0
    } else {
        call.object
    }
}

/// The calls of whoever makes the running system call, if its process has TLS probes of these kinds ([`tls_calls`]). A thread
/// that has made none yet can be given room for them, since what it receives first may lead to one.
#[inline(always)]
pub fn of_system_call(calls: u32, make_for: Option<u32>) -> Option<&'static mut TlsCall> {
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
        return match make_for {
            Some(slot) => of_thread(slot),
            None => known_of_thread(),
        };
    }
    None
}

/// Takes note that a function was entered; false inside another one, which is what the program called.
///
/// But a callback in a read or a handshake is the program's own, and may write: Node.js does so when a handshake is done.
#[inline(always)]
pub fn enter(call: &mut TlsCall, entry: Entry, slot: u32) -> bool {
    if inside(call) != 0 {
        if is_part(call, entry) {
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
            abandon(call, slot);
        }
    }
    if call.outer_object == 0 {
        call.did_io = false;
    }
    if call.waiting != entry.object {
        call.waiting_bytes = 0;
        call.waiting_records = 0;
    }
    call.object = entry.object;
    call.buffer = entry.buffer;
    call.count = entry.count;
    call.stack = entry.stack;
    call.writes = entry.writes;
    call.inner = 0;
    call.waiting = entry.object;
    true
}

/// Whether a call is made inside the one that is known, as far as the stack tells.
#[inline(always)]
fn is_part(call: &mut TlsCall, entry: Entry) -> bool {
    if entry.stack >= call.stack {
        return false;
    }
    let distance = call.stack - entry.stack;
    if entry.object == call.object {
        return distance <= NEAR;
    }
    call.inner += 1;
    distance <= NEAR_OTHER && call.inner <= MOST_INNER
}

/// Gives up a call whose return will not be seen, or cannot be told from another's.
#[inline(always)]
fn abandon(call: &mut TlsCall, slot: u32) {
    maps::count(slot, Counter::TlsUnended, 1);
    connection::restart(call.object);
    call.outer_object = 0;
}

/// Takes note that an object is gone: a call on it has been left by a jump.
#[inline(always)]
pub fn freed(call: &mut TlsCall, object: u64, slot: u32) {
    if inside(call) == object {
        maps::count(slot, Counter::TlsUnended, 1);
        call.object = 0;
        call.outer_object = 0;
    }
    if call.waiting == object {
        call.waiting = 0;
    }
}

/// Takes note of the plaintext that a call has written.
#[inline(always)]
pub fn note_written(call: &mut TlsCall, bytes: u64) {
    call.waiting_bytes += bytes;
    call.waiting_records += bytes.div_ceil(RECORD_PLAINTEXT);
}

/// Takes note of a call that may begin a connection, or that follows on a receive outside of every call: of that socket, if
/// the library keeps ciphertext in memory.
#[inline(always)]
pub fn note_caller(call: &mut TlsCall, object: u64) {
    let heard = call.heard;
    call.heard = 0;
    let Some(connection) = connection::known(object) else {
        return;
    };
    if connection.socket != 0 {
        return;
    }
    let is_first = connection.heard == 0
        && connection.awaits == 0
        && connection.flags == 0
        && connection.sent | connection.received == 0;
    if is_first {
        // Whatever was received before it may have been another's.
        connection.awaits = thread();
        call.hellos += 1;
    } else if heard != 0 {
        settle(call, connection);
    }
    if heard != 0 {
        connection.heard = agreed(connection.heard, heard);
    }
}

/// The socket that two observations tell, of which each may tell none or several.
#[inline(always)]
fn agreed(before: u64, now: u64) -> u64 {
    if before == 0 || before == SEVERAL || before == now {
        now
    } else {
        SEVERAL
    }
}

/// No longer counts a connection among those of which nothing was heard.
#[inline(always)]
pub fn settle(call: &mut TlsCall, connection: &mut TlsConnection) {
    // One that another thread counts stays counted there, which can only keep its hellos from being told apart.
    if connection.awaits != 0 && connection.awaits == thread() {
        connection.awaits = 0;
        call.hellos = call.hellos.saturating_sub(1);
    }
}

#[inline(always)]
fn thread() -> u32 {
    // SAFETY: no arguments.
    (unsafe { bpf_get_current_pid_tgid() }) as u32
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
