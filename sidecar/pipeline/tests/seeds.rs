//! The checked-in fuzz corpus: the protocol samples as conversations, as records, and as whole recorded streams; and
//! header blocks.
//!
//! `PILOTFISH_WRITE_SEEDS=1 cargo test -p pilotfish-pipeline --test seeds` writes it anew.

#[allow(dead_code, reason = "the protocol tests use more of it")]
mod conversation;
mod header_blocks;

use conversation::{encode, encode_turns};
use header_blocks::Step;
use pilotfish_abi::{Family, Header, Kind, flag};
use pilotfish_pipeline::protocol::PROTOCOLS;
use pilotfish_pipeline::{Config, Measurement, Pipeline, Record, Sink, Span, Value, semconv};
use std::path::PathBuf;
use zerocopy::IntoBytes;

/// Bytes per operation of the streams: most heads are whole, most bodies are not.
const CAPTURE: usize = 512;

/// A connection that goes on in HTTP/2, as curl 7.88 and nghttpx 1.52 wrote it, in turns: the offer, its acceptance, the
/// client's preface, the response of stream 1, then a request for what is not there (its content is shortened).
const UPGRADE: [&[u8]; 6] = [
    b"GET /hello.txt HTTP/1.1\r\nHost: 127.0.0.1:18767\r\nUser-Agent: curl/7.88.1\r\nAccept: */*\r\n\
      Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n\
      \x00\x00\x18\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00d\x00\x04\x00\x00\xff\xff\
      \x00\t\x00\x00\x00\x01\x00\x08\x00\x00\x00\x01",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\
      \x00\x00\x12\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00d\x00\x04\x02\x00\x00\x00\x00\x02\x00\x00\x00\x00\
      \x00\x00\x00\x04\x01\x00\x00\x00\x00\
      \x00\x00\x04\x08\x00\x00\x00\x00\x00\x01\xff\x00\x01",
    b"\x00\x00\x00\x04\x01\x00\x00\x00\x00\
      \x00\x00Q\x01\x04\x00\x00\x00\x01\x88a\x96\xd0z\xbe\x94\x13*i?u\x04\x018\xa0]\xb8\x07\xee\x05\xf51h\xdf_\x87I|\
      \xa5\x8a\xe8\x19\xaa\x0f\r\x0212l\x96\xd0z\xbe\x94\x13*i?u\x04\x018\xa0]\xb8\x07\xee\x05\xd51h\xdfv\x86\xaai\xd2\
      \x9a\xfc\xff|\x88\n\xe0R\xa9\xa7Jk\xf3\
      \x00\x00\x0c\x00\x01\x00\x00\x00\x01hello there\n",
    b"\x00\x00&\x01\x05\x00\x00\x00\x03\x82\x04\x86b\x93!\x06\xaao\x86A\x8b\x08\x9d\\\x0b\x81p\xdc\x0b\xce\xb8\xefz\x88%\
      \xb6P\xc3\xab\xbc\xf2\xe1S\x03*/*",
    b"\x00\x00\x1d\x01\x04\x00\x00\x00\x03\x8d\xc2_\x91I|\xa5\x89\xd3M\x1fd\x9cv \xa9\x82\xd4\xca\xb3\xdf\x0f\r\x03335\
      \xc0\xbf\
      \x00\x00\x04\x00\x01\x00\x00\x00\x03none",
];

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

/// The status of each span.
#[derive(Default)]
struct Statuses(Vec<Option<i64>>);

impl Sink for Statuses {
    fn span(&mut self, span: Span) {
        let mut attributes = span.attributes.iter();
        self.0
            .push(attributes.find_map(|attribute| match attribute.value {
                Value::Int(status) if attribute.key == semconv::HTTP_RESPONSE_STATUS_CODE => {
                    Some(status)
                }
                _ => None,
            }));
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
    stream_of(&[ask, answer])
}

/// The same of turns that begin with the requests'.
fn stream_of(turns: &[&[u8]]) -> Vec<u8> {
    let mut records = Vec::new();
    let mut time = 0;
    let mut offsets = [0, 0];
    let sides = [(0, Kind::Receive), (1, Kind::Send)];
    for ((side, kind), bytes) in sides.into_iter().cycle().zip(turns) {
        for operation in bytes.chunks(CAPTURE) {
            time += 1_000_000;
            let total = operation.len();
            records.extend(record(kind, time, offsets[side], operation, total));
            offsets[side] += total;
        }
    }
    records.extend(record(Kind::SendEnd, time + 1, offsets[1], &[], 0));
    records.extend(record(Kind::Close, time + 2, offsets[1], &[], 0));
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
    if let Some(number) = PROTOCOLS
        .iter()
        .position(|protocol| protocol.name == "http1")
    {
        let choice = vec![u8::try_from(number).unwrap(), 0];
        let conversation = [choice, encode_turns(&UPGRADE)].concat();
        seeds.push(("protocols/upgrade".into(), conversation));
    }
    seeds.push(("pipeline/upgrade".into(), stream_of(&UPGRADE)));
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

/// Runs a stream of records; returns the status of each span.
fn run(stream: &[u8]) -> Vec<Option<i64>> {
    let mut pipeline = Pipeline::new(Config::default()).unwrap();
    let mut statuses = Statuses::default();
    let mut rest = stream;
    while let Ok(record) = Record::parse(rest) {
        pipeline.on_record(&record, &mut statuses);
        let length = (Header::SIZE + record.payload.len()).next_multiple_of(8);
        rest = rest.get(length..).unwrap_or_default();
    }
    pipeline.finish(&mut statuses);
    let stats = pipeline.stats();
    assert_eq!((pipeline.flows_open(), pipeline.exchanges_open()), (0, 0));
    assert_eq!(
        stats.exchanges_started,
        stats.exchanges_finished + stats.exchanges_abandoned
    );
    statuses.0
}

#[test]
fn every_stream_gives_spans() {
    for protocol in PROTOCOLS {
        for (ask, answer) in protocol.samples {
            let stream = stream(ask, answer);
            let spans = run(&stream);
            assert!(!spans.is_empty(), "{}", protocol.name);
            assert_eq!(run(&above_tls(&stream)), spans, "{}", protocol.name);
        }
    }
}

#[test]
fn a_connection_that_goes_on_in_http2_gives_a_span_per_request() {
    assert_eq!(run(&stream_of(&UPGRADE)), [Some(200), Some(404)]);
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
