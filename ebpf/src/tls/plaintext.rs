//! Delivery of plaintext, and of the ends of TLS connections.

use super::connection;
use crate::{
    capture, flow,
    maps::{self, SETTINGS, TLS_HELD, TLS_SCRATCH, TlsConnection, TlsHeld, TlsKey, TlsScratch},
    output, pieces,
    syscall::{Data, Shape, Way},
};
use aya_ebpf::helpers::generated::{bpf_get_current_pid_tgid, bpf_get_smp_processor_id};
use core::ptr;
use pilotfish_abi::{Counter, HELD_BYTES, Header, Kind, Scope, flag};

/// Elements of the map of scratch records; set by the loader.
#[unsafe(no_mangle)]
static TLS_SCRATCHES: u32 = 1;

/// Elements that are tried before the bytes are given up.
const TRIES: u32 = 4;

/// Delivers `moved` bytes of plaintext, which are at a user address; at address 0 nobody can read them.
#[inline(always)]
pub fn deliver(
    scope: Scope,
    connection: &mut TlsConnection,
    way: Way,
    address: u64,
    moved: u64,
) -> Option<()> {
    let data = if address == 0 {
        Data::hidden(Counter::NoBuffer)
    } else {
        Data::whole(address, moved)
    };
    deliver_data(scope, connection, way, data, moved)
}

/// The same for bytes that are in several places.
#[inline(always)]
pub fn deliver_data(
    scope: Scope,
    connection: &mut TlsConnection,
    way: Way,
    data: Data,
    moved: u64,
) -> Option<()> {
    let settings = SETTINGS
        .get(scope.slot)
        .filter(|settings| settings.enabled != 0)?;
    let opposite = opposite(connection, way);
    let offset = advance(connection, way, moved);
    let Some(scratch) = take() else {
        maps::count(scope.slot, Counter::TlsNoRoom, 1);
        return None;
    };
    let header = &mut scratch.record.header;
    let kind = if way == Way::Send {
        Kind::Send
    } else {
        Kind::Receive
    };
    fill(header, kind, connection, scope);
    header.offset = offset;
    header.opposite = opposite;
    header.total = moved as u32;
    if offset == 0 && moved >= flow::OPENING {
        flow::note_opening(&mut connection.run, capture::first_word(data));
    }
    let allowed = flow::allowance(&mut connection.run, way, settings.capture, moved);
    let allowed = u64::from(allowed);
    let bytes = copy(scratch, scope, data, allowed);
    if connection.flags & u32::from(flag::JOINED_LATE) != 0 && bytes >= flow::OPENING {
        let first = maps::first_word(&scratch.record.bytes);
        flow::note_frame(&mut connection.run, first);
    }
    // Only a buffer is ever longer than a piece: records of rustls are not.
    let goes_on = data.shape == Shape::Buffer && pieces::follow(bytes, allowed);
    let header = &mut scratch.record.header;
    if goes_on {
        header.total = bytes as u32;
    } else {
        count_uncaptured(scope, moved, bytes);
    }
    output::deliver(
        scope.slot,
        ptr::from_ref(&scratch.record).cast(),
        Header::SIZE as u64 + bytes,
    );
    if goes_on {
        pieces::deliver_buffer(&mut scratch.record, data.address, moved, allowed);
    }
    give_back(scratch);
    Some(())
}

/// Copies what is wanted of the data, and writes down how much that was.
#[inline(always)]
fn copy(scratch: &mut TlsScratch, scope: Scope, data: Data, wanted: u64) -> u64 {
    let wanted = capture::at_most_max(wanted);
    let captured = capture::copy_few(&mut scratch.record, data, wanted);
    if let Some(counter) = captured.trouble {
        maps::count(scope.slot, counter, 1);
    }
    let bytes = capture::at_most_max(captured.bytes);
    let header = &mut scratch.record.header;
    if bytes == 0 {
        header.flags |= flag::NO_BUFFER;
    }
    header.captured = bytes as u32;
    bytes
}

#[inline(always)]
fn count_uncaptured(scope: Scope, moved: u64, bytes: u64) {
    if moved > bytes {
        maps::count(scope.slot, Counter::Uncaptured, moved - bytes);
    }
}

/// Keeps what is sent until its connection is known. What follows before that is only counted.
#[inline(always)]
pub fn hold(scope: Scope, key: TlsKey, sequence: u64, data: Data, moved: u64) -> Option<()> {
    let settings = SETTINGS
        .get(scope.slot)
        .filter(|settings| settings.enabled != 0)?;
    if let Some(held) = TLS_HELD.get_ptr_mut(key) {
        // SAFETY: the element is valid for the program's run. One thread at a time encrypts with a key.
        unsafe { (*held).header.total = (*held).header.total.wrapping_add(moved as u32) };
        maps::count(scope.slot, Counter::Uncaptured, moved);
        return Some(());
    }
    let Some(scratch) = take() else {
        maps::count(scope.slot, Counter::TlsNoRoom, 1);
        return None;
    };
    let header = &mut scratch.record.header;
    header.flags = 0;
    header.offset = sequence;
    header.total = moved as u32;
    let most = settings.capture.min(HELD_BYTES);
    let wanted = if moved < u64::from(most) {
        moved
    } else {
        u64::from(most)
    };
    let bytes = copy(scratch, scope, data, wanted);
    count_uncaptured(scope, moved, bytes);
    // SAFETY: what waits is the beginning of a scratch record.
    let held = unsafe { &*ptr::from_ref(&scratch.record).cast::<TlsHeld>() };
    let result = TLS_HELD.insert(key, held, 0);
    give_back(scratch);
    if result.is_err() {
        maps::count(scope.slot, Counter::TlsStorage, 1);
    }
    Some(())
}

