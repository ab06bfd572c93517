//! Keys of rustls, by the address of the object that encrypts or decrypts with one.
//!
//! A connection moves about in memory, as values do in Rust, so that its own address names nothing. Its keys stay where they
//! are, and a key numbers its records from 0 without a gap: an address with another number than the next is another key.

use crate::maps::{TLS_HELD, TLS_KEYS, TlsKey, TlsKeyState};

static NEW: TlsKeyState = TlsKeyState {
    object: 0,
    next: 0,
    late: 0,
    holds: 0,
};

/// A key's state, if it is known.
#[inline(always)]
pub fn known(key: TlsKey) -> Option<&'static mut TlsKeyState> {
    let state = TLS_KEYS.get_ptr_mut(key)?;
    // SAFETY: the element is valid for the program's run. One thread at a time uses a key.
    unsafe { state.as_mut() }
}

/// A key's state at a record; begun anew unless it is the record that comes next.
#[inline(always)]
pub fn at_record(key: TlsKey, sequence: u64) -> Option<&'static mut TlsKeyState> {
    let goes_on = sequence != 0 && known(key).is_some_and(|state| state.next == sequence);
    if !goes_on {
        let _ = TLS_HELD.remove(key);
        let _ = TLS_KEYS.insert(key, &NEW, 0);
    }
    let state = known(key)?;
    if !goes_on {
        state.late = u64::from(sequence != 0);
    }
    state.next = sequence.wrapping_add(1);
    Some(state)
}
