//! The checked-in fuzz corpus: the protocol samples as conversations, as records, and as whole recorded streams; and
//! header blocks.
//!
//! `PILOTFISH_WRITE_SEEDS=1 cargo test -p pilotfish-pipeline --test seeds` writes it anew.

#[allow(dead_code, reason = "the protocol tests use more of it")]
mod conversation;
mod header_blocks;

use conversation::encode;
use header_blocks::Step;
use pilotfish_abi::{Family, Header, Kind, flag};
use pilotfish_pipeline::protocol::PROTOCOLS;
use pilotfish_pipeline::{Config, Measurement, Pipeline, Record, Sink, Span};
use std::path::PathBuf;
use zerocopy::IntoBytes;

/// Bytes per operation of the streams: most heads are whole, most bodies are not.
const CAPTURE: usize = 512;

/// The beginning of a `ClientHello`, as far as it decides.
const CLIENT_HELLO: &[u8] = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";

/// Header blocks of a client (RFC 7541, appendix C.4), and of a server (appendix C.5, in a table of 256 octets).
const REQUESTS: &[&[u8]] = &[
    b"\x82\x86\x84\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff",
    b"\x82\x86\x84\xbe\x58\x86\xa8\xeb\x10\x64\x9c\xbf",
    b"\x82\x87\x85\xbf\x40\x88\x25\xa8\x49\xe9\x5b\xa9\x7d\x7f\x89\x25\xa8\x49\xe9\x5b\xb8\xe8\xb4\xbf",
];
const RESPONSES: &[&[u8]] = &[
    b"\x3f\xe1\x01\x48\x03302\x58\x07private\x61\x1dMon, 21 Oct 2013 20:13:21 GMT\x6e\x17https://www.example.com",
    b"\x48\x03307\xc1\xc0\xbf",
    b"\x88\xc1\x61\x1dMon, 21 Oct 2013 20:13:22 GMT\xc0\x5a\x04gzip\
      \x77\x38foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1",
];
/// A client's calls: by its second block everything stands in its table; its third empties that.
const CALLS: &[&[u8]] = &[
    b"\x83\x86\x44\x06/a.B/C\x41\x06b:8080\x5f\x10application/grpc\x40\x02te\x08trailers",
    b"\x83\x86\xc1\xc0\xbf\xbe",
    b"\x20\x3f\xe1\x1f\x83\x86\x04\x06/a.B/D\x10\x0cgrpc-timeout\x021S",
];

#[derive(Default)]
struct Count(usize);

impl Sink for Count {
    fn span(&mut self, _: Span) {
        self.0 += 1;
    }

    fn measurement(&mut self, _: Measurement) {}
}

fn record(kind: Kind, time: u64, offset: usize, payload: &[u8], total: usize) -> Vec<u8> {
    let header = Header {
        kind: kind as u8,
        family: Family::V4 as u16,
        slot: 1,
        time,
        cookie: 1,
        offset: offset as u64,
        tgid: 10,
        tid: 10,
        total: u32::try_from(total).unwrap(),
        captured: u32::try_from(payload.len()).unwrap(),
        netns: 1,
        local_port: 80,
        remote_port: 40_000,
        ..Header::default()
    };
    let mut bytes = [header.as_bytes(), payload].concat();
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes
}

/// A server's connection as the ring buffer carries it.
fn stream(ask: &[u8], answer: &[u8]) -> Vec<u8> {
    let mut records = Vec::new();
    let mut time = 0;
    for (kind, bytes) in [(Kind::Receive, ask), (Kind::Send, answer)] {
        for (index, operation) in bytes.chunks(CAPTURE).enumerate() {
            time += 1_000_000;
            records.extend(record(
                kind,
                time,
                index * CAPTURE,
                operation,
                operation.len(),
            ));
        }
    }
    records.extend(record(Kind::SendEnd, time + 1, answer.len(), &[], 0));
    records.extend(record(Kind::Close, time + 2, answer.len(), &[], 0));
    records
}

/// The same as plaintext of TLS, whose socket is not known at its first record.
fn above_tls(stream: &[u8]) -> Vec<u8> {
    let mut records = Vec::new();
    let mut rest = stream;
    while let Ok(mut record) = Record::parse(rest) {
        let length = (Header::SIZE + record.payload.len()).next_multiple_of(8);
        record.header.flags |= flag::TLS;
        if records.is_empty() {
            record.header.family = 0;
        }
        records.extend(record.header.as_bytes());
        records.extend(&rest[Header::SIZE..length]);
        rest = &rest[length..];
    }
    records
}

