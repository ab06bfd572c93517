//! How flows end, what may still come after that, and flows that are read again from a later offset on.

mod wire;

use wire::{Bench, Wire, text};

const MILLISECOND: u64 = 1_000_000;
const MINUTE: u64 = 60_000 * MILLISECOND;

fn server(cookie: u64) -> Wire {
    Wire::new(
        cookie,
        1,
        "10.0.0.1:80",
        &format!("10.0.0.9:{}", 30_000 + cookie),
    )
}

fn client(cookie: u64) -> Wire {
    Wire::new(
        cookie,
        1,
        &format!("10.0.0.1:{}", 40_000 + cookie),
        "10.0.0.9:80",
    )
}

#[test]
fn the_exit_of_the_last_user_ends_unix_flows_only() {
    let mut bench = Bench::new();
    let (mut unix, mut tcp) = (Wire::unix(1, 1, 100), server(2));
    bench
        .feed(unix.receive(10, "Q /\n"))
        .feed(tcp.receive(11, "Q /\n"));
    unix.header.tgid = 101;
    bench.feed(unix.send(12, "A ok\n"));
    assert_eq!(
        text(bench.only_span(), "network.transport").as_deref(),
        Some("unix")
    );
    assert_eq!(text(bench.only_span(), "network.peer.address"), None);
    bench.exit(100);
    assert_eq!(bench.pipeline.flows_open(), 2);
    bench.exit(101);
    assert_eq!(bench.pipeline.flows_open(), 1);
    bench.exit(0);
    assert_eq!(bench.pipeline.flows_open(), 1);
}

#[test]
fn bytes_after_the_end_of_their_direction_are_dropped() {
    let (mut bench, mut flow) = (Bench::new(), client(1));
    bench
        .feed(flow.send(10, "Q /\nQ /\n"))
        .feed(flow.receive(11, "A ok\n"))
        .feed(flow.receive_end(12))
        .feed(flow.receive_end(13))
        .feed(flow.receive(14, "A ok\n"));
    assert_eq!(bench.only_span().end_unix_nano, 11);
    assert_eq!(bench.pipeline.stats().bytes_after_end, 5);
    assert_eq!(bench.pipeline.exchanges_open(), 0);
}

#[test]
fn a_flow_that_has_ended_in_both_directions_leaves_at_its_close() {
    let (mut bench, mut flow) = (Bench::new(), server(1));
    bench
        .feed(flow.receive(10, "Q /\n"))
        .feed(flow.send(11, "A ok\n"))
        .feed(flow.receive_end(12))
        .feed(flow.send_end(13))
        .feed(flow.send_end(14));
    assert_eq!(bench.pipeline.flows_open(), 1);
    bench.feed(flow.close(15));
    assert_eq!(bench.pipeline.flows_open(), 0);
}

#[test]
fn a_read_that_was_running_at_the_close_still_counts() {
    let (mut bench, mut flow) = (Bench::new(), client(1));
    bench
        .feed(flow.send(10, "Q /\n"))
        .feed(flow.close(20))
        .feed(flow.receive(21, "A ok\n"));
    assert_eq!(bench.only_span().end_unix_nano, 21);
    bench.tick(21 + 100 * MILLISECOND - 1);
    assert_eq!(bench.pipeline.flows_open(), 1);
    bench.tick(21 + 100 * MILLISECOND);
    let stats = bench.pipeline.stats();
    assert_eq!(
        (
            bench.pipeline.flows_open(),
            stats.flows_opened,
            stats.flows_ended
        ),
        (0, 1, 1)
    );
}

