//! The sockets of rustls's connections: which one sends a record, and which one a thread received from.
//!
//! The connection of a socket is begun with the first message of a handshake, and named after the socket. Its keys are found
//! later; until then its bytes are not captured, but for so many that it cannot be a handshake any more.

use super::{connection, key, plaintext, process, program, records};
use crate::{
    maps::{self, Flow, Scratch, Sealed, TLS_SEALED, TlsConnection},
    syscall::{Data, Shape, Way},
};
use core::ptr;
use pilotfish_abi::{Counter, Kind, Scope, flag};

/// Marks objects that are sockets: no address in user space has this bit.
const SOCKET: u64 = 1 << 63;

/// Bytes of a connection without a key after which it is somebody else's.
const WITHOUT_KEY: u64 = 64 * 1024;

/// Bytes of a record's header, and of a `change_cipher_spec` before it (RFC 8446, appendix D.4).
const HEADER: usize = 5;
const CHANGE_CIPHER_SPEC: usize = 6;

/// Bytes that a record is known by.
const KNOWN_BY: usize = 16;

/// Whether a socket carries a connection that may be one of rustls.
#[inline(always)]
pub fn is_candidate(flow: &Flow) -> bool {
    flow.tls_object & SOCKET != 0
}

/// The connection of such a socket if one of its keys is known.
#[inline(always)]
pub fn tied(flow: &Flow) -> Option<&'static mut TlsConnection> {
    connection::of_socket(flow).filter(|connection| connection.socket != 0)
}

/// Takes note of an operation of a process that has rustls; true if its bytes need not be looked at.
#[inline(always)]
pub fn passed(flow: &Flow, way: Way, data: Data, total: u64) -> bool {
    let record = records::of_thread();
    let is_candidate = is_candidate(flow) && flow.tls_process == process();
    if way == Way::Receive
        && let Some(record) = record
    {
        let is_known = is_candidate && data.shape == Shape::Buffer;
        record.received_by = if is_known { flow.tls_object } else { 0 };
        record.received_at = data.address;
        record.received_bytes = total;
        return is_candidate && (may_be_handshake(flow) || tied(flow).is_some());
    }
    let unsent = record.is_some_and(|record| {
        let unsent = record.unsent;
        record.unsent = 0;
        unsent != 0
    });
    is_candidate && !unsent && tied(flow).is_some_and(|connection| connection.has_key != 0)
}

#[inline(always)]
fn may_be_handshake(flow: &Flow) -> bool {
    flow.sent.wrapping_add(flow.received) <= WITHOUT_KEY
}

/// Learns from an operation of which `bytes` are captured. True if it is one of a connection of rustls, as far as anybody knows.
#[inline(always)]
pub fn examine(scope: Scope, flow: &mut Flow, way: Way, scratch: &Scratch, bytes: u64) -> bool {
    if !is_candidate(flow) {
        return flow.tls_id == 0 && begins(scratch, bytes) && begin(scope, flow, scratch);
    }
    if way == Way::Send {
        find_key(scope, flow, scratch, bytes);
    }
    may_be_handshake(flow) || tied(flow).is_some()
}

/// Whether it is a `client_hello` in a record of its own.
#[inline(always)]
fn begins(scratch: &Scratch, bytes: u64) -> bool {
    let [kind, major, _, _, _, message, ..] = scratch.bytes;
    bytes > HEADER as u64 && kind == 22 && major == 3 && message == 1
}

#[inline(always)]
fn begin(scope: Scope, flow: &mut Flow, scratch: &Scratch) -> bool {
    let header = &scratch.header;
    let object = SOCKET | header.cookie;
    connection::open(object, scope.slot);
    let Some(connection) = connection::known(object) else {
        return false;
    };
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
    flow.tls_process = process();
    flow.tls_program = program();
    true
}

/// Finds the key whose record a socket sends.
#[inline(always)]
fn find_key(scope: Scope, flow: &Flow, scratch: &Scratch, bytes: u64) -> Option<()> {
    let sealed = if scratch.bytes[0] == 20 {
        known_by(scratch, bytes, CHANGE_CIPHER_SPEC + HEADER)?
    } else {
        known_by(scratch, bytes, HEADER)?
    };
    // SAFETY: the value is copied before anything else runs.
    let by = unsafe { *TLS_SEALED.get(sealed)? };
    let _ = TLS_SEALED.remove(sealed);
    let connection = connection::known(flow.tls_object)?;
    let key = connection::own_key(by.key);
    let state = key::known(key).filter(|state| state.object == 0 && state.next > by.sequence)?;
    state.object = flow.tls_object;
    connection.socket = flow.tls_object;
    connection.has_key = 1;
    if state.late != 0 {
        connection::restart(flow.tls_object);
    }
    let is_whole = state.holds == 0 || plaintext::release(scope, connection, key, by.sequence);
    if !is_whole {
        connection::restart(flow.tls_object);
        maps::count(scope.slot, Counter::TlsUntied, 1);
    }
    Some(())
}

#[inline(always)]
fn known_by(scratch: &Scratch, bytes: u64, start: usize) -> Option<Sealed> {
    if bytes < (start + KNOWN_BY) as u64 {
        return None;
    }
    // SAFETY: within the scratch bytes.
    let bytes = unsafe {
        ptr::read_unaligned(
            (&raw const scratch.bytes)
                .cast::<u8>()
                .add(start)
                .cast::<[u64; 2]>(),
        )
    };
    Some(Sealed {
        process: process().into(),
        bytes,
    })
}

/// Flags for the end of such a socket.
#[inline(always)]
pub fn flags_of_end(flow: &Flow) -> u8 {
    if tied(flow).is_some() {
        flag::CARRIES_TLS
    } else {
        0
    }
}

/// Hands the end of such a socket on to its connection.
#[inline(always)]
pub fn ended(flow: &Flow, scope: Scope, kind: Kind, unread: u32) {
    let is_closed = matches!(kind, Kind::Close);
    match tied(flow) {
        Some(connection) => plaintext::deliver_end(scope, connection, kind, unread),
        None if is_closed => maps::count(scope.slot, Counter::TlsUntied, 1),
        None => {}
    }
    if is_closed {
        connection::forget_of(flow);
    }
}
