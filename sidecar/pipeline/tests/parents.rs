//! Who becomes whose parent, and who does not.

mod wire;

use pilotfish_pipeline::{Kind, Sampler, SlotConfig, Span, SpanId};
use std::collections::HashSet;
use wire::{Bench, PARENT, TRACE, Wire, text, traceparent};

/// The inbound flow of container 1.
fn inbound(cookie: u64) -> Wire {
    Wire::new(
        cookie,
        1,
        "10.0.0.1:80",
        &format!("10.0.0.9:{}", 30_000 + cookie),
    )
}

/// An outbound flow of container 1 to somewhere that is not observed.
fn outbound(cookie: u64) -> Wire {
    Wire::new(
        cookie,
        1,
        &format!("10.0.0.1:{}", 40_000 + cookie),
        "10.0.0.7:9000",
    )
}

fn is_root(span: &Span) -> bool {
    span.parent_span_id.is_none() && !span.remote_parent && span.trace_id != TRACE
}

#[test]
fn a_context_on_the_wire_is_the_parent_of_an_inbound_exchange() {
    let (mut bench, mut flow) = (Bench::new(), inbound(1));
    bench
        .feed(flow.receive(10, &format!("Q / {} a=1\n", traceparent())))
        .feed(flow.send(20, "A ok\n"));
    let span = bench.only_span();
    assert_eq!(
        (span.trace_id, span.parent_span_id, span.remote_parent),
        (TRACE, Some(PARENT), true)
    );
    assert_eq!(span.trace_state, "a=1");
    assert_eq!(bench.pipeline.stats().contexts_wire, 1);
}

#[test]
fn an_invalid_context_starts_a_new_trace_and_a_bad_state_is_dropped_alone() {
    let (mut bench, mut flow) = (Bench::new(), inbound(1));
    let invalid = traceparent().replacen("00", "ff", 1);
    bench
        .feed(flow.receive(10, &format!("Q / {invalid} a=1\n")))
        .feed(flow.send(20, "A ok\n"));
    bench
        .feed(flow.receive(30, &format!("Q / {} A=1\n", traceparent())))
        .feed(flow.send(40, "A ok\n"));
    let spans = &bench.results.spans;
    assert!(is_root(&spans[0]) && spans[0].trace_state.is_empty());
    assert_eq!(
        (spans[1].parent_span_id, spans[1].trace_state.as_str()),
        (Some(PARENT), "")
    );
    let stats = bench.pipeline.stats();
    assert_eq!((stats.contexts_invalid, stats.trace_states_invalid), (1, 1));
}

#[test]
fn the_only_inbound_exchange_of_the_thread_is_the_parent() {
    let (mut bench, mut server, mut client) = (Bench::new(), inbound(1), outbound(2));
    bench.feed(server.receive(10, &format!("Q /a {} a=1\n", traceparent())));
    bench
        .feed(client.send(20, "Q /b\n"))
        .feed(client.receive(30, "A ok\n"))
        .feed(server.send(40, "A ok\n"));
    let (server, client) = (bench.span(1, Kind::Server), bench.span(1, Kind::Client));
    assert_eq!(
        (client.trace_id, client.parent_span_id),
        (TRACE, Some(server.span_id))
    );
    assert!(!client.remote_parent && server.remote_parent);
    assert_eq!(client.trace_state, "a=1");
}

#[test]
fn another_thread_container_or_time_gives_no_parent() {
    let mut bench = Bench::new();
    let (mut server, mut thread, mut container, mut earlier) =
        (inbound(1), outbound(2), outbound(3), outbound(4));
    bench.feed(server.receive(10, "Q /\n"));
    thread.tid(101);
    container.header.slot = 2;
    for (client, time) in [(&mut thread, 20), (&mut container, 20), (&mut earlier, 5)] {
        bench
            .feed(client.send(time, "Q /\n"))
            .feed(client.receive(30, "A ok\n"));
    }
    assert_eq!(bench.results.spans.len(), 3);
    assert!(bench.results.spans.iter().all(is_root));
}

