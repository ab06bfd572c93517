//! One flow: reassembly, then detection, then a parser whose events become exchanges.

use crate::detection::{Detector, Opening, Outcome};
use crate::endpoints::{Endpoints, Transport};
use crate::exchanges::{Exchanges, FlowExchanges, Place};
use crate::idle::{Allowance, Left};
use crate::model::{Sink, Slot};
use crate::protocol::{Direction, Event, Events, FlowInfo, Loss, Moment, Parser};
use crate::reassembly::{Account, Operation, PATIENCE, Piece, Pieces, Reassembly};
use crate::spans::Finisher;

/// Nanoseconds without a record after which a process is not expected to read what a closed connection left for it.
const UNREAD_PATIENCE: u64 = 1_000_000_000;

/// Most bytes that detection and the parsers of all flows together keep of what moved.
const MAX_KEPT_BYTES_TOTAL: usize = 32 * 1024 * 1024;

/// What all flows share.
pub(crate) struct Shared {
    pub(crate) account: Account,
    pub(crate) detector: Detector,
    pub(crate) exchanges: Exchanges,
    pub(crate) finisher: Finisher,
}

/// The facts of a flow, its parser and its streams apart.
struct Facts {
    slot: Slot,
    endpoints: Endpoints,
    /// Its offsets do not count from the connection's first byte.
    late: bool,
    /// It goes on where it was left, so that its offsets mean what they did.
    resumed: bool,
    exchanges: FlowExchanges,
    /// Its part of [`Account::kept_bytes`].
    kept_bytes: usize,
}

enum State {
    /// The protocol is not known yet.
    Opening(Opening),
    Parsing(Box<dyn Parser>),
    /// Nothing is read from this flow any more.
    Opaque,
}

impl State {
    fn held_bytes(&self) -> usize {
        match self {
            Self::Opening(opening) => opening.held_bytes(),
            Self::Parsing(parser) => parser.held_bytes(),
            Self::Opaque => 0,
        }
    }
}

/// The transport is closed, but an operation that preceded this may be reported after it: one that was running at the
/// time, or reads of what had arrived.
#[derive(Clone, Copy)]
struct Closed {
    /// Time of the latest record.
    at: u64,
    /// Nanoseconds without a record after which none is expected.
    patience: u64,
}

/// One connection as seen from one end.
pub(crate) struct Flow {
    /// The process that used it last, 0 if that is not known.
    pub(crate) user: u32,
    /// The pipeline calls [`Self::on_tick`] for it.
    pub(crate) awaited: bool,
    /// When the pipeline will look whether it has been silent for too long.
    pub(crate) idle_check: Option<u64>,
    /// Time of the latest record.
    last: u64,
    closed: Option<Closed>,
    facts: Facts,
    streams: Reassembly,
    state: State,
}

impl Flow {
    /// A flow at its first bytes, or where it was left.
    pub(crate) fn new(slot: Slot, endpoints: Endpoints, late: bool, left: Option<Left>) -> Self {
        let resumed = left.is_some();
        let Left {
            offsets,
            late: was_late,
        } = left.unwrap_or_default();
        Self {
            user: 0,
            awaited: false,
            idle_check: None,
            last: 0,
            closed: None,
            facts: Facts {
                slot,
                endpoints,
                late: late || was_late,
                resumed,
                exchanges: FlowExchanges::new(),
                kept_bytes: 0,
            },
            streams: Reassembly::at(offsets),
            state: State::Opening(Opening::new(late || resumed)),
        }
    }

    pub(crate) fn slot(&self) -> Slot {
        self.facts.slot
    }

    /// What has to be kept of it if it may go on later.
    pub(crate) const fn left(&self) -> Left {
        Left {
            offsets: self.streams.offsets(),
            late: self.facts.late,
        }
    }

    pub(crate) fn endpoints(&self) -> &Endpoints {
        &self.facts.endpoints
    }

    /// Takes a socket operation.
    pub(crate) fn on_operation(
        &mut self,
        operation: Operation<'_>,
        shared: &mut Shared,
        sink: &mut dyn Sink,
    ) {
        self.last = self.last.max(operation.time);
        if let Some(closed) = &mut self.closed {
            closed.at = closed.at.max(operation.time);
        }
        if matches!(self.state, State::Opaque) {
            return;
        }
        let mut delivery = Delivery {
            facts: &mut self.facts,
            state: &mut self.state,
            shared,
            sink,
        };
        self.streams.push(operation, &mut delivery);
    }

