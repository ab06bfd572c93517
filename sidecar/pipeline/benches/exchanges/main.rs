//! Exchanges over 64 flows, as records in memory, through the whole pipeline on one core.
//!
//! `cargo bench -p pilotfish-pipeline` prints the median, and the best, of several passes, for HTTP/1.1 and HTTP/2. Passes
//! of all cases take turns. A part of a case's name as argument picks the cases that have it.
#![allow(clippy::print_stdout, reason = "printing is what a benchmark is for")]

mod http1;
mod http2;

use pilotfish_abi::{Family, Header, Kind};
use pilotfish_pipeline::{Config, Measurement, Pipeline, Record, Sink, Slot, SlotConfig, Span};
use std::borrow::Cow;
use std::hint::black_box;
use std::time::Instant;

const FLOWS: u64 = 64;
const EXCHANGES_PER_FLOW: u64 = 2_000;
const PASSES: usize = 15;

/// What is measured.
struct Case {
    name: &'static str,
    records: fn() -> Vec<Moved>,
    /// Exchanges per request of a client.
    per_request: u64,
    /// Each container has settings of its own.
    settings: bool,
}

/// What a record carries.
struct Moved {
    kind: Kind,
    header: Header,
    payload: Cow<'static, [u8]>,
}

/// Where and when something moved.
struct Place {
    flow: u64,
    /// On the connection of a proxy to its server.
    upstream: bool,
    offset: u64,
    time: u64,
}

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

impl Place {
    fn moved(&self, kind: Kind, payload: Cow<'static, [u8]>) -> Moved {
        let length = payload.len() as u32;
        let port = 20_000 + self.flow as u16;
        let (local_port, remote_port) = if self.upstream {
            (port, 9000)
        } else {
            (8080, port)
        };
        let mut address = [0; 16];
        address[..4].copy_from_slice(&[127, 0, 0, 1]);
        let header = Header {
            kind: kind as u8,
            family: Family::V4 as u16,
            slot: 1,
            time: self.time,
            cookie: if self.upstream {
                FLOWS + self.flow
            } else {
                self.flow
            },
            offset: self.offset,
            tgid: 1,
            tid: self.flow as u32,
            total: length,
            captured: length,
            netns: 1,
            local_port,
            remote_port,
            local: address,
            remote: address,
            ..Header::default()
        };
        Moved {
            kind,
            header,
            payload,
        }
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
fn pass(case: &Case, records: &[Moved]) -> f64 {
    let exchanges = FLOWS * EXCHANGES_PER_FLOW * case.per_request;
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
    for moved in records {
        pipeline.on_record(
            black_box(&Record {
                kind: moved.kind,
                header: moved.header,
                payload: &moved.payload,
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
    let wanted = std::env::args()
        .skip(1)
        .find(|argument| !argument.starts_with('-'));
    let cases: Vec<Case> = http1::CASES
        .into_iter()
        .chain(http2::CASES)
        .filter(|case| wanted.as_ref().is_none_or(|part| case.name.contains(part)))
        .collect();
    let records: Vec<_> = cases.iter().map(|case| (case.records)()).collect();
    let mut rates: Vec<Vec<f64>> = cases.iter().map(|_| Vec::with_capacity(PASSES)).collect();
    for _ in 0..PASSES {
        for ((case, records), rates) in cases.iter().zip(&records).zip(&mut rates) {
            rates.push(pass(case, records));
        }
    }
    for (case, rates) in cases.iter().zip(&mut rates) {
        rates.sort_by(f64::total_cmp);
        let (median, best) = (rates[PASSES / 2], rates[PASSES - 1]);
        let name = case.name;
        println!("{name}: median {median:.0} exchanges/s, best {best:.0} exchanges/s");
    }
}
