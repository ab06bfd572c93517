//! Settings per container: each is obeyed for its own, from the next exchange on.

mod wire;

use pilotfish_pipeline::{ConfigError, Sampler, Slot, SlotConfig};
use proptest::prelude::*;
use std::collections::BTreeSet;
use wire::{Bench, Wire, text};

const ONE: Slot = Slot(1);
const TWO: Slot = Slot(2);

fn routes(routes: &[&str]) -> SlotConfig {
    SlotConfig {
        routes: routes.iter().map(ToString::to_string).collect(),
        ..SlotConfig::default()
    }
}

fn ignoring(paths: &[&str]) -> SlotConfig {
    SlotConfig {
        ignore_paths: paths.iter().map(ToString::to_string).collect(),
        ..SlotConfig::default()
    }
}

fn sampling(sampler: Sampler) -> SlotConfig {
    SlotConfig {
        sampler,
        ..SlotConfig::default()
    }
}

fn nothing() -> SlotConfig {
    SlotConfig {
        protocols: Some(Vec::new()),
        ..SlotConfig::default()
    }
}

fn ports<const N: usize>(ports: [u16; N]) -> SlotConfig {
    SlotConfig {
        ports: Some(BTreeSet::from(ports)),
        ..SlotConfig::default()
    }
}

/// A server on port 80 of this container.
fn server(slot: Slot, cookie: u64) -> Wire {
    let client = format!("10.0.0.9:{}", 20_000 + cookie);
    Wire::new(cookie, slot.0, "10.0.0.1:80", &client)
}

/// A client of port 5432 in this container.
fn client(slot: Slot, cookie: u64) -> Wire {
    let local = format!("10.0.0.1:{}", 30_000 + cookie);
    Wire::new(cookie, slot.0, &local, "10.0.0.5:5432")
}

fn ask(bench: &mut Bench, server: &mut Wire, time: u64, path: &str) {
    bench
        .feed(server.receive(time, &format!("Q {path}\n")))
        .feed(server.send(time + 1, "A ok\n"));
}

fn query(bench: &mut Bench, client: &mut Wire, time: u64) {
    bench
        .feed(client.send(time, "Q /\n"))
        .feed(client.receive(time + 1, "A ok\n"));
}

/// Container and route of every span.
fn spans(bench: &Bench) -> Vec<(u32, String)> {
    let spans = bench.results.spans.iter();
    spans
        .map(|span| (span.slot.0, text(span, "line.route").unwrap_or_default()))
        .collect()
}

fn seen(of: &[(u32, &str)]) -> Vec<(u32, String)> {
    of.iter()
        .map(|&(slot, route)| (slot, route.to_owned()))
        .collect()
}

fn configure(bench: &mut Bench, slot: Slot, config: &SlotConfig) {
    bench.pipeline.configure(slot, config).unwrap();
}

#[test]
fn routes_and_ignored_paths_are_each_containers_own() {
    let mut bench = Bench::new();
    configure(&mut bench, ONE, &routes(&["/{a}/x"]));
    configure(&mut bench, TWO, &ignoring(&["/b/*"]));
    for slot in [ONE, TWO, Slot(3)] {
        let mut flow = server(slot, slot.0.into());
        ask(&mut bench, &mut flow, 10, "/b/x");
        ask(&mut bench, &mut flow, 20, "/c");
    }
    let expected = [(1, "/{a}/x"), (1, "/c"), (2, "/c"), (3, "/b/x"), (3, "/c")];
    assert_eq!(spans(&bench), seen(&expected));
    assert_eq!(bench.pipeline.stats().exchanges_ignored, 1);
}

