//! Delivery of records, with every loss counted.

use crate::{maps, maps::RECORDS};
use aya_ebpf::{
    bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    helpers::generated::{bpf_ktime_get_ns, bpf_ringbuf_output, bpf_ringbuf_query},
};
use core::{ffi::c_void, ptr};
use pilotfish_abi::{Counter, Header};

/// Bytes waiting in the ring buffer at which the reader is woken before its timer; set by the loader.
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
/// The reader polls on a timer: waking it for every record would cost more than everything else together.
#[inline(always)]
pub fn deliver(slot: u32, record: *const c_void, size: u64) {
    maps::count(slot, Counter::Produced, 1);
    let ring = ptr::from_ref(&RECORDS).cast_mut().cast();
    // SAFETY: the map is a ring buffer and `record` is readable for `size` bytes, which the verifier proves.
    let result = unsafe {
        let wake_at = u64::from(ptr::read_volatile(&raw const WAKE_AT_BYTES));
        let waiting = bpf_ringbuf_query(ring, BPF_RB_AVAIL_DATA.into());
        let flags = if waiting >= wake_at {
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

/// Sends a record without payload.
#[inline(always)]
pub fn deliver_header(header: &Header) {
    deliver(
        header.slot,
        ptr::from_ref(header).cast(),
        Header::SIZE as u64,
    );
}