/// obi#2259: a parent that is not known is not guessed.
#[test]
fn two_inbound_exchanges_on_a_thread_give_no_parent() {
    let mut bench = Bench::new();
    let (mut one, mut two, mut client) = (inbound(1), inbound(2), outbound(3));
    bench
        .feed(one.receive(10, "Q /1\n"))
        .feed(two.receive(11, "Q /2\n"));
    bench
        .feed(client.send(20, "Q /\n"))
        .feed(client.receive(21, "A ok\n"));
    assert!(is_root(bench.only_span()));
    assert_eq!(bench.pipeline.stats().parents_ambiguous, 1);

    // With the first one answered it is clear again.
    bench
        .feed(one.send(30, "A ok\n"))
        .feed(client.send(40, "Q /\n"))
        .feed(client.receive(41, "A ok\n"));
    bench.feed(two.send(50, "A ok\n"));
    let [.., clear, second] = bench.results.spans.as_slice() else {
        panic!("spans are missing")
    };
    assert_eq!(clear.parent_span_id, Some(second.span_id));
}

/// obi#2551: a context belongs to one exchange, then it is gone.
#[test]
fn an_adopted_context_does_not_outlive_its_exchange() {
    let mut bench = Bench::new();
    let (mut server, mut client) = (inbound(1), outbound(2));
    bench
        .feed(server.receive(1, &format!("Q / {}\n", traceparent())))
        .feed(server.send(2, "A ok\n"));
    for round in 0..45_000 {
        let time = 10 + 2 * round;
        bench
            .feed(client.send(time, "Q /\n"))
            .feed(client.receive(time + 1, "A ok\n"));
    }
    let (first, rest) = bench.results.spans.split_first().unwrap();
    assert_eq!(first.trace_id, TRACE);
    assert!(rest.iter().all(is_root));
    let traces: HashSet<_> = rest.iter().map(|span| span.trace_id).collect();
    assert_eq!(traces.len(), 45_000);
    assert_eq!(bench.pipeline.exchanges_open(), 0);
}

#[test]
fn a_reused_thread_takes_the_new_exchange() {
    let mut bench = Bench::new();
    let (mut server, mut client) = (inbound(1), outbound(2));
    for time in [10, 20, 30] {
        bench
            .feed(server.receive(time, "Q /\n"))
            .feed(client.send(time + 1, "Q /\n"));
        bench
            .feed(client.receive(time + 2, "A ok\n"))
            .feed(server.send(time + 3, "A ok\n"));
    }
    let spans = &bench.results.spans;
    assert!(
        spans
            .chunks(2)
            .all(|pair| pair[0].parent_span_id == Some(pair[1].span_id))
    );
    let traces: HashSet<_> = spans.iter().map(|span| span.trace_id).collect();
    assert_eq!(traces.len(), 3);
}

#[test]
fn an_abandoned_exchange_is_no_parent() {
    let (mut bench, mut server, mut client) = (Bench::new(), inbound(1), outbound(2));
    bench
        .feed(server.receive(10, "Q /\n"))
        .feed(server.close(11));
    bench
        .feed(client.send(20, "Q /\n"))
        .feed(client.receive(21, "A ok\n"));
    assert!(is_root(bench.only_span()));
    assert_eq!(bench.pipeline.stats().exchanges_abandoned, 1);
}

#[test]
fn a_forwarded_context_leads_to_the_inbound_exchange_on_any_thread() {
    let (mut bench, mut server, mut client) = (Bench::new(), inbound(1), outbound(2));
    client.tid(101);
    let request = format!("Q / {}\n", traceparent());
    bench
        .feed(server.receive(10, &request))
        .feed(client.send(20, &request));
    bench
        .feed(client.receive(30, "A ok\n"))
        .feed(server.send(40, "A ok\n"));
    let (server, client) = (bench.span(1, Kind::Server), bench.span(1, Kind::Client));
    assert_eq!(
        (client.trace_id, client.parent_span_id),
        (TRACE, Some(server.span_id))
    );
    assert_eq!(bench.pipeline.stats().parents_forwarded, 1);
}

#[test]
fn a_context_that_two_inbound_exchanges_carry_is_taken_as_it_is() {
    let mut bench = Bench::new();
    let (mut one, mut two, mut client) = (inbound(1), inbound(2), outbound(3));
    let request = format!("Q / {}\n", traceparent());
    bench
        .feed(one.receive(10, &request))
        .feed(two.receive(11, &request));
    bench
        .feed(client.send(20, &request))
        .feed(client.receive(30, "A ok\n"));
    let span = bench.only_span();
    assert_eq!(
        (span.trace_id, span.parent_span_id, span.remote_parent),
        (TRACE, Some(PARENT), true)
    );
}