#[test]
fn each_container_has_its_sampler_and_parents_keep_the_word() {
    let mut bench = Bench::new();
    configure(&mut bench, ONE, &sampling(Sampler::AlwaysOff));
    ask(&mut bench, &mut server(ONE, 1), 10, "/a");
    ask(&mut bench, &mut server(TWO, 2), 10, "/a");
    assert_eq!(spans(&bench), seen(&[(2, "/a")]));
    assert_eq!(bench.results.measurements.len(), 2);

    // The client's container decides for the trace; the server's follows, whatever it would do with its own.
    let by_parent = |root| Sampler::ParentBased(Box::new(root));
    for (root, expected) in [(Sampler::AlwaysOff, 0), (Sampler::AlwaysOn, 2)] {
        let mut bench = Bench::new();
        let opposite = match root {
            Sampler::AlwaysOff => Sampler::AlwaysOn,
            _ => Sampler::AlwaysOff,
        };
        configure(&mut bench, ONE, &sampling(by_parent(root)));
        configure(&mut bench, TWO, &sampling(by_parent(opposite)));
        let mut near = Wire::new(1, ONE.0, "127.0.0.1:4000", "127.0.0.1:80");
        let mut far = Wire::new(2, TWO.0, "127.0.0.1:80", "127.0.0.1:4000");
        bench
            .feed(near.send(10, "Q /\n"))
            .feed(far.receive(11, "Q /\n"))
            .feed(far.send(12, "A ok\n"))
            .feed(near.receive(13, "A ok\n"));
        assert_eq!(bench.results.spans.len(), expected);
        assert_eq!(bench.results.measurements.len(), 2);
        assert_eq!(bench.pipeline.stats().parents_connection, 1);
    }
}

#[test]
fn protocols_are_each_containers_own() {
    let mut bench = Bench::new();
    configure(&mut bench, ONE, &nothing());
    ask(&mut bench, &mut server(ONE, 1), 10, "/a");
    ask(&mut bench, &mut server(TWO, 2), 10, "/a");
    assert_eq!(spans(&bench), seen(&[(2, "/a")]));
    let stats = bench.pipeline.stats();
    assert_eq!((stats.flows_unknown, stats.flows_detected), (1, 1));
}

#[test]
fn only_flows_of_the_listed_server_ports_are_read() {
    let mut bench = Bench::new();
    configure(&mut bench, ONE, &ports([80]));
    configure(&mut bench, TWO, &ports([5432]));
    for slot in [ONE, TWO, Slot(3)] {
        let cookie = u64::from(slot.0);
        ask(&mut bench, &mut server(slot, cookie), 10, "/a");
        query(&mut bench, &mut client(slot, cookie + 10), 20);
    }
    let expected = [(1, "/a"), (2, ""), (3, "/a"), (3, "")];
    assert_eq!(spans(&bench), seen(&expected));
    assert_eq!(bench.results.measurements.len(), 4);
    let stats = bench.pipeline.stats();
    assert_eq!((stats.flows_outside_ports, stats.flows_detected), (2, 4));
    assert_eq!(stats.bytes_duplicate + stats.records_held, 0);
}

/// The listed port is the client's own: only the role tells that it is not the server's.
#[test]
fn a_port_counts_only_at_the_servers_end() {
    let mut bench = Bench::new();
    configure(&mut bench, ONE, &ports([30_010]));
    query(&mut bench, &mut client(ONE, 10), 10);
    assert_eq!(spans(&bench), seen(&[]));
    let stats = bench.pipeline.stats();
    assert_eq!((stats.flows_outside_ports, stats.exchanges_started), (1, 0));

    // The first bytes seen may be the server's.
    let mut late = Wire::new(20, ONE.0, "10.0.0.1:80", "10.0.0.9:30010").late();
    bench.feed(late.send(20, "A ok\n"));
    ask(&mut bench, &mut late, 30, "/a");
    assert_eq!(spans(&bench), seen(&[]));
    assert_eq!(bench.pipeline.stats().flows_outside_ports, 2);
}

#[test]
fn a_unix_socket_has_no_port() {
    let mut bench = Bench::new();
    configure(&mut bench, ONE, &ports([0, 80]));
    ask(&mut bench, &mut Wire::unix(1, ONE.0, 100), 10, "/a");
    ask(&mut bench, &mut Wire::unix(2, TWO.0, 100), 10, "/a");
    assert_eq!(spans(&bench), seen(&[(2, "/a")]));
}

