//! Where the running system call keeps its data, from the saved registers: a stable ABI, unlike `msghdr`.

use crate::{
    kernel,
    maps::{VECTOR_PLACES, VectorPlace},
};
use aya_ebpf::{
    bindings::BPF_LOCAL_STORAGE_GET_F_CREATE,
    helpers::generated::{bpf_probe_read_user, bpf_task_pt_regs, bpf_task_storage_get},
};
use core::{ffi::c_void, ptr};
use pilotfish_abi::Counter;

#[cfg(bpf_target_arch = "x86_64")]
#[path = "syscall/x86_64.rs"]
mod arch;
#[cfg(bpf_target_arch = "aarch64")]
#[path = "syscall/aarch64.rs"]
mod arch;

use arch::Registers;

/// The data of one socket operation.
///
/// Every field always has a value: an enum with fields would leave registers uninitialised that LLVM copies all the
/// same and the verifier refuses.
#[derive(Clone, Copy)]
pub struct Data {
    /// How to read the rest.
    pub shape: Shape,
    /// User address of the buffer or of the array of I/O vectors.
    pub address: u64,
    /// Length of the buffer, or number of I/O vectors.
    pub length: u64,
    /// Bytes at the beginning of the I/O vectors that do not belong to it.
    pub skipped: u64,
}

/// What kind of address [`Data`] has.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// One buffer.
    Buffer,
    /// An array of I/O vectors.
    Vectors,
    /// None; the counter says why.
    Hidden(Counter),
}

impl Data {
    #[inline(always)]
    fn buffer(address: u64, length: u64) -> Self {
        Self {
            shape: Shape::Buffer,
            address,
            length,
            skipped: 0,
        }
    }

    #[inline(always)]
    fn vectors(address: u64, length: u64) -> Self {
        Self {
            shape: Shape::Vectors,
            address,
            length,
            skipped: 0,
        }
    }

    /// What follows the first `skipped` bytes of an array of `count` pairs of address and length.
    #[inline(always)]
    pub fn chunks(address: u64, count: u64, skipped: u64) -> Self {
        Self {
            skipped,
            ..Self::vectors(address, count)
        }
    }

    /// `length` bytes at an address, all of which have moved.
    #[inline(always)]
    pub fn whole(address: u64, length: u64) -> Self {
        Self::buffer(address, length)
    }

    /// Data that cannot be seen.
    #[inline(always)]
    pub fn hidden(why: Counter) -> Self {
        Self {
            shape: Shape::Hidden(why),
            address: 0,
            length: 0,
            skipped: 0,
        }
    }
}

/// Which way an operation moves data.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Out of the process.
    Send,
    /// Into the process.
    Receive,
}

/// `struct user_msghdr` of the system call ABI: name, name length, vectors, number of vectors.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct MessageHeader {
    name: u64,
    name_length: u64,
    vectors: u64,
    count: u64,
}

/// Size of `struct mmsghdr`: a `user_msghdr` of 56 bytes, a length and padding.
const VECTOR_MESSAGE_SIZE: u64 = 64;

/// The data of the operation that just moved `moved` bytes (negative: an error) on the running thread.
#[inline(always)]
pub fn data(way: Way, moved: i64) -> Data {
    let task = kernel::current_task();
    // SAFETY: the helper returns the saved registers of a task that is in a system call.
    let registers = Registers::new(unsafe { bpf_task_pt_regs(task) } as *const c_void);
    if !registers.in_system_call() {
        // Deferred io_uring work runs on the way out of whatever call the thread happens to be in.
        return Data::hidden(Counter::IoUring);
    }
    if registers.is_compat() {
        return Data::hidden(Counter::Compat);
    }
    let number = registers.number();
    match way {
        Way::Send => match number {
            arch::WRITE | arch::SENDTO => {
                Data::buffer(registers.argument(1), registers.argument(2))
            }
            arch::WRITEV => Data::vectors(registers.argument(1), registers.argument(2)),
            arch::PWRITEV2 => Data::vectors(registers.argument(1), registers.argument(2)),
            arch::SENDMSG => message(registers.argument(1)),
            arch::SENDMMSG => {
                vector_message(way, registers.argument(1), registers.argument(2), 0, moved)
            }
            _ => hidden(number),
        },
        Way::Receive => match number {
            arch::READ | arch::RECVFROM => {
                Data::buffer(registers.argument(1), registers.argument(2))
            }
            arch::READV => Data::vectors(registers.argument(1), registers.argument(2)),
            arch::PREADV2 => Data::vectors(registers.argument(1), registers.argument(2)),
            arch::RECVMSG => message(registers.argument(1)),
            arch::RECVMMSG => vector_message(
                way,
                registers.argument(1),
                registers.argument(2),
                registers.argument(4),
                moved,
            ),
            _ => hidden(number),
        },
    }
}

