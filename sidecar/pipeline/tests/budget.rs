//! What detection and parsers keep of all flows together.

mod wire;

use pilotfish_pipeline::{Config, Pipeline};
use wire::{Bench, Results, Wire};

/// The bound that [`Pipeline::bytes_kept`] documents.
const BUDGET: usize = 32 * 1024 * 1024;

fn bench() -> Bench {
    Bench {
        pipeline: Pipeline::new(Config::default()).unwrap(),
        results: Results::default(),
    }
}

fn server(cookie: u64) -> Wire {
    Wire::new(cookie, 1, "10.0.0.1:80", &format!("10.0.0.9:{cookie}"))
}

/// Feeds `opening` to as many flows as should exceed the budget by half, and checks that they do not.
fn exceed(bench: &mut Bench, opening: &str) {
    let flows = BUDGET / opening.len() * 3 / 2;
    for cookie in 1..=flows as u64 {
        bench.feed(server(cookie).receive(cookie, opening));
        assert!(bench.pipeline.bytes_kept() <= BUDGET);
    }
    let over = bench.pipeline.stats().flows_over_budget as usize;
    assert!(over >= flows / 3, "{over} of {flows}");
    assert!(bench.pipeline.bytes_kept() > BUDGET - 2 * opening.len());
    assert_eq!(bench.pipeline.flows_open(), flows);
}

#[test]
fn heads_that_do_not_end_never_exceed_the_budget() {
    let mut bench = bench();
    let head = "GET /path HTTP/1.1\r\nHost: h\r\nX: ";
    exceed(&mut bench, &format!("{head}{}", "x".repeat(60_000)));
    bench.finish();
    assert_eq!(bench.pipeline.bytes_kept(), 0);
}

#[test]
fn openings_that_stay_undecided_never_exceed_the_budget() {
    let mut bench = bench();
    exceed(&mut bench, &format!("GET /{}", "x".repeat(12_000)));
    assert_eq!(bench.pipeline.stats().flows_detected, 0);
    bench.finish();
    assert_eq!(bench.pipeline.bytes_kept(), 0);
}

#[test]
fn the_flow_that_exceeds_the_budget_abandons_its_exchanges_and_ends_give_room() {
    let mut bench = bench();
    let (mut unlucky, opening) = (server(60_000), "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    bench.feed(unlucky.receive(0, opening));
    let part = format!("{opening}GET / HTTP/1.1\r\nX: {}", "x".repeat(60_000));
    let mut flows: Vec<_> = (1..=BUDGET as u64 / 60_000).map(server).collect();
    for flow in &mut flows {
        bench.feed(flow.receive(1, &part));
    }
    let (kept, open) = (bench.pipeline.bytes_kept(), bench.pipeline.exchanges_open());
    assert_eq!(bench.pipeline.stats().flows_over_budget, 0);
    bench.feed(unlucky.receive(2, &part));
    let stats = bench.pipeline.stats();
    assert_eq!((stats.flows_over_budget, stats.flows_opaque), (1, 0));
    assert_eq!(bench.pipeline.exchanges_open(), open - 1);
    assert_eq!(bench.pipeline.bytes_kept(), kept);

    for flow in &flows[..2] {
        bench
            .feed(flow.receive_end(3))
            .feed(flow.send_end(3))
            .feed(flow.close(3));
    }
    assert!(bench.pipeline.bytes_kept() <= kept - 120_000);
    // What was given up is not read again, but others are.
    bench.feed(unlucky.receive(4, "\r\n\r\n"));
    assert_eq!(bench.pipeline.exchanges_open(), open - 3);
    bench.feed(server(60_001).receive(4, &part));
    assert_eq!(bench.pipeline.exchanges_open(), open - 2);
    assert_eq!(bench.pipeline.bytes_kept(), kept - kept / flows.len());
    assert_eq!(bench.pipeline.stats().flows_over_budget, 1);
}

#[test]
fn responses_that_wait_for_their_request_count() {
    let mut bench = bench();
    let mut client = Wire::new(1, 1, "10.0.0.1:40000", "10.0.0.9:80");
    let response = "HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n";
    let early = format!("{response}{}", "x".repeat(60_000));
    let request = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";
    bench
        .feed(client.send(1, request))
        .feed(client.receive(2, "HTTP/1.1 204 No Content\r\n\r\n"));
    assert_eq!(bench.pipeline.bytes_kept(), 0);
    let late = client.send(3, request);
    let mut answer = client.receive(4, &early);
    // Read by a thread that had not seen the second send counted: nothing makes reassembly wait for it.
    answer.header.opposite = request.len() as u64;
    bench.feed(answer);
    assert!(bench.pipeline.bytes_kept() >= early.len());
    bench.feed(late);
    assert_eq!(bench.pipeline.bytes_kept(), 0);
    assert_eq!(bench.results.spans.len(), 2);
}