#[test]
fn what_is_not_read_costs_nothing() {
    let mut bench = Bench::new();
    configure(&mut bench, ONE, &ports([81]));
    let mut flow = server(ONE, 1);
    let _lost = flow.receive(10, "Q /lost\n");
    for time in 11..100 {
        bench.feed(flow.receive(time, "Q /half"));
    }
    assert_eq!(bench.pipeline.bytes_kept(), 0);
    let stats = bench.pipeline.stats();
    assert_eq!((stats.records_held, stats.flows_unknown), (0, 0));
    bench
        .feed(flow.receive_end(200))
        .feed(flow.send_end(200))
        .feed(flow.close(200));
    bench.tick(2_000_000_000);
    assert_eq!(bench.pipeline.flows_open(), 0);
}

#[test]
fn an_exchange_ends_under_the_settings_that_it_began_under() {
    let mut bench = Bench::new();
    let mut flow = server(ONE, 1);
    configure(&mut bench, ONE, &routes(&["/{old}"]));
    bench.feed(flow.receive(10, "Q /a\n"));
    configure(&mut bench, ONE, &ignoring(&["/a"]));
    bench
        .feed(flow.receive(11, "Q /a\n"))
        .feed(flow.send(12, "A ok\n"))
        .feed(flow.send(13, "A ok\n"));
    assert_eq!(spans(&bench), seen(&[(1, "/{old}")]));
    configure(&mut bench, ONE, &sampling(Sampler::AlwaysOff));
    bench.feed(flow.receive(20, "Q /b\n"));
    configure(&mut bench, ONE, &routes(&["/{new}"]));
    bench.feed(flow.send(21, "A ok\n"));
    assert_eq!(bench.pipeline.stats().spans_unsampled, 1);
    ask(&mut bench, &mut flow, 30, "/b");
    assert_eq!(spans(&bench), seen(&[(1, "/{old}"), (1, "/{new}")]));
}

#[test]
fn a_flow_whose_protocol_is_disabled_finishes_what_it_began() {
    let mut bench = Bench::new();
    let mut flow = server(ONE, 1);
    bench.feed(flow.receive(10, "Q /a\n"));
    configure(&mut bench, ONE, &nothing());
    bench
        .feed(flow.receive(11, "Q /b\n"))
        .feed(flow.send(12, "A ok\n"))
        .feed(flow.send(13, "A ok\n"));
    ask(&mut bench, &mut flow, 20, "/c");
    assert_eq!(spans(&bench), seen(&[(1, "/a")]));
    let stats = bench.pipeline.stats();
    assert_eq!((stats.flows_disabled, stats.exchanges_abandoned), (1, 0));
    assert_eq!(bench.pipeline.exchanges_open(), 0);
    assert_eq!(bench.pipeline.bytes_kept(), 0);
}

#[test]
fn a_flow_is_read_again_when_the_settings_want_it_again() {
    for unwanted in [nothing(), ports([81])] {
        let mut bench = Bench::new();
        let mut flow = server(ONE, 1);
        ask(&mut bench, &mut flow, 10, "/a");
        configure(&mut bench, ONE, &unwanted);
        ask(&mut bench, &mut flow, 20, "/b");
        ask(&mut bench, &mut flow, 30, "/c");
        configure(&mut bench, ONE, &SlotConfig::default());
        ask(&mut bench, &mut flow, 40, "/d");
        ask(&mut bench, &mut flow, 50, "/e");
        let expected = [(1, "/a"), (1, "/d"), (1, "/e")];
        assert_eq!(spans(&bench), seen(&expected), "{unwanted:?}");
        let stats = bench.pipeline.stats();
        assert_eq!((stats.gaps, stats.records_held), (0, 0));
    }
}

