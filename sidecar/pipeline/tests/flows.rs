//! Flows from the first record to the last: order, gaps, late joins, eviction, ends.

mod wire;

use pilotfish_abi::flag;
use pilotfish_pipeline::{Config, ConfigError, Kind, Pipeline, Slot, SlotConfig, Status};
use wire::{Bench, LINES, Packet, Wire, text};

const MILLISECOND: u64 = 1_000_000;

fn server(cookie: u64) -> Wire {
    Wire::new(
        cookie,
        1,
        "10.0.0.1:80",
        &format!("10.0.0.9:{}", 30_000 + cookie),
    )
}

#[test]
fn a_span_carries_times_addresses_and_status() {
    let (mut bench, mut flow) = (
        Bench::new(),
        Wire::new(1, 3, "[::ffff:10.0.0.1]:80", "[::ffff:10.0.0.9]:5000"),
    );
    bench.pipeline.on_tick(0, 1_000_000, &mut bench.results);
    bench
        .feed(flow.receive(10, "Q /users/7\n"))
        .feed(flow.send(30, "A timeout\n"));
    let span = bench.only_span();
    assert_eq!(
        (span.slot, span.kind, span.status),
        (Slot(3), Kind::Server, Status::Error)
    );
    assert_eq!(
        (span.start_unix_nano, span.end_unix_nano),
        (1_000_010, 1_000_030)
    );
    assert_eq!(span.name, "Q /users/{id}");
    for (key, value) in [
        ("line.route", "/users/{id}"),
        ("error.type", "timeout"),
        ("server.address", "10.0.0.1"),
        ("server.port", "80"),
        ("client.address", "10.0.0.9"),
        ("client.port", "5000"),
        ("network.peer.address", "10.0.0.9"),
        ("network.peer.port", "5000"),
        ("network.transport", "tcp"),
        ("network.type", "ipv4"),
    ] {
        assert_eq!(text(span, key).as_deref(), Some(value), "{key}");
    }
    let measurement = &bench.results.measurements[0];
    let keys: Vec<_> = measurement
        .attributes
        .iter()
        .map(|attribute| attribute.key)
        .collect();
    assert_eq!(keys, ["line.route", "error.type"]);
    assert!((measurement.values[0].1 - 20e-9).abs() < 1e-15);
}

#[test]
fn records_out_of_order_give_the_same_span() {
    let (mut bench, mut flow) = (Bench::new(), server(1));
    let (first, second, third) = (
        flow.receive(10, "Q /a"),
        flow.receive(11, "b\n"),
        flow.send(12, "A ok\n"),
    );
    bench.feed(second).feed(third).feed(first);
    assert_eq!(
        text(bench.only_span(), "line.route").as_deref(),
        Some("/ab")
    );
    assert_eq!(bench.only_span().start_unix_nano, 10);
    let stats = bench.pipeline.stats();
    assert_eq!(
        (stats.records_held, stats.gaps, stats.bytes_duplicate),
        (2, 0, 0)
    );
}

#[test]
fn a_hole_is_a_gap_after_100_ms_and_the_flow_goes_on() {
    let (mut bench, mut flow) = (Bench::new(), server(1));
    bench
        .feed(flow.receive(10, "Q /one\n"))
        .feed(flow.send(11, "A ok\n"));
    let _lost = flow.receive(12, "Q /two\n");
    bench
        .feed(flow.send(13, "A ok\n"))
        .feed(flow.receive(14, "Q /six\n"));
    bench.feed(flow.send(15, "A ok\n"));
    // The answer to /two shows that something is missing before it.
    bench.tick(13 + 100 * MILLISECOND - 1);
    assert_eq!(bench.results.spans.len(), 1);
    bench.tick(13 + 100 * MILLISECOND);
    let routes: Vec<_> = bench
        .results
        .spans
        .iter()
        .map(|span| text(span, "line.route").unwrap())
        .collect();
    assert_eq!(routes, ["/one", "/six"]);
    let stats = bench.pipeline.stats();
    assert_eq!((stats.holes, stats.gap_bytes), (1, 7));
}

#[test]
fn uncaptured_bytes_are_a_gap_of_their_length() {
    let (mut bench, mut flow) = (Bench::new(), server(1));
    bench
        .feed(flow.receive(10, "Q /1\n"))
        .feed(flow.send(11, "A ok\nlots of other bytes").captured(5));
    let mut unread = flow.receive(12, "Q /2\n");
    unread.header.flags |= flag::NO_BUFFER;
    bench.feed(unread);
    bench
        .feed(flow.receive(13, "Q /3\n"))
        .feed(flow.send(14, "A ok\n"));
    assert_eq!(bench.results.spans.len(), 2);
    let stats = bench.pipeline.stats();
    assert_eq!((stats.gaps, stats.gap_bytes, stats.holes), (2, 19 + 5, 0));
}

