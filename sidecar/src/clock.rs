//! The two clocks: the kernel's records carry `CLOCK_MONOTONIC`, exports carry Unix time.

use nix::time::{ClockId, clock_gettime};

/// `CLOCK_MONOTONIC`, nanoseconds.
pub fn monotonic() -> u64 {
    read(ClockId::CLOCK_MONOTONIC) as u64
}

/// Unix time minus `CLOCK_MONOTONIC`, nanoseconds; changes when the wall clock is set.
pub fn unix_offset() -> i64 {
    read(ClockId::CLOCK_REALTIME) - read(ClockId::CLOCK_MONOTONIC)
}

fn read(clock: ClockId) -> i64 {
    // Neither clock can fail on Linux; zero would show as a span in 1970.
    clock_gettime(clock).map_or(0, |time| time.tv_sec() * 1_000_000_000 + time.tv_nsec())
}
