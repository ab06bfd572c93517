//! Every map: its bound, its owner, its loss counter.

use aya_ebpf::{
    bindings::{BPF_F_NO_PREALLOC, bpf_map_type::*},
    btf_maps::{Array, HashMap, PerCpuArray, RingBuf},
    macros::btf_map,
};
use core::{arch::asm, ffi::c_void, ptr};
use pilotfish_abi::{
    Counter, Header, MAX_CAPTURE, MAX_CGROUPS, MAX_IOVECS, MAX_SLOTS, Scope, Settings, SlotCounters,
};

/// A map whose values live in a kernel object (task, socket) and are freed with it. `max_entries` must be 0; the
/// bound is the number of such objects.
#[repr(C)]
pub struct LocalStorage<T, const TYPE: usize> {
    r#type: *const [i32; TYPE],
    key: *const i32,
    value: *const T,
    max_entries: *const [i32; 0],
    map_flags: *const [i32; BPF_F_NO_PREALLOC as usize],
}

// SAFETY: the fields only describe the map to the loader and are never dereferenced.
unsafe impl<T, const TYPE: usize> Sync for LocalStorage<T, TYPE> {}

impl<T, const TYPE: usize> LocalStorage<T, TYPE> {
    const fn new() -> Self {
        Self {
            r#type: ptr::null(),
            key: ptr::null(),
            value: ptr::null(),
            max_entries: ptr::null(),
            map_flags: ptr::null(),
        }
    }

    /// The map as the helpers want it.
    #[inline(always)]
    pub fn as_ptr(&self) -> *mut c_void {
        ptr::from_ref(self).cast_mut().cast()
    }
}

/// State of one socket.
#[repr(C)]
pub struct Flow {
    /// Stream position of the next byte sent, counted from the first observed operation.
    pub sent: u64,
    /// Stream position of the next byte received, counted likewise.
    pub received: u64,
    /// The container that was first seen to use it.
    pub slot: u32,
    /// Process id, as in [`Scope`].
    pub tgid: u32,
    /// Bits of [`pilotfish_abi::flag`] that stay true for the flow.
    pub flags: u32,
    /// TCP's sequence number after the last observed send.
    pub write_sequence: u32,
    /// TCP's sequence number after the last observed receive.
    pub copied_sequence: u32,
    /// Bytes captured since the direction last turned; the sign bit tells the direction ([`crate::flow::allowance`]).
    pub run: u32,
}

/// Where one thread is in the vector of a running sendmmsg or recvmmsg.
#[repr(C)]
pub struct VectorPlace {
    /// User address of the vector; 0 for none.
    pub vector: u64,
    /// Index of the message that comes next.
    pub next: u32,
    /// Messages in the vector.
    pub count: u32,
}

/// Bytes behind the header in a scratch record: an offset below [`MAX_CAPTURE`] plus a length up to it.
pub const SCRATCH_BYTES: usize = 2 * MAX_CAPTURE as usize;

/// Room to assemble one record.
#[repr(C)]
pub struct Scratch {
    /// The record's header.
    pub header: Header,
    /// Captured bytes; only the first [`MAX_CAPTURE`] are ever sent.
    pub bytes: [u8; SCRATCH_BYTES],
    /// The operation's I/O vectors: address, length.
    pub iovecs: [[u64; 2]; MAX_IOVECS as usize],
}

/// Observed tasks. Owner: user space seeds it by pidfd, the fork program copies it; losses: `ScopeStorage`.
#[btf_map]
pub static SCOPE: LocalStorage<Scope, { BPF_MAP_TYPE_TASK_STORAGE as usize }> = LocalStorage::new();

/// Observed sockets. Owner: the socket programs; losses: `FlowStorage`.
#[btf_map]
pub static FLOWS: LocalStorage<Flow, { BPF_MAP_TYPE_SK_STORAGE as usize }> = LocalStorage::new();

/// Threads that have used sendmmsg or recvmmsg. Owner: `syscall`; losses: `Ambiguous`.
#[btf_map]
pub static VECTOR_PLACES: LocalStorage<VectorPlace, { BPF_MAP_TYPE_TASK_STORAGE as usize }> =
    LocalStorage::new();

/// Records on their way to user space; resized at load. Losses: `RingFull`.
#[btf_map]
pub static RECORDS: RingBuf<[u8; 0], 0x40_0000> = RingBuf::new();

/// Settings by slot. Owner: user space.
#[btf_map]
pub static SETTINGS: Array<Settings, { MAX_SLOTS as usize }> = Array::new();

/// Counters by slot. Owner: the programs.
#[btf_map]
pub static COUNTERS: PerCpuArray<SlotCounters, { MAX_SLOTS as usize }> = PerCpuArray::new();

/// Two scratch records for each CPU (send, receive), so that neither program ever sees the other's. An array and
/// not a per-CPU one, whose values are limited to 32 KiB; sized at load to twice the number of possible CPUs.
#[btf_map]
pub static SCRATCH: Array<Scratch, 2> = Array::new();

/// Slots by cgroup v2 id: processes that enter a container by `exec` into its cgroup. Owner: user space.
#[btf_map]
pub static CGROUPS: HashMap<u64, u32, { MAX_CGROUPS as usize }> = HashMap::new();

/// Adds to a counter of a slot.
#[inline(always)]
pub fn count(slot: u32, counter: Counter, amount: u64) {
    if let Some(values) = COUNTERS.get_ptr_mut(slot) {
        // Atomic although per CPU: a softirq may count for the same slot in the middle of the addition.
        // SAFETY: the element is valid for the program's run.
        unsafe { fetch_add(&raw mut (*values).values[counter as usize], amount) };
    }
}

/// Adds atomically and gives the value before. The target has no `core::sync::atomic` arithmetic.
///
/// # Safety
/// `value` must be valid and aligned.
#[inline(always)]
pub unsafe fn fetch_add(value: *mut u64, mut amount: u64) -> u64 {
    // SAFETY: by the caller. The instruction exists since Linux 5.12.
    unsafe {
        asm!("{a} = atomic_fetch_add((u64 *)({v} + 0), {a})", v = in(reg) value, a = inout(reg) amount);
    }
    amount
}