#[test]
fn what_a_closed_connection_left_unread_is_awaited_for_a_second() {
    for reads in [true, false] {
        let (mut bench, mut flow) = (Bench::new(), client(1));
        bench
            .feed(flow.send(10, "Q /\n"))
            .feed(flow.receive(11, "A "))
            .feed(flow.close_unread(20, 3));
        bench.tick(20 + 999 * MILLISECOND);
        assert_eq!(bench.pipeline.exchanges_open(), 1);
        if reads {
            let late = 20 + 999 * MILLISECOND;
            bench.feed(flow.receive(late, "ok\n"));
            bench.tick(late + 999 * MILLISECOND);
            assert_eq!(bench.only_span().end_unix_nano, late);
            assert_eq!(bench.pipeline.flows_open(), 1);
            bench.feed(flow.receive_end(late + 1));
        } else {
            bench.tick(20 + 1000 * MILLISECOND);
            assert_eq!(bench.pipeline.stats().exchanges_abandoned, 1);
        }
        assert_eq!(bench.pipeline.flows_open(), 0);
        assert_eq!(bench.pipeline.stats().gaps, 0);
    }
}

#[test]
fn a_lost_last_record_shows_at_the_close() {
    let (mut bench, mut flow) = (Bench::new(), client(1));
    bench.feed(flow.send(10, "Q /\n"));
    let _lost = flow.receive(11, "A ok\n");
    bench.feed(flow.close(12));
    bench.tick(12 + 100 * MILLISECOND);
    let stats = bench.pipeline.stats();
    assert_eq!((stats.holes, stats.gap_bytes), (1, 5));
    assert!(bench.results.spans.is_empty());
    assert_eq!(bench.pipeline.flows_open(), 0);
}

#[test]
fn a_record_of_a_flow_that_has_left_opens_it_anew_without_a_gap() {
    let (mut bench, mut flow) = (Bench::new(), server(1));
    for time in [10, 20] {
        bench
            .feed(flow.receive(time, "Q /\n"))
            .feed(flow.send(time + 1, "A ok\n"));
    }
    bench.feed(flow.close(30));
    bench.tick(30 + 100 * MILLISECOND);
    assert_eq!(bench.pipeline.flows_open(), 0);
    bench.feed(flow.receive(1000 * MILLISECOND, "Q /\n"));
    bench.finish();
    assert_eq!(bench.results.spans.len(), 2);
    let stats = bench.pipeline.stats();
    assert_eq!(
        (
            stats.flows_rejoined,
            stats.holes,
            stats.gaps,
            stats.gap_bytes
        ),
        (1, 0, 0, 0)
    );
}

#[test]
fn a_rejoined_flow_pairs_nothing_across_what_it_missed() {
    let (mut bench, mut flow) = (Bench::new(), server(1));
    let _lost = [flow.receive(10, "Q /one\n"), flow.send(11, "A ok\n")];
    bench.feed(flow.receive(20, "Q /two\n"));
    bench.tick(20 + 100 * MILLISECOND);
    let _lost = flow.send(21, "A ok\n");
    bench
        .feed(flow.receive(200 * MILLISECOND, "Q /three\n"))
        .feed(flow.send(201 * MILLISECOND, "A ok\n"));
    bench.tick(301 * MILLISECOND);
    bench
        .feed(flow.receive(400 * MILLISECOND, "Q /four\n"))
        .feed(flow.send(401 * MILLISECOND, "A ok\n"));
    let spans = bench.results.spans.iter();
    let routes: Vec<_> = spans
        .map(|span| text(span, "line.route").unwrap())
        .collect();
    assert_eq!(routes, ["/three", "/four"]);
    assert_eq!(bench.pipeline.stats().exchanges_abandoned, 1);
}

#[test]
fn ends_of_flows_that_were_never_seen_open_nothing() {
    let (mut bench, flow) = (Bench::new(), server(1));
    bench
        .feed(flow.receive_end(10))
        .feed(flow.send_end(11))
        .feed(flow.close(12));
    assert_eq!(
        (
            bench.pipeline.flows_open(),
            bench.pipeline.stats().flows_opened
        ),
        (0, 0)
    );
}

