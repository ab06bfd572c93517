//! Delivery of records, with every loss counted.

use crate::{maps, maps::RECORDS};
use aya_ebpf::{
    bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    helpers::generated::{bpf_ktime_get_ns, bpf_ringbuf_output, bpf_ringbuf_query},
};
use core::{ffi::c_void, ptr};
use pilotfish_abi::{Counter, Header};

/// The reader is woken before its timer whenever the bytes waiting in the ring buffer pass a multiple of this power
/// of two; set by the loader.
#[unsafe(no_mangle)]
static WAKE_AT_BYTES: u32 = 0x8_0000;

/// `CLOCK_MONOTONIC` in nanoseconds.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: no arguments.
    unsafe { bpf_ktime_get_ns() }
}

/// Sends `size` bytes that start with a header for `slot`.
///
/// The reader polls on a timer: a wake-up is an interrupt, and one for every record would cost more than everything
/// else together.
#[inline(always)]
pub fn deliver(slot: u32, record: *const c_void, size: u64) {
    send(slot, record, size, false);
}

#[inline(always)]
fn send(slot: u32, record: *const c_void, size: u64, urgent: bool) {
    maps::count(slot, Counter::Produced, 1);
    let ring = ptr::from_ref(&RECORDS).cast_mut().cast();
    // SAFETY: the map is a ring buffer and `record` is readable for `size` bytes, which the verifier proves.
    let result = unsafe {
        let waiting = bpf_ringbuf_query(ring, BPF_RB_AVAIL_DATA.into());
        let flags = if urgent || passes_mark(waiting, size) {
            BPF_RB_FORCE_WAKEUP
        } else {
            BPF_RB_NO_WAKEUP
        };
        bpf_ringbuf_output(ring, record.cast_mut(), size, flags.into())
    };
    if result != 0 {
        maps::count(slot, Counter::RingFull, 1);
    }
}

/// Whether a record takes the waiting bytes past a multiple of the wake-up mark. A mark that two racing CPUs both
/// miss is made up for by the next one.
#[inline(always)]
fn passes_mark(waiting: u64, size: u64) -> bool {
    // SAFETY: a plain global; volatile because the loader replaces it.
    let mark = u64::from(unsafe { ptr::read_volatile(&raw const WAKE_AT_BYTES) });
    // The ring buffer adds a header of eight bytes and rounds up to eight.
    let taken = (size + 15) & !7;
    (waiting & mark.wrapping_sub(1)) + taken >= mark
}

/// Sends a record without payload.
#[inline(always)]
pub fn deliver_header(header: &Header) {
    deliver(
        header.slot,
        ptr::from_ref(header).cast(),
        Header::SIZE as u64,
    );
}

/// The same, and wakes the reader at once: for what happens rarely and has to be followed closely.
#[inline(always)]
pub fn deliver_header_now(header: &Header) {
    send(
        header.slot,
        ptr::from_ref(header).cast(),
        Header::SIZE as u64,
        true,
    );
}
