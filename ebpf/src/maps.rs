//! Every map: its bound, its owner, its loss counter.

use aya_ebpf::{
    bindings::{BPF_F_NO_PREALLOC, bpf_map_type::*},
    btf_maps::{Array, HashMap, LruHashMap, PerCpuArray, ProgramArray, RingBuf},
    macros::btf_map,
};
use core::{arch::asm, ffi::c_void, ptr};
use pilotfish_abi::{
    Counter, HELD_BYTES, Header, MAX_CGROUPS, MAX_GOROUTINES, MAX_IOVECS, MAX_PIECE, MAX_SLOTS,
    MAX_TLS_CONNECTIONS, MAX_TLS_HELD, MAX_TLS_KEYS, MAX_TLS_SEALED, Scope, Settings, SlotCounters,
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
    /// Bytes captured since the direction last turned; the highest bits tell the direction, and whether the connection has
    /// frames ([`crate::flow::allowance`]).
    pub run: u32,
    /// Address of the TLS object whose ciphertext it carries, 0 for none known; with the thread-group id it leads to the
    /// [`TlsConnection`].
    pub tls_object: u64,
    /// [`TlsConnection::id`] of that connection.
    pub tls_id: u64,
    /// Thread-group id, in the initial namespace, of the process that has the object.
    pub tls_process: u32,
    /// See [`TlsKey::program`].
    pub tls_program: u32,
}

/// Bit of [`Flow::flags`] beyond those of records: some operation outside every TLS call began with the header of a TLS
/// record.
pub const LOOKS_LIKE_TLS: u32 = 1 << 8;

/// A TLS function that a thread (or goroutine) is in, and what it was in last.
#[repr(C)]
pub struct TlsCall {
    /// Address of the TLS object; 0 while in none.
    pub object: u64,
    /// User address of the plaintext.
    pub buffer: u64,
    /// Where the function leaves the number of bytes; if it returns that, how many it was asked for.
    pub count: u64,
    /// Where the stack stood at the entry: tells the function's return from that of one which it calls.
    pub stack: u64,
    /// Whether the function writes.
    pub writes: bool,
    /// A socket operation was made inside it: the library does not keep ciphertext in memory.
    pub did_io: bool,
    /// Calls on other objects that were taken for a part of this one.
    pub inner: u32,
    /// The call within which this one was made by a callback of the program; its object is 0 for none.
    pub outer_object: u64,
    /// See `buffer`.
    pub outer_buffer: u64,
    /// See `count`.
    pub outer_count: u64,
    /// See `stack`.
    pub outer_stack: u64,
    /// TLS object of the last call, if no socket operation was made in it and nothing was sent since; 0 for none. Whoever
    /// keeps ciphertext in memory sends it next.
    pub waiting: u64,
    /// Plaintext bytes which that object's last calls wrote.
    pub waiting_bytes: u64,
    /// TLS records, at the most, that they became if each is as long as can be.
    pub waiting_records: u64,
    /// Cookie of the socket from which TLS was received outside of every call since the last one: whoever keeps ciphertext
    /// in memory hands it to the library next. 0 for none, [`SEVERAL`] if there were more.
    pub heard: u64,
    /// Connections of this thread that have begun and of which nothing was heard: [`TlsConnection::awaits`].
    pub hellos: u64,
    /// Bounds of the goroutine's stack at the entry.
    pub stack_low: u64,
    /// See `stack_low`.
    pub stack_high: u64,
}

/// In the place of a socket's cookie: more than one.
pub const SEVERAL: u64 = u64::MAX;

/// Names a TLS connection: an object's address in a process.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct TlsKey {
    /// Thread-group id in the initial namespace.
    pub process: u32,
    /// Tells the programs apart that a process executes, and processes that have the same id one after another.
    pub program: u32,
    /// Address of the TLS object, or of a goroutine.
    pub address: u64,
}

