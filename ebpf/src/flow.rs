//! State of one socket: how far each of its streams has come.

use crate::{
    kernel,
    maps::{self, FLOWS, Flow},
    syscall::Way,
};
use aya_ebpf::{
    bindings::BPF_LOCAL_STORAGE_GET_F_CREATE,
    helpers::generated::{bpf_sk_storage_get, bpf_skc_to_tcp_sock},
};
use core::{ffi::c_void, ptr};
use pilotfish_abi::{Counter, FRAMED_FACTOR, Family, MAX_PIECE, MAX_PIECES, Member, Scope, flag};

/// The socket's state, if a process in scope has used it.
#[inline(always)]
pub fn known(socket: *mut c_void) -> Option<&'static Flow> {
    // SAFETY: the helper returns null or storage that outlives the program's run.
    unsafe {
        bpf_sk_storage_get(map(), socket, ptr::null_mut(), 0)
            .cast::<Flow>()
            .as_ref()
    }
}

#[inline(always)]
fn map() -> *mut c_void {
    ptr::from_ref(&FLOWS).cast_mut().cast()
}

/// The socket's state, made at its first observed operation, which moved `total` bytes.
#[inline(always)]
pub fn observed(
    socket: *mut c_void,
    scope: Scope,
    family: Family,
    way: Way,
    total: u64,
) -> Option<&'static mut Flow> {
    // SAFETY: as in `known`; the initial value is copied from our stack.
    unsafe {
        let flow = bpf_sk_storage_get(map(), socket, ptr::null_mut(), 0).cast::<Flow>();
        if let Some(flow) = flow.as_mut() {
            return Some(flow);
        }
        let mut first = first_state(socket, scope, family, way, total);
        let create = BPF_LOCAL_STORAGE_GET_F_CREATE.into();
        let flow = bpf_sk_storage_get(map(), socket, (&raw mut first).cast(), create)
            .cast::<Flow>()
            .as_mut();
        if flow.is_none() {
            maps::count(scope.slot, Counter::FlowStorage, 1);
        }
        flow
    }
}

/// Whether the connection had carried bytes before the operation that just moved `total`.
///
/// A TCP socket knows: bytes taken out by its reader, and bytes given to it by its writer (on the connecting side
/// the SYN counts as one acknowledged byte). A unix socket does not, so it counts as joined late.
#[inline(always)]
fn first_state(socket: *mut c_void, scope: Scope, family: Family, way: Way, total: u64) -> Flow {
    let mut flow = Flow {
        sent: 0,
        received: 0,
        slot: scope.slot,
        tgid: scope.tgid,
        flags: u32::from(flag::JOINED_LATE),
        write_sequence: 0,
        copied_sequence: 0,
        run: 0,
        tls_object: 0,
        tls_id: 0,
        tls_process: 0,
        tls_program: 0,
    };
    let Some(tcp) = tcp_socket(socket, family) else {
        return flow;
    };
    // SAFETY: a `struct tcp_sock`; members by BTF.
    unsafe {
        let next: u32 = kernel::load(tcp, Member::TcpReceiveNext);
        let copied: u32 = kernel::load(tcp, Member::TcpCopiedSequence);
        let queued = u64::from(next.wrapping_sub(copied));
        let received = kernel::load::<u64>(tcp, Member::TcpBytesReceived).wrapping_sub(queued);
        let written: u32 = kernel::load(tcp, Member::TcpWriteSequence);
        let unacknowledged: u32 = kernel::load(tcp, Member::TcpSendUnacknowledged);
        let in_flight = u64::from(written.wrapping_sub(unacknowledged));
        let sent = kernel::load::<u64>(tcp, Member::TcpBytesAcked).wrapping_add(in_flight);
        let late = match way {
            Way::Send => received != 0 || sent > total + 1,
            Way::Receive => received > total || sent > 1,
        };
        if !late {
            flow.flags = 0;
        }
        let of = |this| if way == this { total as u32 } else { 0 };
        flow.write_sequence = written.wrapping_sub(of(Way::Send));
        flow.copied_sequence = copied.wrapping_sub(of(Way::Receive));
    }
    flow
}

/// Position of the opposite stream. To be asked before [`advance`]: of two operations that run at a time, at most one
/// then knows of the other, and no two records can wait for each other.
#[inline(always)]
pub fn opposite(flow: &Flow, way: Way) -> u64 {
    let position = match way {
        Way::Send => &raw const flow.received,
        Way::Receive => &raw const flow.sent,
    };
    // SAFETY: a field of the socket's storage; volatile so that the load stays before the addition.
    unsafe { ptr::read_volatile(position) }
}

/// Takes note of an operation and gives the stream offset of its first byte.
///
/// TCP's own sequence numbers decide: they also count what no tracepoint shows (splice out of a socket, a process
/// out of scope on the same socket), which thereby becomes a gap of known length. Under a protocol in the kernel
/// (kTLS) they count other bytes than the process sees, and other sockets have none: there operations are added up.
#[inline(always)]
pub fn advance(flow: &mut Flow, socket: *mut c_void, way: Way, total: u64) -> u64 {
    let (position, sequence, member) = match way {
        Way::Send => (
            &raw mut flow.sent,
            &mut flow.write_sequence,
            Member::TcpWriteSequence,
        ),
        Way::Receive => (
            &raw mut flow.received,
            &mut flow.copied_sequence,
            Member::TcpCopiedSequence,
        ),
    };
    let mut moved = total;
    // SAFETY: the helper returns null or a `struct tcp_sock`; members by BTF.
    unsafe {
        let tcp = bpf_skc_to_tcp_sock(socket).cast::<c_void>();
        if !tcp.is_null() {
            let now: u32 = kernel::load(tcp, member);
            let since = u64::from(now.wrapping_sub(*sequence));
            *sequence = now;
            let upper_protocol: usize = kernel::load(tcp, Member::InetUpperProtocol);
            // One more than the bytes is the FIN, which has a number too and is passed by the read that meets it.
            // Less than the bytes are numbered where a socket map carries them past TCP.
            if upper_protocol == 0 && since > total + 1 {
                moved = since;
            }
        }
        // Two threads may use one socket at a time. If they do so without a lock of their own, so that their
        // operations overlap, the order of the bytes is anyone's guess, the program's own included.
        maps::fetch_add(position, moved) + (moved - total)
    }
}

