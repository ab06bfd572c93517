//! Libraries with C's calling convention: OpenSSL, BoringSSL, GnuTLS.

use super::{
    call::{self, Entry},
    connection, no_private_stack, plaintext,
    registers::Registers,
};
use crate::{scope, syscall::Way};
use aya_ebpf::{
    EbpfContext,
    helpers::generated::{bpf_get_attach_cookie, bpf_probe_read_user},
    macros::{uprobe, uretprobe},
    programs::{ProbeContext, RetProbeContext},
};
use core::ffi::c_void;
use pilotfish_abi::{Kind, Scope, TlsAction, TlsCookie, TlsResult};

/// Entry of every function.
#[uprobe]
pub fn tls_enter(context: ProbeContext) -> u32 {
    entered(&context);
    0
}

#[inline(always)]
fn entered(context: &ProbeContext) -> Option<()> {
    let scope = scope::in_scope()?;
    let cookie = cookie(context);
    let registers = Registers::new(context.as_ptr());
    let object = registers.argument(0);
    let action = cookie.action().filter(|_| object != 0)?;
    match action {
        TlsAction::Open => {
            ended(scope, object);
            connection::open(object, scope.slot);
        }
        TlsAction::Free => {
            if let Some(call) = call::known_of_thread() {
                call::freed(call, object, scope.slot);
            }
            ended(scope, object);
        }
        TlsAction::Clear => {
            // A handshake begins with it, within the call that makes it.
            let stack = registers.stack();
            let within = call::known_of_thread()
                .is_some_and(|call| call.object == object && stack < call.stack);
            if !within {
                ended(scope, object);
            }
        }
        TlsAction::Shutdown => {
            let connection = connection::known(object)?;
            plaintext::deliver_end(scope, connection, Kind::SendEnd, 0);
        }
        TlsAction::Handshake => {
            connection::open_unless_known(object, scope.slot);
            enter(scope, registers, action, 0, 0)?;
        }
        // A length that is not 0 is asked for.
        TlsAction::SendFile | TlsAction::Flush | TlsAction::Skip => {
            enter(scope, registers, action, 0, 1)?;
        }
        TlsAction::Read | TlsAction::Write => {
            // All are loaded, since the verifier wants the context's offsets to be constants.
            let (third, fourth, fifth) = (
                registers.argument(2),
                registers.argument(3),
                registers.argument(4),
            );
            let count = match cookie.result() {
                FOURTH => fourth,
                FIFTH => fifth,
                // The upper half of an `int` is undefined.
                INT => u64::from(third as u32),
                _ => third,
            };
            enter(scope, registers, action, registers.argument(1), count)?;
        }
        TlsAction::Encrypt | TlsAction::Decrypt => return None,
    }
    Some(())
}

const INT: u8 = TlsResult::Int as u8;
const SIZE: u8 = TlsResult::Size as u8;
const FOURTH: u8 = TlsResult::Fourth as u8;
const FIFTH: u8 = TlsResult::Fifth as u8;

#[inline(always)]
fn enter(
    scope: Scope,
    registers: Registers,
    action: TlsAction,
    buffer: u64,
    count: u64,
) -> Option<()> {
    let call = call::of_thread(scope.slot)?;
    let writes = matches!(
        action,
        TlsAction::Write | TlsAction::SendFile | TlsAction::Flush
    );
    let entry = Entry {
        object: registers.argument(0),
        buffer,
        count,
        stack: registers.stack(),
        writes,
    };
    if call::enter(call, entry, scope.slot) {
        if writes {
            // What was received does not make a program write before it reads.
            call.heard = 0;
        } else {
            call::note_caller(call, entry.object);
        }
    }
    Some(())
}

#[inline(always)]
fn ended(scope: Scope, object: u64) {
    if let Some(connection) = connection::known(object) {
        if connection.awaits != 0
            && let Some(call) = call::known_of_thread()
        {
            call::settle(call, connection);
        }
        plaintext::deliver_end(scope, connection, Kind::Close, 0);
        connection::forget(object);
    }
}

/// Return of every function that moves bytes or runs a handshake.
#[uretprobe]
pub fn tls_leave(context: RetProbeContext) -> u32 {
    left(&context);
    0
}

#[inline(always)]
fn left(context: &RetProbeContext) -> Option<()> {
    let scope = scope::in_scope()?;
    let cookie = cookie(context);
    let registers = Registers::new(context.as_ptr());
    let call = call::known_of_thread()?;
    let Entry {
        object,
        buffer,
        count,
        ..
    } = call::leave(call, registers.stack_before_return())?;
    let moved = moved(cookie, registers, count);
    match cookie.action()? {
        TlsAction::Read | TlsAction::Skip => {
            if moved == 0 {
                if count != 0 {
                    received_nothing(scope, cookie, registers, object);
                }
                return None;
            }
            let connection = connection::used(object, scope.slot)?;
            plaintext::deliver(scope, connection, Way::Receive, buffer, moved)
        }
        TlsAction::Write | TlsAction::SendFile if moved != 0 => {
            call::note_written(call, moved);
            let connection = connection::used(object, scope.slot)?;
            plaintext::deliver(scope, connection, Way::Send, buffer, moved)
        }
        TlsAction::Handshake if call.did_io => {
            connection::shaken(connection::known(object)?);
            Some(())
        }
        _ => None,
    }
}

/// A read of something that returns 0 has met the peer's end where the function itself counts the bytes. Others return 0 for every
/// failure.
#[inline(always)]
fn received_nothing(scope: Scope, cookie: TlsCookie, registers: Registers, object: u64) {
    let ended = match cookie.result() {
        INT => registers.returned() as u32 == 0,
        SIZE => registers.returned() == 0,
        _ => false,
    };
    if ended && let Some(connection) = connection::known(object) {
        plaintext::deliver_end(scope, connection, Kind::ReceiveEnd, 0);
    }
}

/// Bytes that a function has moved; 0 for an error.
#[inline(always)]
fn moved(cookie: TlsCookie, registers: Registers, count: u64) -> u64 {
    let returned = registers.returned();
    match cookie.result() {
        INT => {
            let bytes = returned as i32;
            if bytes > 0 {
                u64::from(bytes.unsigned_abs())
            } else {
                0
            }
        }
        SIZE if returned as i64 > 0 => returned,
        FOURTH | FIFTH if returned as i32 == 1 => counted(count),
        _ => 0,
    }
}

#[inline(always)]
fn counted(address: u64) -> u64 {
    let mut value = 0_u64;
    // SAFETY: the helper checks the user address and writes at most the size of `value`.
    let result =
        unsafe { bpf_probe_read_user((&raw mut value).cast(), 8, address as *const c_void) };
    if result == 0 { value } else { 0 }
}

#[inline(always)]
fn cookie(context: &impl EbpfContext) -> TlsCookie {
    // SAFETY: the helper takes the program's context.
    let cookie = unsafe { bpf_get_attach_cookie(context.as_ptr()) };
    no_private_stack(context, cookie);
    TlsCookie(cookie)
}