/// Blocks of which the one at `lost` is missing to one decoder.
fn with_loss<'a>(blocks: &[&'a [u8]], lost: usize) -> Vec<Step<'a>> {
    let step = |(index, block): (usize, &&'a [u8])| Step {
        lost: index == lost,
        block,
    };
    blocks.iter().enumerate().map(step).collect()
}

fn seeds() -> Vec<(String, Vec<u8>)> {
    let mut seeds = Vec::new();
    for (number, protocol) in PROTOCOLS.iter().enumerate() {
        for (index, (ask, answer)) in protocol.samples.iter().enumerate() {
            let name = format!("{}-{index}", protocol.name);
            let conversation =
                [vec![u8::try_from(number).unwrap(), 0], encode(ask, answer)].concat();
            seeds.push((format!("protocols/{name}"), conversation));
            seeds.push((format!("pipeline/{name}"), stream(ask, answer)));
        }
    }
    for (name, kind, payload) in [
        ("receive", Kind::Receive, &b"GET"[..]),
        ("close", Kind::Close, b""),
    ] {
        seeds.push((
            format!("record/{name}"),
            record(kind, 1, 0, payload, payload.len()),
        ));
    }
    if let Some((ask, answer)) = PROTOCOLS[0].samples.first() {
        seeds.push(("pipeline/tls".into(), above_tls(&stream(ask, answer))));
    }
    for (name, blocks) in [
        ("requests", REQUESTS),
        ("responses", RESPONSES),
        ("calls", CALLS),
    ] {
        for (loss, lost) in [("late", 0), ("lossy", 1)] {
            let seed = header_blocks::encode(&with_loss(blocks, lost));
            seeds.push((format!("hpack/{name}-{loss}"), seed));
        }
    }
    let hello = record(Kind::Receive, 1, 0, CLIENT_HELLO, 517);
    seeds.push(("pipeline/encrypted".into(), hello));
    seeds
}

#[test]
fn the_corpus_is_the_samples() {
    let write = std::env::var_os("PILOTFISH_WRITE_SEEDS").is_some();
    let corpus = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    for (name, seed) in seeds() {
        let path = corpus.join(name);
        if write {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, &seed).unwrap();
        }
        assert!(
            std::fs::read(&path).is_ok_and(|found| found == seed),
            "{} is out of date",
            path.display()
        );
    }
}

/// Runs a stream of records; returns the number of spans.
fn run(stream: &[u8]) -> usize {
    let mut pipeline = Pipeline::new(Config::default()).unwrap();
    let mut count = Count::default();
    let mut rest = stream;
    while let Ok(record) = Record::parse(rest) {
        pipeline.on_record(&record, &mut count);
        let length = (Header::SIZE + record.payload.len()).next_multiple_of(8);
        rest = rest.get(length..).unwrap_or_default();
    }
    pipeline.finish(&mut count);
    let stats = pipeline.stats();
    assert_eq!((pipeline.flows_open(), pipeline.exchanges_open()), (0, 0));
    assert_eq!(
        stats.exchanges_started,
        stats.exchanges_finished + stats.exchanges_abandoned
    );
    count.0
}

#[test]
fn every_stream_gives_spans() {
    for protocol in PROTOCOLS {
        for (ask, answer) in protocol.samples {
            let stream = stream(ask, answer);
            let spans = run(&stream);
            assert!(spans > 0, "{}", protocol.name);
            assert_eq!(run(&above_tls(&stream)), spans, "{}", protocol.name);
        }
    }
}

/// The checked-in inputs of a fuzz target.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let corpus = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let inputs: Vec<_> = std::fs::read_dir(corpus.join(target))
        .unwrap()
        .map(|file| std::fs::read(file.unwrap().path()).unwrap())
        .collect();
    assert!(!inputs.is_empty());
    inputs
}

#[test]
fn every_stream_of_the_corpus_ends_in_order() {
    for stream in corpus("pipeline") {
        run(&stream);
    }
}

#[test]
fn header_blocks_are_told_truly() {
    for (blocks, lost, fields) in [
        // The lost block's fields, and what later ones have from it, or from before it.
        (REQUESTS, 0, (14, 8)),
        (REQUESTS, 1, (14, 8)),
        (RESPONSES, 0, (14, 5)),
        (RESPONSES, 1, (14, 8)),
        (CALLS, 0, (16, 6)),
        (CALLS, 1, (16, 10)),
    ] {
        assert_eq!(header_blocks::check(&with_loss(blocks, lost)), fields);
    }
    for input in corpus("hpack") {
        header_blocks::check(&header_blocks::decode(&input));
    }
}
