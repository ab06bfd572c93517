//! Exchanges in progress: the only place where a trace context lives.
//!
//! A context belongs to one exchange and goes away with it, together with every index that leads to it.

use crate::context::{WireContext, parse_traceparent, parse_tracestate};
use crate::endpoints::{ConnectionPlace, Endpoints, Role};
use crate::ids::Ids;
use crate::model::{Kind, Slot, SpanId, TraceId};
use crate::protocol::{ExchangeId, Moment, Started};
use crate::settings::{Settings, SettingsKey, SettingsTable};
use crate::stats::Stats;
use compact_str::CompactString;
use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use slotmap::{Key, KeyData, SlotMap, new_key_type};
use smallvec::SmallVec;
use std::hash::Hash;

/// Most exchanges in progress on one flow; pipelining and streams of one connection.
const MAX_PER_FLOW: usize = 1024;

/// Most exchanges in progress on all flows.
const MAX_IN_PROGRESS: usize = 65_536;

new_key_type! {
    /// Names an exchange in progress; never leads to another one once it has ended.
    pub(crate) struct ExchangeKey;
}

/// The exchanges in progress of one flow, in the order of their start.
pub(crate) type FlowExchanges = SmallVec<[(ExchangeId, ExchangeKey); 1]>;

/// The place of a span in its trace; does not change once it is known.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Context {
    pub(crate) trace_id: TraceId,
    pub(crate) span_id: SpanId,
    pub(crate) parent: Option<SpanId>,
    pub(crate) remote_parent: bool,
    pub(crate) sampled: bool,
    pub(crate) trace_state: CompactString,
}

/// An exchange whose request head was read.
#[derive(Debug)]
pub(crate) struct InProgress {
    pub(crate) slot: Slot,
    /// In force for its container when it began, and for it to its end.
    pub(crate) settings: SettingsKey,
    pub(crate) kind: Kind,
    pub(crate) at: Moment,
    pub(crate) wire: Option<WireContext>,
    /// Where on which connection, if its other end may be observed too.
    pub(crate) place: Option<ConnectionPlace>,
    /// Known once it was needed.
    pub(crate) context: Option<Context>,
}

/// An exchange that has finished.
pub(crate) struct Ended<'a> {
    pub(crate) started: InProgress,
    pub(crate) context: Context,
    pub(crate) settings: &'a Settings,
}

/// The facts of a flow that matter to its exchanges.
pub(crate) struct Place<'a> {
    pub(crate) slot: Slot,
    pub(crate) settings: SettingsKey,
    pub(crate) endpoints: &'a Endpoints,
    /// Stream offsets do not count from the connection's first byte.
    pub(crate) late: bool,
}

/// A set that answers only "which one, if it is exactly one?", in constant space.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Candidates {
    count: u32,
    keys: u64,
}

impl Candidates {
    fn add(&mut self, key: ExchangeKey) {
        self.count = self.count.saturating_add(1);
        self.keys ^= key.data().as_ffi();
    }

    fn remove(&mut self, key: ExchangeKey) {
        self.count = self.count.saturating_sub(1);
        self.keys ^= key.data().as_ffi();
    }

    pub(crate) fn only(self) -> Option<ExchangeKey> {
        (self.count == 1).then(|| KeyData::from_ffi(self.keys).into())
    }

    pub(crate) fn is_ambiguous(self) -> bool {
        self.count > 1
    }
}

/// All exchanges in progress, and the ways to find a parent among them.
pub(crate) struct Exchanges {
    pub(crate) table: SlotMap<ExchangeKey, InProgress>,
    /// Inbound exchanges by the thread that received their first byte.
    pub(crate) inbound_by_thread: HashMap<(Slot, u32), Candidates>,
    /// Inbound exchanges by the context that they arrived with.
    pub(crate) inbound_by_wire: HashMap<(Slot, TraceId, SpanId), Candidates>,
    /// Exchanges by their place on a connection, from either end.
    pub(crate) clients: HashMap<ConnectionPlace, ExchangeKey>,
    pub(crate) servers: HashMap<ConnectionPlace, ExchangeKey>,
    pub(crate) ids: Ids,
    /// What holds for them.
    pub(crate) settings: SettingsTable,
}

