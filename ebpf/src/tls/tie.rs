//! Which socket carries which TLS connection.

use super::{call, connection, plaintext, sealed};
use crate::{
    flow,
    maps::{Flow, LOOKS_LIKE_TLS, SEVERAL, Scratch, TlsCall, TlsConnection},
    syscall::{Data, Way},
};
use core::{ffi::c_void, ptr};
use pilotfish_abi::{Kind, Scope, flag, tls_calls};

/// Bytes of a TLS record's header (RFC 8446, section 5.1).
const RECORD_HEADER: u64 = 5;

/// Most bytes of a TLS record (RFC 5246, section 6.2.3).
const RECORD_LENGTH: u16 = (1 << 14) + 2048;

/// Kinds of records (RFC 8446, section 5.1).
const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;

/// First byte of the handshake message that opens a connection (RFC 8446, section 4).
const CLIENT_HELLO: u8 = 1;

/// Most bytes that encryption adds to a record of plaintext: header, initialisation vector, MAC of SHA-384, padding.
const RECORD_OVERHEAD: u64 = 5 + 16 + 48 + 16;

/// What a socket operation is to TLS.
pub struct Carried {
    /// Bits of [`tls_calls`] of the process.
    calls: u32,
    /// Its bytes are ciphertext whose plaintext is seen.
    pub is_ciphertext: bool,
    /// The same, but the connection that the socket carried is gone or has begun anew.
    is_stale: bool,
    /// [`TlsCall::waiting`] before the operation.
    waiting: u64,
}

impl Carried {
    /// Keeps what [`examine`] needs beside the operation's bytes.
    #[inline(always)]
    pub fn store(&self, scratch: &mut Scratch) {
        scratch.calls = self.calls;
        scratch.is_stale = self.is_stale.into();
        scratch.waiting = self.waiting;
    }
}

/// Asks what an operation of this socket is, which moved `total` bytes.
#[inline(always)]
pub fn carried(flow: &Flow, scope: Scope, way: Way, data: Data, total: u64) -> Carried {
    let calls = super::calls_of_process();
    if calls & tls_calls::RECORDS != 0 && sealed::passed(flow, way, data, total) {
        return Carried {
            calls,
            is_ciphertext: true,
            is_stale: false,
            waiting: 0,
        };
    }
    let make_for = (flow.tls_id == 0).then_some(scope.slot);
    let mut call = call::of_system_call(calls, make_for);
    let inside = call.as_ref().map_or(0, |call| call::inside(call));
    let waiting = call.as_mut().map_or(0, |call| note(call, way));
    let mut carried = Carried {
        calls,
        is_ciphertext: false,
        is_stale: false,
        waiting,
    };
    // Without a call too: a goroutine that was started for it may close a connection.
    let is_tied = flow.tls_id != 0
        && calls != 0
        && flow.tls_process == super::process()
        && flow.tls_program == super::program();
    if is_tied && (inside == 0 || inside == flow.tls_object) {
        if let Some(connection) = connection::of_flow(flow) {
            connection::moved_unseen(connection, way, total);
            carried.is_ciphertext = true;
        } else {
            carried.is_stale = true;
        }
    }
    carried
}

/// Takes note of an operation that moved nothing.
#[inline(always)]
pub fn failed(way: Way) {
    if let Some(call) = call::of_system_call(super::calls_of_process(), None) {
        note(call, way);
    }
}

