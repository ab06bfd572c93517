//! From the pieces of a flow to its detection, its parser and its exchanges.

use super::{Facts, MAX_KEPT_BYTES_TOTAL, Shared, State};
use crate::detection::Outcome;
use crate::endpoints::{Role, Transport};
use crate::exchanges::Place;
use crate::model::{Encrypted, Sink};
use crate::protocol::{
    Direction, Event, Events, FlowInfo, Loss, Moment, Parser, Protocol, Side, Started,
};
use crate::reassembly::{Account, Piece, Pieces};
use crate::settings::Unwanted;
use crate::tls;

/// Takes pieces from reassembly to where the flow's state wants them.
pub(super) struct Delivery<'a> {
    pub(super) facts: &'a mut Facts,
    pub(super) state: &'a mut State,
    pub(super) shared: &'a mut Shared,
    pub(super) sink: &'a mut dyn Sink,
}

impl Pieces for Delivery<'_> {
    fn piece(&mut self, direction: Direction, piece: Piece<'_>, at: Moment) {
        match self.state {
            State::Opening(_) => self.detect(direction, piece, at),
            State::Parsing(..) => self.feed(direction, piece, at),
            State::Tunnel => self.enter_tunnel(piece, at),
            State::Unwanted(_) | State::Opaque => return,
        }
        self.weigh();
    }

    fn account(&mut self) -> &mut Account {
        &mut self.shared.account
    }
}

impl Delivery<'_> {
    fn detect(&mut self, direction: Direction, piece: Piece<'_>, at: Moment) {
        let facts = &mut *self.facts;
        let table = &self.shared.exchanges.settings;
        let changed = table.refresh(&mut facts.in_force, facts.slot).is_some();
        let Some(settings) = table.get(facts.in_force.key, facts.slot) else {
            return;
        };
        if changed && let Some(objection) = settings.early_objection(&facts.endpoints) {
            self.decline(objection);
            return;
        }
        let State::Opening(opening) = &mut *self.state else {
            return;
        };
        let stats = &mut self.shared.account.stats;
        match opening.on_piece(&settings.detector, direction, piece, at) {
            Outcome::Undecided => {}
            Outcome::Unknown => {
                stats.flows_unknown = stats.flows_unknown.saturating_add(1);
                *self.state = State::Unwanted(Unwanted::Protocol);
            }
            Outcome::Encrypted => self.tell_encrypted(at),
            Outcome::Found(protocol, found, side) => {
                stats.flows_detected = stats.flows_detected.saturating_add(1);
                let role = role(found, side);
                if let Some(objection) = settings.objection(&facts.endpoints, role, protocol) {
                    self.decline(objection);
                    return;
                }
                facts.late |= opening.late && !facts.resumed;
                let retained = opening.take_retained();
                let info = FlowInfo {
                    joined_late: opening.late,
                    tls: facts.endpoints.tls,
                    // A TLS connection is closed by its library too.
                    close_unseen: facts.endpoints.transport == Transport::Unix
                        && !facts.endpoints.tls,
                };
                *self.state = State::Parsing((protocol.parser)(info, found, side), protocol);
                for earlier in retained {
                    self.feed(earlier.direction, earlier.content.as_piece(), earlier.at);
                }
                self.feed(direction, piece, at);
            }
        }
    }

    /// Looks at what comes first in a tunnel.
    fn enter_tunnel(&mut self, piece: Piece<'_>, at: Moment) {
        *self.state = State::Opaque;
        if let Piece::Bytes(bytes) = piece
            && tls::opening(bytes) == tls::Verdict::Tls
        {
            self.tell_encrypted(at);
        }
    }

    fn tell_encrypted(&mut self, at: Moment) {
        let stats = &mut self.shared.account.stats;
        stats.flows_encrypted = stats.flows_encrypted.saturating_add(1);
        *self.state = State::Opaque;
        self.sink.encrypted(Encrypted {
            slot: self.facts.slot,
            tgid: self.facts.user,
            tid: at.tid,
        });
    }

    /// Reads the flow no longer because of its container's settings.
    pub(super) fn decline(&mut self, objection: Unwanted) {
        let stats = &mut self.shared.account.stats;
        *self.state = State::Unwanted(objection);
        let counter = match objection {
            Unwanted::Port => &mut stats.flows_outside_ports,
            Unwanted::Protocol => &mut stats.flows_disabled,
            // Not decided yet.
            Unwanted::PortUnknown => return,
        };
        *counter = counter.saturating_add(1);
    }

    /// The flow ends: what has not become known will not.
    pub(super) fn settle(&mut self) {
        if matches!(self.state, State::Unwanted(Unwanted::PortUnknown)) {
            self.decline(Unwanted::Port);
        }
    }

    fn feed(&mut self, direction: Direction, piece: Piece<'_>, at: Moment) {
        self.parse(|parser, events| match piece {
            Piece::Bytes(bytes) => parser.on_bytes(direction, bytes, at, events),
            Piece::Gap(length) => parser.on_gap(direction, length, at, events),
            Piece::End => parser.on_close(direction, at, events),
        });
    }

    pub(super) fn parse(&mut self, call: impl FnOnce(&mut dyn Parser, &mut dyn Events)) {
        let State::Parsing(parser, protocol) = &mut *self.state else {
            return;
        };
        let mut events = FlowEvents {
            protocol,
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
            *self.state = State::Tunnel;
        } else if let Some(objection) = self.facts.objection
            && self.facts.exchanges.is_empty()
        {
            self.decline(objection);
        }
    }

    /// Accounts for what the flow keeps now, and gives it up if it has exceeded what all may keep.
    pub(super) fn weigh(&mut self) {
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
    pub(super) fn stop_reading(&mut self) {
        *self.state = State::Opaque;
        let stats = &mut self.shared.account.stats;
        self.shared
            .exchanges
            .abandon_all(&mut self.facts.exchanges, stats);
    }
}

