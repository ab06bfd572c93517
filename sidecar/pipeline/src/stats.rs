//! What the pipeline counts: every way to lose, skip or decide something has a line here.

macro_rules! stats {
    ($($field:ident => $help:literal;)+) => {
        /// Counters since the start of the pipeline.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct Stats { $(#[doc = $help] pub $field: u64,)+ }

        impl Stats {
            /// Every counter as name, explanation and value.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
                [$((stringify!($field), $help, self.$field),)+].into_iter()
            }
        }
    };
}

stats! {
    records => "Records handed to the pipeline. It follows the traffic.";
    records_held =>
        "Records that arrived before bytes that precede them and were held back until those came. Normal on several CPUs.";
    records_unusable => "Socket records whose address family is not one that is observed. Harmless.";
    bytes_duplicate =>
        "Bytes that arrived again, or after their place was declared a gap, and were dropped. The latter cost spans.";
    bytes_after_end =>
        "Bytes that arrived after the end of their direction and were dropped. Spans at the ends of connections may be missing.";
    gaps =>
        "Stretches of bytes that were not captured or whose record was lost. Normal for bodies; where a head was, its span is missing.";
    gap_bytes => "Bytes in gaps. Normal for bodies.";
    holes =>
        "Gaps declared because the record that should have filled them did not come in time. It rises with lost records.";
    flows_opened =>
        "Flows, which are connections as one process sees them, that entered the table. It follows new connections.";
    flows_late =>
        "Flows whose first observed bytes were not the connection's first. Normal after a start; later it is a sign of losses.";
    flows_rejoined =>
        "Flows read from a later offset on: their first records were lost, or they had been dropped before. Spans in between are missing.";
    flows_ended =>
        "Flows that ended by close, exit, shutdown of the agent or end of the container. It follows those opened.";
    flows_idle => "Ended flows whose close was not seen and on which nothing had moved for long. Harmless.";
    flows_evicted =>
        "Flows that were dropped because the table was full: their spans are missing. Observe less with one agent.";
    flows_detected => "Flows whose protocol was recognised. It follows new connections.";
    flows_unknown => "Flows whose opening bytes belong to no enabled protocol. They yield no spans.";
    flows_tls =>
        "Flows of plaintext of TLS connections, among those opened. It follows new TLS connections.";
    flows_tls_unassociated =>
        "Flows of plaintext of TLS connections that left the table without their socket, and so their addresses, being known: their spans lack them.";
    flows_encrypted =>
        "Flows that are not read because they are encrypted. Normal at the start of a connection; /status tells what is not covered.";
    flows_outside_ports =>
        "Flows that are not read because their server port is not among those of their container's settings. Wanted so.";
    flows_disabled =>
        "Flows that are read no longer because their container's settings have disabled their protocol. Wanted so.";
    flows_opaque =>
        "Flows that are read no longer: not their protocol any more (Upgrade, CONNECT), or without provable pairs. No spans from then on.";
    flows_over_budget =>
        "Flows that are read no longer because detection and parsers together kept too many bytes. Observe less with one agent.";
    flows_lost_place =>
        "Times that a parser lost its place in a flow and had to look for the next message: spans in between are missing.";
    heads_too_long =>
        "Of the times that a parser lost its place, those where a message head exceeded what is kept or was captured of one: raise --capture-bytes.";
    exchanges_started => "Exchanges, which are a request and its response, whose request was seen. It follows the traffic.";
    exchanges_finished => "Exchanges that completed. It follows those started.";
    exchanges_abandoned =>
        "Exchanges that will never complete: bytes were lost or the connection broke. Without losses it is the peers' doing.";
    exchanges_untracked =>
        "Exchanges not followed because too many were in progress: their spans are missing. Observe less with one agent.";
    exchanges_ignored => "Exchanges whose path the configuration ignores. Wanted so.";
    spans => "Spans handed to the exporters. It follows the traffic and the sampler.";
    spans_unsampled => "Exchanges without a span because their trace is not sampled. Wanted so; metrics count them.";
    measurements => "Measurements handed to the metrics. It follows the traffic.";
    contexts_wire => "Exchanges that continue a trace announced on the wire. It follows the callers that send traceparent.";
    contexts_invalid =>
        "Trace contexts on the wire that break the W3C rules and were ignored: a caller's tracing is at fault.";
    trace_states_invalid =>
        "Trace states on the wire that break the W3C rules and were ignored: a caller's tracing is at fault.";
    parents_connection =>
        "Inbound exchanges whose parent is the client observed at the other end of the connection. Traces are linked.";
    parents_forwarded =>
        "Outbound exchanges whose parent is the inbound exchange whose context they forward. Traces are linked.";
    parents_thread =>
        "Outbound exchanges whose parent is the only inbound exchange in progress on their thread. Traces are linked.";
    parents_ambiguous =>
        "Outbound exchanges that start a new trace because several parents were possible. Traces are cut there, none is wrong.";
    routes_overflowed =>
        "Exchanges whose route went to the overflow bucket. Sums stay right; name the routes (--route) to tell them apart.";
}

#[cfg(test)]
mod tests {
    use super::Stats;
    use std::collections::HashSet;

    #[test]
    fn every_counter_is_listed_once_with_its_value() {
        let stats = Stats {
            records: 3,
            routes_overflowed: 7,
            ..Stats::default()
        };
        let names: HashSet<_> = stats.iter().map(|(name, ..)| name).collect();
        assert_eq!(names.len(), stats.iter().count());
        assert!(stats.iter().all(|(_, help, _)| help.ends_with('.')));
        let total: u64 = stats.iter().map(|(.., value)| value).sum();
        assert_eq!(total, 10);
    }
}
