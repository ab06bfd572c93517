//! The two directions of one connection, and the streams that they make.
//!
//! A stream's number is used once in a connection's life, so that a response belongs to the request of its number and to no
//! other, however much was lost. Each direction has its own header compression and loses its place on its own. What a loss
//! may have swallowed is not told: a stream without a provable outcome gives no span.

use super::fields::{Field, RequestFields, ResponseFields, is_wanted};
use super::framing::{Framing, Item, Items};
use super::stream::{Ending, Of, Stream};
use super::streams::Streams;
use crate::hpack;
use crate::model::Kind;
use crate::protocol::http::exchange::{INCOMPLETE_RESPONSE, NO_RESPONSE};
use crate::protocol::{
    Direction, Event, Events, ExchangeId, FlowInfo, Loss, Moment, Parser, Side, Started,
};

/// Nanoseconds without a frame after which a stream is given up whose end may have been lost.
const DOUBTFUL_PATIENCE: u64 = 60_000_000_000;
/// Nanoseconds by which the record of a response may precede that of its request.
const EARLY_PATIENCE: u64 = 1_000_000_000;

/// Names of the error codes (RFC 9113, section 7), for `error.type`.
const ERRORS: [&str; 14] = [
    "NO_ERROR",
    "PROTOCOL_ERROR",
    "INTERNAL_ERROR",
    "FLOW_CONTROL_ERROR",
    "SETTINGS_TIMEOUT",
    "STREAM_CLOSED",
    "FRAME_SIZE_ERROR",
    "REFUSED_STREAM",
    "CANCEL",
    "COMPRESSION_ERROR",
    "CONNECT_ERROR",
    "ENHANCE_YOUR_CALM",
    "INADEQUATE_SECURITY",
    "HTTP_1_1_REQUIRED",
];
/// Every other one.
const OTHER_ERROR: &str = "_OTHER";

/// The parser of one connection.
pub(super) struct Http2 {
    request_direction: Direction,
    requests: Framing,
    responses: Framing,
    connection: Connection,
}

