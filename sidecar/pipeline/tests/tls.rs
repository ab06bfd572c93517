//! Plaintext of TLS connections: a flow whose addresses may come later, and whose end may be told twice or never.

mod wire;

use pilotfish_pipeline::{Slot, SlotConfig};
use std::collections::BTreeSet;
use wire::{Bench, Wire, text};

const MILLISECOND: u64 = 1_000_000;
const MINUTE: u64 = 60_000 * MILLISECOND;

/// A server at port 443.
fn server(cookie: u64) -> Wire {
    Wire::new(cookie, 1, "10.0.0.1:443", "10.0.0.9:5000").tls()
}

fn ports<const N: usize>(ports: [u16; N]) -> SlotConfig {
    SlotConfig {
        ports: Some(BTreeSet::from(ports)),
        ..SlotConfig::default()
    }
}

fn routes(bench: &Bench) -> Vec<String> {
    let spans = bench.results.spans.iter();
    spans
        .map(|span| text(span, "line.route").unwrap())
        .collect()
}

#[test]
fn addresses_that_come_with_the_second_record_are_the_spans() {
    let (mut bench, mut flow) = (Bench::new(), server(1).without_socket());
    bench.feed(flow.receive(10, "Q /a\n"));
    flow.carried_by("10.0.0.1:443", "10.0.0.9:5000");
    bench.feed(flow.send(20, "A ok\n"));
    // Once known, they stay.
    flow.carried_by("10.0.0.1:444", "10.0.0.9:5001");
    bench
        .feed(flow.receive(30, "Q /b\n"))
        .feed(flow.send(40, "A ok\n"))
        .feed(flow.close(50));
    bench.finish();
    assert_eq!(bench.results.spans.len(), 2);
    for span in &bench.results.spans {
        assert_eq!(text(span, "server.port").as_deref(), Some("443"));
        assert_eq!(text(span, "client.port").as_deref(), Some("5000"));
        assert_eq!(text(span, "network.transport").as_deref(), Some("tcp"));
    }
    let stats = bench.pipeline.stats();
    assert_eq!((stats.flows_tls, stats.flows_tls_unassociated), (1, 0));
}

#[test]
fn without_a_socket_there_are_spans_but_no_addresses() {
    let (mut bench, mut flow) = (Bench::new(), server(1).without_socket());
    bench
        .feed(flow.receive(10, "Q /a\n"))
        .feed(flow.send(20, "A ok\n"))
        .feed(flow.close(30));
    bench.finish();
    let keys: Vec<_> = bench.only_span().attributes.iter().collect();
    assert_eq!(keys.len(), 1, "{keys:?}");
    assert_eq!(keys[0].key, "line.route");
    let stats = bench.pipeline.stats();
    assert_eq!((stats.flows_tls, stats.flows_tls_unassociated), (1, 1));
}

#[test]
fn the_end_of_a_connection_may_tell_its_socket() {
    let (mut bench, mut flow) = (Bench::new(), server(1).without_socket());
    bench
        .feed(flow.receive(10, "Q /a\n"))
        .feed(flow.send(20, "A ok\n"));
    flow.carried_by("10.0.0.1:443", "10.0.0.9:5000");
    bench.feed(flow.close(30));
    bench.finish();
    assert_eq!(bench.pipeline.stats().flows_tls_unassociated, 0);
}

#[test]
fn an_unknown_family_stays_unusable() {
    let (mut bench, mut flow) = (Bench::new(), server(1));
    flow.header.family = 99;
    bench.feed(flow.receive(10, "Q /a\n"));
    assert_eq!(bench.pipeline.stats().records_unusable, 1);
    // Without the flag there is no reason for a record to have no family.
    let mut socket = Wire::new(2, 1, "10.0.0.1:80", "10.0.0.9:5000").without_socket();
    bench.feed(socket.receive(10, "Q /a\n"));
    assert_eq!(bench.pipeline.stats().records_unusable, 2);
    assert_eq!(bench.pipeline.flows_open(), 0);
}

