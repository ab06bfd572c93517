//! What was lost, and what ends before it is whole.

use super::{Connection, EARLY_PATIENCE, State};
use crate::model::Kind;
use crate::protocol::http::exchange::{INCOMPLETE_RESPONSE, NO_RESPONSE};
use crate::protocol::http2::stream::{Ending, Stream};
use crate::protocol::{Event, Events, Loss, Moment, Side};

/// Nanoseconds without a frame after which a stream is given up whose end may have been lost.
const DOUBTFUL_PATIENCE: u64 = 60_000_000_000;

impl Connection {
    pub(super) fn tell_loss(&mut self, loss: Loss, events: &mut dyn Events) {
        if !self.is_loss_told {
            self.is_loss_told = true;
            events.event(Event::Lost(loss));
        }
    }

    /// The place in one direction is lost. Bytes that contradict the protocol although none is missing are no HTTP/2.
    pub(super) fn lose(&mut self, side: Side, loss: Loss, at: Moment, events: &mut dyn Events) {
        self.tell_loss(loss, events);
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
        match side {
            Side::Request => self.is_ordered = false,
            Side::Response => self.blind_until = at.time.saturating_add(EARLY_PATIENCE),
        }
    }

    /// The server sends no more. A client's request that was cut off is a failed one; a server that never answered shows
    /// no status to report.
    pub(super) fn close(&mut self, is_whole: bool, at: Moment, events: &mut dyn Events) {
        self.state = State::Ended;
        for (number, stream) in self.streams.take(|_, _| true) {
            let broken = match (stream.is_answered(), self.of.kind) {
                (true, _) => Some(INCOMPLETE_RESPONSE),
                (false, Kind::Client) => Some(NO_RESPONSE),
                (false, Kind::Server) => None,
            };
            let is_proven = is_whole && !stream.is_doubtful() && stream.request.is_some();
            match broken.filter(|_| is_proven) {
                Some(broken) => {
                    let ending = Ending {
                        at: at.time,
                        unwitnessed: false,
                        broken: Some(broken),
                    };
                    self.finish(number, stream, ending, events);
                }
                None => self.abandon(number, &stream, events),
            }
        }
    }

    pub(super) fn drop_stale(&mut self, now: u64, events: &mut dyn Events) {
        let is_stale = |_, stream: &Stream| {
            let silent = now.saturating_sub(stream.latest);
            stream.is_doubtful() && silent >= DOUBTFUL_PATIENCE
                || stream.request.is_none() && silent >= EARLY_PATIENCE
        };
        for (number, stream) in self.streams.take(is_stale) {
            self.abandon(number, &stream, events);
        }
    }

    pub(super) fn give_up(&mut self, events: &mut dyn Events) {
        for (number, stream) in self.streams.take(|_, _| true) {
            self.abandon(number, &stream, events);
        }
        self.state = State::Ended;
    }
}