impl Exchanges {
    pub(crate) fn new(seed: [u8; 32], settings: SettingsTable) -> Self {
        Self {
            table: SlotMap::with_key(),
            inbound_by_thread: HashMap::new(),
            inbound_by_wire: HashMap::new(),
            clients: HashMap::new(),
            servers: HashMap::new(),
            ids: Ids::new(seed),
            settings,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    /// Enters an exchange that has just started.
    pub(crate) fn start(
        &mut self,
        place: &Place<'_>,
        flow: &mut FlowExchanges,
        started: &Started,
        stats: &mut Stats,
    ) {
        if flow.len() >= MAX_PER_FLOW || self.table.len() >= MAX_IN_PROGRESS {
            stats.exchanges_untracked = stats.exchanges_untracked.saturating_add(1);
            return;
        }
        stats.exchanges_started = stats.exchanges_started.saturating_add(1);
        let Place {
            slot,
            settings,
            endpoints,
            late,
        } = *place;
        let exchange = InProgress {
            slot,
            settings,
            kind: started.kind,
            at: started.at,
            wire: wire_context(started, stats),
            place: if late {
                None
            } else {
                endpoints.place(Role::of(started.kind), started.at.offset)
            },
            context: None,
        };
        let key = self.table.insert(exchange);
        flow.push((started.id, key));
        match started.kind {
            Kind::Server => self.enter_inbound(key, stats),
            Kind::Client => self.enter_outbound(key, stats),
        }
    }

    /// Takes an exchange out that has finished. `None` if it was not tracked.
    pub(crate) fn finish(
        &mut self,
        flow: &mut FlowExchanges,
        id: ExchangeId,
        stats: &mut Stats,
    ) -> Option<Ended<'_>> {
        let key = take(flow, id)?;
        let context = self.decide(key, stats)?;
        let started = self.remove(key)?;
        stats.exchanges_finished = stats.exchanges_finished.saturating_add(1);
        let settings = self.settings.get(started.settings, started.slot)?;
        Some(Ended {
            started,
            context,
            settings,
        })
    }

    /// Forgets an exchange that will not finish.
    pub(crate) fn abandon(&mut self, flow: &mut FlowExchanges, id: ExchangeId, stats: &mut Stats) {
        if let Some(key) = take(flow, id) {
            self.remove(key);
            stats.exchanges_abandoned = stats.exchanges_abandoned.saturating_add(1);
        }
    }

    /// Forgets every exchange of a flow.
    pub(crate) fn abandon_all(&mut self, flow: &mut FlowExchanges, stats: &mut Stats) {
        for (_, key) in flow.drain(..) {
            self.remove(key);
            stats.exchanges_abandoned = stats.exchanges_abandoned.saturating_add(1);
        }
    }

    fn enter_inbound(&mut self, key: ExchangeKey, stats: &mut Stats) {
        let Some(exchange) = self.table.get(key) else {
            return;
        };
        let (slot, tid, place) = (exchange.slot, exchange.at.tid, exchange.place);
        self.inbound_by_thread
            .entry((slot, tid))
            .or_default()
            .add(key);
        if let Some(wire) = &exchange.wire {
            self.inbound_by_wire
                .entry((slot, wire.trace_id, wire.span_id))
                .or_default()
                .add(key);
        }
        if let Some(place) = place {
            self.servers.insert(place, key);
            if self.clients.contains_key(&place) {
                self.decide(key, stats);
            }
        }
    }

    fn enter_outbound(&mut self, key: ExchangeKey, stats: &mut Stats) {
        self.decide(key, stats);
        let Some(place) = self.table.get(key).and_then(|exchange| exchange.place) else {
            return;
        };
        self.clients.insert(place, key);
        // The server's record may have come first; its context is decided now, while this exchange is known.
        if let Some(&server) = self.servers.get(&place) {
            self.decide(server, stats);
        }
    }

    fn remove(&mut self, key: ExchangeKey) -> Option<InProgress> {
        let exchange = self.table.remove(key)?;
        let places = match exchange.kind {
            Kind::Server => &mut self.servers,
            Kind::Client => &mut self.clients,
        };
        if let Some(place) = exchange.place
            && let Entry::Occupied(entry) = places.entry(place)
            && *entry.get() == key
        {
            entry.remove();
        }
        if exchange.kind == Kind::Server {
            withdraw(
                &mut self.inbound_by_thread,
                (exchange.slot, exchange.at.tid),
                key,
            );
            if let Some(wire) = &exchange.wire {
                withdraw(
                    &mut self.inbound_by_wire,
                    (exchange.slot, wire.trace_id, wire.span_id),
                    key,
                );
            }
        }
        Some(exchange)
    }
}

fn take(flow: &mut FlowExchanges, id: ExchangeId) -> Option<ExchangeKey> {
    let index = flow.iter().position(|&(candidate, _)| candidate == id)?;
    Some(flow.remove(index).1)
}

fn withdraw<K: Eq + Hash>(index: &mut HashMap<K, Candidates>, at: K, key: ExchangeKey) {
    if let Entry::Occupied(mut entry) = index.entry(at) {
        entry.get_mut().remove(key);
        if entry.get().count == 0 {
            entry.remove();
        }
    }
}

/// The context in the request, if it has a valid one; an invalid state is dropped on its own.
fn wire_context(started: &Started, stats: &mut Stats) -> Option<WireContext> {
    let traceparent = started.traceparent.as_ref()?;
    let Some(mut context) = parse_traceparent(traceparent) else {
        stats.contexts_invalid = stats.contexts_invalid.saturating_add(1);
        return None;
    };
    if let Some(found) = &started.tracestate {
        match parse_tracestate(found) {
            Some(checked) => context.trace_state = checked,
            None => stats.trace_states_invalid = stats.trace_states_invalid.saturating_add(1),
        }
    }
    Some(context)
}