#[test]
fn a_context_of_the_program_itself_decides_over_the_thread() {
    let (mut bench, mut server, mut client) = (Bench::new(), inbound(1), outbound(2));
    let own = traceparent().replace("cdcd", "efef");
    bench.feed(server.receive(10, &format!("Q / {}\n", traceparent())));
    bench
        .feed(client.send(20, &format!("Q / {own}\n")))
        .feed(client.receive(30, "A ok\n"));
    let span = bench.only_span();
    assert_eq!(
        (span.trace_id, span.parent_span_id),
        (TRACE, Some(SpanId([0xef; 8])))
    );
}

/// A connection whose both ends are observed: client in container 1, server in container 2.
fn connection() -> (Wire, Wire) {
    let client = Wire::new(10, 1, "127.0.0.1:40000", "127.0.0.1:8000");
    let mut server = Wire::new(11, 2, "[::ffff:127.0.0.1]:8000", "[::ffff:127.0.0.1]:40000");
    server.tid(200);
    (client, server)
}

#[test]
fn the_other_end_of_the_connection_is_the_parent() {
    for server_first in [false, true] {
        let mut bench = Bench::new();
        let (mut client, mut server) = connection();
        let (sent, received) = (client.send(10, "Q /\n"), server.receive(9, "Q /\n"));
        let (first, second) = if server_first {
            (received, sent)
        } else {
            (sent, received)
        };
        bench.feed(first).feed(second);
        // The client may even be done before the server's own record comes.
        bench
            .feed(client.receive(30, "A ok\n"))
            .feed(server.send(29, "A ok\n"));
        let (client, server) = (bench.span(1, Kind::Client), bench.span(2, Kind::Server));
        assert_eq!(
            (server.trace_id, server.parent_span_id),
            (client.trace_id, Some(client.span_id))
        );
        assert!(!server.remote_parent && client.parent_span_id.is_none());
        assert_eq!(bench.pipeline.stats().parents_connection, 1);
    }
}

/// nginx in front of an application: four exchanges, one waterfall, with and without a context from outside.
#[test]
fn a_proxy_in_front_of_an_application_is_one_waterfall() {
    for context in [String::new(), format!(" {}", traceparent())] {
        let request = format!("Q /{context}\n");
        let mut bench = Bench::new();
        let mut front = inbound(1);
        let (mut client, mut server) = connection();
        let mut database = Wire::new(12, 2, "10.0.0.1:50000", "10.0.0.8:5432");
        database.tid(200);
        bench
            .feed(front.receive(10, &request))
            .feed(client.send(12, &request))
            .feed(server.receive(11, &request));
        bench
            .feed(database.send(15, "Q /\n"))
            .feed(database.receive(16, "A ok\n"));
        bench
            .feed(server.send(20, "A ok\n"))
            .feed(client.receive(21, "A ok\n"))
            .feed(front.send(22, "A ok\n"));
        let chain = [
            bench.span(1, Kind::Server),
            bench.span(1, Kind::Client),
            bench.span(2, Kind::Server),
        ];
        let chain = [chain[0], chain[1], chain[2], bench.span(2, Kind::Client)];
        for pair in chain.windows(2) {
            assert_eq!(
                (pair[1].trace_id, pair[1].parent_span_id),
                (pair[0].trace_id, Some(pair[0].span_id))
            );
        }
        assert_eq!(chain[0].trace_id == TRACE, !context.is_empty());
    }
}

#[test]
fn a_connection_that_was_silent_for_long_keeps_its_parents() {
    let mut bench = Bench::new();
    let (mut client, mut server) = connection();
    let ten_minutes = 600_000_000_000;
    for time in [10, 10 + ten_minutes, 10 + 2 * ten_minutes] {
        bench.tick(time);
        bench
            .feed(client.send(time, "Q /\n"))
            .feed(server.receive(time + 1, "Q /\n"))
            .feed(server.send(time + 2, "A ok\n"))
            .feed(client.receive(time + 3, "A ok\n"));
    }
    let stats = bench.pipeline.stats();
    assert_eq!((stats.flows_idle, stats.flows_late), (4, 4));
    assert_eq!((stats.spans, stats.parents_connection), (6, 3));
}

#[test]
fn keep_alive_requests_find_each_their_own_client() {
    let mut bench = Bench::new();
    let (mut client, mut server) = connection();
    for time in [10, 20, 30] {
        bench
            .feed(client.send(time, "Q /\n"))
            .feed(server.receive(time + 1, "Q /\n"));
        bench
            .feed(server.send(time + 2, "A ok\n"))
            .feed(client.receive(time + 3, "A ok\n"));
    }
    assert!(
        bench
            .results
            .spans
            .chunks(2)
            .all(|pair| pair[0].parent_span_id == Some(pair[1].span_id))
    );
    assert_eq!(bench.pipeline.stats().parents_connection, 3);
}