/// Delivers what has waited for this connection, in the place where it now comes. Not if it had to make room, or if a record
/// after its first one was the first to be found on a socket: then nobody knows what came in between.
#[inline(always)]
pub fn release(scope: Scope, connection: &mut TlsConnection, key: TlsKey, sequence: u64) -> bool {
    let Some(held) = TLS_HELD.get_ptr_mut(key) else {
        return false;
    };
    // SAFETY: the element is valid for the program's run, and nobody else has this key.
    let held = unsafe { &mut *held };
    let in_order = held.header.offset >= sequence;
    if in_order {
        let opposite = opposite(connection, Way::Send);
        let header = &mut held.header;
        let (flags, total) = (header.flags, header.total);
        let captured = u64::from(header.captured);
        let offset = advance(connection, Way::Send, total.into());
        fill(header, Kind::Send, connection, scope);
        header.flags |= flags;
        header.offset = offset;
        header.opposite = opposite;
        header.total = total;
        let bytes = capture::at_most_held(captured);
        header.captured = bytes as u32;
        if offset == 0 && bytes >= flow::OPENING {
            flow::note_opening(&mut connection.run, maps::first_word(&held.bytes));
        }
        output::deliver(
            scope.slot,
            ptr::from_ref(held).cast(),
            Header::SIZE as u64 + bytes,
        );
    }
    let _ = TLS_HELD.remove(key);
    in_order
}

/// Delivers the end of a direction, or of the connection.
#[inline(always)]
pub fn deliver_end(scope: Scope, connection: &mut TlsConnection, kind: Kind, unread: u32) {
    let Some(scratch) = take() else {
        maps::count(scope.slot, Counter::TlsNoRoom, 1);
        return;
    };
    let header = &mut scratch.record.header;
    fill(header, kind, connection, scope);
    let (sent, received) = (connection.sent, connection.received);
    if matches!(kind, Kind::ReceiveEnd) {
        header.offset = received;
        header.opposite = sent;
    } else {
        header.offset = sent;
        header.opposite = received;
    }
    if matches!(kind, Kind::Close) && connection::is_unseen(connection) {
        // Told once, although the socket and the object have an end each.
        connection.unseen = [0; 2];
        header.flags |= flag::UNSEEN;
    }
    header.total = unread;
    output::deliver(
        scope.slot,
        ptr::from_ref(&scratch.record).cast(),
        Header::SIZE as u64,
    );
    give_back(scratch);
}

/// See [`flow::opposite`].
#[inline(always)]
fn opposite(connection: &TlsConnection, way: Way) -> u64 {
    let position = match way {
        Way::Send => &raw const connection.received,
        Way::Receive => &raw const connection.sent,
    };
    // SAFETY: a field of the map's value; volatile so that the load stays before the addition.
    unsafe { ptr::read_volatile(position) }
}

#[inline(always)]
fn advance(connection: &mut TlsConnection, way: Way, moved: u64) -> u64 {
    let position = match way {
        Way::Send => &raw mut connection.sent,
        Way::Receive => &raw mut connection.received,
    };
    // SAFETY: a field of the map's value.
    unsafe { maps::fetch_add(position, moved) }
}

/// Everything but offset and lengths.
#[inline(always)]
fn fill(header: &mut Header, kind: Kind, connection: &TlsConnection, scope: Scope) {
    header.kind = kind as u8;
    header.flags = flag::TLS | connection.flags as u8;
    header.family = connection.family;
    header.slot = scope.slot;
    header.time = output::now();
    header.cookie = connection.id;
    header.tgid = scope.tgid;
    // SAFETY: no arguments.
    header.tid = unsafe { bpf_get_current_pid_tgid() } as u32;
    header.total = 0;
    header.captured = 0;
    header.netns = connection.netns;
    header.local_port = connection.local_port;
    header.remote_port = connection.remote_port;
    // SAFETY: both are 16 bytes.
    unsafe {
        ptr::write((&raw mut header.local).cast(), connection.local);
        ptr::write((&raw mut header.remote).cast(), connection.remote);
    }
}

/// Takes a scratch record that nobody has.
#[inline(always)]
fn take() -> Option<&'static mut TlsScratch> {
    // SAFETY: no arguments; a plain global, volatile because the loader replaces it.
    let (cpu, count) = unsafe {
        (
            bpf_get_smp_processor_id(),
            ptr::read_volatile(&raw const TLS_SCRATCHES),
        )
    };
    for attempt in 0..TRIES {
        let index = (cpu * 2 + attempt) % if count == 0 { 1 } else { count };
        let scratch = TLS_SCRATCH.get_ptr_mut(index)?;
        // SAFETY: the element is valid for the program's run, and ours alone once it is taken.
        unsafe {
            if maps::exchange(&raw mut (*scratch).taken, 1) == 0 {
                return Some(&mut *scratch);
            }
        }
    }
    None
}

#[inline(always)]
fn give_back(scratch: &mut TlsScratch) {
    // SAFETY: a field of the map's value.
    unsafe { maps::exchange(&raw mut scratch.taken, 0) };
}