    /// Notes that the transport was closed at `time`, with this many bytes still to read.
    pub(crate) fn on_close(&mut self, time: u64, unread: u32) {
        let patience = if unread == 0 {
            PATIENCE
        } else {
            UNREAD_PATIENCE
        };
        self.closed.get_or_insert(Closed { at: time, patience });
    }

    /// True once the transport is closed and both directions have ended.
    pub(crate) fn is_over(&self) -> bool {
        self.closed.is_some() && self.streams.is_over()
    }

    /// True once the transport is closed and no record has come for a while.
    pub(crate) fn is_past(&self, now: u64) -> bool {
        self.closed
            .is_some_and(|Closed { at, patience }| now.saturating_sub(at) >= patience)
    }

    /// How long it may be silent, if its end may never be told.
    fn allowance(&self) -> Option<Allowance> {
        let transport = self.facts.endpoints.transport;
        let read = !matches!(self.state, State::Opaque);
        Allowance::of(transport, self.streams.is_rejoined(), read).filter(|_| self.closed.is_none())
    }

    /// True if its end will never be told and it has been silent for long.
    pub(crate) fn is_idle(&self, now: u64) -> bool {
        let in_exchange = !self.facts.exchanges.is_empty();
        self.allowance()
            .is_some_and(|allowance| allowance.is_spent(self.last, in_exchange, now))
    }

    /// When to ask [`Self::is_idle`] next; `None` if there is no need.
    pub(crate) fn next_idle_check(&self, now: u64) -> Option<u64> {
        Some(self.allowance()?.next_check(self.last, now))
    }

    /// True while a record that should have come, or the last of a closed flow, is awaited.
    pub(crate) fn is_waiting(&self) -> bool {
        self.closed.is_some() || self.streams.is_waiting()
    }

    /// Gives up on records that have been awaited for too long.
    pub(crate) fn on_tick(&mut self, now: u64, shared: &mut Shared, sink: &mut dyn Sink) {
        let mut delivery = Delivery {
            facts: &mut self.facts,
            state: &mut self.state,
            shared,
            sink,
        };
        self.streams.on_tick(now, &mut delivery);
    }

    /// Lets the parser see that time passes.
    pub(crate) fn tick_parser(&mut self, now: u64, shared: &mut Shared, sink: &mut dyn Sink) {
        let mut delivery = Delivery {
            facts: &mut self.facts,
            state: &mut self.state,
            shared,
            sink,
        };
        delivery.parse(|parser, events| parser.on_tick(now, events));
        delivery.weigh();
    }

    /// The flow is gone: delivers what is held, then finishes or abandons every exchange.
    pub(crate) fn end(mut self, shared: &mut Shared, sink: &mut dyn Sink) {
        let mut delivery = Delivery {
            facts: &mut self.facts,
            state: &mut self.state,
            shared,
            sink,
        };
        self.streams.flush(&mut delivery);
        delivery.parse(|parser, events| parser.on_end(events));
        delivery.stop_reading();
        delivery.weigh();
    }
}

/// Takes pieces from reassembly to where the flow's state wants them.
struct Delivery<'a> {
    facts: &'a mut Facts,
    state: &'a mut State,
    shared: &'a mut Shared,
    sink: &'a mut dyn Sink,
}

impl Pieces for Delivery<'_> {
    fn piece(&mut self, direction: Direction, piece: Piece<'_>, at: Moment) {
        match self.state {
            State::Opening(_) => self.detect(direction, piece, at),
            State::Parsing(_) => self.feed(direction, piece, at),
            State::Opaque => return,
        }
        self.weigh();
    }

    fn account(&mut self) -> &mut Account {
        &mut self.shared.account
    }
}