/// What both directions share.
struct Connection {
    kind: Kind,
    tls: bool,
    request_fields: hpack::Decoder,
    response_fields: hpack::Decoder,
    streams: Streams,
    /// The latest request's stream, 0 before the first.
    latest: u32,
    /// No request can have been missed since `latest`.
    is_ordered: bool,
    state: State,
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
                kind: match request_direction {
                    Direction::Received => Kind::Server,
                    Direction::Sent => Kind::Client,
                },
                tls: info.tls,
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
            },
        }
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
            } => connection.pass_over(*side, block),
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
            } => connection.data(*side, stream, length, end_stream, at, *events),
            Item::Reset { stream, code } => connection.reset(stream, code, at, *events),
            Item::Lost(loss) => connection.lose(*side, loss, *events),
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

    /// A header block: its fields go to `take`. False if they are not all there.
    fn decode(
        &mut self,
        side: Side,
        block: Option<&[u8]>,
        take: impl FnMut(hpack::Field<'_>),
    ) -> bool {
        let decoder = self.decoder(side);
        let Some(block) = block else {
            decoder.lose();
            return false;
        };
        decoder
            .decode(block, take)
            .is_ok_and(|block| block.dropped == 0)
    }

    /// A header block that is of no interest still fills the table.
    fn pass_over(&mut self, side: Side, block: Option<&[u8]>) {
        self.decode(side, block, |_| {});
    }

    fn request(
        &mut self,
        number: u32,
        end_stream: bool,
        block: Option<&[u8]>,
        at: Moment,
        events: &mut dyn Events,
    ) {
        let mut fields = RequestFields::default();
        let is_read = self.decode(Side::Request, block, |field| fields.take(field));
        let stream = self.streams.get_mut(number);
        if let Some(stream) = stream
            && stream.request.is_some()
        {
            // Trailers.
            stream.request_body.ended |= end_stream;
            stream.latest = at.time;
            return;
        }
        // Numbers ascend, so that what does not is the rest of a request that was not seen.
        if number <= self.latest || number.is_multiple_of(2) {
            return;
        }
        if !is_read {
            // A request of which nothing is known, or trailers of one.
            self.is_ordered = false;
            self.latest = number;
            self.streams.remove(number);
            events.event(Event::Lost(Loss::HeadTooLong));
            return;
        }
        let is_request = fields.method != Field::Absent || fields.is_nameless && self.is_ordered;
        if !is_request {
            return;
        }
        self.latest = number;
        self.is_ordered = true;
        events.event(Event::Started(Started {
            id: exchange_id(number),
            kind: self.kind,
            at,
            traceparent: fields.traceparent(),
            tracestate: (!fields.tracestate.is_empty()).then(|| fields.tracestate.clone()),
        }));
        let mut stream = self.streams.remove(number).unwrap_or_default();
        stream.request = Some(Box::new(fields));
        stream.request_body.ended = end_stream;
        stream.latest = at.time;
        match stream.early_end {
            Some(ending) => self.finish(number, stream, ending, events),
            None => self.enter(number, stream, events),
        }
    }

    fn response(
        &mut self,
        number: u32,
        end_stream: bool,
        block: Option<&[u8]>,
        at: Moment,
        events: &mut dyn Events,
    ) {
        let mut fields = ResponseFields::default();
        let is_read = self.decode(Side::Response, block, |field| fields.take(field));
        let Some(stream) = self.stream_of_response(number, at, events) else {
            return;
        };
        stream.answer(is_read.then_some(&fields));
        stream.response_body.ended |= end_stream;
        if end_stream || stream.is_tunnel() {
            self.end(number, None, at, events);
        }
    }

    fn data(
        &mut self,
        side: Side,
        number: u32,
        length: Option<u32>,
        end_stream: bool,
        at: Moment,
        events: &mut dyn Events,
    ) {
        match side {
            Side::Request => {
                if let Some(stream) = self.streams.get_mut(number) {
                    stream.request_body.add(length);
                    stream.request_body.ended |= end_stream;
                    stream.latest = at.time;
                }
            }
            Side::Response => {
                let Some(stream) = self.streams.get_mut(number) else {
                    return;
                };
                stream.response_body.add(length);
                stream.response_body.ended = end_stream;
                stream.latest = at.time;
                if end_stream {
                    self.end(number, None, at, events);
                }
            }
        }
    }

    /// Either side has ended a stream early (RFC 9113, section 5.4.2).
    fn reset(&mut self, number: u32, code: Option<u32>, at: Moment, events: &mut dyn Events) {
        if self.streams.get_mut(number).is_none() {
            return;
        }
        match code {
            Some(code) => {
                let name = ERRORS.get(code as usize).copied().unwrap_or(OTHER_ERROR);
                self.end(number, Some(name), at, events);
            }
            None => {
                if let Some(stream) = self.streams.remove(number) {
                    abandon(number, &stream, events);
                }
            }
        }
    }

    /// The stream that a header block of the response belongs to, entered if its request may still come.
    fn stream_of_response(
        &mut self,
        number: u32,
        at: Moment,
        events: &mut dyn Events,
    ) -> Option<&mut Stream> {
        if self.streams.get_mut(number).is_none() {
            if number <= self.latest || number.is_multiple_of(2) {
                return None;
            }
            self.enter(number, Stream::default(), events);
        }
        let stream = self.streams.get_mut(number)?;
        stream.latest = at.time;
        Some(stream)
    }

    fn enter(&mut self, number: u32, stream: Stream, events: &mut dyn Events) {
        if let Some((evicted, stream)) = self.streams.insert(number, stream) {
            abandon(evicted, &stream, events);
        }
    }

    /// The response of a stream has ended.
    fn end(
        &mut self,
        number: u32,
        broken: Option<&'static str>,
        at: Moment,
        events: &mut dyn Events,
    ) {
        let Some(mut stream) = self.streams.remove(number) else {
            return;
        };
        let ending = Ending {
            at: at.time,
            broken,
        };
        if stream.request.is_some() {
            self.finish(number, stream, ending, events);
        } else {
            stream.early_end = Some(ending);
            self.enter(number, stream, events);
        }
    }

    fn finish(&self, number: u32, stream: Stream, ending: Ending, events: &mut dyn Events) {
        let id = exchange_id(number);
        let of = Of {
            id,
            kind: self.kind,
            tls: self.tls,
        };
        events.event(match stream.finish(of, ending) {
            Some(exchange) => Event::Finished(Box::new(exchange)),
            None => Event::Abandoned(id),
        });
    }

    /// The place in one direction is lost. Bytes that contradict the protocol although none is missing are no HTTP/2.
    fn lose(&mut self, side: Side, loss: Loss, events: &mut dyn Events) {
        events.event(Event::Lost(loss));
        if loss == Loss::Malformed && self.state == State::Whole {
            self.give_up(events);
            events.event(Event::Opaque);
            return;
        }
        self.state = State::Patchy;
        self.decoder(side).lose();
        for stream in self.streams.each() {
            match side {
                Side::Request => stream.lose_request(),
                Side::Response => stream.lose_response(),
            }
        }
        if side == Side::Request {
            self.is_ordered = false;
        }
    }

    /// The server sends no more. A client's request that was cut off is a failed one; a server that never answered shows
    /// no status to report.
    fn close(&mut self, is_whole: bool, at: Moment, events: &mut dyn Events) {
        self.state = State::Ended;
        for (number, stream) in self.streams.take(|_| true) {
            let broken = match (stream.is_answered(), self.kind) {
                (true, _) => INCOMPLETE_RESPONSE,
                (false, Kind::Client) => NO_RESPONSE,
                (false, Kind::Server) => {
                    abandon(number, &stream, events);
                    continue;
                }
            };
            if !is_whole || stream.doubtful || stream.request.is_none() {
                abandon(number, &stream, events);
                continue;
            }
            let ending = Ending {
                at: at.time,
                broken: Some(broken),
            };
            self.finish(number, stream, ending, events);
        }
    }

    fn drop_stale(&mut self, now: u64, events: &mut dyn Events) {
        let is_stale = |stream: &Stream| {
            let silent = now.saturating_sub(stream.latest);
            stream.doubtful && silent >= DOUBTFUL_PATIENCE
                || stream.request.is_none() && silent >= EARLY_PATIENCE
        };
        for (number, stream) in self.streams.take(is_stale) {
            abandon(number, &stream, events);
        }
    }

    fn give_up(&mut self, events: &mut dyn Events) {
        for (number, stream) in self.streams.take(|_| true) {
            abandon(number, &stream, events);
        }
        self.state = State::Ended;
    }
}

/// A stream's number is never used again, and ascends with its requests.
const fn exchange_id(number: u32) -> ExchangeId {
    ExchangeId(number as u64)
}

fn abandon(number: u32, stream: &Stream, events: &mut dyn Events) {
    if stream.request.is_some() {
        events.event(Event::Abandoned(exchange_id(number)));
    }
}
