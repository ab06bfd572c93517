//! Keep-alive HTTP/1.1 exchanges over 64 flows, as records in memory, through the whole pipeline on one core.
//!
//! `cargo bench -p pilotfish-pipeline` prints the median, and the best, of several passes, for servers, for the pair of
//! a proxy (one inbound and one outbound exchange per request), and for servers in a container each, with the same
//! settings and with different ones. Passes of all of them take turns.
#![allow(clippy::print_stdout, reason = "printing is what a benchmark is for")]

use pilotfish_abi::{Family, Header, Kind};
use pilotfish_pipeline::{Config, Measurement, Pipeline, Record, Sink, Slot, SlotConfig, Span};
use std::hint::black_box;
use std::time::Instant;

const FLOWS: u64 = 64;
const EXCHANGES_PER_FLOW: u64 = 2_000;
const PASSES: usize = 15;

const REQUEST: &[u8] = b"GET /api/users/42?verbose=1 HTTP/1.1\r\nHost: shop.example:8080\r\n\
    User-Agent: curl/8.5.0\r\nAccept: */*\r\n\r\n";
const RESPONSE: &[u8] =
    b"HTTP/1.1 200 OK\r\nServer: nginx/1.26\r\nContent-Type: application/json\r\n\
    Content-Length: 28\r\nConnection: keep-alive\r\n\r\n{\"id\":42,\"name\":\"pilotfish\"}";

/// What is measured.
struct Case {
    name: &'static str,
    /// Each request is passed on.
    proxied: bool,
    /// Each flow is another container's.
    containers: bool,
    /// Each of them has settings of its own.
    settings: bool,
}

const CASES: [Case; 4] = [
    Case {
        name: "server",
        proxied: false,
        containers: false,
        settings: false,
    },
    Case {
        name: "proxy",
        proxied: true,
        containers: false,
        settings: false,
    },
    Case {
        name: "servers in 64 containers",
        proxied: false,
        containers: true,
        settings: false,
    },
    Case {
        name: "servers in 64 containers with different settings",
        proxied: false,
        containers: true,
        settings: true,
    },
];

/// Counts and throws away.
#[derive(Default)]
struct Tally {
    spans: u64,
    measurements: u64,
}

impl Sink for Tally {
    fn span(&mut self, span: Span) {
        self.spans += 1;
        black_box(span);
    }

    fn measurement(&mut self, measurement: Measurement) {
        self.measurements += 1;
        black_box(measurement);
    }
}

/// Flows on `FLOWS` threads; each exchange is one receive and one send, or in a proxy two of each.
fn records(case: &Case) -> Vec<(Kind, Header, &'static [u8])> {
    let mut records = Vec::new();
    let mut time = 1_000_000;
    for exchange in 0..EXCHANGES_PER_FLOW {
        for flow in 1..=FLOWS {
            let mut push = |kind, upstream: bool, payload: &'static [u8]| {
                time += 1_000;
                let mut header = header(kind, flow, upstream, exchange, time, payload);
                if case.containers {
                    header.slot = slot(flow);
                }
                records.push((kind, header, payload));
            };
            push(Kind::Receive, false, REQUEST);
            if case.proxied {
                push(Kind::Send, true, REQUEST);
                push(Kind::Receive, true, RESPONSE);
            }
            push(Kind::Send, false, RESPONSE);
        }
    }
    records
}

fn header(
    kind: Kind,
    flow: u64,
    upstream: bool,
    exchange: u64,
    time: u64,
    payload: &[u8],
) -> Header {
    let length = payload.len() as u32;
    let port = 20_000 + flow as u16;
    let (local_port, remote_port) = if upstream { (port, 9000) } else { (8080, port) };
    let mut address = [0; 16];
    address[..4].copy_from_slice(&[127, 0, 0, 1]);
    Header {
        kind: kind as u8,
        family: Family::V4 as u16,
        slot: 1,
        time,
        cookie: if upstream { FLOWS + flow } else { flow },
        offset: exchange * u64::from(length),
        tgid: 1,
        tid: flow as u32,
        total: length,
        captured: length,
        netns: 1,
        local_port,
        remote_port,
        local: address,
        remote: address,
        ..Header::default()
    }
}

fn slot(flow: u64) -> u32 {
    flow as u32
}

/// Settings that no other container has. They let everything through, and no pattern of a route spares the heuristic.
fn settings(flow: u64) -> SlotConfig {
    SlotConfig {
        routes: (0..10)
            .map(|number| format!("/api-{flow}/{number}/{{id}}"))
            .collect(),
        ignore_paths: vec![format!("/healthz-{flow}"), format!("/internal-{flow}/*")],
        ports: Some([8080, 10_000 + flow as u16].into()),
        ..SlotConfig::default()
    }
}

/// Exchanges per second of one pass.
fn pass(case: &Case, records: &[(Kind, Header, &'static [u8])]) -> f64 {
    let exchanges = FLOWS * EXCHANGES_PER_FLOW * if case.proxied { 2 } else { 1 };
    let mut pipeline =
        Pipeline::new(Config::default()).expect("the default configuration is valid");
    if case.settings {
        for flow in 1..=FLOWS {
            pipeline
                .configure(Slot(slot(flow)), &settings(flow))
                .expect("the settings are valid");
        }
    }
    let mut tally = Tally::default();
    pipeline.on_tick(0, 0, &mut tally);
    let start = Instant::now();
    for &(kind, header, payload) in records {
        pipeline.on_record(
            black_box(&Record {
                kind,
                header,
                payload,
            }),
            &mut tally,
        );
    }
    let elapsed = start.elapsed().as_secs_f64();
    assert_eq!(
        (tally.spans, tally.measurements),
        (exchanges, exchanges),
        "{:?}",
        pipeline.stats()
    );
    exchanges as f64 / elapsed
}

fn main() {
    let records = CASES.each_ref().map(records);
    let mut rates = CASES.each_ref().map(|_| Vec::with_capacity(PASSES));
    for _ in 0..PASSES {
        for ((case, records), rates) in CASES.iter().zip(&records).zip(&mut rates) {
            rates.push(pass(case, records));
        }
    }
    for (case, rates) in CASES.iter().zip(&mut rates) {
        rates.sort_by(f64::total_cmp);
        let (median, best) = (rates[PASSES / 2], rates[PASSES - 1]);
        let name = case.name;
        println!("http1 {name}: median {median:.0} exchanges/s, best {best:.0} exchanges/s");
    }
}
