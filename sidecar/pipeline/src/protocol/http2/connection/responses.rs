//! The server's frames, and the ends of streams.

use super::{Connection, State};
use crate::protocol::http2::fields::ResponseFields;
use crate::protocol::http2::stream::{Ending, Stream};
use crate::protocol::{Events, Moment, Side};

/// Names of the error codes (RFC 9113, section 7), for `error.type`.
const ERRORS: [&str; 14] = [
    "NO_ERROR",
    "PROTOCOL_ERROR",
    "INTERNAL_ERROR",
    "FLOW_CONTROL_ERROR",
    "SETTINGS_TIMEOUT",
    "STREAM_CLOSED",
    "FRAME_SIZE_ERROR",
    REFUSED,
    "CANCEL",
    "COMPRESSION_ERROR",
    "CONNECT_ERROR",
    "ENHANCE_YOUR_CALM",
    "INADEQUATE_SECURITY",
    "HTTP_1_1_REQUIRED",
];
/// The server has not begun with the request.
const REFUSED: &str = "REFUSED_STREAM";
/// Every other one.
const OTHER_ERROR: &str = "_OTHER";

impl Connection {
    pub(super) fn response(
        &mut self,
        number: u32,
        end_stream: bool,
        block: Option<&[u8]>,
        at: Moment,
        events: &mut dyn Events,
    ) {
        let mut fields = ResponseFields::default();
        let is_read = self.decode(Side::Response, block, |field| fields.take(field), events);
        let Some(stream) = self.stream_of_response(number, at, events) else {
            return;
        };
        stream.answer(is_read.then_some(&fields));
        stream.response_body.ended |= end_stream;
        if end_stream || stream.is_tunnel() {
            self.end(number, None, at, events);
        }
    }

    pub(super) fn response_data(
        &mut self,
        number: u32,
        length: Option<u32>,
        end_stream: bool,
        at: Moment,
        events: &mut dyn Events,
    ) {
        let Some(stream) = self.stream_of_response(number, at, events) else {
            return;
        };
        stream.response_body.add(length);
        stream.response_body.ended |= end_stream;
        if end_stream {
            self.end(number, None, at, events);
        }
    }

    /// Either side has ended a stream early (RFC 9113, section 5.4.2); `code` is `None` if it was not captured.
    pub(super) fn reset(
        &mut self,
        side: Side,
        number: u32,
        code: Option<u32>,
        at: Moment,
        events: &mut dyn Events,
    ) {
        let stream = match side {
            Side::Request => self.streams.get_mut(number),
            Side::Response => self.stream_of_response(number, at, events),
        };
        let Some(stream) = stream else {
            return;
        };
        // A whole response may precede a reset, and may have been lost.
        let at = Moment {
            unwitnessed: at.unwitnessed || code.is_none() || stream.may_have_ended(),
            ..at
        };
        let name = code.and_then(|code| ERRORS.get(code as usize).copied());
        self.end(number, Some(name.unwrap_or(OTHER_ERROR)), at, events);
    }

    /// The server takes no requests behind that of stream `last`, which is as if it had refused each (RFC 9113, sections
    /// 6.8 and 8.7).
    pub(super) fn refuse_behind(&mut self, last: u32, at: Moment, events: &mut dyn Events) {
        let is_refused = |number, stream: &Stream| number > last && !stream.is_answered();
        for (number, stream) in self.streams.take(is_refused) {
            if stream.may_have_ended() {
                self.abandon(number, &stream, events);
            } else if stream.request.is_some() {
                let ending = ending(Some(REFUSED), at);
                self.finish(number, stream, ending, events);
            }
        }
    }

    /// The stream that a frame of the response belongs to, entered if its request may still come.
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
            let mut stream = Stream::default();
            if self.state != State::Whole {
                stream.lose_response();
            }
            self.enter(number, stream, events);
        }
        let stream = self.streams.get_mut(number)?;
        stream.latest = at.time;
        Some(stream)
    }

    /// The response of a stream has ended, or the stream has.
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
        let ending = ending(broken, at);
        if stream.request.is_some() {
            self.finish(number, stream, ending, events);
        } else {
            stream.early_end.get_or_insert(ending);
            self.enter(number, stream, events);
        }
    }
}

const fn ending(broken: Option<&'static str>, at: Moment) -> Ending {
    Ending {
        at: at.time,
        unwitnessed: at.unwitnessed,
        broken,
    }
}
