//! The request direction: entry, heads, bodies.

use super::{
    Http1, RequestState, ResponseState, Stop, Trust, gap_before, moved_on, skip_line_ends,
};
use crate::protocol::http::exchange::Outcome;
use crate::protocol::http::method;
use crate::protocol::http1::body::{Body, Malformed, Skip};
use crate::protocol::http1::detect::entry;
use crate::protocol::http1::head::{self, RequestHead};
use crate::protocol::http1::pending::Pending;
use crate::protocol::{Event, Events, ExchangeId, Loss, Moment, Started, Verdict};
use smallvec::SmallVec;

/// Most requests that wait for their response on one connection.
const MAX_OPEN: usize = 128;
/// Longest `traceparent` and `tracestate` that are handed on, in bytes; the W3C asks for at least 512.
const MAX_TRACE_CONTEXT: usize = 4096;

impl Http1 {
    pub(super) fn request_bytes(
        &mut self,
        bytes: &[u8],
        at: Moment,
        events: &mut dyn Events,
    ) -> Result<(), Stop> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let here = moved_on(at, bytes, rest);
            rest = match &mut self.request {
                RequestState::Lost => return self.find_entry(rest, here, events),
                RequestState::Head { .. } => self.read_request_head(rest, here, events)?,
                RequestState::Body(body, id) => {
                    let rest = body.feed(rest)?;
                    if body.is_done() {
                        let (size, id) = (body.size, *id);
                        self.end_request(id, size);
                    }
                    rest
                }
                RequestState::Undecided { overrun } => {
                    *overrun = true;
                    &[]
                }
            };
        }
        Ok(())
    }

    /// Is this operation, or what earlier ones began, the beginning of a request?
    fn find_entry(
        &mut self,
        bytes: &[u8],
        at: Moment,
        events: &mut dyn Events,
    ) -> Result<(), Stop> {
        if self.request_head.is_empty() {
            return match entry(skip_line_ends(bytes)) {
                Verdict::Yes(_) => self.enter(bytes, at, events),
                Verdict::NeedMore => Ok(self.request_head.push(bytes, at)?),
                Verdict::No => Ok(()),
            };
        }
        let pushed = self.request_head.push(bytes, at);
        match entry(skip_line_ends(self.request_head.bytes())) {
            Verdict::NeedMore => Ok(pushed?),
            Verdict::Yes(_) if pushed.is_ok() => {
                let (bytes, first) = self.request_head.take();
                self.enter(&bytes, first, events)
            }
            _ => {
                self.request_head.clear();
                self.find_entry(bytes, at, events)
            }
        }
    }

    fn enter(&mut self, bytes: &[u8], at: Moment, events: &mut dyn Events) -> Result<(), Stop> {
        self.request = RequestState::Head { entering: true };
        self.lost = false;
        self.request_bytes(bytes, at, events)
    }

    fn read_request_head<'a>(
        &mut self,
        bytes: &'a [u8],
        at: Moment,
        events: &mut dyn Events,
    ) -> Result<&'a [u8], Stop> {
        let mut scratch = Vec::new();
        if !self.request_head.is_empty() {
            let Some(buffered) = self.request_head.complete(bytes, at)? else {
                return Ok(&[]);
            };
            let (head, _) = head::request(&buffered.bytes, &mut scratch)?.ok_or(Malformed)?;
            self.accept_request(&head, buffered.first, events)?;
            return Ok(buffered.rest);
        }
        let start = skip_line_ends(bytes);
        let at = moved_on(at, bytes, start);
        let Some((head, length)) = head::request(start, &mut scratch)? else {
            self.request_head.push(start, at)?;
            return Ok(&[]);
        };
        self.accept_request(&head, at, events)?;
        Ok(start.get(length..).unwrap_or_default())
    }

    fn accept_request(
        &mut self,
        head: &RequestHead<'_>,
        at: Moment,
        events: &mut dyn Events,
    ) -> Result<(), Stop> {
        let body = Body::new(head.framing()?);
        // HTTP/1.1 requires Host (RFC 9112, section 3.2): content that merely looks like a head rarely has it.
        let credible = method::known(head.method.as_bytes()).is_some()
            && (head.minor == 0 || head.host.is_some());
        if matches!(self.request, RequestState::Head { entering: true }) && !credible {
            return Err(Stop::Lost(Loss::Malformed));
        }
        self.note_order(events)?;
        let id = ExchangeId(self.next_id);
        self.next_id = self.next_id.wrapping_add(1);
        events.event(Event::Started(Started {
            id,
            kind: self.kind,
            at,
            traceparent: traceparent(head),
            tracestate: tracestate(head),
        }));
        self.open
            .push_back(Pending::new(id, self.kind, head, self.info.tls));
        if body.is_done() {
            self.end_request(id, 0);
        } else {
            self.request = RequestState::Body(body, id);
        }
        Ok(())
    }

    /// What the beginning of a request says about the exchanges before it.
    fn note_order(&mut self, events: &mut dyn Events) -> Result<(), Stop> {
        if let ResponseState::Spilled(status) = self.response {
            let outcome = Outcome {
                end: self.response_time,
                status: Some(status),
                ..Outcome::default()
            };
            self.finish(&outcome, events)?;
            self.trust = Trust::Uncertain;
        }
        if self.open.is_empty() {
            if self.trust == Trust::Answered {
                self.trust = Trust::Certain;
            }
            return Ok(());
        }
        // All that moved the other way before this request was handed over before it: nothing was lost, it overtook.
        self.pipelined = true;
        if !self.is_certain() {
            return Err(Stop::Unprovable);
        }
        if self.open.len() >= MAX_OPEN {
            Err(Stop::Lost(Loss::Unproven))
        } else {
            Ok(())
        }
    }

    fn end_request(&mut self, id: ExchangeId, size: u64) {
        self.request = RequestState::Head { entering: false };
        if let Some(open) = self.open.back_mut().filter(|open| open.id() == id) {
            open.open.request_size = Some(size);
            open.awaits_continue = false;
            if open.upgrade || open.open.is_connect() {
                self.request = RequestState::Undecided { overrun: false };
            }
        }
    }

    pub(super) fn request_gap(&mut self, length: u64, events: &mut dyn Events) -> Result<(), Stop> {
        match &mut self.request {
            RequestState::Lost => self.request_head.clear(),
            RequestState::Head { .. } => return Err(Stop::Lost(gap_before(&self.request_head))),
            RequestState::Body(body, id) => match body.skip(length) {
                Skip::Known if body.is_done() => {
                    let (size, id) = (body.size, *id);
                    self.end_request(id, size);
                }
                Skip::Known => {}
                // The response to this request is still certain, and so is its pairing.
                Skip::Spilled => self.lose_requests(Loss::Gap, events),
                Skip::Passed => return Err(Stop::Lost(Loss::Gap)),
            },
            RequestState::Undecided { overrun } => *overrun = true,
        }
        Ok(())
    }
}

/// The only `traceparent`; several contradict each other.
fn traceparent(head: &RequestHead<'_>) -> Option<SmallVec<[u8; 64]>> {
    match head.traceparents.as_slice() {
        [one] if one.len() <= MAX_TRACE_CONTEXT => Some(SmallVec::from_slice(one)),
        _ => None,
    }
}

/// All `tracestate` fields as one list (RFC 9110, section 5.3).
fn tracestate(head: &RequestHead<'_>) -> Option<SmallVec<[u8; 64]>> {
    let length: usize = head
        .tracestates
        .iter()
        .map(|state| state.len().saturating_add(1))
        .sum();
    if head.tracestates.is_empty() || length > MAX_TRACE_CONTEXT {
        return None;
    }
    let mut joined = SmallVec::with_capacity(length);
    for state in &head.tracestates {
        if !joined.is_empty() {
            joined.push(b',');
        }
        joined.extend_from_slice(state);
    }
    Some(joined)
}
