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
    records => "Records handed to the pipeline.";
    records_held => "Records that arrived before bytes that precede them and were held back.";
    records_unusable => "Socket records whose address family is not one that is observed.";
    bytes_duplicate => "Bytes that arrived again or too late and were dropped.";
    bytes_after_end => "Bytes that arrived after the end of their direction and were dropped.";
    gaps => "Stretches of bytes that were not captured or whose record was lost.";
    gap_bytes => "Bytes in those stretches.";
    holes => "Gaps declared because the record that should have filled them did not come in time.";
    flows_opened => "Flows that entered the table.";
    flows_late => "Flows whose first observed bytes were not the connection's first.";
    flows_rejoined => "Flows read from a later offset on: their first records were lost, or they had been dropped before.";
    flows_ended => "Flows that ended by close, exit, shutdown of the agent or end of the container.";
    flows_idle => "Ended flows whose close was not seen and on which nothing had moved for long.";
    flows_evicted => "Flows that were dropped because the table was full.";
    flows_detected => "Flows whose protocol was recognised.";
    flows_unknown => "Flows whose opening bytes belong to no enabled protocol.";
    flows_outside_ports => "Flows that are not read because their server port is not among those of their container's settings.";
    flows_disabled => "Flows that are read no longer because their container's settings have disabled their protocol.";
    flows_opaque => "Flows that are read no longer: not their protocol any more (Upgrade, CONNECT), or without provable pairs.";
    flows_over_budget => "Flows that are read no longer because detection and parsers together kept too many bytes.";
    flows_lost_place => "Times that a parser lost its place in a flow and had to look for the next message.";
    heads_too_long => "Those times where a message head exceeded what is kept or was captured of one.";
    exchanges_started => "Exchanges whose request was seen.";
    exchanges_finished => "Exchanges that completed.";
    exchanges_abandoned => "Exchanges that will never complete: bytes were lost or the connection broke.";
    exchanges_untracked => "Exchanges not followed because too many were in progress.";
    exchanges_ignored => "Exchanges whose path the configuration ignores.";
    spans => "Spans handed to the sink.";
    spans_unsampled => "Exchanges without a span because their trace is not sampled.";
    measurements => "Measurements handed to the sink.";
    contexts_wire => "Exchanges that continue a trace announced on the wire.";
    contexts_invalid => "Trace contexts on the wire that break the W3C rules and were ignored.";
    trace_states_invalid => "Trace states on the wire that break the W3C rules and were ignored.";
    parents_connection => "Inbound exchanges whose parent is the client observed at the other end of the connection.";
    parents_forwarded => "Outbound exchanges whose parent is the inbound exchange whose context they forward.";
    parents_thread => "Outbound exchanges whose parent is the only inbound exchange in progress on their thread.";
    parents_ambiguous => "Outbound exchanges that start a new trace because several parents were possible.";
    routes_overflowed => "Exchanges whose route went to the overflow bucket.";
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
