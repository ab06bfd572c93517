//! TLS connections by their object.

use super::process;
use crate::{
    maps::{self, TLS_CONNECTIONS, TlsConnection, TlsKey},
    output,
};
use aya_ebpf::helpers::generated::bpf_get_smp_processor_id;
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
    reserved: [0; 2],
    local: [0; 4],
    remote: [0; 4],
};

#[inline(always)]
fn key(process: u32, object: u64) -> TlsKey {
    TlsKey {
        process,
        reserved: 0,
        address: object,
    }
}

/// The connection of an object of the running process, if it is known.
#[inline(always)]
pub fn known(object: u64) -> Option<&'static mut TlsConnection> {
    of_process(process(), object)
}

/// The connection of an object of any process, if it is known.
#[inline(always)]
pub fn of_process(process: u32, object: u64) -> Option<&'static mut TlsConnection> {
    let connection = TLS_CONNECTIONS.get_ptr_mut(key(process, object))?;
    // SAFETY: the element is valid for the program's run. Its positions are added to atomically; whatever else two threads
    // that use one object might write, they write the same.
    unsafe { connection.as_mut() }
}

/// The connection of an object; one that was in use before it could be seen starts here.
#[inline(always)]
pub fn used(object: u64, slot: u32) -> Option<&'static mut TlsConnection> {
    if known(object).is_none() {
        add(object, flag::JOINED_LATE, slot);
    }
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
    let _ = TLS_CONNECTIONS.insert(key(process(), object), &NEW, 0);
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
        connection.id = new_id();
        connection.sent = 0;
        connection.received = 0;
        connection.flags = flag::JOINED_LATE.into();
    }
}

/// Forgets a connection.
#[inline(always)]
pub fn forget(object: u64) {
    let _ = TLS_CONNECTIONS.remove(key(process(), object));
}

/// Forgets a connection of any process.
#[inline(always)]
pub fn forget_of(process: u32, object: u64) {
    let _ = TLS_CONNECTIONS.remove(key(process, object));
}

/// The highest bit, time, and CPU: a probe takes longer than the time's 1,024 ns, so no two on a CPU are equal.
#[inline(always)]
fn new_id() -> u64 {
    // SAFETY: no arguments.
    let cpu = u64::from(unsafe { bpf_get_smp_processor_id() });
    1 << 63 | output::now() & !0x3ff | cpu & 0x3ff
}
