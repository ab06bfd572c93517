//! The backbone: every send and receive of the container's stream sockets, and their end.

use crate::{
    capture, flow, kernel,
    maps::{self, SCRATCH, SETTINGS},
    output, pieces, scope,
    syscall::{self, Data, Way},
    tls,
};
use aya_ebpf::{
    helpers::generated::{
        bpf_get_current_pid_tgid, bpf_get_smp_processor_id, bpf_get_socket_cookie,
    },
    macros::btf_tracepoint,
    programs::BtfTracePointContext,
};
use core::{ffi::c_void, ptr};
use pilotfish_abi::{Counter, Family, Header, Kind, Member, Scope, flag};

const SOCK_STREAM: u16 = 1;
const IPPROTO_TCP: u16 = 6;
/// Falls back to TCP on the wire unless both peers speak it; Go listens with it by default.
const IPPROTO_MPTCP: u16 = 262;

const RCV_SHUTDOWN: u8 = 1;

const MSG_OOB: i32 = 0x1;
const MSG_PEEK: i32 = 0x2;
const MSG_TRUNC: i32 = 0x20;
const MSG_ERRQUEUE: i32 = 0x2000;

const TCP_FIN_WAIT1: i32 = 4;
const TCP_CLOSE: i32 = 7;
const TCP_LAST_ACK: i32 = 9;

/// `sock_send_length(struct sock *sk, int ret, int flags)`, 6.3 to 6.18.
#[btf_tracepoint(function = "sock_send_length")]
pub fn socket_send(ctx: BtfTracePointContext) -> i32 {
    moved(&ctx, Way::Send);
    0
}

/// `sock_recv_length(struct sock *sk, int ret, int flags)`, 6.3 to 6.18.
#[btf_tracepoint(function = "sock_recv_length")]
pub fn socket_receive(ctx: BtfTracePointContext) -> i32 {
    moved(&ctx, Way::Receive);
    0
}

#[inline(always)]
fn moved(ctx: &BtfTracePointContext, way: Way) -> Option<()> {
    let scope = scope::in_scope()?;
    let settings = SETTINGS
        .get(scope.slot)
        .filter(|settings| settings.enabled != 0)?;
    let (socket, result, flags) = (
        ctx.arg::<*mut c_void>(0),
        ctx.arg::<i32>(1),
        ctx.arg::<i32>(2),
    );
    if way == Way::Receive && flags & (MSG_PEEK | MSG_OOB | MSG_ERRQUEUE) != 0 {
        return None;
    }
    let family = stream_family(socket)?;
    let data = syscall::data(way, i64::from(result));
    if result <= 0 {
        tls::failed(way);
        if way == Way::Receive && result == 0 && receives_no_more(socket) {
            peer_ended(socket, scope, family);
        }
        return None;
    }
    let total = u64::from(result.unsigned_abs());
    let flow = flow::observed(socket, scope, family, way, total)?;
    let opposite = flow::opposite(flow, way);
    let offset = flow::advance(flow, socket, way, total);
    let carried = tls::carried(flow, scope, way, data, total);
    if carried.is_ciphertext {
        maps::count(scope.slot, Counter::Ciphertext, total);
        return None;
    }

    // SAFETY: no arguments.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    // SAFETY: a program never runs twice at a time on one CPU, and the two programs use different elements.
    let scratch = unsafe { &mut *SCRATCH.get_ptr_mut(cpu * 2 + u32::from(way == Way::Receive))? };
    let kind = if way == Way::Send {
        Kind::Send
    } else {
        Kind::Receive
    };
    carried.store(scratch);
    fill(&mut scratch.header, kind, socket, scope, family);
    scratch.header.offset = offset;
    scratch.header.opposite = opposite;
    scratch.header.total = total as u32;

    let discarded = way == Way::Receive && flags & MSG_TRUNC != 0;
    let data = if discarded {
        Data::hidden(Counter::NoBuffer)
    } else {
        data
    };
    if offset == 0 && total >= flow::OPENING {
        flow::note_opening(&mut flow.run, capture::first_word(data));
    }
    let allowed = u64::from(flow::allowance(&mut flow.run, way, settings.capture, total));
    let captured = capture::copy(scratch, data, 0, capture::at_most_max(allowed));
    if let Some(counter) = captured.trouble {
        maps::count(scope.slot, counter, 1);
    }
    let bytes = capture::at_most_max(captured.bytes);
    if flow.flags & u32::from(flag::JOINED_LATE) != 0 && bytes >= flow::OPENING {
        flow::note_frame(&mut flow.run, maps::first_word(&scratch.bytes));
    }
    let goes_on = pieces::follow(bytes, allowed);
    if goes_on {
        scratch.header.total = bytes as u32;
    } else if total > bytes {
        maps::count(scope.slot, Counter::Uncaptured, total - bytes);
    }
    let no_buffer = if bytes == 0 { flag::NO_BUFFER } else { 0 };
    scratch.header.flags = flow.flags as u8 | no_buffer;
    scratch.header.captured = bytes as u32;
    if tls::examine(scope, socket, flow, way, scratch, bytes) {
        maps::count(scope.slot, Counter::Ciphertext, total);
        return None;
    }
    output::deliver(
        scope.slot,
        ptr::from_ref(scratch).cast(),
        Header::SIZE as u64 + bytes,
    );
    if goes_on {
        pieces::deliver(scratch, data, allowed, total);
    }
    Some(())
}

