//! Go's `crypto/tls`: the register ABI, calls by goroutine, and probes at return instructions.
//!
//! A goroutine may go on on another thread, and its stack may move while it is in a call, so a place on the stack is counted
//! from the stack's upper end. The return is never patched, which Go's runtime would not survive.

use super::{
    call::{self, Entry, OPEN_ENDED},
    connection, no_private_stack, plaintext,
    registers::Registers,
};
use crate::{
    maps::{self, TlsCall, TlsConnection},
    scope,
    syscall::Way,
};
use aya_ebpf::{
    EbpfContext,
    helpers::generated::{bpf_get_attach_cookie, bpf_probe_read_user},
    macros::uprobe,
    programs::ProbeContext,
};
use core::ffi::c_void;
use pilotfish_abi::{Counter, Kind, Scope, TlsAction, TlsCookie};

/// Entry of every method of `tls.Conn` that matters, and the return instructions of `Read`.
#[uprobe]
pub fn tls_go(context: ProbeContext) -> u32 {
    called(&context);
    0
}

#[inline(always)]
fn called(context: &ProbeContext) -> Option<()> {
    let scope = scope::in_scope()?;
    // SAFETY: the helper takes the program's context.
    let number = unsafe { bpf_get_attach_cookie(context.as_ptr()) };
    no_private_stack(context, number);
    let cookie = TlsCookie(number);
    let registers = Registers::new(context.as_ptr());
    let goroutine = registers.goroutine();
    if cookie.is_at_return() {
        return returned(scope, registers, goroutine);
    }
    let object = registers.go_argument(0);
    let action = cookie.action().filter(|_| object != 0)?;
    match action {
        TlsAction::Open => {
            let reader = connection::known(object).map_or(0, |connection| connection.reader);
            connection::open(object, scope.slot);
            if reader != 0
                && let Some(connection) = connection::known(object)
            {
                // A read makes the handshake if that has not been made.
                connection.reader = reader;
            }
            enter(scope, goroutine, object, 0, OPEN_ENDED)
        }
        TlsAction::Read => {
            begin_read(scope, goroutine, object);
            let stack = Stack::of(goroutine)?;
            let depth = stack.high.wrapping_sub(registers.stack());
            let call = enter(scope, goroutine, object, registers.go_argument(1), !depth);
            if let Some(call) = call::known_of_goroutine(goroutine) {
                call.stack_low = stack.low;
                call.stack_high = stack.high;
            }
            call
        }
        TlsAction::Write => {
            // Writes all or fails for good: the entry says enough, and a return instruction costs a single step.
            enter(scope, goroutine, object, 0, OPEN_ENDED)?;
            let connection = connection::used(object, scope.slot)?;
            let length = registers.go_argument(2);
            if length == 0 || length >> 31 != 0 {
                return None;
            }
            plaintext::deliver(
                scope,
                connection,
                Way::Send,
                registers.go_argument(1),
                length,
            )
        }
        TlsAction::Free => {
            let connection = connection::known(object)?;
            if is_forgotten(connection, object) {
                maps::count(scope.slot, Counter::TlsUnended, 1);
            }
            plaintext::deliver_end(scope, connection, Kind::Close, 0);
            connection::forget(object);
            Some(())
        }
        TlsAction::Shutdown => {
            let connection = connection::known(object)?;
            plaintext::deliver_end(scope, connection, Kind::SendEnd, 0);
            Some(())
        }
        TlsAction::Handshake
        | TlsAction::SendFile
        | TlsAction::Skip
        | TlsAction::Encrypt
        | TlsAction::Decrypt
        | TlsAction::Flush
        | TlsAction::Clear => None,
    }
}

/// Takes note of who reads a connection. If the former reader has been forgotten, so that what its read returned was not
/// seen, the connection begins anew.
#[inline(always)]
fn begin_read(scope: Scope, goroutine: u64, object: u64) {
    if let Some(connection) = connection::used(object, scope.slot) {
        if is_forgotten(connection, object) {
            maps::count(scope.slot, Counter::TlsUnended, 1);
            connection::begin_anew(connection);
        }
        connection.reader = goroutine;
    }
}

/// Whether the goroutine that is inside a read of a connection had to make room for others.
#[inline(always)]
fn is_forgotten(connection: &TlsConnection, object: u64) -> bool {
    connection.reader != 0 && !call::goroutine_reads(connection.reader, object)
}

#[inline(always)]
fn enter(scope: Scope, goroutine: u64, object: u64, buffer: u64, stack: u64) -> Option<()> {
    let call = call::of_goroutine(goroutine, scope.slot)?;
    // Inside `Read` the handshake, and the writes that it makes, are not the program's.
    if stack == OPEN_ENDED && call::inside(call) != 0 {
        return Some(());
    }
    let entry = Entry {
        object,
        buffer,
        count: 0,
        stack,
        writes: false,
    };
    call::enter(call, entry, scope.slot);
    Some(())
}

#[inline(always)]
fn returned(scope: Scope, registers: Registers, goroutine: u64) -> Option<()> {
    let call = call::known_of_goroutine(goroutine)?;
    let stack = Stack::of(goroutine)?;
    let depth = stack.high.wrapping_sub(registers.stack());
    let buffer = moved_with(call, stack);
    let object = call::leave(call, !depth)?.object;
    let connection = connection::used(object, scope.slot)?;
    if connection.reader == goroutine {
        connection.reader = 0;
    }
    let moved = registers.go_returned();
    if moved == 0 || moved >> 31 != 0 {
        return None;
    }
    plaintext::deliver(scope, connection, Way::Receive, buffer, moved)
}

/// Where the buffer is now, if it is on the goroutine's stack and that has moved.
#[inline(always)]
fn moved_with(call: &TlsCall, now: Stack) -> u64 {
    let on_stack = call.buffer >= call.stack_low && call.buffer < call.stack_high;
    if on_stack {
        now.high
            .wrapping_sub(call.stack_high.wrapping_sub(call.buffer))
    } else {
        call.buffer
    }
}

/// Bounds of a goroutine's stack: the first member of `runtime.g` in every version.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Stack {
    low: u64,
    high: u64,
}

impl Stack {
    #[inline(always)]
    fn of(goroutine: u64) -> Option<Self> {
        let mut stack = Self::default();
        // SAFETY: the helper checks the user address and writes at most the size of `stack`.
        let result = unsafe {
            bpf_probe_read_user(
                (&raw mut stack).cast(),
                size_of::<Self>() as u32,
                goroutine as *const c_void,
            )
        };
        (result == 0).then_some(stack)
    }
}
