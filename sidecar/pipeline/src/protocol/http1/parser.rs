//! The two streams of one connection, and which response answers which request.
//!
//! Responses pair with requests in order, and the request decides how its response is delimited, so a response is
//! read only once its request is known. Where the place in a stream is lost (bytes missing in a head or past a
//! body's end, malformed bytes), every open exchange is abandoned and nothing is read before the next request head
//! at the start of an operation.
//!
//! That entry is *uncertain*: the response to an earlier request might still be on its way. It becomes certain again
//! when one exchange has completed before the next request. A connection that pipelines while uncertain, or that
//! has pipelined and loses its place, is given up: which response answers what can no longer be proven.

mod requests;
mod responses;

use super::body::{Body, Malformed};
use super::buffer::{HeadBuffer, TooLong};
use super::early::{Early, Full};
use super::exchange::Open;
use crate::model::Kind;
use crate::protocol::{Direction, Event, Events, ExchangeId, FlowInfo, Moment, Parser, Side};
use std::collections::VecDeque;

/// The parser of one connection.
pub(super) struct Http1 {
    tls: bool,
    request_direction: Direction,
    kind: Kind,
    next_id: u64,
    request: RequestState,
    request_head: HeadBuffer,
    response: ResponseState,
    response_head: HeadBuffer,
    /// When the latest byte of the response being read moved.
    response_time: u64,
    /// Requests without a complete response, in order.
    open: VecDeque<Open>,
    early: Early,
    trust: Trust,
    /// Two requests were open at once.
    pipelined: bool,
    /// Nothing more will come out of this connection.
    ended: bool,
}

/// How far the pairing of requests and responses is proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trust {
    Certain,
    /// A response to a request that was never seen may be on its way.
    Uncertain,
    /// Uncertain still, but an exchange has completed since.
    Answered,
}

#[derive(Debug)]
enum RequestState {
    /// The place in the stream is not known; [`Http1::request_head`] may hold the beginning of a request line.
    Lost,
    /// Between messages or in a head; `entering` after the place was lost.
    Head { entering: bool },
    /// In the body of this request.
    Body(Body, ExchangeId),
    /// After a request for another protocol (Upgrade, CONNECT): what bytes mean depends on the response.
    Undecided { overrun: bool },
}

#[derive(Debug)]
enum ResponseState {
    /// Between messages or in a head.
    Head,
    /// In the body of a response with this status.
    Body(Body, u16),
    /// As `Body`, but bytes of the chunk framing are missing: the end shows when the next request begins.
    Spilled(u16),
}

/// Why reading cannot go on as it did.
enum Stop {
    /// The place in the streams is lost.
    Lost,
    /// The connection is no longer HTTP/1, or can no longer be read with certainty.
    Opaque,
}

impl From<Malformed> for Stop {
    fn from(_: Malformed) -> Self {
        Self::Lost
    }
}

impl From<TooLong> for Stop {
    fn from(_: TooLong) -> Self {
        Self::Lost
    }
}

impl From<Full> for Stop {
    fn from(_: Full) -> Self {
        Self::Lost
    }
}

impl Parser for Http1 {
    fn on_bytes(
        &mut self,
        direction: Direction,
        bytes: &[u8],
        at: Moment,
        events: &mut dyn Events,
    ) {
        if self.ended {
            return;
        }
        let result = if direction == self.request_direction {
            self.request_bytes(bytes, at, events)
                .and_then(|()| self.replay(events))
        } else {
            self.response_bytes(bytes, at, events)
        };
        self.settle(&result, events);
    }

    fn on_gap(&mut self, direction: Direction, length: u64, at: Moment, events: &mut dyn Events) {
        if self.ended || length == 0 {
            return;
        }
        let result = if direction == self.request_direction {
            self.request_gap(length)
        } else {
            self.response_gap(length, at, events)
        };
        self.settle(&result, events);
    }

    fn on_close(&mut self, direction: Direction, at: Moment, events: &mut dyn Events) {
        if !self.ended && direction != self.request_direction {
            let result = self.response_close(at, events);
            self.settle(&result, events);
        }
    }

    fn on_end(&mut self, events: &mut dyn Events) {
        self.abandon_all(events);
        self.ended = true;
    }

    fn on_tick(&mut self, now: u64, events: &mut dyn Events) {
        if self.early.is_stale(now) {
            self.lose(events);
        }
    }
}

impl Http1 {
    /// A parser for a connection whose `direction` carries the bytes of `side`.
    pub(super) fn new(info: &FlowInfo, direction: Direction, side: Side) -> Self {
        let request_direction = match side {
            Side::Request => direction,
            Side::Response => direction.opposite(),
        };
        let request = if info.joined_late {
            RequestState::Lost
        } else {
            RequestState::Head { entering: false }
        };
        Self {
            tls: info.tls,
            request_direction,
            kind: if request_direction == Direction::Received {
                Kind::Server
            } else {
                Kind::Client
            },
            next_id: 0,
            request,
            request_head: HeadBuffer::default(),
            response: ResponseState::Head,
            response_head: HeadBuffer::default(),
            response_time: 0,
            open: VecDeque::new(),
            early: Early::default(),
            trust: if info.joined_late {
                Trust::Uncertain
            } else {
                Trust::Certain
            },
            pipelined: false,
            ended: false,
        }
    }

    fn settle(&mut self, result: &Result<(), Stop>, events: &mut dyn Events) {
        match result {
            Ok(()) => {}
            Err(Stop::Lost) => self.lose(events),
            Err(Stop::Opaque) => self.give_up(events),
        }
    }

    /// Forgets the place in both streams.
    fn lose(&mut self, events: &mut dyn Events) {
        self.abandon_all(events);
        self.early = Early::default();
        self.request_head.clear();
        self.response_head.clear();
        self.request = RequestState::Lost;
        self.response = ResponseState::Head;
        self.trust = Trust::Uncertain;
        if self.pipelined {
            self.give_up(events);
        }
    }

    fn give_up(&mut self, events: &mut dyn Events) {
        self.abandon_all(events);
        self.ended = true;
        events.event(Event::Opaque);
    }

    fn is_certain(&self) -> bool {
        self.trust == Trust::Certain
    }

    fn abandon_all(&mut self, events: &mut dyn Events) {
        for open in self.open.drain(..) {
            events.event(Event::Abandoned(open.id));
        }
    }
}

/// Empty lines before a message are passed over (RFC 9112, section 2.2).
fn skip_line_ends(mut bytes: &[u8]) -> &[u8] {
    while let [b'\r' | b'\n', rest @ ..] = bytes {
        bytes = rest;
    }
    bytes
}