/// A receive of nothing is the end of the stream, unless nothing was asked for: the socket knows.
#[inline(always)]
fn receives_no_more(socket: *const c_void) -> bool {
    // SAFETY: a tracepoint's argument, members by BTF.
    unsafe { kernel::load::<u8>(socket, Member::SockShutdown) & RCV_SHUTDOWN != 0 }
}

#[inline(always)]
fn peer_ended(socket: *mut c_void, scope: Scope, family: Family) {
    if let Some(flow) = flow::known(socket) {
        let mut header = Header::default();
        fill(&mut header, Kind::ReceiveEnd, socket, scope, family);
        header.offset = flow.received;
        header.opposite = flow.sent;
        header.flags = tls::flags_of_end(flow);
        output::deliver_header(&header);
        tls::ended(flow, scope, Kind::ReceiveEnd, 0);
    }
}

/// `inet_sock_set_state(const struct sock *sk, const int oldstate, const int newstate)`, 4.16 to 6.18.
///
/// Runs in any context: scope is the socket's own state, which only a process in scope creates.
#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn socket_state(ctx: BtfTracePointContext) -> i32 {
    state_changed(ctx.arg(0), ctx.arg(2));
    0
}

#[inline(always)]
fn state_changed(socket: *mut c_void, state: i32) -> Option<()> {
    let flow = flow::known(socket)?;
    let kind = match state {
        TCP_FIN_WAIT1 | TCP_LAST_ACK => Kind::SendEnd,
        TCP_CLOSE => Kind::Close,
        _ => return None,
    };
    let family = stream_family(socket)?;
    let scope = Scope {
        slot: flow.slot,
        tgid: flow.tgid,
    };
    let mut header = Header::default();
    fill(&mut header, kind, socket, scope, family);
    header.offset = flow.sent;
    header.opposite = flow.received;
    header.flags = tls::flags_of_end(flow);
    if state == TCP_CLOSE {
        header.total = flow::unread(socket);
    }
    output::deliver_header(&header);
    tls::ended(flow, scope, kind, header.total);
    Some(())
}

/// The family of a stream socket that we observe.
#[inline(always)]
fn stream_family(socket: *const c_void) -> Option<Family> {
    // SAFETY: a tracepoint's argument, members by BTF.
    unsafe {
        let family = Family::from_u16(kernel::load(socket, Member::SockFamily))?;
        let stream = if matches!(family, Family::Unix) {
            kernel::load::<u16>(socket, Member::SockType) == SOCK_STREAM
        } else {
            matches!(
                kernel::load(socket, Member::SockProtocol),
                IPPROTO_TCP | IPPROTO_MPTCP
            )
        };
        stream.then_some(family)
    }
}

/// Everything but offset, lengths and flags.
#[inline(always)]
fn fill(header: &mut Header, kind: Kind, socket: *mut c_void, scope: Scope, family: Family) {
    header.kind = kind as u8;
    header.flags = 0;
    header.family = family as u16;
    header.slot = scope.slot;
    header.time = output::now();
    header.tgid = scope.tgid;
    header.total = 0;
    header.captured = 0;
    // SAFETY: helpers without side effects on valid arguments; members by BTF.
    unsafe {
        header.cookie = bpf_get_socket_cookie(socket);
        header.tid = bpf_get_current_pid_tgid() as u32;
        let net: *const c_void = kernel::load(socket, Member::SockNet);
        header.netns = kernel::load(net, Member::NetInode);
    }
    addresses(header, socket, family);
}

#[inline(always)]
fn addresses(header: &mut Header, socket: *const c_void, family: Family) {
    let (mut local, mut remote) = ([0_u32; 4], [0_u32; 4]);
    // SAFETY: members by BTF, loaded in words no larger than the members' own.
    unsafe {
        match family {
            Family::Unix => {
                header.local_port = 0;
                header.remote_port = 0;
            }
            Family::V4 => {
                local[0] = kernel::load(socket, Member::SockLocalV4);
                remote[0] = kernel::load(socket, Member::SockRemoteV4);
            }
            Family::V6 => {
                let local_v6 = kernel::address(socket, Member::SockLocalV6).cast::<u32>();
                let remote_v6 = kernel::address(socket, Member::SockRemoteV6).cast::<u32>();
                for word in 0..4 {
                    local[word] = ptr::read_volatile(local_v6.wrapping_add(word));
                    remote[word] = ptr::read_volatile(remote_v6.wrapping_add(word));
                }
            }
        }
        if !matches!(family, Family::Unix) {
            header.local_port = kernel::load(socket, Member::SockLocalPort);
            header.remote_port = u16::from_be(kernel::load(socket, Member::SockRemotePort));
        }
        ptr::write((&raw mut header.local).cast(), local);
        ptr::write((&raw mut header.remote).cast(), remote);
    }
}