impl Delivery<'_> {
    fn detect(&mut self, direction: Direction, piece: Piece<'_>, at: Moment) {
        let State::Opening(opening) = &mut *self.state else {
            return;
        };
        let stats = &mut self.shared.account.stats;
        match opening.on_piece(&self.shared.detector, direction, piece, at) {
            Outcome::Undecided => {}
            Outcome::Unknown => {
                stats.flows_unknown = stats.flows_unknown.saturating_add(1);
                *self.state = State::Opaque;
            }
            Outcome::Found(protocol, found, side) => {
                stats.flows_detected = stats.flows_detected.saturating_add(1);
                self.facts.late |= opening.late && !self.facts.resumed;
                let retained = opening.take_retained();
                let info = FlowInfo {
                    joined_late: opening.late,
                    tls: false,
                    close_unseen: self.facts.endpoints.transport == Transport::Unix,
                };
                *self.state = State::Parsing((protocol.parser)(info, found, side));
                for earlier in retained {
                    self.feed(earlier.direction, earlier.content.as_piece(), earlier.at);
                }
                self.feed(direction, piece, at);
            }
        }
    }

    fn feed(&mut self, direction: Direction, piece: Piece<'_>, at: Moment) {
        self.parse(|parser, events| match piece {
            Piece::Bytes(bytes) => parser.on_bytes(direction, bytes, at, events),
            Piece::Gap(length) => parser.on_gap(direction, length, at, events),
            Piece::End => parser.on_close(direction, at, events),
        });
    }

    fn parse(&mut self, call: impl FnOnce(&mut dyn Parser, &mut dyn Events)) {
        let State::Parsing(parser) = &mut *self.state else {
            return;
        };
        let mut events = FlowEvents {
            facts: self.facts,
            shared: self.shared,
            sink: self.sink,
            opaque: false,
        };
        call(parser.as_mut(), &mut events);
        if events.opaque {
            let stats = &mut self.shared.account.stats;
            stats.flows_opaque = stats.flows_opaque.saturating_add(1);
            self.stop_reading();
        }
    }

    /// Accounts for what the flow keeps now, and gives it up if it has exceeded what all may keep.
    fn weigh(&mut self) {
        let held = self.state.held_bytes();
        if held == self.facts.kept_bytes {
            return;
        }
        self.account_for(held);
        let account = &mut self.shared.account;
        if account.kept_bytes > MAX_KEPT_BYTES_TOTAL {
            account.stats.flows_over_budget = account.stats.flows_over_budget.saturating_add(1);
            self.stop_reading();
            self.account_for(0);
        }
    }

    fn account_for(&mut self, held: usize) {
        let account = &mut self.shared.account;
        let others = account.kept_bytes.saturating_sub(self.facts.kept_bytes);
        account.kept_bytes = others.saturating_add(held);
        self.facts.kept_bytes = held;
    }

    /// Drops the parser and abandons what it has open.
    fn stop_reading(&mut self) {
        *self.state = State::Opaque;
        let stats = &mut self.shared.account.stats;
        self.shared
            .exchanges
            .abandon_all(&mut self.facts.exchanges, stats);
    }
}

/// Turns a parser's events into exchanges.
struct FlowEvents<'a> {
    facts: &'a mut Facts,
    shared: &'a mut Shared,
    sink: &'a mut dyn Sink,
    opaque: bool,
}

impl Events for FlowEvents<'_> {
    fn event(&mut self, event: Event) {
        let Shared {
            account,
            exchanges,
            finisher,
            ..
        } = &mut *self.shared;
        let stats = &mut account.stats;
        let Facts {
            slot,
            endpoints,
            late,
            exchanges: of_flow,
            ..
        } = &mut *self.facts;
        match event {
            Event::Started(started) => {
                let place = Place {
                    slot: *slot,
                    endpoints,
                    late: *late,
                };
                exchanges.start(&place, of_flow, &started, stats);
            }
            Event::Finished(exchange) => {
                if let Some((started, context)) = exchanges.finish(of_flow, exchange.id, stats) {
                    finisher.finish(&started, context, endpoints, *exchange, stats, self.sink);
                }
            }
            Event::Abandoned(id) => exchanges.abandon(of_flow, id, stats),
            Event::Lost(loss) => {
                stats.flows_lost_place = stats.flows_lost_place.saturating_add(1);
                if loss == Loss::HeadTooLong {
                    stats.heads_too_long = stats.heads_too_long.saturating_add(1);
                }
            }
            Event::Opaque => self.opaque = true,
        }
    }
}
