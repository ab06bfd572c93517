//! Header blocks of gRPC calls, as clients and servers send them, through the decoder on one core.
//!
//! `cargo bench -p pilotfish-pipeline --bench hpack` prints the median, and the best, of several passes.
#![allow(clippy::print_stdout, reason = "printing is what a benchmark is for")]

use pilotfish_pipeline::hpack::{Decoder, Field};
use std::hint::black_box;
use std::time::Instant;

const BLOCKS: usize = 400_000;
const PASSES: usize = 15;

/// What is measured: the first block of a connection, and those that are repeated afterwards.
struct Case {
    name: &'static str,
    first: &'static [u8],
    repeated: &'static [u8],
    fields: u64,
}

/// A call whose fields stand in the table, but for `grpc-timeout`.
const INDEXED: Case = Case {
    name: "8 fields, all but one indexed",
    first: b"\x83\x86\x44\x1e/routeguide.RouteGuide/GetPage\x41\x0eroutes:8080/v1\
        \x5f\x10application/grpc\x7a\x0fgrpc-python/1.6\x40\x02te\x08trailers",
    repeated: b"\x83\x86\xc2\xc1\xc0\xbf\xbe\x00\x0cgrpc-timeout\x021S",
    fields: 8,
};

/// The same with a `traceparent` in Huffman codes, which every call inserts and evicts.
const TRACED: Case = Case {
    name: "8 fields, one traceparent inserted",
    first: b"\x83\x86\x44\x1e/routeguide.RouteGuide/GetPage\x41\x0eroutes:8080/v1\
        \x5f\x10application/grpc\x7a\x0fgrpc-python/1.6\x40\x02te\x08trailers",
    repeated: b"\x83\x86\x04\x1e/routeguide.RouteGuide/GetPage\x01\x0eroutes:8080/v1\
        \x0f\x10\x10application/grpc\x0f\x2b\x0fgrpc-python/1.6\x00\x02te\x08trailers\
        \x40\x88\x4d\x83\x21\x6b\x1d\x85\xa9\x3f\
        \xa7\x00\x16\x6a\x39\x5f\x14\xac\xb6\xeb\xb1\xb2\xd4\x83\x70\x6c\x90\xaf\x89\xf9\x00\x50\x15\xa7\
        \x59\x71\x60\x02\x50\x38\xe8\xc6\x08\xc6\xf8\x05\x1b\xab\x00\x3f",
    fields: 8,
};

const CASES: [Case; 2] = [INDEXED, TRACED];

fn is_wanted(name: &[u8]) -> bool {
    matches!(
        name,
        b":method"
            | b":path"
            | b":status"
            | b":scheme"
            | b":authority"
            | b"content-type"
            | b"grpc-status"
            | b"traceparent"
            | b"tracestate"
            | b"user-agent"
            | b"content-length"
            | b"host"
            | b"te"
            | b"grpc-timeout"
    )
}

/// Blocks per second of one pass.
fn pass(case: &Case) -> f64 {
    let mut decoder = Decoder::new(true, is_wanted);
    decoder
        .decode(case.first, |_| ())
        .expect("the block is valid");
    let (mut fields, mut octets) = (0, 0);
    let start = Instant::now();
    for _ in 0..BLOCKS {
        decoder
            .decode(black_box(case.repeated), |field| {
                if let Field::Known { name, value } = field {
                    fields += 1;
                    octets += black_box(name).len() + black_box(value).len();
                }
            })
            .expect("the block is valid");
    }
    let elapsed = start.elapsed().as_secs_f64();
    black_box(octets);
    assert_eq!(fields, case.fields * BLOCKS as u64);
    BLOCKS as f64 / elapsed
}

fn main() {
    let mut rates = CASES.each_ref().map(|_| Vec::with_capacity(PASSES));
    for _ in 0..PASSES {
        for (case, rates) in CASES.iter().zip(&mut rates) {
            rates.push(pass(case));
        }
    }
    for (case, rates) in CASES.iter().zip(&mut rates) {
        rates.sort_by(f64::total_cmp);
        let (median, best) = (rates[PASSES / 2], rates[PASSES - 1]);
        let name = case.name;
        println!("hpack {name}: median {median:.0} blocks/s, best {best:.0} blocks/s");
    }
}
