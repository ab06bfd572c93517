//! One stream: a request and its response, and the exchange that they make.

use super::fields::{Field, RequestFields, ResponseFields};
use crate::model::Kind;
use crate::protocol::grpc::{Call, Content};
use crate::protocol::http::exchange::{Open, Outcome, Request};
use crate::protocol::http::target::{self, Target};
use crate::protocol::{Exchange, ExchangeId};

/// Content of the DATA frames of one direction.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Body {
    bytes: u64,
    /// Part of it was not seen.
    cut: bool,
    /// Its end was seen.
    pub(super) ended: bool,
}

impl Body {
    /// Adds a frame's content; `None` if its length is not known.
    pub(super) fn add(&mut self, length: Option<u32>) {
        match length {
            Some(length) => self.bytes = self.bytes.saturating_add(u64::from(length)),
            None => self.cut = true,
        }
    }

    /// Bytes are missing, unless all were there already.
    const fn lose(&mut self) {
        self.cut |= !self.ended;
    }

    fn size(self) -> Option<u64> {
        (self.ended && !self.cut).then_some(self.bytes)
    }
}

/// A stream that has not ended.
#[derive(Debug, Default)]
pub(super) struct Stream {
    /// `None` while only frames of the response were seen: its record may precede that of the request.
    pub(super) request: Option<Box<RequestFields>>,
    pub(super) request_body: Body,
    /// The first final response head, or trailers in its place.
    answer: Option<Answer>,
    /// `grpc-status` of the trailers, or of a head without any.
    grpc_status: Option<u32>,
    pub(super) response_body: Body,
    /// A header block of the response was not captured.
    block_lost: bool,
    /// A header block of the response has names that are not known.
    nameless: bool,
    /// When its latest frame moved. `CLOCK_MONOTONIC`, nanoseconds.
    pub(super) latest: u64,
    /// The response has ended, before its request was seen.
    pub(super) early_end: Option<Ending>,
    /// Frames of it may have been lost, its last one among them.
    pub(super) doubtful: bool,
}

#[derive(Clone, Copy, Debug)]
struct Answer {
    status: Option<u16>,
    content: Option<Content>,
}

/// How a stream has ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ending {
    /// When its last byte moved.
    pub(super) at: u64,
    /// Why it is not whole.
    pub(super) broken: Option<&'static str>,
}

/// What a stream's exchange takes from its connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Of {
    pub(super) id: ExchangeId,
    pub(super) kind: Kind,
    pub(super) tls: bool,
}

impl Stream {
    /// Takes a header block of the response; `None` if it was not captured.
    pub(super) fn answer(&mut self, fields: Option<&ResponseFields>) {
        let Some(fields) = fields else {
            self.block_lost = true;
            return;
        };
        if matches!(fields.status, Some(100..200)) {
            return;
        }
        self.nameless |= fields.is_nameless;
        self.grpc_status = fields.grpc_status.or(self.grpc_status);
        if self.answer.is_none() && (fields.status.is_some() || fields.is_nameless) {
            self.answer = Some(Answer {
                status: fields.status,
                content: fields.content,
            });
        }
    }

    /// Bytes were lost in the response's direction.
    pub(super) const fn lose_response(&mut self) {
        self.response_body.lose();
        self.doubtful = true;
    }

    /// Bytes were lost in the request's direction.
    pub(super) const fn lose_request(&mut self) {
        self.request_body.lose();
        self.doubtful = true;
    }

    /// True if a final response head was seen, or its loss.
    pub(super) const fn is_answered(&self) -> bool {
        self.answer.is_some() || self.block_lost
    }

    /// True for a CONNECT that was accepted: what follows is not HTTP, for as long as it may last.
    pub(super) fn is_tunnel(&self) -> bool {
        let is_connect = self
            .request
            .as_ref()
            .is_some_and(|request| request.method.known() == Some("CONNECT"));
        is_connect
            && matches!(
                self.answer,
                Some(Answer {
                    status: Some(200..300),
                    ..
                })
            )
    }

    /// Bytes on the heap.
    pub(super) fn held_bytes(&self) -> usize {
        self.request
            .as_ref()
            .map_or(0, |request| request.held_bytes())
    }

    /// The exchange, or `None` if it cannot be told truly: what has become of it was lost.
    pub(super) fn finish(self, of: Of, ending: Ending) -> Option<Exchange> {
        let request = self.request.as_deref()?;
        let content = request
            .content
            .or(self.answer.and_then(|answer| answer.content))
            .or(self.grpc_status.map(|_| Content::Grpc));
        let status = self.answer.and_then(|answer| answer.status);
        let nameless = request.is_incomplete() || self.nameless && status.is_none();
        let Some(content) = content else {
            let lost = status.is_none() && ending.broken.is_none() && !self.nameless;
            return (!lost).then(|| self.http(request, of, ending, status, nameless));
        };
        // Without its trailers a call may have failed or not.
        let lost = self.grpc_status.is_none()
            && ending.broken.is_none()
            && (self.block_lost || self.answer.is_none());
        let is_status_hidden =
            self.nameless && self.grpc_status.is_none() && content == Content::Grpc;
        let call = Call {
            id: of.id,
            kind: of.kind,
            path: request.path.known(),
            authority: request.authority.known(),
            tls: of.tls,
            http_status: status,
            status: self.grpc_status,
            broken: ending.broken,
            end: ending.at,
            incomplete: nameless || is_status_hidden,
        };
        (!lost).then(|| call.finish())
    }

    fn http(
        &self,
        request: &RequestFields,
        of: Of,
        ending: Ending,
        status: Option<u16>,
        incomplete: bool,
    ) -> Exchange {
        let method = request.method.known().unwrap_or_default();
        let path = request.path.known().unwrap_or_default();
        let whole = Request {
            method,
            target: Target {
                scheme: request
                    .scheme
                    .known()
                    .and_then(|scheme| target::known_scheme(scheme.as_bytes())),
                ..Target::parse(path, false)
            },
            host: bytes(&request.authority),
            version: "2",
            user_agent: bytes(&request.user_agent),
            forwarded: bytes(&request.forwarded),
            x_forwarded_for: bytes(&request.x_forwarded_for),
            x_forwarded_proto: bytes(&request.x_forwarded_proto),
            incomplete,
        };
        let mut open = Open::new(of.id, of.kind, &whole, of.tls);
        open.request_size = self.request_body.size();
        open.finish(&Outcome {
            end: ending.at,
            status,
            response_size: self.response_body.size(),
            broken: ending.broken,
        })
    }
}

fn bytes(field: &Field) -> Option<&[u8]> {
    field.known().map(str::as_bytes)
}
