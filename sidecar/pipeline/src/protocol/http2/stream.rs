//! One stream: a request and its response, and the exchange that they make.

use super::fields::{ContentType, Field, RequestFields, ResponseFields};
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

/// What was asked.
#[derive(Debug)]
pub(super) enum Asked {
    Fields(Box<RequestFields>),
    /// In HTTP/1.1, with the wish to go on in HTTP/2.
    Upgraded(Box<Open>),
}

/// A stream that has not ended.
#[derive(Debug, Default)]
pub(super) struct Stream {
    /// `None` while only frames of the response were seen: its record may precede that of the request.
    pub(super) request: Option<Asked>,
    pub(super) request_body: Body,
    /// The first final response head, or trailers in its place.
    answer: Option<Answer>,
    /// `grpc-status` of the trailers, or of a head without any.
    grpc_status: Option<u32>,
    pub(super) response_body: Body,
    /// Of the header blocks of the response.
    missing: Missing,
    /// When its latest frame moved. `CLOCK_MONOTONIC`, nanoseconds.
    pub(super) latest: u64,
    /// The response has ended, before its request was seen.
    pub(super) early_end: Option<Ending>,
    /// Frames of its request may have been lost, a reset among them.
    request_lost: bool,
    /// Frames of its response may have been lost, the first or the last one among them.
    response_lost: bool,
}

/// What is not known of header blocks.
#[derive(Clone, Copy, Debug, Default)]
struct Missing {
    /// All of one.
    block: bool,
    /// Names of some fields.
    names: bool,
}

#[derive(Clone, Copy, Debug)]
struct Answer {
    status: Option<u16>,
    content: ContentType,
}

/// How a stream has ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ending {
    /// When its last byte moved.
    pub(super) at: u64,
    /// It was lost, so that it moved at some time before that.
    pub(super) unwitnessed: bool,
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
    /// Stream 1 of a connection that began as HTTP/1.1, whose request moved at `at`.
    pub(super) fn upgraded(request: Open, at: u64) -> Self {
        let mut stream = Self {
            latest: at,
            ..Self::default()
        };
        if let Some(size) = request.request_size {
            stream.request_body = Body {
                bytes: size,
                cut: false,
                ended: true,
            };
        }
        stream.request = Some(Asked::Upgraded(Box::new(request)));
        stream
    }

    /// Takes a header block of the response; `None` if it was not captured.
    pub(super) fn answer(&mut self, fields: Option<&ResponseFields>) {
        let Some(fields) = fields else {
            self.missing.block = true;
            return;
        };
        if matches!(fields.status, Some(100..200)) {
            return;
        }
        self.missing.names |= fields.is_nameless;
        self.grpc_status = fields.grpc_status.or(self.grpc_status);
        // Without a status it may be an interim head; behind a loss, the trailers of a head that was lost.
        let is_head = fields.status.is_some() || fields.is_nameless && !self.response_lost;
        let is_news = self.answer.is_none_or(|answer| answer.status.is_none());
        if is_head && is_news {
            if fields.status.is_some() {
                // What was lost before the head was not of this response.
                self.response_lost = false;
                self.response_body = Body::default();
            }
            self.answer = Some(Answer {
                status: fields.status,
                content: fields.content,
            });
        }
    }

    /// Bytes were lost in the response's direction.
    pub(super) const fn lose_response(&mut self) {
        self.response_body.lose();
        self.response_lost = true;
    }

    /// Bytes were lost in the request's direction.
    pub(super) const fn lose_request(&mut self) {
        self.request_body.lose();
        self.request_lost = true;
    }

    /// True if its last frame may have been lost.
    pub(super) const fn is_doubtful(&self) -> bool {
        self.request_lost || self.response_lost
    }

    /// True if its response may have ended in what was lost.
    pub(super) const fn may_have_ended(&self) -> bool {
        self.response_lost
    }

    /// True if a final response head was seen, or its loss.
    pub(super) const fn is_answered(&self) -> bool {
        self.answer.is_some() || self.missing.block
    }

    /// True for a CONNECT that was accepted: what follows is not HTTP, for as long as it may last.
    pub(super) fn is_tunnel(&self) -> bool {
        let is_connect = match &self.request {
            Some(Asked::Fields(request)) => request.method.known() == Some("CONNECT"),
            Some(Asked::Upgraded(_)) | None => false,
        };
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
        match &self.request {
            Some(Asked::Fields(request)) => request.held_bytes(),
            Some(Asked::Upgraded(_)) => size_of::<Open>(),
            None => 0,
        }
    }

    /// The exchange, or `None` if it cannot be told truly: what has become of it was lost.
    pub(super) fn finish(mut self, of: Of, ending: Ending) -> Option<Exchange> {
        let request = self.request.take().filter(|_| !ending.unwitnessed)?;
        let status = self.answer.and_then(|answer| answer.status);
        let is_lost = status.is_none() && ending.broken.is_none();
        match request {
            Asked::Upgraded(open) => (!is_lost).then(|| self.outcome(*open, ending, status)),
            Asked::Fields(request) => match self.content(&request) {
                Some(content) => self.call(&request, content, of, ending),
                None if is_lost && self.answer.is_none() => None,
                None => Some(self.http(&request, of, ending, status)),
            },
        }
    }

    /// Of which kind the call is, if it is one.
    fn content(&self, request: &RequestFields) -> Option<Content> {
        let answered = || self.answer.and_then(|answer| answer.content.call());
        request
            .content
            .call()
            .or_else(answered)
            .or(self.grpc_status.map(|_| Content::Grpc))
    }

    fn call(
        &self,
        request: &RequestFields,
        content: Content,
        of: Of,
        ending: Ending,
    ) -> Option<Exchange> {
        let status = self.answer.and_then(|answer| answer.status);
        // Without its trailers a call may have failed or not.
        let lost = self.grpc_status.is_none()
            && ending.broken.is_none()
            && (self.missing.block || self.answer.is_none());
        let is_http_status_hidden = self.missing.names && status.is_none();
        let is_status_hidden =
            self.missing.names && self.grpc_status.is_none() && content == Content::Grpc;
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
            incomplete: request.is_incomplete() || is_http_status_hidden || is_status_hidden,
        };
        (!lost).then(|| call.finish())
    }

    fn http(
        &self,
        request: &RequestFields,
        of: Of,
        ending: Ending,
        status: Option<u16>,
    ) -> Exchange {
        let method = request.method.known().unwrap_or_default();
        let path = request.path.known().unwrap_or_default();
        let incomplete = request.is_incomplete()
            || self.missing.names && status.is_none()
            || request.may_be_call();
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
        self.outcome(Open::new(of.id, of.kind, &whole, of.tls), ending, status)
    }

    fn outcome(&self, mut open: Open, ending: Ending, status: Option<u16>) -> Exchange {
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