/// State of one TLS connection: the plaintext's streams, and the socket that carries them.
#[repr(C)]
pub struct TlsConnection {
    /// Names its flow; see [`Header::cookie`].
    pub id: u64,
    /// Stream position of the next plaintext byte sent, counted from the first observed operation.
    pub sent: u64,
    /// The same for what is received.
    pub received: u64,
    /// Cookie of the socket that carries it; 0 until that is known. Of rustls: until one of its keys is known.
    pub socket: u64,
    /// Bits of [`pilotfish_abi::flag`] that stay true.
    pub flags: u32,
    /// As in [`Flow::run`].
    pub run: u32,
    /// As in the header, all 0 until the socket is known.
    pub netns: u32,
    /// Address family of the socket, 0 until it is known.
    pub family: u16,
    /// As in the header.
    pub local_port: u16,
    /// As in the header.
    pub remote_port: u16,
    /// 1 when it is known with which key a connection of rustls encrypts.
    pub has_key: u16,
    /// The return of a handshake was seen: whatever the socket moves afterwards is not part of it.
    pub shaken: u16,
    /// Fills the place up.
    pub reserved: u16,
    /// Thread that counts it among its [`TlsCall::hellos`]; 0 for none.
    pub awaits: u32,
    /// Fills the place up.
    pub reserved_too: u32,
    /// As in the header.
    pub local: [u32; 4],
    /// As in the header.
    pub remote: [u32; 4],
    /// Bytes of ciphertext sent and received since the handshake while no plaintext was seen.
    pub unseen: [u32; 2],
    /// While the socket is not known: cookie of the one from which something was received right before a call on the object;
    /// [`SEVERAL`] if that was not always the same.
    pub heard: u64,
    /// Goroutine that is inside a read; 0 for none.
    pub reader: u64,
}

/// A function of rustls's record layer that a thread is in, and what the thread received last.
#[repr(C)]
pub struct TlsRecord {
    /// Address of the key; 0 while in none.
    pub key: u64,
    /// Where the stack stood at the entry.
    pub stack: u64,
    /// Number of the record under its key.
    pub sequence: u64,
    /// User address of the plaintext, or of its chunks; of the ciphertext when it is decrypted.
    pub address: u64,
    /// Bytes there.
    pub length: u64,
    /// Number of chunks; 0 if there is one buffer.
    pub chunks: u64,
    /// Bytes of the chunks that come before the record's.
    pub skipped: u64,
    /// User address of the function's result.
    pub result: u64,
    /// Type of the content as TLS numbers it; 0 if it is not known.
    pub content: u64,
    /// User address of what the thread received last.
    pub received_at: u64,
    /// Bytes that it received.
    pub received_bytes: u64,
    /// Object of the connection whose socket they came from; 0 for none.
    pub received_by: u64,
    /// 1 if the thread has encrypted a record with a key that is not known to be of any connection, and sent nothing since.
    pub unsent: u64,
}

/// A key of rustls.
#[repr(C)]
pub struct TlsKeyState {
    /// Object of the connection that it belongs to; 0 until that is proven.
    pub object: u64,
    /// Number of the record that comes next.
    pub next: u64,
    /// 1 if not every record under this key has been seen.
    pub late: u64,
    /// 1 if plaintext waits in [`TLS_HELD`] for its connection.
    pub holds: u64,
}

/// The first bytes of an encrypted record's payload.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Sealed {
    /// Thread-group id in the initial namespace.
    pub process: u64,
    /// The bytes.
    pub bytes: [u64; 2],
}

/// Which record it is.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct SealedBy {
    /// Address of its key.
    pub key: u64,
    /// Its number.
    pub sequence: u64,
}

/// A record of plaintext that waits for its connection: the beginning of a [`Scratch`].
#[repr(C)]
pub struct TlsHeld {
    /// The record's header; its offset is the number of the first encrypted record until it is known.
    pub header: Header,
    /// Captured bytes.
    pub bytes: [u8; HELD_BYTES as usize],
}

/// Room to assemble a record of plaintext. Uprobes are preemptible: whoever uses one takes it first.
#[repr(C)]
pub struct TlsScratch {
    /// 1 while it is taken.
    pub taken: u64,
    /// The record.
    pub record: Scratch,
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

/// Bytes behind the header in a scratch record: an offset below [`MAX_PIECE`] plus a length up to it.
pub const SCRATCH_BYTES: usize = 2 * MAX_PIECE as usize;

/// Room to assemble one record.
#[repr(C)]
pub struct Scratch {
    /// The record's header.
    pub header: Header,
    /// Captured bytes; only the first [`MAX_PIECE`] are ever sent.
    pub bytes: [u8; SCRATCH_BYTES],
    /// The operation's I/O vectors: address, length.
    pub iovecs: [[u64; 2]; MAX_IOVECS as usize],
    /// Bits of [`pilotfish_abi::tls_calls`] of the process.
    pub calls: u32,
    /// 1 if the socket carried a TLS connection that is gone or has begun anew.
    pub is_stale: u32,
    /// [`TlsCall::waiting`] before the operation.
    pub waiting: u64,
    /// How far a copy has come.
    pub progress: Progress,
}

/// How far a copy has come. In a map and not on the stack: there the verifier would follow every value through every round
/// of a loop, and once more for every way that leads to it.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Progress {
    /// Bytes before the first one to be copied.
    pub skip: u64,
    /// Bytes that are still to be copied, of `wanted`.
    pub rest: u64,
    /// Bytes to copy.
    pub wanted: u64,
    /// Not 0 if a read has failed.
    pub failed: u64,
    /// Bytes of the operation's pieces before.
    pub done: u64,
    /// Bytes to capture of the operation.
    pub allowed: u64,
    /// Bytes of the operation.
    pub total: u64,
    /// Where its bytes are, see [`Data`](crate::syscall::Data).
    pub address: u64,
    /// Length of the buffer there, or number of I/O vectors.
    pub length: u64,
    /// Whether these are I/O vectors: 0 or 1.
    pub vectors: u64,
}

