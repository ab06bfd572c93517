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
use crate::model::Kind;
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
        let context = match exchange.kind {
            Kind::Server => self.decide_inbound(key, stats),
            Kind::Client => self.decide_outbound(key, stats),
        }?;
        let exchange = self.table.get_mut(key)?;
        exchange.context = Some(context);
        exchange.context.clone()
    }

    fn decide_inbound(&mut self, key: ExchangeKey, stats: &mut Stats) -> Option<Context> {
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
                self.child_of(&client)
            }
            (Some(wire), _) => self.continue_trace(wire, stats),
            (None, _) => self.new_trace(),
        })
    }

    fn decide_outbound(&mut self, key: ExchangeKey, stats: &mut Stats) -> Option<Context> {
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
            return Some(self.child_of(&inbound));
        }
        Some(self.continue_trace(wire, stats))
    }

    fn decide_by_thread(&mut self, key: ExchangeKey, stats: &mut Stats) -> Option<Context> {
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
                    self.child_of(&inbound)
                }
                None => self.new_trace(),
            },
        )
    }

    fn child_of(&mut self, parent: &Context) -> Context {
        Context {
            trace_id: parent.trace_id,
            span_id: self.ids.span_id(),
            parent: Some(parent.span_id),
            remote_parent: false,
            sampled: self.sampler.samples(parent.trace_id, Some(parent.sampled)),
            trace_state: parent.trace_state.clone(),
        }
    }

    fn continue_trace(&mut self, wire: WireContext, stats: &mut Stats) -> Context {
        stats.contexts_wire = stats.contexts_wire.saturating_add(1);
        Context {
            trace_id: wire.trace_id,
            span_id: self.ids.span_id(),
            parent: Some(wire.span_id),
            remote_parent: true,
            sampled: self.sampler.samples(wire.trace_id, Some(wire.sampled)),
            trace_state: wire.trace_state,
        }
    }

    fn new_trace(&mut self) -> Context {
        let trace_id = self.ids.trace_id();
        Context {
            trace_id,
            span_id: self.ids.span_id(),
            parent: None,
            remote_parent: false,
            sampled: self.sampler.samples(trace_id, None),
            trace_state: CompactString::default(),
        }
    }
}
