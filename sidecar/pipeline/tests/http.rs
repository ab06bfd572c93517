//! HTTP/1 through the whole pipeline: a proxy in front of an application, seen from both containers; and what the
//! times of records decide.

mod wire;

use pilotfish_pipeline::{Config, Kind, Pipeline};
use wire::{Bench, Results, Wire, text};

const REQUEST: &str = "GET /users/42 HTTP/1.1\r\nHost: shop.example\r\n\r\n";
const RESPONSE: &str = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 2\r\n\r\nno";

const MILLISECOND: u64 = 1_000_000;

fn bench() -> Bench {
    Bench {
        pipeline: Pipeline::new(Config::default()).unwrap(),
        results: Results::default(),
    }
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n")
}

fn answer(status: u16) -> String {
    format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n")
}

/// Last character of each span's path, and its status.
fn pairs(bench: &Bench) -> Vec<(char, String)> {
    let spans = bench.results.spans.iter();
    spans
        .map(|span| {
            let path = text(span, "url.path").or(text(span, "url.full")).unwrap();
            let status = text(span, "http.response.status_code").unwrap_or_default();
            (path.chars().last().unwrap(), status)
        })
        .collect()
}

#[test]
fn a_proxied_request_is_one_trace() {
    let mut bench = bench();
    let mut front = Wire::new(1, 1, "10.0.0.1:80", "10.0.0.9:5000");
    let mut client = Wire::new(2, 1, "127.0.0.1:40000", "127.0.0.1:8000");
    let mut server = Wire::new(3, 2, "127.0.0.1:8000", "127.0.0.1:40000");
    server.tid(200);
    bench
        .feed(front.receive(10, REQUEST))
        .feed(client.send(20, REQUEST))
        .feed(server.receive(30, REQUEST));
    bench
        .feed(server.send(40, RESPONSE))
        .feed(client.receive(50, RESPONSE))
        .feed(front.send(60, RESPONSE));

    let chain = [
        bench.span(1, Kind::Server),
        bench.span(1, Kind::Client),
        bench.span(2, Kind::Server),
    ];
    assert_eq!(
        chain.map(|span| span.name.as_str()),
        ["GET /users/{id}", "GET", "GET /users/{id}"]
    );
    assert_eq!(
        chain.map(|span| span.end_unix_nano - span.start_unix_nano),
        [50, 30, 10]
    );
    for pair in chain.windows(2) {
        assert_eq!(
            (pair[1].trace_id, pair[1].parent_span_id),
            (pair[0].trace_id, Some(pair[0].span_id))
        );
    }
    for span in chain {
        assert_eq!(
            text(span, "http.response.status_code").as_deref(),
            Some("503")
        );
        assert_eq!(text(span, "error.type").as_deref(), Some("503"));
    }
    assert_eq!(bench.results.measurements.len(), 3);
}

/// A 408 on an idle connection answers nothing, whichever end tells of it.
#[test]
fn an_unasked_response_leaves_the_next_request_its_own() {
    let paired = |a: &str, b: &str, c: &str| {
        [('a', a), ('b', b), ('c', c)].map(|(path, status)| (path, status.to_owned()))
    };
    let later = 900 * MILLISECOND;
    let (mut seen, mut client) = (bench(), Wire::new(1, 1, "10.0.0.1:4000", "10.0.0.9:80"));
    seen.feed(client.send(1, &get("/a")))
        .feed(client.receive(2, &answer(200)))
        .feed(client.receive(3, &answer(408)));
    seen.tick(later);
    seen.feed(client.send(later + 1, &get("/b")))
        .feed(client.receive(later + 2, &answer(201)))
        .feed(client.send(later + 3, &get("/c")))
        .feed(client.receive(later + 4, &answer(202)));
    assert_eq!(pairs(&seen), paired("200", "201", "202"));
    assert_eq!(seen.pipeline.stats().flows_lost_place, 1);

    let (mut seen, mut server) = (bench(), Wire::new(1, 1, "10.0.0.1:80", "10.0.0.9:5000"));
    seen.feed(server.receive(1, &get("/a")))
        .feed(server.send(2, &answer(200)))
        .feed(server.send(3, &answer(408)))
        .feed(server.receive(4, &get("/b")))
        .feed(server.send(5, &answer(201)))
        .feed(server.receive(6, &get("/c")))
        .feed(server.send(7, &answer(202)));
    assert_eq!(pairs(&seen), paired("200", "201", "202"));
}

