//! Which socket carries which TLS connection.

use super::{call, connection, plaintext, sealed};
use crate::{
    flow,
    maps::{Flow, Scratch, TlsConnection},
    syscall::{Data, Way},
};
use core::{ffi::c_void, ptr};
use pilotfish_abi::{Kind, Scope, flag, tls_calls};

/// Bytes of a TLS record's header (RFC 8446, section 5.1).
const RECORD_HEADER: u64 = 5;

/// Most bytes of a TLS record (RFC 5246, section 6.2.3).
const RECORD_LENGTH: u16 = (1 << 14) + 2048;

/// What a socket operation is to TLS.
pub struct Carried {
    /// Bits of [`tls_calls`] of the process.
    pub calls: u32,
    /// Its bytes are ciphertext whose plaintext is seen.
    pub is_ciphertext: bool,
}

/// Asks what an operation of this socket is that moved `total` bytes.
#[inline(always)]
pub fn carried(flow: &Flow, way: Way, data: Data, total: u64) -> Carried {
    let calls = super::calls_of_process();
    let has_records = calls & tls_calls::RECORDS != 0;
    let is_ciphertext = has_records && sealed::passed(flow, way, data, total)
        || flow.tls_id != 0
            && call::of_system_call(calls)
                .is_some_and(|call| call.object == 0 || call.object == flow.tls_object);
    Carried {
        calls,
        is_ciphertext,
    }
}

/// Learns from an operation that is not known to be ciphertext, of which `bytes` are captured. True if that is what it turns
/// out to be, or if it is the same plaintext once more, on its way to TLS in the kernel.
///
/// What is known of the process comes out of memory, not out of registers: the verifier would go through the copying of bytes
/// once for each of its values.
#[inline(always)]
pub fn examine(
    scope: Scope,
    socket: *mut c_void,
    flow: &mut Flow,
    way: Way,
    scratch: &Scratch,
    bytes: u64,
) -> bool {
    // SAFETY: a field of the map's value.
    let calls = unsafe { ptr::read_volatile(&raw const scratch.calls) };
    let call = call::of_system_call(calls);
    let is_called = call
        .as_ref()
        .is_some_and(|call| call.object != 0 || call.waiting != 0);
    if calls & tls_calls::RECORDS != 0 && !is_called {
        return sealed::examine(scope, flow, way, scratch, bytes);
    }
    let Some(call) = call else {
        return false;
    };
    let (inside, waiting, written) = (call.object, call.waiting, call.waiting_bytes);
    if inside != 0 || way == Way::Send {
        // Whatever it is, the next one is not the first after the call.
        call.waiting = 0;
    }
    let in_kernel = inside != 0 && flow::has_upper_protocol(socket);
    if !in_kernel && !is_tls(scratch, bytes) {
        return false;
    }
    if inside != 0 {
        let exact = call.stack != call::OPEN_ENDED;
        tie(scope, inside, flow, scratch, exact)
    } else {
        way == Way::Send
            && waiting != 0
            && flow.tls_id == 0
            && u64::from(scratch.header.total) > written
            && tie(scope, waiting, flow, scratch, false)
    }
}

/// Whether captured bytes begin with the header of a TLS record.
#[inline(always)]
fn is_tls(scratch: &Scratch, bytes: u64) -> bool {
    let [kind, major, minor, high, low, ..] = scratch.bytes;
    let length = u16::from_be_bytes([high, low]);
    bytes >= RECORD_HEADER
        && (0x14..=0x18).contains(&kind)
        && major == 3
        && minor <= 4
        && length != 0
        && length <= RECORD_LENGTH
}

/// Notes that this socket carries the connection of an object. If `exact`, the operation is one of the call's own, which
/// proves it whatever was known before.
#[inline(always)]
fn tie(scope: Scope, object: u64, flow: &mut Flow, scratch: &Scratch, exact: bool) -> bool {
    let Some(connection) = connection::used(object, scope.slot) else {
        return false;
    };
    let header = &scratch.header;
    if connection.socket != 0 && connection.socket != header.cookie {
        if !exact {
            return false;
        }
        // The object serves another connection now.
        connection::restart(object);
    }
    if !exact && flow.tls_id != 0 {
        return false;
    }
    let unused = connection.sent == 0 && connection.received == 0;
    let first = header.offset == 0 && header.opposite == 0 && header.flags & flag::JOINED_LATE == 0;
    if exact && unused && first {
        connection.flags = 0;
    }
    connection.socket = header.cookie;
    connection.netns = header.netns;
    connection.family = header.family;
    connection.local_port = header.local_port;
    connection.remote_port = header.remote_port;
    // SAFETY: both are 16 bytes.
    unsafe {
        connection.local = ptr::read((&raw const header.local).cast());
        connection.remote = ptr::read((&raw const header.remote).cast());
    }
    flow.tls_object = object;
    flow.tls_id = connection.id;
    flow.tls_process = super::process();
    true
}

/// Flags for the end of a socket itself.
#[inline(always)]
pub fn flags_of_end(flow: &Flow) -> u8 {
    if sealed::is_candidate(flow) {
        sealed::flags_of_end(flow)
    } else if flow.tls_id == 0 {
        0
    } else {
        flag::CARRIES_TLS
    }
}

/// Hands the end of a socket, or of its sending, on to the TLS connection that it carries.
#[inline(always)]
pub fn ended(flow: &Flow, scope: Scope, kind: Kind, unread: u32) {
    if sealed::is_candidate(flow) {
        sealed::ended(flow, scope, kind, unread);
        return;
    }
    if flow.tls_id == 0 {
        return;
    }
    if let Some(connection) = of_flow(flow) {
        plaintext::deliver_end(scope, connection, kind, unread);
    }
}

#[inline(always)]
fn of_flow(flow: &Flow) -> Option<&'static mut TlsConnection> {
    connection::of_process(flow.tls_process, flow.tls_object)
        .filter(|connection| connection.id == flow.tls_id)
}