#[test]
fn a_flow_that_was_never_wanted_is_read_from_where_it_is() {
    for unwanted in [nothing(), ports([81])] {
        let mut bench = Bench::new();
        configure(&mut bench, ONE, &unwanted);
        let mut flow = server(ONE, 1);
        ask(&mut bench, &mut flow, 10, "/a");
        configure(&mut bench, ONE, &ports([80]));
        ask(&mut bench, &mut flow, 20, "/b");
        assert_eq!(spans(&bench), seen(&[(1, "/b")]), "{unwanted:?}");
    }
}

/// Records that wait for a lost one are let go when nobody waits for it any more.
#[test]
fn records_held_back_do_not_outlive_a_change_of_mind() {
    let mut bench = Bench::new();
    for cookie in 1..=40_000 {
        let mut flow = server(ONE, cookie);
        let [first, second, _lost, held] =
            ["Q", "xxxx", "lost", &"y".repeat(600)].map(|text| flow.receive(10, text));
        bench.feed(first).feed(held);
        configure(&mut bench, ONE, &ports([81]));
        bench.feed(second);
        configure(&mut bench, ONE, &ports([80]));
        bench.feed(flow.receive(11, "Q /c\n"));
        bench.pipeline.forget(ONE, &mut bench.results);
    }
    let stats = bench.pipeline.stats();
    assert_eq!(
        (stats.flows_outside_ports, stats.flows_detected),
        (40_000, 40_000)
    );
    // With 16 MiB held by nobody, no record could be held back for long enough to be put in order.
    let mut flow = server(TWO, 45_000);
    let (first, second) = (flow.receive(20, "Q /"), flow.receive(21, "d\n"));
    bench.feed(second).feed(first).feed(flow.send(22, "A ok\n"));
    assert_eq!(spans(&bench).last(), Some(&(2, "/d".to_owned())));
}

/// A flow of no known protocol is not judged again because something else has changed.
#[test]
fn an_unknown_flow_stays_unknown_unless_more_is_enabled() {
    let mut bench = Bench::new();
    let mut flow = server(ONE, 1);
    bench.feed(flow.receive(10, "encrypted\n"));
    configure(&mut bench, ONE, &routes(&["/{id}"]));
    ask(&mut bench, &mut flow, 20, "/a");
    assert_eq!(spans(&bench), seen(&[]));
    assert_eq!(bench.pipeline.stats().flows_unknown, 1);
}

#[test]
fn an_opening_is_judged_under_the_settings_of_its_last_byte() {
    let mut bench = Bench::new();
    for (cookie, change) in [(1, nothing()), (2, ports([81]))] {
        bench.pipeline.forget(ONE, &mut bench.results);
        let mut flow = server(ONE, cookie);
        bench.feed(flow.receive(10, "Q"));
        configure(&mut bench, ONE, &change);
        bench
            .feed(flow.receive(11, " /a\n"))
            .feed(flow.send(12, "A ok\n"));
    }
    assert_eq!(spans(&bench), seen(&[]));
    let stats = bench.pipeline.stats();
    assert_eq!((stats.flows_unknown, stats.flows_outside_ports), (1, 1));
    assert_eq!(bench.pipeline.bytes_kept(), 0);
}

#[test]
fn the_end_of_a_container_takes_its_settings_with_it() {
    let mut bench = Bench::new();
    configure(&mut bench, ONE, &ignoring(&["/a"]));
    ask(&mut bench, &mut server(ONE, 1), 10, "/a");
    bench.pipeline.forget(ONE, &mut bench.results);
    ask(&mut bench, &mut server(ONE, 2), 20, "/a");
    assert_eq!(spans(&bench), seen(&[(1, "/a")]));
}

#[test]
fn refused_settings_leave_the_former_in_force() {
    let mut bench = Bench::new();
    configure(&mut bench, ONE, &routes(&["/{old}"]));
    let bad = SlotConfig {
        ignore_paths: vec!["/a".into()],
        ..routes(&["/{a}", "/{b}"])
    };
    let refused = bench.pipeline.configure(ONE, &bad);
    assert!(matches!(refused, Err(ConfigError::Route { pattern, .. }) if pattern == "/{b}"));
    let bad = sampling(Sampler::TraceIdRatio(1.5));
    let refused = bench.pipeline.configure(ONE, &bad);
    assert_eq!(refused, Err(ConfigError::Sampler));
    ask(&mut bench, &mut server(ONE, 1), 10, "/a");
    assert_eq!(spans(&bench), seen(&[(1, "/{old}")]));
}

