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
//!
//! A request that begins while another is open proves pipelining: what had moved the other way before it was handed
//! over before it, as bytes or as a gap, so that no lost response can look like one.
//!
//! Limit: a connection that was pipelining before it was joined, or within what was lost, and never shows two open
//! requests afterwards pairs each request with the response before its own; order alone cannot tell it from keep-alive.
//!
//! A server that agrees to go on in HTTP/2 answers the request that offered it there: its parser takes over, with the open
//! exchange, for as long as the connection lasts. It counts as `http1` in the settings.

mod requests;
mod responses;

use super::body::{Body, Malformed};
use super::buffer::{HeadBuffer, TooLong};
use super::early::{Early, Full};
use super::pending::Pending;
use crate::model::Kind;
use crate::protocol::http2::Http2;
use crate::protocol::{Direction, Event, Events, ExchangeId, FlowInfo, Loss, Moment, Parser, Side};
use std::collections::VecDeque;

/// Nanoseconds without a byte after which a response that only an unseen close ends is not waited for any more.
const UNSEEN_CLOSE_PATIENCE: u64 = 10_000_000_000;

/// The parser of one connection.
pub(super) struct Http1 {
    info: FlowInfo,
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
    open: VecDeque<Pending>,
    early: Early,
    trust: Trust,
    /// Requests were proven to be sent before the response to an earlier one.
    pipelined: bool,
    /// [`Event::Lost`] was told, and no request line was found since.
    lost: bool,
    /// Reads what follows, once the server has agreed to go on in HTTP/2.
    successor: Option<Box<Http2>>,
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
    Lost(Loss),
    /// Requests and responses can no longer be paired with certainty.
    Unprovable,
    /// The connection is no longer HTTP/1.
    Opaque,
}

impl From<Malformed> for Stop {
    fn from(_: Malformed) -> Self {
        Self::Lost(Loss::Malformed)
    }
}

impl From<TooLong> for Stop {
    fn from(_: TooLong) -> Self {
        Self::Lost(Loss::HeadTooLong)
    }
}

impl From<Full> for Stop {
    fn from(_: Full) -> Self {
        Self::Lost(Loss::Unproven)
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
        if let Some(successor) = &mut self.successor {
            return successor.on_bytes(direction, bytes, at, events);
        }
        if self.ended {
            return;
        }
        let result = if direction == self.request_direction {
            self.drop_stale(at.time, events);
            self.request_bytes(bytes, at, events)
                .and_then(|()| self.replay(events))
        } else {
            self.response_bytes(bytes, at, events)
        };
        self.settle(&result, events);
    }

    fn on_gap(&mut self, direction: Direction, length: u64, at: Moment, events: &mut dyn Events) {
        if let Some(successor) = &mut self.successor {
            return successor.on_gap(direction, length, at, events);
        }
        if self.ended || length == 0 {
            return;
        }
        let result = if direction == self.request_direction {
            self.request_gap(length, events)
        } else {
            self.response_gap(length, at, events)
        };
        self.settle(&result, events);
    }

    fn on_close(&mut self, direction: Direction, at: Moment, events: &mut dyn Events) {
        if let Some(successor) = &mut self.successor {
            return successor.on_close(direction, at, events);
        }
        if !self.ended && direction != self.request_direction {
            let result = self.response_close(at, events);
            self.settle(&result, events);
        }
    }

    fn on_end(&mut self, events: &mut dyn Events) {
        if let Some(successor) = &mut self.successor {
            return successor.on_end(events);
        }
        self.abandon_all(events);
        self.ended = true;
    }

    fn held_bytes(&self) -> usize {
        self.request_head
            .capacity()
            .saturating_add(self.response_head.capacity())
            .saturating_add(self.early.capacity())
            .saturating_add(
                self.successor
                    .as_ref()
                    .map_or(0, |successor| successor.held_bytes()),
            )
    }

    fn on_tick(&mut self, now: u64, events: &mut dyn Events) {
        if let Some(successor) = &mut self.successor {
            return successor.on_tick(now, events);
        }
        self.drop_stale(now, events);
        if self.is_endless(now) {
            self.give_up(events);
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
            info: info.clone(),
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
            lost: info.joined_late,
            successor: None,
            ended: false,
        }
    }

    fn settle(&mut self, result: &Result<(), Stop>, events: &mut dyn Events) {
        match result {
            Ok(()) => {}
            Err(Stop::Lost(loss)) => self.lose(*loss, events),
            Err(Stop::Unprovable) => {
                self.tell_loss(Loss::Unproven, events);
                self.give_up(events);
            }
            Err(Stop::Opaque) => self.give_up(events),
        }
    }

    /// Forgets the place in both streams.
    fn lose(&mut self, loss: Loss, events: &mut dyn Events) {
        self.tell_loss(loss, events);
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

    /// Forgets the place in the request stream only; the open requests keep their responses.
    fn lose_requests(&mut self, loss: Loss, events: &mut dyn Events) {
        self.tell_loss(loss, events);
        self.request = RequestState::Lost;
        self.trust = Trust::Uncertain;
    }

    fn tell_loss(&mut self, loss: Loss, events: &mut dyn Events) {
        if !self.lost {
            self.lost = true;
            events.event(Event::Lost(loss));
        }
    }

    /// Responses that came too long ago to answer a request of this time were unasked.
    fn drop_stale(&mut self, now: u64, events: &mut dyn Events) {
        if self.early.is_stale(now) {
            self.lose(Loss::Unproven, events);
        }
    }

    /// True if a response is in progress whose end will not be seen. A pause is no proof of the end, so that it gives
    /// no span; but nothing may stay in progress for ever.
    fn is_endless(&self, now: u64) -> bool {
        let ends_unseen = matches!(self.response, ResponseState::Body(body, _) if body.ends_with_close())
            && self.info.close_unseen
            && self.kind == Kind::Server;
        ends_unseen && now.saturating_sub(self.response_time) >= UNSEEN_CLOSE_PATIENCE
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
            events.event(Event::Abandoned(open.id()));
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

/// What a gap means where a head is expected: one that was cut, or bytes that nothing is known of.
const fn gap_before(head: &HeadBuffer) -> Loss {
    if head.is_empty() {
        Loss::Gap
    } else {
        Loss::HeadTooLong
    }
}

/// The moment of `rest`, the tail of `bytes`, which moved at `at`.
const fn moved_on(at: Moment, bytes: &[u8], rest: &[u8]) -> Moment {
    let consumed = bytes.len().saturating_sub(rest.len()) as u64;
    Moment {
        offset: at.offset.saturating_add(consumed),
        ..at
    }
}