#[test]
fn bytes_that_come_again_are_dropped() {
    let (mut bench, mut flow) = (Bench::new(), server(1));
    let request = flow.receive(10, "Q /1\n");
    bench
        .feed(request.clone())
        .feed(request)
        .feed(flow.send(11, "A ok\n"));
    assert_eq!(bench.results.spans.len(), 1);
    assert_eq!(bench.pipeline.stats().bytes_duplicate, 5);
}

#[test]
fn a_flow_joined_late_is_recognised_at_the_next_request() {
    let (mut bench, mut flow) = (Bench::new(), server(1).late());
    bench
        .feed(flow.receive(10, "middle of a body"))
        .feed(flow.send(11, "zzz"));
    bench
        .feed(flow.receive(12, "Q"))
        .feed(flow.receive(13, " /late\n"))
        .feed(flow.send(14, "A ok\n"));
    assert_eq!(
        text(bench.only_span(), "line.route").as_deref(),
        Some("/late")
    );
    assert_eq!(bench.only_span().start_unix_nano, 12);
    let stats = bench.pipeline.stats();
    assert_eq!(
        (stats.flows_late, stats.flows_detected, stats.flows_unknown),
        (1, 1, 0)
    );
}

#[test]
fn a_false_start_on_a_late_flow_is_left_behind() {
    let (mut bench, mut flow) = (Bench::new(), server(1).late());
    bench
        .feed(flow.receive(10, "Q"))
        .feed(flow.receive(11, "Q /real\n"))
        .feed(flow.send(12, "A ok\n"));
    assert_eq!(
        text(bench.only_span(), "line.route").as_deref(),
        Some("/real")
    );
}

#[test]
fn an_unknown_flow_stays_unknown() {
    let (mut bench, mut flow) = (Bench::new(), server(1));
    bench
        .feed(flow.receive(10, "\x16\x03\x01"))
        .feed(flow.receive(11, "Q /\n"))
        .feed(flow.send(12, "A ok\n"));
    assert!(bench.results.measurements.is_empty());
    assert_eq!(bench.pipeline.stats().flows_unknown, 1);
}

#[test]
fn opening_bytes_in_single_records_keep_their_moments() {
    let (mut bench, mut flow) = (Bench::new(), server(1));
    for (time, text) in [(10, "Q"), (11, " "), (12, "/"), (13, "\n")] {
        bench.feed(flow.receive(time, text));
    }
    bench.feed(flow.send(20, "A ok\n"));
    assert_eq!(bench.only_span().start_unix_nano, 10);
}

#[test]
fn an_opaque_flow_is_not_read_any_more() {
    let (mut bench, mut flow) = (Bench::new(), server(1));
    bench
        .feed(flow.receive(10, "Q /\nQ /\n"))
        .feed(flow.send(11, "A opaque\n"));
    bench
        .feed(flow.receive(12, "Q /\n"))
        .feed(flow.send(13, "A ok\n"));
    assert_eq!(bench.results.spans.len(), 1);
    let stats = bench.pipeline.stats();
    assert_eq!((stats.flows_opaque, stats.exchanges_abandoned), (1, 1));
    assert_eq!(bench.pipeline.exchanges_open(), 0);
}

#[test]
fn the_least_recently_used_flow_makes_room() {
    let mut bench = Bench::with(Config {
        max_flows: 2,
        ..Config::default()
    });
    let (mut one, mut two, mut three) = (server(1), server(2), server(3));
    bench
        .feed(one.receive(10, "Q /1\n"))
        .feed(two.receive(11, "Q /2\n"))
        .feed(one.receive(12, "Q /1\n"));
    bench.feed(three.receive(13, "Q /3\n"));
    assert_eq!(bench.pipeline.flows_open(), 2);
    bench
        .feed(one.send(20, "A ok\nA ok\n"))
        .feed(three.send(21, "A ok\n"));
    assert_eq!(bench.results.spans.len(), 3);
    let stats = bench.pipeline.stats();
    assert_eq!((stats.flows_evicted, stats.exchanges_abandoned), (1, 1));
}

/// obi#3226: connections that come and go leave nothing behind, however they end.
#[test]
fn churn_leaves_nothing_behind() {
    let mut bench = Bench::with(Config {
        max_flows: 64,
        ..Config::default()
    });
    for cookie in 0..20_000 {
        let mut flow = Wire::new(cookie, 1, "10.0.0.1:80", "10.0.0.9:30000");
        bench.feed(flow.receive(cookie, "Q /\n"));
        match cookie % 3 {
            0 => bench.feed(flow.close(cookie)),
            1 => bench.feed(flow.receive_end(cookie)),
            _ => bench.feed(flow.send(cookie, "A ok\n")),
        };
        assert!(bench.pipeline.flows_open() <= 64 && bench.pipeline.exchanges_open() <= 64);
    }
    bench.finish();
    let stats = bench.pipeline.stats();
    assert_eq!(
        stats.exchanges_started,
        stats.exchanges_finished + stats.exchanges_abandoned
    );
    assert_eq!(stats.flows_opened, stats.flows_ended + stats.flows_evicted);
}

