//! One flow: reassembly, then detection, then a parser whose events become exchanges.

mod delivery;

use crate::detection::Opening;
use crate::endpoints::{Endpoints, Transport};
use crate::exchanges::{Exchanges, FlowExchanges};
use crate::idle::{Allowance, Left};
use crate::model::{Sink, Slot};
use crate::protocol::{Parser, Protocol};
use crate::reassembly::{Account, Offsets, Operation, PATIENCE, Reassembly};
use crate::settings::{InForce, SettingsTable, Unwanted};
use crate::spans::Finisher;
use delivery::Delivery;
use pilotfish_abi::Header;

/// Nanoseconds without a record after which a process is not expected to read what a closed connection left for it.
const UNREAD_PATIENCE: u64 = 1_000_000_000;

/// Most bytes that detection and the parsers of all flows together keep of what moved.
const MAX_KEPT_BYTES_TOTAL: usize = 32 * 1024 * 1024;

/// What all flows share.
pub(crate) struct Shared {
    pub(crate) account: Account,
    pub(crate) exchanges: Exchanges,
    pub(crate) finisher: Finisher,
}

/// The facts of a flow, its parser and its streams apart.
struct Facts {
    slot: Slot,
    /// The process that used it last, 0 if that is not known.
    user: u32,
    in_force: InForce,
    /// Why the settings want no further exchange, once the protocol is known.
    objection: Option<Unwanted>,
    endpoints: Endpoints,
    /// Its offsets do not count from the connection's first byte.
    late: bool,
    /// It goes on where it was left, so that its offsets mean what they did.
    resumed: bool,
    exchanges: FlowExchanges,
    /// Its part of [`Account::kept_bytes`].
    kept_bytes: usize,
}

impl Facts {
    /// Why the flow is of no interest still or anew; `None` if the settings have changed, or its port has become known,
    /// so that it may be wanted now.
    fn objection_now(&mut self, reason: Unwanted, shared: &Shared) -> Option<Unwanted> {
        let table = &shared.exchanges.settings;
        let former = table.refresh(&mut self.in_force, self.slot);
        let Some(settings) = table.get(self.in_force.key, self.slot) else {
            return Some(reason);
        };
        let may_have_changed = match (reason, former) {
            (Unwanted::PortUnknown, _) | (Unwanted::Port, Some(_)) => true,
            // What was none of the former protocols is none of fewer either.
            (Unwanted::Protocol, Some(former)) => table.enables_more(settings, former),
            (Unwanted::Port | Unwanted::Protocol, None) => false,
        };
        if may_have_changed {
            settings.early_objection(&self.endpoints)
        } else {
            Some(reason)
        }
    }
}

enum State {
    /// The protocol is not known yet.
    Opening(Opening),
    Parsing(Box<dyn Parser>, &'static Protocol),
    /// The settings want nothing of this flow. Others may.
    Unwanted(Unwanted),
    /// The parser has given it up. What comes next may be TLS, through a proxy (CONNECT) or after an upgrade.
    Tunnel,
    /// Nothing is read from this flow any more.
    Opaque,
}

impl State {
    fn held_bytes(&self) -> usize {
        match self {
            Self::Opening(opening) => opening.held_bytes(),
            Self::Parsing(parser, _) => parser.held_bytes(),
            Self::Unwanted(_) | Self::Tunnel | Self::Opaque => 0,
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
    pub(crate) fn new(
        slot: Slot,
        endpoints: Endpoints,
        settings: &SettingsTable,
        late: bool,
        left: Option<Left>,
    ) -> Self {
        let in_force = settings.current(slot);
        let objection = settings
            .get(in_force.key, slot)
            .map_or(Some(Unwanted::Port), |settings| {
                settings.early_objection(&endpoints)
            });
        let state = match objection {
            None => State::Opening(Opening::new(late || left.is_some())),
            Some(objection) => State::Unwanted(objection),
        };
        let resumed = left.is_some();
        let Left {
            offsets,
            late: was_late,
        } = left.unwrap_or_default();
        Self {
            awaited: false,
            idle_check: None,
            last: 0,
            closed: None,
            facts: Facts {
                slot,
                user: 0,
                in_force,
                objection: None,
                endpoints,
                late: late || was_late,
                resumed,
                exchanges: FlowExchanges::new(),
                kept_bytes: 0,
            },
            streams: Reassembly::at(offsets),
            state,
        }
    }

    pub(crate) fn slot(&self) -> Slot {
        self.facts.slot
    }

    /// True if its server port is known not to be among those of its container's settings.
    pub(crate) const fn is_outside_ports(&self) -> bool {
        matches!(self.state, State::Unwanted(Unwanted::Port))
    }

    /// Notes which process uses it.
    pub(crate) fn used_by(&mut self, process: u32) {
        self.facts.user = process;
    }

    /// Notes what a record shows of its ends.
    pub(crate) fn seen_in(&mut self, header: &Header) {
        self.facts.endpoints.complete(header);
    }

    /// The process that used it last, if no record may tell of its close, but one tells of that process's end.
    pub(crate) const fn ends_with(&self) -> Option<u32> {
        match self.facts.endpoints.transport {
            Transport::Unix | Transport::Unknown => Some(self.facts.user),
            Transport::Tcp => None,
        }
    }

    /// What has to be kept of it if it may go on later.
    pub(crate) const fn left(&self) -> Left {
        Left {
            offsets: self.streams.offsets(),
            late: self.facts.late,
        }
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
        let read = match self.state {
            State::Opening(_) | State::Parsing(..) | State::Tunnel => true,
            State::Unwanted(reason) => self.reconsider(reason, &operation, shared, sink),
            State::Opaque => false,
        };
        if !read {
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

    /// Reads an unwanted flow from this operation on, if it may be wanted now.
    fn reconsider(
        &mut self,
        reason: Unwanted,
        operation: &Operation<'_>,
        shared: &mut Shared,
        sink: &mut dyn Sink,
    ) -> bool {
        if operation.total == 0 {
            return false;
        }
        let objection = self.facts.objection_now(reason, shared);
        let mut delivery = Delivery {
            facts: &mut self.facts,
            state: &mut self.state,
            shared,
            sink,
        };
        if let Some(objection) = objection {
            if objection != reason {
                delivery.decline(objection);
            }
            return false;
        }
        // What is still held back is for nobody, but counts as held until it is let go.
        self.streams.flush(&mut delivery);
        self.streams = Reassembly::at(Offsets::before(operation));
        self.state = State::Opening(Opening::new(true));
        self.facts.resumed = true;
        self.facts.objection = None;
        true
    }

    /// Notes that the transport was closed at `time`, with this many bytes still to read. Of TLS there may be plaintext
    /// that the process has taken out of the transport, but not read.
    pub(crate) fn on_close(&mut self, time: u64, unread: u32) {
        let patience = if unread == 0 && !self.facts.endpoints.tls {
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
        let read = matches!(self.state, State::Opening(_) | State::Parsing(..));
        Allowance::of(&self.facts.endpoints, self.streams.is_rejoined(), read)
            .filter(|_| self.closed.is_none())
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
        if self.facts.endpoints.transport == Transport::Unknown {
            let stats = &mut shared.account.stats;
            stats.flows_tls_unassociated = stats.flows_tls_unassociated.saturating_add(1);
        }
        let mut delivery = Delivery {
            facts: &mut self.facts,
            state: &mut self.state,
            shared,
            sink,
        };
        self.streams.flush(&mut delivery);
        delivery.parse(|parser, events| parser.on_end(events));
        delivery.settle();
        delivery.stop_reading();
        delivery.weigh();
    }
}