#[inline(always)]
fn hidden(number: u64) -> Data {
    Data::hidden(if number == arch::IO_URING_ENTER {
        Counter::IoUring
    } else {
        Counter::NoBuffer
    })
}

#[inline(always)]
fn message(address: u64) -> Data {
    let mut header = MessageHeader::default();
    // SAFETY: the helper checks the user address and writes at most the size of `header`.
    let result = unsafe {
        bpf_probe_read_user(
            (&raw mut header).cast(),
            size_of::<MessageHeader>() as u32,
            address as *const c_void,
        )
    };
    if result == 0 {
        Data::vectors(header.vectors, header.count)
    } else {
        Data::hidden(Counter::Unreadable)
    }
}

/// sendmmsg and recvmmsg run one operation per message and do not say which. A thread's operations come in order,
/// so counting them tells, as long as every way for the call to end early is seen: an error fires the tracepoint
/// too; a short send ends sendmmsg; only recvmmsg's timeout ends silently, so with one nothing is claimed.
#[inline(always)]
fn vector_message(way: Way, vector: u64, count: u64, timeout: u64, moved: i64) -> Data {
    if count == 1 {
        return message(vector);
    }
    if timeout != 0 {
        return Data::hidden(Counter::Ambiguous);
    }
    // SAFETY: the helper takes the map and the running task; a new value starts zeroed.
    let place = unsafe {
        bpf_task_storage_get(
            VECTOR_PLACES.as_ptr(),
            kernel::current_task(),
            ptr::null_mut(),
            BPF_LOCAL_STORAGE_GET_F_CREATE.into(),
        )
        .cast::<VectorPlace>()
    };
    // SAFETY: null or the running thread's own entry.
    let Some(place) = (unsafe { place.as_mut() }) else {
        return Data::hidden(Counter::Ambiguous);
    };
    let continues = place.vector == vector && u64::from(place.count) == count;
    let index = if continues { place.next } else { 0 };
    if index == UNKNOWN_PLACE {
        return Data::hidden(Counter::Ambiguous);
    }
    let data = message(vector.wrapping_add(u64::from(index) * VECTOR_MESSAGE_SIZE));
    let outcome = if way == Way::Send {
        sent_whole(data, moved)
    } else {
        Some(true)
    };
    place.count = count as u32;
    place.vector = vector;
    place.next = match outcome {
        _ if moved <= 0 || u64::from(index) + 1 >= count => 0,
        Some(true) => index + 1,
        Some(false) => 0,
        None => UNKNOWN_PLACE,
    };
    data
}

/// I/O vectors of one message of `sendmmsg` that are added up.
const MAX_MESSAGE_VECTORS: u64 = 8;

/// [`VectorPlace::next`] when it cannot be told whether the call went on.
const UNKNOWN_PLACE: u32 = u32::MAX;

/// Whether a message was sent to its end; `None` if that cannot be told.
#[inline(always)]
fn sent_whole(data: Data, moved: i64) -> Option<bool> {
    let (address, count) = (data.address, data.length);
    if data.shape != Shape::Vectors || count > MAX_MESSAGE_VECTORS {
        return None;
    }
    let mut length = 0_u64;
    for index in 0..MAX_MESSAGE_VECTORS {
        if index >= count {
            break;
        }
        let mut vector = [0_u64; 2];
        // SAFETY: the helper checks the user address and writes at most the size of `vector`.
        let result = unsafe {
            bpf_probe_read_user(
                (&raw mut vector).cast(),
                16,
                address.wrapping_add(index * 16) as *const c_void,
            )
        };
        if result != 0 {
            return None;
        }
        length = length.wrapping_add(vector[1]);
    }
    Some(length <= moved as u64)
}
