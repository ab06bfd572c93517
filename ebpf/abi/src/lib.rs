//! The contract between the eBPF programs and user space: records, map values, counters.
//!
//! Everything here is `#[repr(C)]`, has no padding and is native-endian: both sides run on one machine.
//! A recorded stream (`pilotfish record`) stores the same bytes, so a change of layout needs a new [`VERSION`].
#![no_std]

mod counter;
mod member;
mod record;
mod scope;
mod tls;

pub use counter::{Counter, SlotCounters};
pub use member::Member;
pub use record::{Family, Header, Kind, flag};
pub use scope::{Scope, Settings};
pub use tls::{TlsAction, TlsCookie, TlsResult, tls_calls};

/// Version of the record layout, written into recorded streams.
pub const VERSION: u16 = 1;

/// Most containers that one agent observes at a time; slot 0 means "no container".
pub const MAX_SLOTS: u32 = 512;

/// Most bytes that the operator can have captured of one socket operation.
pub const MAX_CAPTURE: u32 = 16 * 1024;

/// Most bytes of an operation in one record.
pub const MAX_PIECE: u32 = 32 * 1024;

/// Most records of one operation on a connection that was seen to begin with HTTP/2's preface: frames of many streams come
/// in one write. Every other operation is one record.
pub const MAX_PIECES: u32 = 8;

/// How many times the configured limit is captured of such an operation, within the pieces that there may be.
pub const FRAMED_FACTOR: u32 = 64;

/// Bytes captured per socket operation unless configured otherwise.
pub const DEFAULT_CAPTURE: u32 = 4096;

/// Most cgroups whose new processes are put in scope by the kernel itself (cgroup v2).
pub const MAX_CGROUPS: u32 = 1024;

/// TLS connections whose place is kept in the kernel; beyond it the one that was used longest ago begins anew.
pub const MAX_TLS_CONNECTIONS: u32 = 16 * 1024;

/// Goroutines that are inside a TLS function at a time, or were in one last.
pub const MAX_GOROUTINES: u32 = 8 * 1024;

/// Keys of rustls: two for each connection, and two more while it makes its handshake.
pub const MAX_TLS_KEYS: u32 = 16 * 1024;

/// Encrypted records whose first bytes are remembered until a socket sends them.
pub const MAX_TLS_SEALED: u32 = 4 * 1024;

/// First records of connections that wait for their socket.
pub const MAX_TLS_HELD: u32 = 512;

/// Bytes that are kept of what waits.
pub const HELD_BYTES: u32 = 4096;

/// I/O vectors read per operation, as many as Linux takes (`UIO_MAXIOV`); the bytes of later ones would become a gap.
pub const MAX_IOVECS: u32 = 1024;