/// The two ends of a connection agree about offsets of plaintext, and only about those.
#[test]
fn the_client_at_the_other_end_is_the_parent() {
    for client_is_tls in [true, false] {
        let mut bench = Bench::new();
        let mut near = Wire::new(1, 1, "127.0.0.1:4000", "127.0.0.1:443");
        if client_is_tls {
            near = near.tls();
        }
        let mut far = Wire::new(2, 2, "127.0.0.1:443", "127.0.0.1:4000")
            .tls()
            .without_socket();
        bench
            .feed(near.send(5, "Q /first\n"))
            .feed(far.receive(6, "Q /first\n"));
        far.carried_by("127.0.0.1:443", "127.0.0.1:4000");
        bench
            .feed(far.send(7, "A ok\n"))
            .feed(near.receive(8, "A ok\n"))
            .feed(near.send(10, "Q /\n"))
            .feed(far.receive(11, "Q /\n"))
            .feed(far.send(12, "A ok\n"))
            .feed(near.receive(13, "A ok\n"));
        let of_slot = |slot| {
            bench
                .results
                .spans
                .iter()
                .filter(move |span| span.slot == Slot(slot))
        };
        let (client, server) = (of_slot(1).nth(1).unwrap(), of_slot(2).nth(1).unwrap());
        let parent = client_is_tls.then_some(client.span_id);
        assert_eq!(server.parent_span_id, parent);
        let by_connection = bench.pipeline.stats().parents_connection;
        assert_eq!(by_connection, u64::from(client_is_tls));
    }
}

#[test]
fn with_listed_ports_a_flow_is_read_from_when_its_port_is_known() {
    for (listed, expected) in [(443, vec!["/b", "/c"]), (80, vec![])] {
        let mut bench = Bench::of(ports([listed]));
        let mut flow = server(1).without_socket();
        bench
            .feed(flow.receive(10, "Q /a\n"))
            .feed(flow.send(20, "A ok\n"));
        assert_eq!(bench.pipeline.stats().flows_outside_ports, 0);
        flow.carried_by("10.0.0.1:443", "10.0.0.9:5000");
        for (time, path) in [(30, "/b"), (50, "/c")] {
            bench
                .feed(flow.receive(time, &format!("Q {path}\n")))
                .feed(flow.send(time + 1, "A ok\n"));
        }
        assert_eq!(routes(&bench), expected);
        bench.finish();
        let stats = bench.pipeline.stats();
        assert_eq!(stats.flows_outside_ports, u64::from(expected.is_empty()));
        assert_eq!((stats.gaps, stats.records_held), (0, 0));
    }
}

#[test]
fn a_port_that_never_becomes_known_is_none_of_those_listed() {
    let (mut bench, mut flow) = (Bench::of(ports([443])), server(1).without_socket());
    bench
        .feed(flow.receive(10, "Q /a\n"))
        .feed(flow.send(20, "A ok\n"));
    bench.finish();
    let stats = bench.pipeline.stats();
    assert_eq!((stats.flows_outside_ports, stats.flows_detected), (1, 0));
    assert_eq!(stats.flows_tls_unassociated, 1);
}

/// Ports are listed while a flow without addresses is read: it finishes what it began, and goes on once they are known.
#[test]
fn ports_that_are_listed_later_hold_for_an_unknown_port() {
    let mut bench = Bench::new();
    let mut flow = server(1).without_socket();
    bench.feed(flow.receive(10, "Q /a\n"));
    bench.pipeline.configure(Slot(1), &ports([443])).unwrap();
    bench
        .feed(flow.receive(11, "Q /b\n"))
        .feed(flow.send(20, "A ok\nA ok\n"))
        .feed(flow.receive(30, "Q /c\n"));
    flow.carried_by("10.0.0.1:443", "10.0.0.9:5000");
    bench
        .feed(flow.send(31, "A ok\n"))
        .feed(flow.receive(40, "Q /d\n"))
        .feed(flow.send(41, "A ok\n"));
    assert_eq!(routes(&bench), ["/a", "/d"]);
    assert_eq!(bench.pipeline.stats().flows_outside_ports, 0);
}

/// The port becomes known while an exchange that began before is still open.
#[test]
fn a_port_that_becomes_known_counts_for_the_next_exchange() {
    for (listed, expected) in [(443, vec!["/a", "/c"]), (80, vec!["/a"])] {
        let mut bench = Bench::new();
        let mut flow = server(1).without_socket();
        bench.feed(flow.receive(10, "Q /a\n"));
        bench.pipeline.configure(Slot(1), &ports([listed])).unwrap();
        bench.feed(flow.receive(11, "Q /b\n"));
        flow.carried_by("10.0.0.1:443", "10.0.0.9:5000");
        bench
            .feed(flow.receive(12, "Q /c\n"))
            .feed(flow.send(20, "A ok\nA ok\nA ok\n"));
        assert_eq!(routes(&bench), expected);
        let outside = bench.pipeline.stats().flows_outside_ports;
        assert_eq!(outside, u64::from(listed == 80));
    }
}

