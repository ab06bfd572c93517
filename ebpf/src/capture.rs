//! Copies the user's bytes of one operation into a scratch record.

use crate::{
    maps::{Progress, SCRATCH_BYTES, Scratch},
    syscall::{Data, Shape},
};
use aya_ebpf::helpers::generated::{bpf_loop, bpf_probe_read_user};
use core::{arch::asm, ffi::c_void};
use pilotfish_abi::{Counter, HELD_BYTES, MAX_IOVECS, MAX_PIECE};

const MAX: u64 = MAX_PIECE as u64;

const _: () = assert!(MAX.is_power_of_two() && SCRATCH_BYTES as u64 >= 2 * MAX);

/// What a copy came to.
pub struct Captured {
    /// Bytes now in the scratch record, at most [`MAX_PIECE`].
    pub bytes: u64,
    /// Why there are fewer than wanted, if something went wrong.
    pub trouble: Option<Counter>,
}

/// Bounds a value so that the verifier sees it: LLVM removes comparisons that it can prove, the verifier cannot.
#[inline(always)]
pub fn at_most_max(mut value: u64) -> u64 {
    // SAFETY: arithmetic on a register.
    unsafe {
        asm!("if {v} <= {max} goto +1", "{v} = {max}", v = inout(reg) value, max = const MAX_PIECE);
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
        asm!("{v} &= {mask}", v = inout(reg) value, mask = const MAX_PIECE - 1);
    }
    value
}

/// The first eight bytes of the operation's data if they are in one buffer, otherwise 0.
#[inline(always)]
pub fn first_word(data: Data) -> u64 {
    let (address, length) = match data.shape {
        Shape::Buffer => (data.address, data.length),
        Shape::Vectors => {
            let mut first = [0u64; 2];
            // SAFETY: a read into a variable of this size; the helper checks the user address.
            let failed = unsafe {
                bpf_probe_read_user(
                    (&raw mut first).cast(),
                    size_of_val(&first) as u32,
                    data.address as *const c_void,
                )
            };
            if failed != 0 || data.length == 0 {
                return 0;
            }
            (first[0], first[1])
        }
        Shape::Hidden(_) => return 0,
    };
    let mut word = 0u64;
    if length < size_of_val(&word) as u64 {
        return 0;
    }
    // SAFETY: as above. On a failure the helper leaves zeros.
    unsafe {
        bpf_probe_read_user(
            (&raw mut word).cast(),
            size_of_val(&word) as u32,
            address as *const c_void,
        );
    }
    word
}

/// Copies `wanted` bytes of the operation's data from its byte `from` on.
#[inline(always)]
pub fn copy(scratch: &mut Scratch, data: Data, from: u64, wanted: u64) -> Captured {
    copy_by(scratch, data, from, wanted, copy_vectors)
}

/// The same for a probe, from the first byte on, of at most [`FEW_VECTORS`]: a loop with a callback needs more from the loader
/// than probes get.
#[inline(always)]
pub fn copy_few(scratch: &mut Scratch, data: Data, wanted: u64) -> Captured {
    copy_by(scratch, data, 0, wanted, copy_few_vectors)
}

#[inline(always)]
fn copy_by(
    scratch: &mut Scratch,
    data: Data,
    from: u64,
    wanted: u64,
    copy_vectors: impl FnOnce(&mut Scratch, Data, u64, u64) -> Captured,
) -> Captured {
    match data.shape {
        Shape::Buffer => {
            // More moved than was asked for: these are not the operation's registers.
            if data.length < from + wanted {
                return Captured {
                    bytes: 0,
                    trouble: Some(Counter::NoBuffer),
                };
            }
            if read_user(scratch, 0, data.address + from, wanted) {
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
        Shape::Vectors => copy_vectors(scratch, data, from, wanted),
        Shape::Hidden(why) => Captured {
            bytes: 0,
            trouble: Some(why),
        },
    }
}

#[inline(always)]
fn copy_vectors(scratch: &mut Scratch, data: Data, from: u64, wanted: u64) -> Captured {
    let count = data.length;
    let known = if count > u64::from(MAX_IOVECS) {
        u64::from(MAX_IOVECS)
    } else {
        count
    };
    if !read_vectors(scratch, data.address, known) {
        return Captured {
            bytes: 0,
            trouble: Some(Counter::Unreadable),
        };
    }
    scratch.progress.skip = data.skipped + from;
    scratch.progress.rest = wanted;
    scratch.progress.wanted = wanted;
    scratch.progress.failed = 0;
    let mut copying = Copying { scratch };
    // SAFETY: the callback is a function of this program, and gets the structure for as long as the helper runs.
    unsafe {
        bpf_loop(
            known as u32,
            copy_vector as *mut c_void,
            (&raw mut copying).cast(),
            0,
        );
    }
    let Progress {
        rest,
        wanted,
        failed,
        ..
    } = scratch.progress;
    let position = wanted.wrapping_sub(rest);
    if failed != 0 {
        return Captured {
            bytes: position,
            trouble: Some(Counter::Unreadable),
        };
    }
    let cut = rest > 0 && count > known;
    Captured {
        bytes: position,
        trouble: cut.then_some(Counter::IovecsCut),
    }
}

/// Vectors that [`copy_few`] reads.
const FEW_VECTORS: u64 = 8;

#[inline(always)]
fn copy_few_vectors(scratch: &mut Scratch, data: Data, from: u64, wanted: u64) -> Captured {
    let (address, count, mut skipped) = (data.address, data.length, data.skipped + from);
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

/// What a round of the loop over vectors gets.
struct Copying<'a> {
    scratch: &'a mut Scratch,
}

/// Copies one vector; the helper calls it for each until it returns other than 0. In a plain loop the verifier would walk
/// each of many vectors anew for every way that leads to it.
#[inline(never)]
extern "C" fn copy_vector(index: u32, copying: &mut Copying<'_>) -> i64 {
    let scratch = &mut *copying.scratch;
    let Progress {
        skip, rest, wanted, ..
    } = scratch.progress;
    let rest = at_most_max(rest);
    if rest == 0 {
        return 1;
    }
    let Some(&[base, length]) = scratch.iovecs.get(index as usize) else {
        return 1;
    };
    if skip >= length {
        scratch.progress.skip = skip - length;
        return 0;
    }
    scratch.progress.skip = 0;
    let (base, length) = (base + skip, length - skip);
    let length = if length < rest { length } else { rest };
    let position = wanted.wrapping_sub(rest);
    if !read_user(scratch, position, base, length) {
        scratch.progress.failed = 1;
        return 1;
    }
    scratch.progress.rest = rest - length;
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