#[test]
fn a_late_end_another_namespace_or_another_trace_is_not_matched() {
    let (client, server) = connection();
    let mut elsewhere = server.clone();
    elsewhere.header.netns = 1;
    for (mut client, mut server) in [
        (client.clone().late(), server.clone()),
        (client.clone(), server.late()),
        (client, elsewhere),
    ] {
        let mut bench = Bench::new();
        bench
            .feed(client.send(10, "Q /\n"))
            .feed(server.receive(11, "Q /\n"));
        bench
            .feed(server.send(12, "A ok\n"))
            .feed(client.receive(13, "A ok\n"));
        assert_eq!(bench.results.spans.len(), 2);
        assert!(bench.results.spans.iter().all(is_root));
    }
    let (mut bench, (mut client, mut server)) = (Bench::new(), connection());
    let rewritten = format!("Q / {}\n", traceparent());
    let plain = format!("Q {}\n", "x".repeat(rewritten.len() - 3));
    bench
        .feed(client.send(10, &plain))
        .feed(server.receive(11, &rewritten))
        .feed(server.send(12, "A ok\n"));
    assert_eq!(bench.only_span().parent_span_id, Some(PARENT));
}

#[test]
fn a_rejoined_end_is_not_matched() {
    let (mut bench, (mut client, mut server)) = (Bench::new(), connection());
    // Both ends miss the same bytes, so that their offsets agree.
    let _lost = [client.send(1, "Q /\n"), server.receive(2, "Q /\n")];
    bench
        .feed(client.send(10, "Q /\n"))
        .feed(server.receive(11, "Q /\n"));
    bench.tick(11 + 100_000_000);
    bench
        .feed(server.send(12, "A ok\n"))
        .feed(client.receive(13, "A ok\n"));
    assert_eq!(bench.results.spans.len(), 2);
    assert!(bench.results.spans.iter().all(is_root));
    assert_eq!(bench.pipeline.stats().flows_rejoined, 2);
}

/// The kernel tells of a close on whichever thread runs at the time.
#[test]
fn a_close_changes_neither_thread_nor_addresses() {
    let (mut bench, mut server, mut client) = (Bench::new(), inbound(1), outbound(2));
    bench
        .feed(server.receive(10, "Q /\n"))
        .feed(client.send(20, "Q /\n"))
        .feed(client.close_unread(21, 5))
        .feed(client.receive(30, "A ok\n"))
        .feed(server.send(40, "A ok\n"));
    let (server, client) = (bench.span(1, Kind::Server), bench.span(1, Kind::Client));
    assert_eq!(client.parent_span_id, Some(server.span_id));
    assert_eq!(text(client, "server.port").as_deref(), Some("9000"));
}

#[test]
fn sampling_follows_the_parent_and_metrics_count_everything() {
    let unsampled = traceparent().replace("-01", "-00");
    let mut bench = Bench::of(SlotConfig {
        sampler: Sampler::default(),
        ..SlotConfig::default()
    });
    let (mut server, mut client) = (inbound(1), outbound(2));
    bench
        .feed(server.receive(10, &format!("Q / {unsampled}\n")))
        .feed(client.send(11, "Q /\n"));
    bench
        .feed(client.receive(12, "A ok\n"))
        .feed(server.send(13, "A ok\n"));
    assert_eq!(
        (bench.results.spans.len(), bench.results.measurements.len()),
        (0, 2)
    );
    assert_eq!(bench.pipeline.stats().spans_unsampled, 2);

    let off = Sampler::ParentBased(Box::new(Sampler::AlwaysOff));
    let mut bench = Bench::of(SlotConfig {
        sampler: off,
        ..SlotConfig::default()
    });
    let mut server = inbound(1);
    bench
        .feed(server.receive(10, "Q /root\n"))
        .feed(server.send(11, "A ok\n"));
    bench
        .feed(server.receive(12, &format!("Q /sampled {}\n", traceparent())))
        .feed(server.send(13, "A ok\n"));
    assert_eq!(
        text(bench.only_span(), "line.route").as_deref(),
        Some("/sampled")
    );
    assert_eq!(bench.results.measurements.len(), 2);
}
