//! The two directions of one connection, and the streams that they make.
//!
//! A stream's number is used once in a connection's life, so that a response belongs to the request of its number and to no
//! other, however much was lost. Each direction has its own header compression and loses its place on its own. What a loss
//! may have swallowed is not told: a stream without a provable outcome gives no span.
//!
//! # Bounds
//!
//! A connection keeps at most 1,024 streams, which hold at most 1 MiB; beyond either the oldest is given up, and counted as
//! abandoned. Each direction keeps a header table ([`hpack`]), one frame of a header block and the block's frames before it,
//! of 64 KiB each. Vectors may be twice as large as what they contain: 2 MiB in all.

mod losses;
mod requests;
mod responses;

use super::fields::is_wanted;
use super::framing::{Framing, Item, Items};
use super::stream::{Ending, Of, Stream};
use super::streams::Streams;
use crate::hpack;
use crate::model::Kind;
use crate::protocol::http::exchange::Open;
use crate::protocol::{Direction, Event, Events, ExchangeId, FlowInfo, Loss, Moment, Parser, Side};

/// Nanoseconds by which the record of a response may precede that of its request.
const EARLY_PATIENCE: u64 = 1_000_000_000;

/// The parser of one connection.
pub(in crate::protocol) struct Http2 {
    request_direction: Direction,
    requests: Framing,
    responses: Framing,
    connection: Connection,
}

/// What both directions share.
struct Connection {
    /// What its exchanges have in common; the name is that of stream 1's.
    of: Of,
    request_fields: hpack::Decoder,
    response_fields: hpack::Decoder,
    streams: Streams,
    /// The latest request's stream, 0 before the first.
    latest: u32,
    /// No request can have been missed since `latest`.
    is_ordered: bool,
    state: State,
    /// A loss was told for the operation that is being read, and no request was found since.
    is_loss_told: bool,
    /// The place in the responses is lost.
    is_blind: bool,
    /// Until then a request may show up whose response was lost. `CLOCK_MONOTONIC`, nanoseconds.
    blind_until: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Neither direction has ever lost its place.
    Whole,
    /// One has.
    Patchy,
    /// Nothing more will come out of this connection.
    Ended,
}

/// One direction while it is read.
struct Reading<'a> {
    connection: &'a mut Connection,
    side: Side,
    events: &'a mut dyn Events,
}

impl Parser for Http2 {
    fn on_bytes(
        &mut self,
        direction: Direction,
        bytes: &[u8],
        at: Moment,
        events: &mut dyn Events,
    ) {
        self.read(direction, events, |framing, items| {
            framing.on_bytes(bytes, at, items);
        });
    }

    fn on_gap(&mut self, direction: Direction, length: u64, at: Moment, events: &mut dyn Events) {
        if length > 0 {
            self.read(direction, events, |framing, items| {
                framing.on_gap(length, at, items);
            });
        }
    }

    fn on_close(&mut self, direction: Direction, at: Moment, events: &mut dyn Events) {
        if self.connection.state != State::Ended && direction != self.request_direction {
            let is_whole = !self.responses.is_lost();
            self.connection.close(is_whole, at, events);
        }
    }

    fn on_end(&mut self, events: &mut dyn Events) {
        self.connection.give_up(events);
    }

    fn held_bytes(&self) -> usize {
        let Connection {
            request_fields,
            response_fields,
            streams,
            ..
        } = &self.connection;
        [
            self.requests.held_bytes(),
            self.responses.held_bytes(),
            request_fields.held_bytes(),
            response_fields.held_bytes(),
            streams.held_bytes(),
        ]
        .into_iter()
        .fold(0, usize::saturating_add)
    }

    fn on_tick(&mut self, now: u64, events: &mut dyn Events) {
        self.connection.drop_stale(now, events);
    }
}

impl Http2 {
    /// A parser for a connection whose `direction` carries the bytes of `side`.
    pub(super) fn new(info: &FlowInfo, direction: Direction, side: Side) -> Self {
        let request_direction = match side {
            Side::Request => direction,
            Side::Response => direction.opposite(),
        };
        let is_whole = !info.joined_late;
        let framing = |has_preface| {
            if is_whole {
                Framing::at_start(has_preface)
            } else {
                Framing::lost()
            }
        };
        Self {
            request_direction,
            requests: framing(true),
            responses: framing(false),
            connection: Connection {
                of: Of {
                    id: ExchangeId(1),
                    kind: match request_direction {
                        Direction::Received => Kind::Server,
                        Direction::Sent => Kind::Client,
                    },
                    tls: info.tls,
                },
                request_fields: hpack::Decoder::new(is_whole, is_wanted),
                response_fields: hpack::Decoder::new(is_whole, is_wanted),
                streams: Streams::default(),
                latest: 0,
                is_ordered: is_whole,
                state: if is_whole {
                    State::Whole
                } else {
                    State::Patchy
                },
                is_loss_told: false,
                is_blind: false,
                blind_until: 0,
            },
        }
    }