#[test]
fn a_rejoined_flow_ends_after_a_minute_of_silence() {
    let (mut bench, mut flow, mut sound) = (Bench::new(), server(1), server(2));
    let _lost = [flow.receive(10, "Q /\n"), flow.send(11, "A ok\n")];
    bench
        .feed(sound.receive(10, "Q /\n"))
        .feed(sound.send(11, "A ok\n"))
        .feed(flow.receive(12, "Q /\n"))
        .feed(flow.send(13, "A ok\n"));
    bench.tick(200 * MILLISECOND);
    assert_eq!(bench.pipeline.stats().flows_rejoined, 1);
    let later = 20_000 * MILLISECOND;
    bench
        .feed(flow.receive(later, "Q /\n"))
        .feed(flow.send(later + 1, "A ok\n"));
    bench.tick(later + 200 * MILLISECOND);
    bench.tick(MINUTE);
    bench.tick(MINUTE + later);
    assert_eq!(bench.pipeline.flows_open(), 2);
    bench.tick(MINUTE + later + 1);
    let stats = bench.pipeline.stats();
    assert_eq!((stats.flows_idle, stats.flows_ended), (1, 1));
}

#[test]
fn a_flow_whose_close_was_lost_ends_by_silence() {
    let mut bench = Bench::new();
    let (mut idle, mut busy, mut unknown) = (server(1), server(2), server(3));
    bench
        .feed(idle.receive(0, "Q /idle\n"))
        .feed(idle.send(0, "A ok\n"))
        .feed(busy.receive(0, "Q /busy\n"))
        .feed(unknown.receive(0, "something else"));
    bench.tick(5 * MINUTE - 1);
    assert_eq!(bench.pipeline.flows_open(), 3);
    bench.tick(5 * MINUTE);
    assert_eq!(bench.pipeline.flows_open(), 2);
    // The connection was alive after all.
    bench
        .feed(idle.receive(6 * MINUTE, "Q /again\n"))
        .feed(idle.send(6 * MINUTE, "A ok\n"));
    assert_eq!(bench.results.spans.len(), 2);
    bench.tick(25 * MINUTE);
    assert_eq!(bench.pipeline.exchanges_open(), 1);
    bench.tick(30 * MINUTE);
    assert_eq!(bench.pipeline.exchanges_open(), 0);
    // What is not read stays, so that it is not judged again.
    bench.tick(100 * MINUTE);
    assert_eq!(bench.pipeline.flows_open(), 1);
    let stats = bench.pipeline.stats();
    assert_eq!((stats.flows_idle, stats.exchanges_abandoned), (3, 1));
    assert_eq!(
        (stats.flows_rejoined, stats.records_held, stats.gaps),
        (0, 0, 0)
    );
}

#[test]
fn an_idle_unix_flow_ends_after_five_minutes_but_not_within_an_exchange() {
    let mut bench = Bench::new();
    let (mut idle, mut busy) = (Wire::unix(1, 1, 100), Wire::unix(2, 1, 100));
    bench
        .feed(idle.receive(0, "Q /idle\n"))
        .feed(idle.send(0, "A ok\n"))
        .feed(busy.receive(0, "Q /busy\n"));
    bench.tick(5 * MINUTE - 1);
    assert_eq!(bench.pipeline.flows_open(), 2);
    bench.tick(5 * MINUTE);
    assert_eq!(bench.pipeline.flows_open(), 1);
    // It goes on where it was.
    bench
        .feed(busy.send(29 * MINUTE, "A ok\n"))
        .feed(idle.receive(29 * MINUTE, "Q /again\n"))
        .feed(idle.send(29 * MINUTE, "A ok\n"));
    assert_eq!(bench.results.spans.len(), 3);
    let stats = bench.pipeline.stats();
    assert_eq!((stats.records_held, stats.flows_rejoined), (0, 0));
    bench.feed(busy.receive(30 * MINUTE, "Q /never\n"));
    bench.tick(36 * MINUTE);
    assert_eq!(bench.pipeline.flows_open(), 1);
    bench.tick(60 * MINUTE);
    assert_eq!(
        (bench.pipeline.flows_open(), bench.pipeline.exchanges_open()),
        (0, 0)
    );
    assert_eq!(bench.pipeline.stats().flows_idle, 3);
}
