//! Protocols: one file each, one line each in [`PROTOCOLS`].
//!
//! A protocol has a *detector* over the opening bytes of a flow and a *parser* that turns two byte streams into
//! exchanges. Configuration, fuzz targets, generic tests and the documentation iterate over the table.

mod grpc;
mod http;
mod http1;
mod http2;

use crate::model::{Attribute, Instrument, Kind, Status};
use compact_str::CompactString;
use smallvec::SmallVec;

/// Direction of bytes, seen from the container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Sent by the container.
    Sent,
    /// Received by the container.
    Received,
}

impl Direction {
    /// The other direction.
    #[must_use]
    pub const fn opposite(self) -> Self {
        match self {
            Self::Sent => Self::Received,
            Self::Received => Self::Sent,
        }
    }
}

/// When and by whom bytes were moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    /// `CLOCK_MONOTONIC`, nanoseconds.
    pub time: u64,
    /// Thread key, unique on the host at one time; 0 where no thread is known to have done it (an end).
    pub tid: u32,
    /// Stream offset of the first byte handed over with this moment.
    pub offset: u64,
    /// Of a gap: its record was lost, so that the bytes moved at some time before `time`, not at it.
    pub unwitnessed: bool,
}

/// Answer of a detector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is this protocol, and these bytes were sent by the side that asks (`Request`) or answers.
    Yes(Side),
    /// It is not, whatever follows.
    No,
    /// A prefix of what would be a yes.
    NeedMore,
}

/// Which side of an exchange produced some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The client's bytes.
    Request,
    /// The server's bytes.
    Response,
}

/// Names an exchange within its flow, ascending from 0 in request order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ExchangeId(pub u64);

/// A request head has been read: the exchange is now in progress.
#[derive(Clone, Debug, PartialEq)]
pub struct Started {
    /// Its name within the flow.
    pub id: ExchangeId,
    /// Role of the container in it.
    pub kind: Kind,
    /// When the first byte of the request moved, on which thread, at which stream offset.
    pub at: Moment,
    /// `traceparent` as found on the wire, unchecked.
    pub traceparent: Option<SmallVec<[u8; 64]>>,
    /// `tracestate` as found on the wire, joined by commas, unchecked.
    pub tracestate: Option<SmallVec<[u8; 64]>>,
}

/// A finished exchange: everything that a span and a measurement need, protocol-neutral.
#[derive(Clone, Debug, PartialEq)]
pub struct Exchange {
    /// The exchange that [`Started`] announced.
    pub id: ExchangeId,
    /// When the last byte of the response moved.
    pub end: u64,
    /// First half of the span's name, such as the method.
    pub verb: CompactString,
    /// A path without its query; empty for none.
    pub path: CompactString,
    /// What becomes of the path, if anything.
    pub route: Route,
    /// Attributes of the span, in addition to addresses, route and `error.type`.
    pub attributes: Vec<Attribute>,
    /// Attributes of the measurements, in fixed order, in addition to the route.
    pub dimensions: SmallVec<[Attribute; 8]>,
    /// `error.type`, when the exchange failed.
    pub error_type: Option<CompactString>,
    /// Span status.
    pub status: Status,
    /// Instrument that takes the duration in seconds.
    pub duration: &'static Instrument,
    /// Further values (body sizes).
    pub values: SmallVec<[(&'static Instrument, f64); 2]>,
}

/// What is made of an exchange's path: the second half of the span's name, and an attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Nothing.
    None,
    /// A route, under this key (`http.route`): what looks like an identifier is replaced.
    Path(&'static str),
    /// A name as it stands, without its first slash, under the first key (`rpc.method`). One too many for its container,
    /// or an unknown one, is `_OTHER`, with the original under the second key.
    Name(&'static str, &'static str),
}

/// What a parser tells.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A request head was read.
    Started(Started),
    /// An exchange is complete.
    Finished(Box<Exchange>),
    /// An announced exchange will never finish (bytes were lost, the connection broke): no span.
    Abandoned(ExchangeId),
    /// The parser lost its place and reads on from the next provable message. Told once per loss, not again for what
    /// is skipped until a message is found. It says nothing about open exchanges: those that will not finish are
    /// abandoned one by one.
    Lost(Loss),
    /// Nothing more is read from this flow: it is not this protocol any more (Upgrade, CONNECT), or what answers
    /// what can no longer be proven.
    Opaque,
}

/// Why a parser lost its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Bytes are missing that had to be read.
    Gap,
    /// A head is longer than what is kept of one, or its end was not captured.
    HeadTooLong,
    /// Bytes contradict the protocol.
    Malformed,
    /// No byte is missing, but which response answers which request cannot be proven.
    Unproven,
}

/// Receives a parser's events.
pub trait Events {
    /// Takes one event, in the order in which they became known.
    fn event(&mut self, event: Event);
}

/// Facts about the flow that a parser may put into attributes.
#[derive(Clone, Debug, Default)]
pub struct FlowInfo {
    /// True if the first observed bytes are not the connection's first.
    pub joined_late: bool,
    /// True when the bytes were read above TLS.
    pub tls: bool,
    /// True when no record tells that the container closed the connection (unix sockets): what only a close ends has
    /// no provable end.
    pub close_unseen: bool,
}

/// The parser of one flow.
///
/// Bytes of one direction arrive in stream order; each call carries (a piece of) one operation. Before it came all that
/// the other direction had moved by then, as bytes or as a gap. A parser never
/// panics, bounds what it keeps, and after a gap finds its feet at the next provable message boundary or stays
/// silent.
pub trait Parser: Send {
    /// Bytes moved.
    fn on_bytes(&mut self, direction: Direction, bytes: &[u8], at: Moment, events: &mut dyn Events);
    /// `length` bytes moved that were not captured (`length` may exceed any real message).
    fn on_gap(&mut self, direction: Direction, length: u64, at: Moment, events: &mut dyn Events);
    /// No more bytes will come from this direction; called at most once per direction.
    fn on_close(&mut self, direction: Direction, at: Moment, events: &mut dyn Events);
    /// The flow is gone (socket closed, evicted, process ended): finish or abandon everything.
    fn on_end(&mut self, events: &mut dyn Events);
    /// Memory in bytes that holds what moved until more of it comes: partial heads, bytes that wait for their turn.
    /// It is asked for after every call, so the answer must cost nothing. All flows share a budget: the flow that
    /// exceeds it is given up, and its parser dropped.
    fn held_bytes(&self) -> usize;
    /// Time passes; called about once a second.
    fn on_tick(&mut self, _now: u64, _events: &mut dyn Events) {}
}

/// One line of the protocol table.
pub struct Protocol {
    /// Name in configuration and documentation.
    pub name: &'static str,
    /// What it recognises, for the documentation table.
    pub summary: &'static str,
    /// Looks at the first bytes of one direction of a flow; or, if the second argument is true, at those of any operation
    /// of a flow that is joined late.
    pub detect: fn(&[u8], bool) -> Verdict,
    /// Makes the parser of a flow whose `direction` was detected as `side`.
    pub parser: fn(FlowInfo, Direction, Side) -> Box<dyn Parser>,
    /// Streams that exercise the parser, for generic tests and fuzz seeds: request bytes, response bytes.
    pub samples: &'static [(&'static [u8], &'static [u8])],
}

/// Every protocol, strongest detector first.
pub static PROTOCOLS: &[Protocol] = &[http2::PROTOCOL, http1::PROTOCOL];
