//! The client's frames: requests, their content, their trailers.

use super::Connection;
use crate::model::Kind;
use crate::protocol::http2::fields::{Field, RequestFields};
use crate::protocol::http2::stream::Asked;
use crate::protocol::{Event, Events, Moment, Side, Started};

impl Connection {
    pub(super) fn request(
        &mut self,
        number: u32,
        end_stream: bool,
        block: Option<&[u8]>,
        at: Moment,
        events: &mut dyn Events,
    ) {
        let mut fields = RequestFields::default();
        let is_read = self.decode(Side::Request, block, |field| fields.take(field), events);
        if let Some(stream) = self.streams.get_mut(number)
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
            self.latest = number;
            self.streams.remove(number);
            return;
        }
        let is_request = fields.method != Field::Absent || fields.is_nameless && self.is_ordered;
        if is_request {
            self.start(number, fields, end_stream, at, events);
        }
    }

    fn start(
        &mut self,
        number: u32,
        mut fields: RequestFields,
        end_stream: bool,
        at: Moment,
        events: &mut dyn Events,
    ) {
        self.latest = number;
        self.is_ordered = true;
        self.is_loss_told = false;
        // The thread that reads a connection of many requests reads and writes for all of them: it tells nothing of which
        // of them another request belongs to.
        let of_thread = match self.of.kind {
            Kind::Server => Moment { tid: 0, ..at },
            Kind::Client => at,
        };
        events.event(Event::Started(Started {
            id: self.exchange_id(number),
            kind: self.of.kind,
            at: of_thread,
            traceparent: fields.take_traceparent(),
            tracestate: fields.take_tracestate(),
        }));
        let mut stream = self.streams.remove(number).unwrap_or_default();
        stream.request = Some(Asked::Fields(Box::new(fields)));
        stream.request_body.ended = end_stream;
        stream.latest = at.time;
        // A server has received what it answers, so that the record of the request came first.
        let was_early = self.of.kind == Kind::Client && at.time < self.blind_until;
        if self.is_blind || was_early {
            stream.lose_response();
        }
        match stream.early_end {
            Some(ending) => self.finish(number, stream, ending, events),
            None => self.enter(number, stream, events),
        }
    }

    pub(super) fn request_data(
        &mut self,
        number: u32,
        length: Option<u32>,
        end_stream: bool,
        at: Moment,
    ) {
        if let Some(stream) = self.streams.get_mut(number) {
            stream.request_body.add(length);
            stream.request_body.ended |= end_stream;
            stream.latest = at.time;
        }
    }
}
