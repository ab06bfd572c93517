//! The response direction: heads, bodies, and the end of exchanges.

use super::{
    Http1, RequestState, ResponseState, Stop, Trust, gap_before, moved_on, skip_line_ends,
};
use crate::model::Kind;
use crate::protocol::http::exchange::{INCOMPLETE_RESPONSE, NO_RESPONSE, Outcome};
use crate::protocol::http1::body::{Body, Malformed, Skip};
use crate::protocol::http1::early::Piece;
use crate::protocol::http1::head::{self, ResponseHead};
use crate::protocol::http1::pending::Pending;
use crate::protocol::http2::Http2;
use crate::protocol::{Event, Events, Loss, Moment, Parser};

impl Http1 {
    pub(super) fn response_bytes(
        &mut self,
        bytes: &[u8],
        at: Moment,
        events: &mut dyn Events,
    ) -> Result<(), Stop> {
        let mut rest = bytes;
        loop {
            if let Some(successor) = &mut self.successor {
                let direction = self.request_direction.opposite();
                successor.on_bytes(direction, rest, moved_on(at, bytes, rest), events);
                return Ok(());
            }
            if matches!(self.response, ResponseState::Head) && self.response_head.is_empty() {
                rest = skip_line_ends(rest);
            }
            if rest.is_empty() {
                return Ok(());
            }
            if self.open.is_empty() {
                if self.may_be_early(at)? {
                    self.early.hold_bytes(rest, at)?;
                }
                return Ok(());
            }
            rest = match &mut self.response {
                ResponseState::Head => self.read_response_head(rest, at, events)?,
                ResponseState::Body(body, status) => {
                    self.response_time = at.time;
                    let rest = body.feed(rest)?;
                    if body.is_done() {
                        let (status, size) = (*status, body.size);
                        self.complete(status, Some(size), events)?;
                    }
                    rest
                }
                ResponseState::Spilled(_) => {
                    self.response_time = at.time;
                    &[]
                }
            };
        }
    }

    /// Nothing is open: false if a response has to be passed over, true if its request may yet show up.
    fn may_be_early(&self, at: Moment) -> Result<bool, Stop> {
        // A server has received what it answers, so that the record of the request came first or never will.
        let is_possible = self.kind == Kind::Client && !self.early.is_stale(at.time);
        match self.request {
            RequestState::Lost => Ok(false),
            // It answers a request from before the entry, or one that was missed since, or none.
            _ if !self.is_certain() || !is_possible => Err(Stop::Lost(Loss::Unproven)),
            _ => Ok(true),
        }
    }

    /// Reads the responses that came before their request, now that it is here.
    pub(super) fn replay(&mut self, events: &mut dyn Events) -> Result<(), Stop> {
        if self.early.is_empty() || self.open.is_empty() {
            return Ok(());
        }
        for (piece, bytes, at) in self.early.take() {
            match piece {
                Piece::Bytes(_) => self.response_bytes(&bytes, at, events)?,
                Piece::Gap(length) => self.response_gap(length, at, events)?,
                Piece::Close => self.response_close(at, events)?,
            }
        }
        Ok(())
    }

