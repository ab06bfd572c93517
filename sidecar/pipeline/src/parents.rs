//! Who is the parent of an exchange. What is not known is not guessed: such an exchange starts a new trace.
//!
//! | exchange | evidence, strongest first | parent |
//! |---|---|---|
//! | inbound | the client at the other end of the connection is observed, and the request names no other trace | that client |
//! | inbound | context in the request | the span that it names |
//! | outbound | context in the request that exactly one inbound exchange arrived with | that inbound exchange |
//! | outbound | context in the request | the span that it names |
//! | outbound | exactly one inbound exchange in progress on its thread | that inbound exchange |

use crate::context::WireContext;
use crate::exchanges::{Context, ExchangeKey, Exchanges, InProgress};
use crate::model::{Kind, SpanId, TraceId};
use crate::stats::Stats;
use compact_str::CompactString;

impl Exchanges {
    /// The context of an exchange, decided now if it was not before; from then on it stays.
    ///
    /// An inbound exchange may be asked before the record of the client at the other end has arrived, which is why
    /// nothing asks before the context is needed.
    pub(crate) fn decide(&mut self, key: ExchangeKey, stats: &mut Stats) -> Option<Context> {
        let exchange = self.table.get(key)?;
        if exchange.context.is_some() {
            return exchange.context.clone();
        }
        let Lineage {
            trace_id,
            parent,
            parent_sampled,
            remote_parent,
            trace_state,
        } = match exchange.kind {
            Kind::Server => self.decide_inbound(key, stats),
            Kind::Client => self.decide_outbound(key, stats),
        }?;
        let exchange = self.table.get_mut(key)?;
        let settings = self.settings.get(exchange.settings, exchange.slot)?;
        exchange.context = Some(Context {
            trace_id,
            span_id: self.ids.span_id(),
            parent,
            remote_parent,
            sampled: settings.sampler().samples(trace_id, parent_sampled),
            trace_state,
        });
        exchange.context.clone()
    }

    fn decide_inbound(&mut self, key: ExchangeKey, stats: &mut Stats) -> Option<Lineage> {
        let exchange = self.table.get(key)?;
        let wire = exchange.wire.clone();
        let client = exchange
            .place
            .and_then(|place| self.clients.get(&place))
            .copied();
        // An outbound exchange is decided when it starts, so this does not go on to its parent.
        let client = client.and_then(|client| self.table.get(client)?.context.clone());
        Some(match (wire, client) {
            (wire, Some(client))
                if wire
                    .as_ref()
                    .is_none_or(|wire| wire.trace_id == client.trace_id) =>
            {
                stats.parents_connection = stats.parents_connection.saturating_add(1);
                Lineage::of_child(&client)
            }
            (Some(wire), _) => Lineage::continued(wire, stats),
            (None, _) => Lineage::new(self.ids.trace_id()),
        })
    }

    fn decide_outbound(&mut self, key: ExchangeKey, stats: &mut Stats) -> Option<Lineage> {
        let exchange = self.table.get(key)?;
        let Some(wire) = exchange.wire.clone() else {
            return self.decide_by_thread(key, stats);
        };
        let forwarder = self
            .inbound_by_wire
            .get(&(exchange.slot, wire.trace_id, wire.span_id));
        let forwarder = forwarder.and_then(|candidates| candidates.only());
        if let Some(inbound) = forwarder.and_then(|inbound| self.decide(inbound, stats)) {
            stats.parents_forwarded = stats.parents_forwarded.saturating_add(1);
            return Some(Lineage::of_child(&inbound));
        }
        Some(Lineage::continued(wire, stats))
    }

    fn decide_by_thread(&mut self, key: ExchangeKey, stats: &mut Stats) -> Option<Lineage> {
        let exchange = self.table.get(key)?;
        let started = exchange.at.time;
        let candidates = self
            .inbound_by_thread
            .get(&(exchange.slot, exchange.at.tid))
            .filter(|_| exchange.at.tid != 0)
            .copied()
            .unwrap_or_default();
        if candidates.is_ambiguous() {
            stats.parents_ambiguous = stats.parents_ambiguous.saturating_add(1);
        }
        // Records that were held back can make an exchange known after its successor on the thread.
        let was_there = |inbound: &InProgress| inbound.at.time <= started;
        let inbound = candidates
            .only()
            .filter(|&inbound| self.table.get(inbound).is_some_and(was_there));
        Some(
            match inbound.and_then(|inbound| self.decide(inbound, stats)) {
                Some(inbound) => {
                    stats.parents_thread = stats.parents_thread.saturating_add(1);
                    Lineage::of_child(&inbound)
                }
                None => Lineage::new(self.ids.trace_id()),
            },
        )
    }
}

/// Where an exchange comes from.
struct Lineage {
    trace_id: TraceId,
    parent: Option<SpanId>,
    /// The decision about the parent, `None` for a root.
    parent_sampled: Option<bool>,
    remote_parent: bool,
    trace_state: CompactString,
}

impl Lineage {
    fn of_child(parent: &Context) -> Self {
        Self {
            trace_id: parent.trace_id,
            parent: Some(parent.span_id),
            parent_sampled: Some(parent.sampled),
            remote_parent: false,
            trace_state: parent.trace_state.clone(),
        }
    }

    fn continued(wire: WireContext, stats: &mut Stats) -> Self {
        stats.contexts_wire = stats.contexts_wire.saturating_add(1);
        Self {
            trace_id: wire.trace_id,
            parent: Some(wire.span_id),
            parent_sampled: Some(wire.sampled),
            remote_parent: true,
            trace_state: wire.trace_state,
        }
    }

    fn new(trace_id: TraceId) -> Self {
        Self {
            trace_id,
            parent: None,
            parent_sampled: None,
            remote_parent: false,
            trace_state: CompactString::default(),
        }
    }
}
