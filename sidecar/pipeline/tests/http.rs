//! HTTP/1 through the whole pipeline: a proxy in front of an application, seen from both containers.

mod wire;

use pilotfish_pipeline::{Config, Kind, Pipeline};
use wire::{Bench, Results, Wire, text};

const REQUEST: &str = "GET /users/42 HTTP/1.1\r\nHost: shop.example\r\n\r\n";
const RESPONSE: &str = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 2\r\n\r\nno";

#[test]
fn a_proxied_request_is_one_trace() {
    let pipeline = Pipeline::new(Config::default()).unwrap();
    let mut bench = Bench {
        pipeline,
        results: Results::default(),
    };
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
