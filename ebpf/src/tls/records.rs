//! rustls: plaintext at its record layer, where each record is encrypted or decrypted with a key.
//!
//! The functions are methods of trait objects, so every build has them as such. Nothing is promised about how Rust lays out
//! their arguments: each value is believed only if the record's own header and lengths agree with it. Which connection a key
//! belongs to is proven by the record's ciphertext ([`super::sealed`]) or, for what is received, by its place in the memory that
//! the thread has just received into.

use super::{connection, key, no_private_stack, plaintext, registers::Registers};
use crate::{
    kernel,
    maps::{self, Sealed, SealedBy, TLS_RECORDS, TLS_SEALED, TlsKeyState, TlsRecord},
    scope,
    syscall::{Data, Way},
};
use aya_ebpf::{
    EbpfContext,
    bindings::BPF_LOCAL_STORAGE_GET_F_CREATE,
    helpers::generated::{bpf_get_attach_cookie, bpf_probe_read_user, bpf_task_storage_get},
    macros::{uprobe, uretprobe},
    programs::{ProbeContext, RetProbeContext},
};
use core::{ffi::c_void, ptr};
use pilotfish_abi::{Counter, Scope, TlsAction, TlsCookie, TlsResult};

/// Bytes of a record's header (RFC 8446, section 5.1).
const HEADER: u64 = 5;

/// Most bytes of a record's payload (RFC 5246, section 6.2.3).
const LARGEST: u64 = (1 << 14) + 2048;

/// Content type of the program's data (RFC 8446, appendix B.1).
const APPLICATION_DATA: u64 = 23;

/// Discriminants of rustls's `ContentType::ApplicationData`, and of `ProtocolVersion`'s TLS 1.2 and 1.3.
const APPLICATION_DATA_VARIANT: u8 = 3;
const VERSION_VARIANTS: core::ops::RangeInclusive<u16> = 4..=5;

/// The running thread's state; made if there is none yet.
#[inline(always)]
pub fn of_thread() -> Option<&'static mut TlsRecord> {
    storage(BPF_LOCAL_STORAGE_GET_F_CREATE.into())
}

#[inline(always)]
fn storage(flags: u64) -> Option<&'static mut TlsRecord> {
    // SAFETY: the helper takes the map and the running task, and returns null or the task's own entry.
    unsafe {
        bpf_task_storage_get(
            TLS_RECORDS.as_ptr(),
            kernel::current_task(),
            ptr::null_mut(),
            flags,
        )
        .cast::<TlsRecord>()
        .as_mut()
    }
}

/// Reads words of the process.
#[inline(always)]
fn words<const COUNT: usize>(address: u64) -> Option<[u64; COUNT]> {
    let mut words = [0_u64; COUNT];
    // SAFETY: the helper checks the user address and writes at most the size of `words`.
    let result = unsafe {
        bpf_probe_read_user(
            (&raw mut words).cast(),
            (COUNT * 8) as u32,
            address as *const c_void,
        )
    };
    (result == 0).then_some(words)
}

#[inline(always)]
fn cookie(context: &impl EbpfContext) -> TlsCookie {
    // SAFETY: the helper takes the program's context.
    let cookie = unsafe { bpf_get_attach_cookie(context.as_ptr()) };
    no_private_stack(context, cookie);
    TlsCookie(cookie)
}

/// Entry of every function that encrypts or decrypts a record.
#[uprobe]
pub fn tls_record_enter(context: ProbeContext) -> u32 {
    entered(&context);
    0
}

#[inline(always)]
fn entered(context: &ProbeContext) -> Option<()> {
    let scope = scope::in_scope()?;
    let cookie = cookie(context);
    let registers = Registers::new(context.as_ptr());
    let Some(record) = of_thread() else {
        maps::count(scope.slot, Counter::TlsStorage, 1);
        return None;
    };
    record.key = 0;
    record.stack = registers.stack();
    record.sequence = registers.rust_argument(2);
    record.result = registers.rust_result();
    let message = registers.rust_argument(1);
    let understood = match cookie.action()? {
        TlsAction::Encrypt => note_plaintext(record, message),
        TlsAction::Decrypt => note_ciphertext(record, message),
        _ => return None,
    };
    if understood.is_none() {
        maps::count(scope.slot, Counter::TlsUntied, 1);
        return None;
    }
    record.key = registers.rust_argument(0);
    Some(())
}

/// `OutboundPlainMessage`: one slice, or an array of slices of which a range is meant, then content type and version in
/// either order.
#[inline(always)]
fn note_plaintext(record: &mut TlsRecord, message: u64) -> Option<()> {
    let [first, second, third, fourth, last] = words::<5>(message)?;
    let last = last.to_le_bytes();
    let content = if VERSION_VARIANTS.contains(&u16::from_le_bytes([last[0], last[1]])) {
        last[4]
    } else if VERSION_VARIANTS.contains(&u16::from_le_bytes([last[2], last[3]])) {
        last[0]
    } else {
        return None;
    };
    if first == 0 {
        record.address = second;
        record.length = third;
        record.chunks = 0;
        record.skipped = 0;
    } else {
        record.address = first;
        record.length = fourth.wrapping_sub(third);
        record.chunks = second;
        record.skipped = third;
    }
    record.content = if content == APPLICATION_DATA_VARIANT {
        APPLICATION_DATA
    } else {
        0
    };
    (record.length <= LARGEST).then_some(())
}

