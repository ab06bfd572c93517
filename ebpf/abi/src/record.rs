//! The ring-buffer record: a fixed header, then `captured` bytes of the workload.

/// What a record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Bytes left through a socket.
    Send = 1,
    /// Bytes arrived through a socket.
    Receive = 2,
    /// The local side will send no more (TCP left `ESTABLISHED` or `CLOSE_WAIT` by a local close or shutdown).
    SendEnd = 3,
    /// The peer will send no more (a read returned 0).
    ReceiveEnd = 4,
    /// The transport is closed; `offset` is the total sent, `opposite` the total received, `total` the bytes that have arrived and were not read
    /// yet: the process may still read them. The thread is whichever ran at the time.
    Close = 5,
    /// A process of the container forked; `tgid` is the child, `tid` the child's thread key,
    /// `offset` the parent's tgid.
    Fork = 6,
    /// A process of the container executed a new program.
    Exec = 7,
    /// The last thread of a process of the container is exiting.
    Exit = 8,
    /// A process outside every scope, in the agent's own pid namespace, executed a program: user space decides.
    Newcomer = 9,
}

impl Kind {
    /// The kind with this number, or `None` for a record of an unknown kind.
    pub const fn from_u8(value: u8) -> Option<Self> {
        Some(match value {
            1 => Self::Send,
            2 => Self::Receive,
            3 => Self::SendEnd,
            4 => Self::ReceiveEnd,
            5 => Self::Close,
            6 => Self::Fork,
            7 => Self::Exec,
            8 => Self::Exit,
            9 => Self::Newcomer,
            _ => return None,
        })
    }
}

/// Bits of [`Header::flags`].
pub mod flag {
    /// The connection had carried data before its first observed operation.
    pub const JOINED_LATE: u8 = 1 << 0;
    /// No user buffer could be read (sendfile, splice, `io_uring`, a fault): all of `total` is a gap.
    pub const NO_BUFFER: u8 = 1 << 1;
    /// Plaintext of a TLS connection, read at its library: [`Header::cookie`](super::Header::cookie) names that connection
    /// and not a socket, offsets count plaintext, and the addresses are those of the socket that carries it, or none
    /// (family 0) until that is known.
    pub const TLS: u8 = 1 << 2;
    /// The end of a socket that carries a TLS connection whose plaintext is seen: its own bytes have no records.
    pub const CARRIES_TLS: u8 = 1 << 3;
    /// With [`TLS`] at a close: bytes moved both ways after the handshake, but none of the plaintext was seen.
    pub const UNSEEN: u8 = 1 << 4;
}

/// Address family of a record's socket, as in `sa_family_t`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Family {
    /// `AF_UNIX`, stream sockets only.
    Unix = 1,
    /// `AF_INET`: the first four bytes of each address.
    V4 = 2,
    /// `AF_INET6`, which may carry IPv4-mapped addresses.
    V6 = 10,
}

impl Family {
    /// The family with this number, if it is one that we observe.
    pub const fn from_u16(value: u16) -> Option<Self> {
        Some(match value {
            1 => Self::Unix,
            2 => Self::V4,
            10 => Self::V6,
            _ => return None,
        })
    }
}

/// Start of every record, 96 bytes.
///
/// Addresses ride on every socket record, not only on a flow's first: 40 bytes more buy that a lost record
/// or an evicted flow never costs a later exchange its addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(
    feature = "user",
    derive(
        zerocopy::FromBytes,
        zerocopy::IntoBytes,
        zerocopy::Immutable,
        zerocopy::KnownLayout
    )
)]
#[repr(C)]
pub struct Header {
    /// A [`Kind`].
    pub kind: u8,
    /// Bits of [`flag`].
    pub flags: u8,
    /// A [`Family`]; 0 on process records, and on a TLS connection whose socket is not known.
    pub family: u16,
    /// The container: an index that user space chose, 1 to [`crate::MAX_SLOTS`] - 1.
    pub slot: u32,
    /// `CLOCK_MONOTONIC`, nanoseconds, taken after the operation.
    pub time: u64,
    /// Names the flow: `SO_COOKIE` of the socket, never reused while the machine runs, or of a TLS connection a number
    /// with the highest bit set, which no socket has, never reused while the agent runs.
    pub cookie: u64,
    /// Stream offset of the operation's first byte in its direction, counted from the first observed operation.
    pub offset: u64,
    /// Process id as the agent's pid namespace sees it, or 0 when that is unknown.
    pub tgid: u32,
    /// A key for the thread, unique on the host at one time (the initial namespace's thread id).
    pub tid: u32,
    /// Bytes that the operation moved.
    pub total: u32,
    /// Bytes that follow this header: the first `captured` of `total`.
    pub captured: u32,
    /// Inode number of the socket's network namespace: two flows with mirrored addresses in one
    /// namespace are the two ends of one connection.
    pub netns: u32,
    /// Local port, host byte order.
    pub local_port: u16,
    /// Peer's port, host byte order.
    pub remote_port: u16,
    /// Local address, network byte order.
    pub local: [u8; 16],
    /// Peer's address, network byte order.
    pub remote: [u8; 16],
    /// Position of the opposite stream before the operation: what had moved there has a record of its own, so that
    /// a lost record is noticed by the next one of either direction, and a request that overtakes a response shows.
    pub opposite: u64,
}

impl Header {
    /// Size of the header in bytes.
    pub const SIZE: usize = size_of::<Self>();
}

const _: () = assert!(Header::SIZE == 96);