/// The first eight captured bytes, if as many were captured.
#[inline(always)]
pub fn first_word(bytes: &[u8]) -> u64 {
    // SAFETY: all records have room for more; the header before it has a size of whole words.
    unsafe { ptr::read(bytes.as_ptr().cast()) }
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

/// Processes with TLS probes; values are bits of [`pilotfish_abi::tls_calls`]. Owner: user space.
#[btf_map]
pub static TLS_PROCESSES: LocalStorage<u32, { BPF_MAP_TYPE_TASK_STORAGE as usize }> =
    LocalStorage::new();

/// TLS calls by thread. Owner: the TLS programs; losses: `TlsStorage`.
#[btf_map]
pub static TLS_CALLS: LocalStorage<TlsCall, { BPF_MAP_TYPE_TASK_STORAGE as usize }> =
    LocalStorage::new();

/// TLS calls by goroutine. Owner: the Go program; the goroutine that called longest ago makes room, which can only cost
/// one that has been waiting inside a read: losses: `TlsUnended`, found when its connection is read again or closed.
#[btf_map]
pub static GO_CALLS: LruHashMap<TlsKey, TlsCall, { MAX_GOROUTINES as usize }> = LruHashMap::new();

/// TLS connections. Owner: the TLS programs; the one used longest ago makes room and begins anew, as joined late, when it
/// is used again.
#[btf_map]
pub static TLS_CONNECTIONS: LruHashMap<TlsKey, TlsConnection, { MAX_TLS_CONNECTIONS as usize }> =
    LruHashMap::new();

/// Functions of rustls by thread. Owner: the TLS programs; losses: `TlsStorage`.
#[btf_map]
pub static TLS_RECORDS: LocalStorage<TlsRecord, { BPF_MAP_TYPE_TASK_STORAGE as usize }> =
    LocalStorage::new();

/// Keys of rustls. Owner: the TLS programs; the one used longest ago makes room, and is unknown when it is used again:
/// losses: `TlsUntied`.
#[btf_map]
pub static TLS_KEYS: LruHashMap<TlsKey, TlsKeyState, { MAX_TLS_KEYS as usize }> = LruHashMap::new();

/// Encrypted records that no socket has sent yet. Owner: the TLS programs; the oldest makes room: losses: `TlsUntied`.
#[btf_map]
pub static TLS_SEALED: LruHashMap<Sealed, SealedBy, { MAX_TLS_SEALED as usize }> =
    LruHashMap::new();

/// Plaintext that waits for its socket, by key. Owner: the TLS programs; the oldest makes room: losses: `TlsUntied`.
#[btf_map]
pub static TLS_HELD: LruHashMap<TlsKey, TlsHeld, { MAX_TLS_HELD as usize }> = LruHashMap::new();

/// Number of the last TLS connection. Owner: the TLS programs.
#[btf_map]
pub static TLS_LAST_ID: Array<u64, 1> = Array::new();

/// Scratch records for plaintext; sized at load. Owner: whoever has taken one; losses: `TlsNoRoom`.
#[btf_map]
pub static TLS_SCRATCH: Array<TlsScratch, 1> = Array::new();

/// Always empty; see [`crate::tls::no_private_stack`].
#[btf_map]
pub static NO_PROGRAMS: ProgramArray<1> = ProgramArray::new();

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

/// Puts a value and gives the one before, atomically.
///
/// # Safety
/// `value` must be valid and aligned.
#[inline(always)]
pub unsafe fn exchange(value: *mut u64, mut new: u64) -> u64 {
    // SAFETY: by the caller. The instruction exists since Linux 5.12.
    unsafe {
        asm!("{n} = xchg_64({v} + 0, {n})", v = in(reg) value, n = inout(reg) new);
    }
    new
}