/// `InboundOpaqueMessage`: the slice behind the record's header, in the buffer that it was received into.
#[inline(always)]
fn note_ciphertext(record: &mut TlsRecord, message: u64) -> Option<()> {
    let [address, length] = words::<2>(message)?;
    let [header] = words::<1>(address.wrapping_sub(HEADER))?;
    let [kind, major, _, high, low, ..] = header.to_le_bytes();
    if major != 3 || u64::from(u16::from_be_bytes([high, low])) != length || length > LARGEST {
        return None;
    }
    record.address = address;
    record.length = length;
    record.content = kind.into();
    Some(())
}

/// Return of the same functions.
#[uretprobe]
pub fn tls_record_leave(context: RetProbeContext) -> u32 {
    left(&context);
    0
}

#[inline(always)]
fn left(context: &RetProbeContext) -> Option<()> {
    let scope = scope::in_scope()?;
    let cookie = cookie(context);
    let registers = Registers::new(context.as_ptr());
    let record = storage(0)?;
    if record.key == 0 || record.stack != registers.stack_before_return() {
        return None;
    }
    let address = record.key;
    record.key = 0;
    let overhead = TlsResult::overhead(cookie.result())?;
    let Some(state) = key::at_record(connection::own_key(address), record.sequence) else {
        maps::count(scope.slot, Counter::TlsStorage, 1);
        return None;
    };
    let seen = match cookie.action()? {
        TlsAction::Encrypt => encrypted(scope, record, state, address, overhead),
        TlsAction::Decrypt => decrypted(scope, record, state, overhead),
        _ => return None,
    };
    if seen.is_none() {
        state.late = 1;
        maps::count(scope.slot, Counter::TlsUntied, 1);
    }
    Some(())
}

/// `OutboundOpaqueMessage` is what it returns: capacity, address and length of the whole record come second to fourth.
#[inline(always)]
fn encrypted(
    scope: Scope,
    record: &mut TlsRecord,
    state: &mut TlsKeyState,
    address: u64,
    overhead: u64,
) -> Option<()> {
    let [_, _, ciphertext, length] = words::<4>(record.result)?;
    if length != HEADER + record.length + overhead {
        return None;
    }
    let is_data = record.content == APPLICATION_DATA && record.length != 0;
    let data = if record.chunks == 0 {
        Data::whole(record.address, record.length)
    } else {
        Data::chunks(record.address, record.chunks, record.skipped)
    };
    if state.object != 0 {
        if !is_data {
            return Some(());
        }
        let connection = connection::known(state.object)?;
        plaintext::deliver_data(scope, connection, Way::Send, data, record.length);
        return Some(());
    }
    let key = connection::own_key(address);
    let sealed = Sealed {
        process: key.process.into(),
        bytes: words::<2>(ciphertext.wrapping_add(HEADER))?,
    };
    let by = SealedBy {
        key: address,
        sequence: record.sequence,
    };
    TLS_SEALED.insert(sealed, by, 0).ok()?;
    record.unsent = 1;
    if is_data {
        state.holds = 1;
        plaintext::hold(scope, key, record.sequence, data, record.length);
    }
    Some(())
}

/// `InboundPlainMessage` is what it returns: address and length of the plaintext come second and third, and are where the
/// ciphertext was. A failure leaves these as they were, but the plaintext is all zeros then: both implementations overwrite
/// it.
#[inline(always)]
fn decrypted(
    scope: Scope,
    record: &TlsRecord,
    state: &mut TlsKeyState,
    overhead: u64,
) -> Option<()> {
    let [_, plaintext, length] = words::<3>(record.result)?;
    let most = record.length.checked_sub(overhead)?;
    let before = plaintext.wrapping_sub(record.address);
    if before > EXPLICIT_NONCE || length > most {
        return None;
    }
    // TLS 1.3 has the content type behind the plaintext, and perhaps padding behind that.
    let content = if overhead == TYPED {
        let [behind] = words::<1>(plaintext.wrapping_add(length))?;
        behind & 0xff
    } else {
        let [first] = words::<1>(plaintext)?;
        if first == 0 || length != most {
            0
        } else {
            record.content
        }
    };
    if content == 0 {
        return None;
    }
    if state.object == 0 {
        find_connection(record, state);
    }
    if content != APPLICATION_DATA || length == 0 {
        return Some(());
    }
    let connection = connection::known(state.object)?;
    plaintext::deliver(scope, connection, Way::Receive, plaintext, length);
    Some(())
}

/// Bytes of the part of the nonce that comes before the ciphertext (RFC 5288, section 3).
const EXPLICIT_NONCE: u64 = 8;

/// Overhead of a record that has its content type behind the plaintext.
const TYPED: u64 = match TlsResult::overhead(TlsResult::Inner as u8) {
    Some(overhead) => overhead,
    None => 0,
};

/// A record that ends within what the thread received last came over that socket: the buffer is the connection's own, and
/// before these bytes the record was not complete.
#[inline(always)]
fn find_connection(record: &TlsRecord, state: &mut TlsKeyState) {
    let end = record.address.wrapping_add(record.length);
    let within = end.wrapping_sub(record.received_at);
    if record.received_by == 0 || within == 0 || within > record.received_bytes {
        return;
    }
    let Some(connection) = connection::known(record.received_by) else {
        return;
    };
    if state.late != 0 {
        connection::restart(record.received_by);
    }
    connection.socket = record.received_by;
    state.object = record.received_by;
}