/// Turns a parser's events into exchanges.
struct FlowEvents<'a> {
    protocol: &'static Protocol,
    facts: &'a mut Facts,
    shared: &'a mut Shared,
    sink: &'a mut dyn Sink,
    opaque: bool,
}

impl FlowEvents<'_> {
    /// Enters an exchange, unless the settings that hold for it want none.
    fn start(&mut self, started: &Started) {
        let Shared {
            account, exchanges, ..
        } = &mut *self.shared;
        let Facts {
            slot,
            in_force,
            objection,
            endpoints,
            late,
            exchanges: of_flow,
            ..
        } = &mut *self.facts;
        let table = &exchanges.settings;
        let changed = table.refresh(in_force, *slot).is_some();
        if (changed || *objection == Some(Unwanted::PortUnknown))
            && let Some(settings) = table.get(in_force.key, *slot)
        {
            let role = Role::of(started.kind);
            *objection = settings.objection(endpoints, role, self.protocol);
        }
        if objection.is_some() {
            return;
        }
        let place = Place {
            slot: *slot,
            settings: in_force.key,
            endpoints,
            late: *late,
        };
        exchanges.start(&place, of_flow, started, &mut account.stats);
    }
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
            endpoints,
            exchanges: of_flow,
            ..
        } = &mut *self.facts;
        match event {
            Event::Started(started) => self.start(&started),
            Event::Finished(exchange) => {
                if let Some(ended) = exchanges.finish(of_flow, exchange.id, stats) {
                    finisher.finish(ended, endpoints, *exchange, stats, self.sink);
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

/// The role of the container if bytes of this direction come from this side.
fn role(direction: Direction, side: Side) -> Role {
    match (direction, side) {
        (Direction::Received, Side::Request) | (Direction::Sent, Side::Response) => Role::Server,
        (Direction::Sent, Side::Request) | (Direction::Received, Side::Response) => Role::Client,
    }
}