    fn read_response_head<'a>(
        &mut self,
        bytes: &'a [u8],
        at: Moment,
        events: &mut dyn Events,
    ) -> Result<&'a [u8], Stop> {
        if !self.response_head.is_empty() {
            let Some(buffered) = self.response_head.complete(bytes, at)? else {
                return Ok(&[]);
            };
            let (head, _) = head::response(&buffered.bytes)?.ok_or(Malformed)?;
            self.accept_response(&head, at, events)?;
            return Ok(buffered.rest);
        }
        let Some((head, length)) = head::response(bytes)? else {
            self.response_head.push(bytes, at)?;
            return Ok(&[]);
        };
        self.accept_response(&head, at, events)?;
        Ok(bytes.get(length..).unwrap_or_default())
    }

    fn accept_response(
        &mut self,
        head: &ResponseHead,
        at: Moment,
        events: &mut dyn Events,
    ) -> Result<(), Stop> {
        let open = self.open.front_mut().ok_or(Stop::Lost(Loss::Unproven))?;
        self.response_time = at.time;
        let status = head.status;
        if head.is_interim() {
            open.awaits_continue = false;
            return Ok(());
        }
        if status == 101 && self.goes_on_in_http2(at) {
            return Ok(());
        }
        let open = self.open.front().ok_or(Stop::Lost(Loss::Unproven))?;
        let tunnel = open.open.is_connect() && matches!(status, 200..300);
        if status == 101 || tunnel {
            self.complete(status, None, events)?;
            return Err(Stop::Opaque);
        }
        let body = Body::new(head.framing(open.open.is_head())?);
        if body.is_done() {
            return self.complete(status, Some(0), events);
        }
        self.response = ResponseState::Body(body, status);
        Ok(())
    }

    /// Hands the connection over, with the request that asked for it, if nothing was missed on the way.
    fn goes_on_in_http2(&mut self, at: Moment) -> bool {
        let is_whole = matches!(self.request, RequestState::Undecided { overrun: false });
        let agreed = |open: &mut Pending| open.h2c && is_whole;
        let Some(request) = self.open.pop_front_if(agreed) else {
            return false;
        };
        self.successor = Some(Box::new(Http2::upgraded(
            &self.info,
            self.request_direction,
            request.open,
            at.time,
        )));
        true
    }

    fn complete(
        &mut self,
        status: u16,
        size: Option<u64>,
        events: &mut dyn Events,
    ) -> Result<(), Stop> {
        let end = self.response_time;
        self.finish(
            &Outcome {
                end,
                status: Some(status),
                response_size: size,
                broken: None,
            },
            events,
        )
    }

    /// The oldest open exchange is over.
    pub(super) fn finish(
        &mut self,
        outcome: &Outcome,
        events: &mut dyn Events,
    ) -> Result<(), Stop> {
        let Some(open) = self.open.pop_front() else {
            return Ok(());
        };
        let (id, awaits_continue) = (open.id(), open.awaits_continue);
        self.response = ResponseState::Head;
        if self.trust == Trust::Uncertain {
            self.trust = Trust::Answered;
        }
        events.event(Event::Finished(Box::new(open.open.finish(outcome))));
        match self.request {
            // It declined the other protocol, so HTTP goes on; bytes that came meanwhile were not read.
            RequestState::Undecided { overrun } if self.open.is_empty() => {
                if overrun && outcome.status != Some(101) {
                    return Err(Stop::Lost(Loss::Unproven));
                }
                self.request = RequestState::Head { entering: false };
            }
            // The final response came instead of the 100: the client may send the body, or its next request.
            RequestState::Body(body, in_body)
                if awaits_continue && in_body == id && body.size == 0 =>
            {
                self.lose_requests(Loss::Unproven, events);
            }
            _ => {}
        }
        Ok(())
    }

    /// The oldest open exchange is over, but cannot be told truly.
    fn drop_first(&mut self, events: &mut dyn Events) {
        self.response = ResponseState::Head;
        if let Some(open) = self.open.pop_front() {
            events.event(Event::Abandoned(open.id()));
        }
    }

    pub(super) fn response_gap(
        &mut self,
        length: u64,
        at: Moment,
        events: &mut dyn Events,
    ) -> Result<(), Stop> {
        if let Some(successor) = &mut self.successor {
            successor.on_gap(self.request_direction.opposite(), length, at, events);
            return Ok(());
        }
        if self.open.is_empty() {
            if self.may_be_early(at)? {
                self.early.hold(Piece::Gap(length), at)?;
            }
            return Ok(());
        }
        let ResponseState::Body(body, status) = &mut self.response else {
            self.response_time = at.time;
            return if matches!(self.response, ResponseState::Spilled(_)) {
                Ok(())
            } else {
                Err(Stop::Lost(gap_before(&self.response_head)))
            };
        };
        self.response_time = at.time;
        let status = *status;
        match body.skip(length) {
            // It ended somewhere in the hole: when, nobody saw.
            Skip::Known if body.is_done() && at.unwitnessed => {
                self.drop_first(events);
                Ok(())
            }
            Skip::Spilled if at.unwitnessed => Err(Stop::Lost(Loss::Gap)),
            Skip::Known if body.is_done() => {
                let size = body.size;
                self.complete(status, Some(size), events)
            }
            Skip::Known => Ok(()),
            Skip::Spilled if self.open.len() == 1 => {
                self.response = ResponseState::Spilled(status);
                self.trust = Trust::Uncertain;
                Ok(())
            }
            Skip::Spilled | Skip::Passed => Err(Stop::Lost(Loss::Gap)),
        }
    }

    /// No more response bytes: the one in progress is complete or cut short, the others get none.
    pub(super) fn response_close(
        &mut self,
        at: Moment,
        events: &mut dyn Events,
    ) -> Result<(), Stop> {
        if let Some(successor) = &mut self.successor {
            successor.on_close(self.request_direction.opposite(), at, events);
            return Ok(());
        }
        if self.open.is_empty() && self.kind == Kind::Client && self.may_be_early(at)? {
            self.early.hold(Piece::Close, at)?;
            return Ok(());
        }
        let outcome = Outcome {
            end: self.response_time,
            ..Outcome::default()
        };
        let last = match self.response {
            ResponseState::Head => None,
            ResponseState::Spilled(status) => Some(Outcome {
                status: Some(status),
                ..outcome
            }),
            ResponseState::Body(body, status) if body.ends_with_close() => Some(Outcome {
                status: Some(status),
                response_size: Some(body.size),
                ..outcome
            }),
            ResponseState::Body(_, status) => Some(Outcome {
                status: Some(status),
                broken: Some(INCOMPLETE_RESPONSE),
                ..outcome
            }),
        };
        self.ended = true;
        if let Some(outcome) = last {
            // What the end of this exchange does to the request stream no longer matters.
            _ = self.finish(&outcome, events);
        }
        self.close_unanswered(at, events);
        Ok(())
    }

    /// A client's request that was cut off is a failed one; a server that never answered shows no status to report.
    fn close_unanswered(&mut self, at: Moment, events: &mut dyn Events) {
        if self.kind == Kind::Server || !self.is_certain() {
            return self.abandon_all(events);
        }
        let mut broken = if self.response_head.is_empty() {
            NO_RESPONSE
        } else {
            INCOMPLETE_RESPONSE
        };
        for open in self.open.drain(..) {
            let outcome = Outcome {
                end: at.time,
                broken: Some(broken),
                ..Outcome::default()
            };
            events.event(Event::Finished(Box::new(open.open.finish(&outcome))));
            broken = NO_RESPONSE;
        }
    }
}
