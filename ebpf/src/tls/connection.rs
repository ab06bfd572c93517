//! TLS connections by their object.

use super::{process, program};
use crate::{
    maps::{self, Flow, TLS_CONNECTIONS, TLS_LAST_ID, TlsConnection, TlsKey},
    syscall::Way,
};
use pilotfish_abi::{Counter, flag};

static NEW: TlsConnection = TlsConnection {
    id: 0,
    sent: 0,
    received: 0,
    socket: 0,
    flags: 0,
    run: 0,
    netns: 0,
    family: 0,
    local_port: 0,
    remote_port: 0,
    has_key: 0,
    shaken: 0,
    reserved: 0,
    awaits: 0,
    reserved_too: 0,
    local: [0; 4],
    remote: [0; 4],
    unseen: [0; 2],
    heard: 0,
    reader: 0,
};

/// Names something at an address of the running process.
#[inline(always)]
pub fn own_key(address: u64) -> TlsKey {
    TlsKey {
        process: process(),
        program: program(),
        address,
    }
}

/// The connection of an object of the running process, if it is known.
#[inline(always)]
pub fn known(object: u64) -> Option<&'static mut TlsConnection> {
    with_key(own_key(object))
}

/// The connection that a socket was last seen to carry, unless it is gone or has begun anew since.
#[inline(always)]
pub fn of_flow(flow: &Flow) -> Option<&'static mut TlsConnection> {
    with_key(key_of(flow)).filter(|connection| connection.id == flow.tls_id)
}

/// The same for one that is named after the socket, and so never is another's.
#[inline(always)]
pub fn of_socket(flow: &Flow) -> Option<&'static mut TlsConnection> {
    with_key(key_of(flow))
}

#[inline(always)]
fn key_of(flow: &Flow) -> TlsKey {
    TlsKey {
        process: flow.tls_process,
        program: flow.tls_program,
        address: flow.tls_object,
    }
}

#[inline(always)]
fn with_key(key: TlsKey) -> Option<&'static mut TlsConnection> {
    let connection = TLS_CONNECTIONS.get_ptr_mut(key)?;
    // SAFETY: the element is valid for the program's run. Its positions are added to atomically; whatever else two threads
    // that use one object might write, they write the same.
    unsafe { connection.as_mut() }
}

/// The connection of an object; one that was in use before it could be seen starts here.
#[inline(always)]
pub fn used(object: u64, slot: u32) -> Option<&'static mut TlsConnection> {
    let connection = known(object);
    if connection.is_some() {
        return connection;
    }
    add(object, flag::JOINED_LATE, slot);
    known(object)
}

/// Begins a connection, in the place of another with this object.
#[inline(always)]
pub fn open(object: u64, slot: u32) {
    add(object, 0, slot);
}

/// Begins a connection unless it is known.
#[inline(always)]
pub fn open_unless_known(object: u64, slot: u32) {
    if known(object).is_none() {
        add(object, 0, slot);
    }
}

#[inline(always)]
fn add(object: u64, flags: u8, slot: u32) {
    // The value is a constant of the object and not on the stack, which has to stay small.
    let _ = TLS_CONNECTIONS.insert(own_key(object), &NEW, 0);
    match known(object) {
        Some(connection) => {
            connection.id = new_id();
            connection.flags = flags.into();
        }
        None => maps::count(slot, Counter::TlsStorage, 1),
    }
}

/// Gives a connection a new name because its streams can no longer be followed from where they were.
#[inline(always)]
pub fn restart(object: u64) {
    if let Some(connection) = known(object) {
        begin_anew(connection);
    }
}

/// See [`restart`].
#[inline(always)]
pub fn begin_anew(connection: &mut TlsConnection) {
    connection.id = new_id();
    connection.sent = 0;
    connection.received = 0;
    connection.flags = flag::JOINED_LATE.into();
    connection.reader = 0;
    connection.shaken = 0;
    connection.unseen = [0; 2];
}

/// Forgets a connection.
#[inline(always)]
pub fn forget(object: u64) {
    let _ = TLS_CONNECTIONS.remove(own_key(object));
}

/// Forgets the connection that a socket was last seen to carry.
#[inline(always)]
pub fn forget_of(flow: &Flow) {
    let _ = TLS_CONNECTIONS.remove(key_of(flow));
}

#[inline(always)]
fn new_id() -> u64 {
    let last = TLS_LAST_ID.get_ptr_mut(0);
    // SAFETY: the array's only element, which is always there.
    let number = last.map_or(0, |last| unsafe { maps::fetch_add(last, 1) });
    1 << 63 | number
}

/// Bytes of the longest record that only tells of the connection's end: an alert of TLS 1.2 with a block cipher
/// (RFC 5246, section 6.2.3.2), of 2 bytes, its MAC and padding, initialisation vector and header.
const ALERT: u32 = 85;

/// Takes note of ciphertext that a connection's socket has moved outside of what was seen.
#[inline(always)]
pub fn moved_unseen(connection: &mut TlsConnection, way: Way, bytes: u64) {
    if connection.shaken != 0 && connection.sent | connection.received == 0 {
        let place = match way {
            Way::Send => &mut connection.unseen[0],
            Way::Receive => &mut connection.unseen[1],
        };
        *place = place.saturating_add(bytes as u32);
    }
}

/// Takes note that a handshake has come to an end, or as far as it could without waiting, and has moved its own bytes.
#[inline(always)]
pub fn shaken(connection: &mut TlsConnection) {
    connection.shaken = 1;
    connection.unseen = [0; 2];
}

/// Whether a connection was used without its plaintext having been seen: by a function that no probe is in.
#[inline(always)]
pub fn is_unseen(connection: &TlsConnection) -> bool {
    let [sent, received] = connection.unseen;
    connection.sent | connection.received == 0 && sent > ALERT && received > ALERT
}