/// Bytes captured in one direction, without the other having its turn, before captures get short.
const FULL_RUN: u32 = 64 * 1024;

/// Bytes captured of an operation deep inside a run: enough for the head of a chunk or of a pipelined message.
const SHORT_CAPTURE: u32 = 256;

/// Marks the run of the receiving direction.
const RECEIVING: u32 = 1 << 31;

/// Marks a connection that consists of frames, in which any byte may be the head of one.
const FRAMED: u32 = 1 << 30;

/// The beginning of what an HTTP/2 client sends first (RFC 9113, section 3.4): `PRI * HT`.
const PREFACE: u64 = u64::from_ne_bytes(*b"PRI * HT");

/// Bytes of an operation that [`note_opening`] can tell something of.
pub const OPENING: u64 = size_of_val(&PREFACE) as u64;

/// Takes note of a connection's first bytes, before they are captured: requests may follow them in the same operation. No
/// protocol is parsed in the kernel; this one is recognised because its heads are anywhere, and user space would be too
/// late to ask for more of them.
#[inline(always)]
pub fn note_opening(run: &mut u32, first: u64) {
    if first == PREFACE {
        *run |= FRAMED;
    }
}

/// Takes note of the beginning of an operation on a connection whose first bytes were not seen: one that begins with a whole
/// frame of a length and type that HTTP/2 peers send all the time (`WINDOW_UPDATE`, `PING`) has frames.
#[inline(always)]
pub fn note_frame(run: &mut u32, first: u64) {
    let [l2, l1, l0, kind, flags, s3, s2, s1] = first.to_ne_bytes();
    let is_update = (l0, kind, flags) == (4, 8, 0);
    let is_ping = (l0, kind) == (8, 6) && flags <= 1 && s2 | s1 == 0;
    if l2 | l1 | s3 == 0 && (is_update || is_ping) {
        *run |= FRAMED;
    }
}

/// How many bytes of an operation to capture, given the configured limit.
///
/// A long run in one direction is a body, and a body is skipped by its length anyway: shipping all of it would fill
/// the ring buffer with what nobody reads. Among frames it may be the answers to many requests, and is read whole. Two
/// threads that race here only capture a little more or less.
#[inline(always)]
pub fn allowance(run: &mut u32, way: Way, limit: u32, total: u64) -> u32 {
    let direction = if way == Way::Receive { RECEIVING } else { 0 };
    let framed = *run & FRAMED;
    let before = if *run & RECEIVING == direction {
        *run & !(RECEIVING | FRAMED)
    } else {
        0
    };
    let allowed = if framed != 0 {
        framed_limit(limit)
    } else if before >= FULL_RUN && limit > SHORT_CAPTURE {
        SHORT_CAPTURE
    } else {
        limit
    };
    let captured = if total < u64::from(allowed) {
        total as u32
    } else {
        allowed
    };
    let now = if before >= FULL_RUN {
        FULL_RUN
    } else {
        before + captured
    };
    *run = now | direction | framed;
    captured
}

/// Among frames more is captured, in proportion to what the operator allows.
#[inline(always)]
fn framed_limit(limit: u32) -> u32 {
    if limit > MAX_PIECE * MAX_PIECES / FRAMED_FACTOR {
        MAX_PIECE * MAX_PIECES
    } else {
        limit * FRAMED_FACTOR
    }
}

/// Bytes that have arrived and were not read. A FIN takes one place in the sequence, so a single byte counts as none.
#[inline(always)]
pub fn unread(socket: *mut c_void) -> u32 {
    // SAFETY: the helper returns null or a `struct tcp_sock`; members by BTF.
    unsafe {
        let tcp = bpf_skc_to_tcp_sock(socket).cast::<c_void>();
        if tcp.is_null() {
            return 0;
        }
        let next: u32 = kernel::load(tcp, Member::TcpReceiveNext);
        let copied: u32 = kernel::load(tcp, Member::TcpCopiedSequence);
        let waiting = next.wrapping_sub(copied);
        if waiting > 1 { waiting } else { 0 }
    }
}

/// Whether a protocol in the kernel, such as kTLS, stands between the process and TCP: then the operations' bytes are
/// plaintext.
#[inline(always)]
pub fn has_upper_protocol(socket: *mut c_void) -> bool {
    // SAFETY: the helper returns null or a `struct tcp_sock`; members by BTF.
    unsafe {
        let tcp = bpf_skc_to_tcp_sock(socket).cast::<c_void>();
        !tcp.is_null() && kernel::load::<usize>(tcp, Member::InetUpperProtocol) != 0
    }
}

#[inline(always)]
fn tcp_socket(socket: *mut c_void, family: Family) -> Option<*const c_void> {
    if matches!(family, Family::Unix) {
        return None;
    }
    // SAFETY: the helper returns null for anything but TCP.
    let tcp = unsafe { bpf_skc_to_tcp_sock(socket) };
    (!tcp.is_null()).then_some(tcp.cast())
}