    /// A parser for what follows on a connection once the server has taken the offer to go on in HTTP/2 that came with this
    /// request (RFC 7540, section 3.2): stream 1 answers it.
    pub(in crate::protocol) fn upgraded(
        info: &FlowInfo,
        request_direction: Direction,
        mut request: Open,
        at: u64,
    ) -> Self {
        let info = FlowInfo {
            joined_late: false,
            ..info.clone()
        };
        let mut parser = Self::new(&info, request_direction, Side::Request);
        request.switch_to("2");
        parser.connection.of.id = request.id;
        parser.connection.latest = 1;
        let stream = Stream::upgraded(request, at);
        parser.connection.streams.insert(1, stream);
        parser
    }

    fn read(
        &mut self,
        direction: Direction,
        events: &mut dyn Events,
        call: impl FnOnce(&mut Framing, &mut dyn Items),
    ) {
        if self.connection.state == State::Ended {
            return;
        }
        self.connection.is_loss_told = false;
        self.connection.is_blind = self.responses.is_lost();
        let (framing, side) = if direction == self.request_direction {
            (&mut self.requests, Side::Request)
        } else {
            (&mut self.responses, Side::Response)
        };
        let mut reading = Reading {
            connection: &mut self.connection,
            side,
            events,
        };
        call(framing, &mut reading);
    }
}

impl Items for Reading<'_> {
    fn item(&mut self, item: Item<'_>, at: Moment) -> bool {
        let Self {
            connection,
            side,
            events,
        } = self;
        match item {
            Item::Block {
                promised: true,
                block,
                ..
            } => connection.pass_over(*side, block, *events),
            Item::Block {
                stream,
                end_stream,
                block,
                at: began,
                ..
            } => match side {
                Side::Request => connection.request(stream, end_stream, block, began, *events),
                Side::Response => connection.response(stream, end_stream, block, at, *events),
            },
            Item::Data {
                stream,
                length,
                end_stream,
            } => match side {
                Side::Request => connection.request_data(stream, length, end_stream, at),
                Side::Response => {
                    connection.response_data(stream, length, end_stream, at, *events);
                }
            },
            Item::Reset { stream, code } => connection.reset(*side, stream, code, at, *events),
            Item::GoAway { last } => {
                if *side == Side::Response {
                    connection.refuse_behind(last, at, *events);
                }
            }
            Item::Lost(loss) => connection.lose(*side, loss, at, *events),
        }
        connection.state != State::Ended
    }
}

impl Connection {
    fn decoder(&mut self, side: Side) -> &mut hpack::Decoder {
        match side {
            Side::Request => &mut self.request_fields,
            Side::Response => &mut self.response_fields,
        }
    }

    /// A header block: its fields go to `take`. False, and told, if they are not all there.
    fn decode(
        &mut self,
        side: Side,
        block: Option<&[u8]>,
        take: impl FnMut(hpack::Field<'_>),
        events: &mut dyn Events,
    ) -> bool {
        let decoder = self.decoder(side);
        let loss = match block.map(|block| decoder.decode(block, take)) {
            Some(Ok(block)) if block.dropped == 0 => return true,
            Some(Ok(_)) => Loss::HeadTooLong,
            Some(Err(_)) => Loss::Malformed,
            None => {
                decoder.lose();
                Loss::HeadTooLong
            }
        };
        self.tell_loss(loss, events);
        false
    }

    /// A header block that is of no interest still fills the table.
    fn pass_over(&mut self, side: Side, block: Option<&[u8]>, events: &mut dyn Events) {
        self.decode(side, block, |_| {}, events);
    }

    fn enter(&mut self, number: u32, stream: Stream, events: &mut dyn Events) {
        self.streams.insert(number, stream);
        while let Some((number, stream)) = self.streams.take_excess() {
            self.abandon(number, &stream, events);
        }
    }

    fn finish(&self, number: u32, stream: Stream, ending: Ending, events: &mut dyn Events) {
        let id = self.exchange_id(number);
        let of = Of { id, ..self.of };
        events.event(match stream.finish(of, ending) {
            Some(exchange) => Event::Finished(Box::new(exchange)),
            None => Event::Abandoned(id),
        });
    }

    fn abandon(&self, number: u32, stream: &Stream, events: &mut dyn Events) {
        if stream.request.is_some() {
            events.event(Event::Abandoned(self.exchange_id(number)));
        }
    }

    /// A stream's number is never used again, and ascends with its requests.
    const fn exchange_id(&self, number: u32) -> ExchangeId {
        let behind = (number as u64).saturating_sub(1);
        ExchangeId(self.of.id.0.saturating_add(behind))
    }
}
