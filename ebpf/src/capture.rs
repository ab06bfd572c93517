//! Copies the user's bytes of one operation into a scratch record.

use crate::{
    maps::{SCRATCH_BYTES, Scratch},
    syscall::{Data, Shape},
};
use aya_ebpf::helpers::generated::{bpf_loop, bpf_probe_read_user};
use core::{arch::asm, ffi::c_void};
use pilotfish_abi::{Counter, HELD_BYTES, MAX_FRAMED_CAPTURE, MAX_IOVECS};

const MAX: u64 = MAX_FRAMED_CAPTURE as u64;

const _: () = assert!(MAX.is_power_of_two() && SCRATCH_BYTES as u64 >= 2 * MAX);

/// What a copy came to.
pub struct Captured {
    /// Bytes now in the scratch record, at most [`MAX_FRAMED_CAPTURE`].
    pub bytes: u64,
    /// Why there are fewer than wanted, if something went wrong.
    pub trouble: Option<Counter>,
}

/// Bounds a value so that the verifier sees it: LLVM removes comparisons that it can prove, the verifier cannot.
#[inline(always)]
pub fn at_most_max(mut value: u64) -> u64 {
    // SAFETY: arithmetic on a register.
    unsafe {
        asm!("if {v} <= {max} goto +1", "{v} = {max}", v = inout(reg) value, max = const MAX_FRAMED_CAPTURE);
    }
    value
}

/// The same for what is held back.
#[inline(always)]
pub fn at_most_held(mut value: u64) -> u64 {
    // SAFETY: arithmetic on a register.
    unsafe {
        asm!("if {v} <= {max} goto +1", "{v} = {max}", v = inout(reg) value, max = const HELD_BYTES);
    }
    value
}

#[inline(always)]
fn below_max(mut value: u64) -> u64 {
    // SAFETY: arithmetic on a register.
    unsafe {
        asm!("{v} &= {mask}", v = inout(reg) value, mask = const MAX_FRAMED_CAPTURE - 1);
    }
    value
}

/// Copies the first `wanted` bytes of the operation's data.
#[inline(always)]
pub fn copy(scratch: &mut Scratch, data: Data, wanted: u64) -> Captured {
    copy_by(scratch, data, wanted, copy_vectors)
}

/// The same for a probe, of at most [`FEW_VECTORS`]: a loop with a callback needs more from the loader than probes get.
#[inline(always)]
pub fn copy_few(scratch: &mut Scratch, data: Data, wanted: u64) -> Captured {
    copy_by(scratch, data, wanted, copy_few_vectors)
}

#[inline(always)]
fn copy_by(
    scratch: &mut Scratch,
    data: Data,
    wanted: u64,
    copy_vectors: impl FnOnce(&mut Scratch, Data, u64) -> Captured,
) -> Captured {
    match data.shape {
        Shape::Buffer => {
            // More moved than was asked for: these are not the operation's registers.
            if data.length < wanted {
                return Captured {
                    bytes: 0,
                    trouble: Some(Counter::NoBuffer),
                };
            }
            if read_user(scratch, 0, data.address, wanted) {
                Captured {
                    bytes: wanted,
                    trouble: None,
                }
            } else {
                Captured {
                    bytes: 0,
                    trouble: Some(Counter::Unreadable),
                }
            }
        }
        Shape::Vectors => copy_vectors(scratch, data, wanted),
        Shape::Hidden(why) => Captured {
            bytes: 0,
            trouble: Some(why),
        },
    }
}

#[inline(always)]
fn copy_vectors(scratch: &mut Scratch, data: Data, wanted: u64) -> Captured {
    let (address, count) = (data.address, data.length);
    let known = if count > u64::from(MAX_IOVECS) {
        u64::from(MAX_IOVECS)
    } else {
        count
    };
    if !read_vectors(scratch, address, known) {
        return Captured {
            bytes: 0,
            trouble: Some(Counter::Unreadable),
        };
    }
    let mut copying = Copying {
        scratch,
        rest: wanted,
        wanted,
        skipped: data.skipped,
        failed: false,
    };
    // SAFETY: the callback is a function of this program, and gets the structure for as long as the helper runs.
    unsafe {
        bpf_loop(
            known as u32,
            copy_vector as *mut c_void,
            (&raw mut copying).cast(),
            0,
        );
    }
    let position = wanted.wrapping_sub(copying.rest);
    if copying.failed {
        return Captured {
            bytes: position,
            trouble: Some(Counter::Unreadable),
        };
    }
    let cut = position < wanted && count > known;
    Captured {
        bytes: position,
        trouble: cut.then_some(Counter::IovecsCut),
    }
}