/// Takes note of any operation. Gives the object whose ciphertext it may carry.
#[inline(always)]
fn note(call: &mut TlsCall, way: Way) -> u64 {
    let inside = call::inside(call);
    let waiting = call.waiting;
    if inside != 0 || way == Way::Send {
        // Whatever it is, the next one is not the first after the call.
        call.waiting = 0;
    }
    if inside == 0 {
        return waiting;
    }
    call.did_io = true;
    if call.hellos != 0
        && let Some(connection) = connection::known(inside)
    {
        call::settle(call, connection);
    }
    0
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
    // SAFETY: fields of the map's value.
    let (calls, is_stale, waiting) = unsafe {
        (
            ptr::read_volatile(&raw const scratch.calls),
            ptr::read_volatile(&raw const scratch.is_stale) != 0,
            ptr::read_volatile(&raw const scratch.waiting),
        )
    };
    let call = call::of_system_call(calls, None);
    let is_called = waiting != 0 || call.as_ref().is_some_and(|call| call.object != 0);
    if calls & tls_calls::RECORDS != 0 && !is_called {
        return sealed::examine(scope, flow, way, scratch, bytes);
    }
    let Some(call) = call else {
        return is_stale;
    };
    let inside = call::inside(call);
    let is_tls = is_tls(scratch, bytes);
    if inside != 0 {
        let in_kernel = flow::has_upper_protocol(socket);
        if !in_kernel && !is_tls {
            return is_stale;
        }
        let Some(connection) = connection::used(inside, scope.slot) else {
            return false;
        };
        tie_exactly(connection, inside, flow, scratch);
        return true;
    }
    if is_tls {
        flow.flags |= LOOKS_LIKE_TLS;
    }
    // A call without an end is one of Go, which moves ciphertext in the same goroutine and leaves nothing in memory.
    let is_open = call.object != 0;
    if way == Way::Receive && !is_open {
        note_heard(call, flow, scratch);
    } else if is_tls && (flow.tls_id == 0 || is_stale) {
        let object = if is_open { call.object } else { waiting };
        if object != 0
            && let Some(connection) = connection::known(object)
            && (connection.socket == scratch.header.cookie
                || connection.socket == 0
                    && (is_open || is_expected(call, connection, scratch, bytes)))
        {
            call::settle(call, connection);
            tie(connection, object, flow, scratch);
            return true;
        }
    }
    is_stale
}

/// Takes note of what was received outside of every call.
#[inline(always)]
fn note_heard(call: &mut TlsCall, flow: &Flow, scratch: &Scratch) {
    // The rest of a record does not look like TLS.
    if flow.flags & LOOKS_LIKE_TLS == 0 {
        return;
    }
    // What a call leaves in memory is sent before that.
    call.waiting = 0;
    let cookie = scratch.header.cookie;
    let differs = call.heard != 0 && call.heard != cookie;
    call.heard = if differs { SEVERAL } else { cookie };
}

/// Whether bytes that are sent outside of every call are what the last one left in memory.
#[inline(always)]
fn is_expected(call: &TlsCall, connection: &TlsConnection, scratch: &Scratch, bytes: u64) -> bool {
    let header = &scratch.header;
    let (kind, message) = (scratch.bytes[0], scratch.bytes[RECORD_HEADER as usize]);
    if connection.heard == 0 {
        let is_first =
            header.offset == 0 && header.opposite == 0 && header.flags & flag::JOINED_LATE == 0;
        return is_first
            && connection.awaits != 0
            && call.hellos == 1
            && bytes > RECORD_HEADER
            && kind == HANDSHAKE
            && message == CLIENT_HELLO;
    }
    if connection.heard != header.cookie {
        return false;
    }
    let (total, written) = (u64::from(header.total), call.waiting_bytes);
    if written == 0 {
        return kind != APPLICATION_DATA;
    }
    total > written && total - written <= call.waiting_records * RECORD_OVERHEAD
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

/// Notes that this socket carries the connection of an object: the operation is one of a call on it, which proves it whatever
/// was known before.
#[inline(always)]
fn tie_exactly(connection: &mut TlsConnection, object: u64, flow: &mut Flow, scratch: &Scratch) {
    let header = &scratch.header;
    if connection.socket != 0 && connection.socket != header.cookie {
        // The object serves another connection now.
        connection::begin_anew(connection);
    }
    let unused = connection.sent == 0 && connection.received == 0;
    let first = header.offset == 0 && header.opposite == 0 && header.flags & flag::JOINED_LATE == 0;
    if unused && first {
        connection.flags = 0;
    }
    tie(connection, object, flow, scratch);
}

#[inline(always)]
fn tie(connection: &mut TlsConnection, object: u64, flow: &mut Flow, scratch: &Scratch) {
    let header = &scratch.header;
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
    flow.tls_program = super::program();
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
    if let Some(connection) = connection::of_flow(flow) {
        plaintext::deliver_end(scope, connection, kind, unread);
    }
}