/// The record of a send may come after that of the response, which another thread reads, but not by much.
#[test]
fn a_response_may_precede_its_request_by_10_ms() {
    for (age, expected) in [(10 * MILLISECOND, "200"), (10 * MILLISECOND + 1, "500")] {
        let (mut seen, mut client) = (bench(), Wire::new(1, 1, "10.0.0.1:4000", "10.0.0.9:80"));
        seen.feed(client.receive(1, &answer(200)))
            .feed(client.send(1 + age, &get("/a")))
            .feed(client.receive(2 + age, &answer(500)));
        assert_eq!(pairs(&seen), [('a', expected.to_owned())]);
    }
}

#[test]
fn a_lost_response_does_not_blind_a_keep_alive_connection() {
    let (mut seen, mut server) = (bench(), Wire::new(1, 1, "10.0.0.1:80", "10.0.0.9:5000"));
    seen.feed(server.receive(1, &get("/a")));
    let _lost = server.send(2, &answer(200));
    seen.feed(server.receive(3, &get("/b")))
        .feed(server.send(4, &answer(201)));
    seen.tick(4 + 100 * MILLISECOND);
    let later = 200 * MILLISECOND;
    seen.feed(server.receive(later, &get("/c")))
        .feed(server.send(later + 1, &answer(202)));
    let expected = [('b', "201".to_owned()), ('c', "202".to_owned())];
    assert_eq!(pairs(&seen), expected);
    assert_eq!(seen.pipeline.stats().flows_opaque, 0);
}

#[test]
fn a_head_beyond_the_capture_is_counted_and_the_next_one_read() {
    let (mut seen, mut server) = (bench(), Wire::new(1, 1, "10.0.0.1:80", "10.0.0.9:5000"));
    let big = format!(
        "GET /big HTTP/1.1\r\nHost: h\r\nCookie: {}\r\n\r\n",
        "y".repeat(5000)
    );
    seen.feed(server.receive(1, &get("/a")))
        .feed(server.send(2, &answer(200)));
    for time in [3, 5] {
        seen.feed(server.receive(time, &big).captured(4096))
            .feed(server.send(time + 1, &answer(500)));
    }
    seen.feed(server.receive(7, &get("/b")))
        .feed(server.send(8, &answer(201)));
    assert_eq!(
        pairs(&seen),
        [('a', "200".to_owned()), ('b', "201".to_owned())]
    );
    let stats = seen.pipeline.stats();
    assert_eq!((stats.heads_too_long, stats.flows_lost_place), (2, 2));
}

#[test]
fn a_long_request_line_in_pieces_is_recognised() {
    let (mut seen, mut server) = (bench(), Wire::new(1, 1, "10.0.0.1:80", "10.0.0.9:5000"));
    let request = get(&format!("/{}z", "y".repeat(12_000)));
    for (time, piece) in (1..).zip(request.as_bytes().chunks(1400)) {
        seen.feed(server.receive(time, std::str::from_utf8(piece).unwrap()));
    }
    seen.feed(server.send(100, &answer(204)));
    let span = seen.only_span();
    assert_eq!((span.start_unix_nano, span.end_unix_nano), (1, 100));
}

/// A server's close of a unix socket is not seen: nothing proves where such a response ends.
#[test]
fn a_response_that_only_the_unseen_close_of_a_unix_socket_ends_is_absent() {
    let (mut seen, mut server) = (bench(), Wire::unix(1, 1, 100));
    seen.feed(server.receive(1, &get("/a")))
        .feed(server.send(2, "HTTP/1.0 200 OK\r\n\r\nabc"));
    seen.tick(9_000 * MILLISECOND);
    assert_eq!(seen.pipeline.exchanges_open(), 1);
    seen.tick(11_000 * MILLISECOND);
    assert_eq!(seen.pipeline.exchanges_open(), 0);
    seen.feed(server.send(11_001 * MILLISECOND, "def"));
    seen.finish();
    assert!(seen.results.spans.is_empty());
}

#[test]
fn an_exchange_whose_end_nobody_saw_is_absent() {
    let mut bench = bench();
    let mut wire = Wire::new(1, 1, "10.0.0.1:80", "10.0.0.9:5000");
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n";
    bench
        .feed(wire.receive(1, &get("/a")))
        .feed(wire.send(2, head));
    let lost = wire.send(3, "body");
    drop(lost);
    bench
        .feed(wire.receive(10_000, &get("/b")))
        .feed(wire.send(10_001, &answer(204)));
    bench.tick(10_000 + 200 * MILLISECOND);
    assert_eq!(pairs(&bench), [('b', "204".to_owned())]);
    assert_eq!(bench.pipeline.stats().exchanges_abandoned, 1);
}