/// Vectors that [`copy_few`] reads.
const FEW_VECTORS: u64 = 8;

#[inline(always)]
fn copy_few_vectors(scratch: &mut Scratch, data: Data, wanted: u64) -> Captured {
    let (address, count, mut skipped) = (data.address, data.length, data.skipped);
    let known = if count > FEW_VECTORS {
        FEW_VECTORS
    } else {
        count
    };
    if !read_vectors(scratch, address, known) {
        return Captured {
            bytes: 0,
            trouble: Some(Counter::Unreadable),
        };
    }
    let mut position = 0_u64;
    for index in 0..FEW_VECTORS as usize {
        if index as u64 >= known || position >= wanted {
            break;
        }
        let [base, length] = scratch.iovecs[index];
        if skipped >= length {
            skipped -= length;
            continue;
        }
        let (base, length) = (base.wrapping_add(skipped), length - skipped);
        skipped = 0;
        let rest = wanted - position;
        let length = if length < rest { length } else { rest };
        if !read_user(scratch, position, base, length) {
            return Captured {
                bytes: position,
                trouble: Some(Counter::Unreadable),
            };
        }
        position += length;
    }
    let cut = position < wanted && count > known;
    Captured {
        bytes: position,
        trouble: cut.then_some(Counter::IovecsCut),
    }
}

/// What passes from one vector to the next.
struct Copying<'a> {
    scratch: &'a mut Scratch,
    /// Bytes that are still to be copied, of `wanted`.
    rest: u64,
    wanted: u64,
    /// Bytes at the beginning that are still to be passed over.
    skipped: u64,
    failed: bool,
}

/// Copies one vector; the helper calls it for each until it returns other than 0. In a plain loop the verifier would walk
/// each of many vectors anew for every way that leads to it.
#[inline(never)]
extern "C" fn copy_vector(index: u32, copying: &mut Copying<'_>) -> i64 {
    let rest = at_most_max(copying.rest);
    if rest == 0 {
        return 1;
    }
    let Some(&[base, length]) = copying.scratch.iovecs.get(index as usize) else {
        return 1;
    };
    let skipped = copying.skipped;
    if skipped >= length {
        copying.skipped = skipped - length;
        return 0;
    }
    copying.skipped = 0;
    let (base, length) = (base.wrapping_add(skipped), length - skipped);
    let length = if length < rest { length } else { rest };
    let position = copying.wanted.wrapping_sub(rest);
    if !read_user(copying.scratch, position, base, length) {
        copying.failed = true;
        return 1;
    }
    copying.rest = rest - length;
    0
}

#[inline(always)]
fn read_vectors(scratch: &mut Scratch, address: u64, known: u64) -> bool {
    let mut size = known * 16;
    // SAFETY: arithmetic on a register, then a read into the array, bounded by its size.
    unsafe {
        asm!("if {v} <= {max} goto +1", "{v} = {max}", v = inout(reg) size, max = const MAX_IOVECS * 16);
        size == 0
            || bpf_probe_read_user(
                (&raw mut scratch.iovecs).cast(),
                size as u32,
                address as *const c_void,
            ) == 0
    }
}

/// Reads `length` bytes (up to the maximum) at `position` (below the maximum).
#[inline(always)]
fn read_user(scratch: &mut Scratch, position: u64, address: u64, length: u64) -> bool {
    let position = below_max(position);
    let length = at_most_max(length);
    // SAFETY: position + length is within the scratch bytes, which the verifier checks too; the helper checks the
    // user address.
    unsafe {
        let target = (&raw mut scratch.bytes).cast::<u8>().add(position as usize);
        bpf_probe_read_user(target.cast(), length as u32, address as *const c_void) == 0
    }
}