/// What no protocol was enabled for, and then ports are listed too.
#[test]
fn an_unknown_port_is_not_declined_for_good_by_any_order_of_changes() {
    let mut bench = Bench::of(SlotConfig {
        protocols: Some(Vec::new()),
        ..SlotConfig::default()
    });
    let mut flow = server(1).without_socket();
    bench.feed(flow.receive(10, "Q /a\n"));
    bench.pipeline.configure(Slot(1), &ports([443])).unwrap();
    bench
        .feed(flow.send(11, "A ok\n"))
        .feed(flow.receive(20, "Q /b\n"));
    flow.carried_by("10.0.0.1:443", "10.0.0.9:5000");
    bench
        .feed(flow.send(21, "A ok\n"))
        .feed(flow.receive(30, "Q /c\n"))
        .feed(flow.send(31, "A ok\n"));
    assert_eq!(text(bench.only_span(), "line.route").as_deref(), Some("/c"));
}

#[test]
fn plaintext_may_be_read_after_the_transport_has_closed() {
    for unread in [0, 100] {
        let (mut bench, mut flow) = (
            Bench::new(),
            Wire::new(1, 1, "10.0.0.1:4000", "10.0.0.9:443").tls(),
        );
        bench
            .feed(flow.send(10, "Q /\n"))
            .feed(flow.receive(11, "A "))
            .feed(flow.close_unread(20, unread));
        bench.tick(20 + 999 * MILLISECOND);
        bench.feed(flow.receive(20 + 999 * MILLISECOND, "ok\n"));
        assert_eq!(bench.only_span().start_unix_nano, 10);
        // The object goes, too.
        bench.feed(flow.close(21 + 999 * MILLISECOND));
        bench.tick(21 + 1999 * MILLISECOND);
        assert_eq!(bench.pipeline.flows_open(), 0);
        let stats = bench.pipeline.stats();
        assert_eq!((stats.gaps, stats.flows_ended), (0, 1));
    }
}

#[test]
fn an_end_that_is_told_twice_or_of_nothing_changes_nothing() {
    let (mut bench, mut flow) = (Bench::new(), server(1));
    bench
        .feed(flow.close(1))
        .feed(flow.send_end(2))
        .feed(flow.receive_end(3));
    assert_eq!(bench.pipeline.stats().flows_opened, 0);
    bench
        .feed(flow.receive(10, "Q /\n"))
        .feed(flow.send(11, "A ok\n"))
        .feed(flow.receive_end(12))
        .feed(flow.close(13))
        .feed(flow.close(14))
        .feed(flow.send_end(15));
    let stats = bench.pipeline.stats();
    assert_eq!((stats.flows_opened, stats.flows_ended), (1, 1));
    assert_eq!(stats.gaps + stats.bytes_after_end, 0);
    assert_eq!(bench.results.spans.len(), 1);
}

#[test]
fn the_exit_of_a_process_ends_its_flows_without_a_socket() {
    let mut bench = Bench::new();
    let (mut unknown, mut known, mut found) = (
        server(1).without_socket(),
        server(2),
        server(3).without_socket(),
    );
    for flow in [&mut unknown, &mut known, &mut found] {
        bench.feed(flow.receive(10, "Q /\n"));
    }
    found.carried_by("10.0.0.1:443", "10.0.0.9:5001");
    bench.feed(found.receive(11, "Q /\n"));
    bench.exit(101);
    assert_eq!(bench.pipeline.flows_open(), 3);
    bench.exit(100);
    assert_eq!(bench.pipeline.flows_open(), 2);
    let stats = bench.pipeline.stats();
    assert_eq!(
        (stats.flows_tls_unassociated, stats.exchanges_abandoned),
        (1, 1)
    );
}

/// An object may be dropped or reused without a word, whatever is known of it.
#[test]
fn a_silent_flow_ends_whether_it_is_read_or_not() {
    let mut bench = Bench::new();
    let mut flows = [server(1), server(2).without_socket(), server(3)];
    for (flow, line) in flows.iter_mut().zip(["Q /\n", "Q /\n", "unknown\n"]) {
        bench
            .feed(flow.receive(0, line))
            .feed(flow.send(0, "A ok\n"));
    }
    bench.tick(5 * MINUTE - 1);
    assert_eq!(bench.pipeline.flows_open(), 3);
    bench.tick(5 * MINUTE);
    assert_eq!(bench.pipeline.flows_open(), 0);
    let stats = bench.pipeline.stats();
    assert_eq!((stats.flows_idle, stats.flows_tls_unassociated), (3, 1));
    // A connection that lives after all goes on where it was.
    let [flow, ..] = &mut flows;
    bench
        .feed(flow.receive(6 * MINUTE, "Q /\n"))
        .feed(flow.send(6 * MINUTE, "A ok\n"));
    assert_eq!(bench.results.spans.len(), 3);
    assert_eq!(bench.pipeline.stats().flows_rejoined, 0);
}
