//! The checked-in fuzz corpus: the protocol samples as conversations, as records, and as whole recorded streams.
//!
//! `PILOTFISH_WRITE_SEEDS=1 cargo test -p pilotfish-pipeline --test seeds` writes it anew.

#[allow(dead_code, reason = "the protocol tests use more of it")]
mod conversation;

use conversation::encode;
use pilotfish_abi::{Family, Header, Kind, flag};
use pilotfish_pipeline::protocol::PROTOCOLS;
use pilotfish_pipeline::{Config, Measurement, Pipeline, Record, Sink, Span};
use std::path::PathBuf;
use zerocopy::IntoBytes;

/// Bytes per operation of the streams: most heads are whole, most bodies are not.
const CAPTURE: usize = 512;

/// The beginning of a `ClientHello`, as far as it decides.
const CLIENT_HELLO: &[u8] = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";

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

#[test]
fn every_stream_of_the_corpus_ends_in_order() {
    let corpus = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/pipeline");
    let files: Vec<_> = std::fs::read_dir(corpus)
        .unwrap()
        .map(|file| file.unwrap().path())
        .collect();
    assert!(!files.is_empty());
    for file in files {
        run(&std::fs::read(file).unwrap());
    }
}