#[test]
fn forgetting_a_container_drops_its_flows_and_no_others() {
    let mut bench = Bench::new();
    let (mut one, mut two) = (server(1), server(2));
    two.header.slot = 2;
    bench
        .feed(one.receive(10, "Q /\n"))
        .feed(two.receive(11, "Q /\n"));
    bench.pipeline.forget(Slot(1), &mut bench.results);
    assert_eq!(
        (bench.pipeline.flows_open(), bench.pipeline.exchanges_open()),
        (1, 1)
    );
    bench.feed(two.send(12, "A ok\n"));
    assert_eq!(bench.only_span().slot, Slot(2));
}

/// TCP processes what arrives during a read at its end, so that the close is told before the read.
/// The response whose record was lost must not be replaced by the next one.
#[test]
fn an_unknown_address_family_is_counted() {
    let (mut bench, mut flow) = (Bench::new(), server(1));
    flow.header.family = 99;
    bench.feed(flow.receive(10, "Q /\n"));
    assert_eq!(
        (
            bench.pipeline.flows_open(),
            bench.pipeline.stats().records_unusable
        ),
        (0, 1)
    );
}

#[test]
fn ignored_paths_give_neither_span_nor_measurement() {
    let ignore_paths = vec!["/healthz".to_owned(), "/internal/*".to_owned()];
    let mut bench = Bench::of(SlotConfig {
        ignore_paths,
        ..SlotConfig::default()
    });
    let mut flow = server(1);
    for path in ["/healthz", "/internal/metrics", "/healthz/deep"] {
        bench
            .feed(flow.receive(10, &format!("Q {path}\n")))
            .feed(flow.send(11, "A ok\n"));
    }
    assert_eq!(
        text(bench.only_span(), "line.route").as_deref(),
        Some("/healthz/deep")
    );
    assert_eq!(bench.results.measurements.len(), 1);
    assert_eq!(bench.pipeline.stats().exchanges_ignored, 2);
}

/// beyla#2151: hard caps with an overflow bucket.
#[test]
fn routes_have_a_cap_per_container() {
    let mut bench = Bench::with(Config {
        max_routes: 3,
        ..Config::default()
    });
    let mut flow = server(1);
    for path in ["/a", "/b", "/c", "/d", "/a", "/e"] {
        bench
            .feed(flow.receive(10, &format!("Q {path}\n")))
            .feed(flow.send(11, "A ok\n"));
    }
    let routes: Vec<_> = bench
        .results
        .spans
        .iter()
        .map(|span| text(span, "line.route").unwrap())
        .collect();
    assert_eq!(routes, ["/a", "/b", "/c", "/*", "/a", "/*"]);
    assert_eq!(bench.pipeline.stats().routes_overflowed, 2);
}

#[test]
fn exchanges_in_progress_are_bounded_per_flow() {
    let (mut bench, mut flow) = (Bench::new(), server(1));
    for time in 0..2000 {
        bench.feed(flow.receive(time, "Q /\n"));
    }
    let stats = bench.pipeline.stats();
    assert_eq!(
        (stats.exchanges_started, stats.exchanges_untracked),
        (1024, 976)
    );
}

#[test]
fn configuration_errors_name_what_is_wrong() {
    let refuse = |defaults| {
        let config = Config {
            defaults,
            ..Config::default()
        };
        Pipeline::with_protocols(config, LINES)
            .err()
            .expect("accepted")
    };
    let error = refuse(SlotConfig {
        protocols: Some(vec!["http9".into()]),
        ..SlotConfig::default()
    });
    assert_eq!(
        error,
        ConfigError::Protocol {
            name: "http9".into(),
            known: "line".into()
        }
    );
    let error = refuse(SlotConfig {
        ignore_paths: vec!["healthz".into()],
        ..SlotConfig::default()
    });
    assert_eq!(error, ConfigError::IgnorePath("healthz".into()));
    assert!(matches!(
        refuse(SlotConfig {
            routes: vec!["/{".into()],
            ..SlotConfig::default()
        }),
        ConfigError::Route { .. }
    ));
}

#[test]
fn a_protocol_that_is_not_enabled_is_not_recognised() {
    let mut bench = Bench::of(SlotConfig {
        protocols: Some(Vec::new()),
        ..SlotConfig::default()
    });
    let mut flow = server(1);
    bench
        .feed(flow.receive(10, "Q /\n"))
        .feed(flow.send(11, "A ok\n"));
    assert_eq!(
        (
            bench.results.measurements.len(),
            bench.pipeline.stats().flows_unknown
        ),
        (0, 1)
    );
}

#[test]
fn process_records_change_nothing() {
    let (mut bench, flow) = (Bench::new(), server(1));
    for kind in [
        pilotfish_abi::Kind::Fork,
        pilotfish_abi::Kind::Exec,
        pilotfish_abi::Kind::Newcomer,
    ] {
        bench.feed(Packet {
            kind,
            header: flow.header,
            payload: Vec::new(),
        });
    }
    assert_eq!(
        (bench.pipeline.flows_open(), bench.pipeline.stats().records),
        (0, 3)
    );
}