/// What happens next in a pipeline of three flows in two containers.
#[derive(Clone, Debug)]
enum Happening {
    Configure(Slot, SlotConfig),
    Forget(Slot),
    Send(usize, &'static str),
    Receive(usize, &'static str),
    Close(usize),
    Tick,
}

fn any_config() -> impl Strategy<Value = SlotConfig> {
    let list = |texts: &'static [&'static str]| {
        proptest::sample::subsequence(texts, 0..=texts.len())
            .prop_map(|chosen| chosen.into_iter().map(str::to_owned).collect::<Vec<_>>())
    };
    let sampler = prop_oneof![
        Just(Sampler::AlwaysOff),
        Just(Sampler::default()),
        Just(Sampler::TraceIdRatio(7.0)),
    ];
    let ports = proptest::option::of(proptest::sample::subsequence(vec![80, 5432, 30_001], 0..3));
    (
        sampler,
        list(&["/{a}", "/{b}", "bad"]),
        list(&["/a", "/b*"]),
        proptest::option::of(list(&["line"])),
        ports,
    )
        .prop_map(
            |(sampler, routes, ignore_paths, protocols, ports)| SlotConfig {
                sampler,
                routes,
                ignore_paths,
                protocols,
                ports: ports.map(BTreeSet::from_iter),
            },
        )
}

fn any_happening() -> impl Strategy<Value = Happening> {
    let slot = || prop_oneof![Just(ONE), Just(TWO)];
    let line = || {
        prop_oneof![
            Just("Q /a\n"),
            Just("A ok\n"),
            Just("Q "),
            Just("/b\n"),
            Just("A opaque\n"),
            Just("x"),
        ]
    };
    prop_oneof![
        3 => (slot(), any_config()).prop_map(|(slot, config)| Happening::Configure(slot, config)),
        1 => slot().prop_map(Happening::Forget),
        6 => (0..3_usize, line()).prop_map(|(flow, line)| Happening::Send(flow, line)),
        6 => (0..3_usize, line()).prop_map(|(flow, line)| Happening::Receive(flow, line)),
        1 => (0..3_usize).prop_map(Happening::Close),
        2 => Just(Happening::Tick),
    ]
}

proptest! {
    #[test]
    fn changes_at_any_time_keep_the_books(happenings in prop::collection::vec(any_happening(), 0..120)) {
        let mut bench = Bench::new();
        let mut flows = [server(ONE, 1), client(ONE, 2), server(TWO, 3)];
        for (time, happening) in (1_u64..).map(|step| step * 30_000_000).zip(happenings) {
            match happening {
                // Some of the settings are bad on purpose.
                Happening::Configure(slot, config) => {
                    let _ = bench.pipeline.configure(slot, &config);
                }
                Happening::Forget(slot) => bench.pipeline.forget(slot, &mut bench.results),
                Happening::Send(flow, line) => {
                    bench.feed(flows[flow].send(time, line));
                }
                Happening::Receive(flow, line) => {
                    bench.feed(flows[flow].receive(time, line));
                }
                Happening::Close(flow) => {
                    bench.feed(flows[flow].close(time));
                }
                Happening::Tick => bench.tick(time),
            }
        }
        bench.finish();
        prop_assert_eq!(bench.pipeline.bytes_kept(), 0);
        let stats = bench.pipeline.stats();
        prop_assert_eq!(stats.exchanges_started, stats.exchanges_finished + stats.exchanges_abandoned);
        let told = stats.measurements + stats.exchanges_ignored;
        prop_assert_eq!(stats.exchanges_finished, told);
        prop_assert_eq!(stats.spans + stats.spans_unsampled, stats.measurements);
    }
}
