//! Operations that are more than one record.

use crate::{
    capture,
    maps::{self, Progress, Scratch},
    output,
    syscall::{Data, Shape},
};
use aya_ebpf::helpers::generated::bpf_loop;
use core::{ffi::c_void, ptr};
use pilotfish_abi::{Counter, Header, MAX_PIECE, MAX_PIECES, flag};

const PIECE: u64 = MAX_PIECE as u64;

/// What is left of an operation whose first piece was delivered.
struct Rest<'a> {
    scratch: &'a mut Scratch,
}

/// Whether a first piece of `bytes` is followed by others, of an operation of which `allowed` bytes may be captured. Its
/// record is then of that piece alone, otherwise of the whole operation.
#[inline(always)]
pub fn follow(bytes: u64, allowed: u64) -> bool {
    bytes == PIECE && allowed > PIECE
}

/// Delivers the other pieces, each as a record of its own. The scratch record still has the first one's header.
#[inline(always)]
pub fn deliver(scratch: &mut Scratch, data: Data, allowed: u64, total: u64) {
    begin(scratch, allowed, total);
    scratch.progress.address = data.address;
    scratch.progress.length = data.length;
    scratch.progress.vectors = u64::from(data.shape == Shape::Vectors);
    let mut rest = Rest { scratch };
    // SAFETY: the callback is a function of this program, and gets the structure for as long as the helper runs.
    unsafe {
        bpf_loop(
            MAX_PIECES - 1,
            deliver_next as *mut c_void,
            (&raw mut rest).cast(),
            0,
        );
    }
}

/// The same of bytes in one buffer, for programs that are loaded without BTF and so cannot have callbacks.
#[inline(always)]
pub fn deliver_buffer(scratch: &mut Scratch, address: u64, length: u64, allowed: u64) {
    begin(scratch, allowed, length);
    for _ in 1..MAX_PIECES {
        if deliver_piece(scratch, Data::whole(address, length)) {
            break;
        }
    }
}

#[inline(always)]
fn begin(scratch: &mut Scratch, allowed: u64, total: u64) {
    scratch.progress.done = PIECE;
    scratch.progress.allowed = allowed;
    scratch.progress.total = total;
}

/// The helper calls it for each piece until it returns other than 0.
#[inline(never)]
extern "C" fn deliver_next(_: u32, rest: &mut Rest<'_>) -> i64 {
    let Progress {
        address,
        length,
        vectors,
        ..
    } = rest.scratch.progress;
    let shape = if vectors == 1 {
        Shape::Vectors
    } else {
        Shape::Buffer
    };
    let data = Data {
        shape,
        address,
        length,
        skipped: 0,
    };
    i64::from(deliver_piece(rest.scratch, data))
}

/// Delivers one piece, and tells whether it is the last one, whose record is of all that is left.
#[inline(always)]
fn deliver_piece(scratch: &mut Scratch, data: Data) -> bool {
    let slot = scratch.header.slot;
    let Progress {
        done,
        allowed,
        total,
        ..
    } = scratch.progress;
    let left = total - done;
    let wanted = capture::at_most_max(allowed - done);
    let captured = capture::copy(scratch, data, done, wanted);
    if let Some(counter) = captured.trouble {
        maps::count(slot, counter, 1);
    }
    let bytes = capture::at_most_max(captured.bytes);
    let done = done + wanted;
    scratch.progress.done = done;
    let is_last = bytes < wanted || done >= allowed;
    let header = &mut scratch.header;
    header.offset += PIECE;
    header.total = if is_last { left } else { wanted } as u32;
    header.captured = bytes as u32;
    if bytes == 0 {
        header.flags |= flag::NO_BUFFER;
    }
    if is_last && left > bytes {
        maps::count(slot, Counter::Uncaptured, left - bytes);
    }
    output::deliver(
        slot,
        ptr::from_ref::<Scratch>(scratch).cast(),
        Header::SIZE as u64 + bytes,
    );
    is_last
}
