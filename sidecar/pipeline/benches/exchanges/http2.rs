//! HTTP/2 with 1 and with 100 concurrent streams, and unary gRPC calls: servers whose peers send a field once, and its index
//! from then on, as they all do. A hundred requests come in one operation, and so do their responses.

use super::{Case, EXCHANGES_PER_FLOW, FLOWS, Moved, Place};
use pilotfish_abi::Kind;
use std::borrow::Cow;

/// The preface and SETTINGS, which the server sends without the preface.
const OPENING: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
const PREFACE: usize = 24;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// Fields as names and values. None of the values is in the static table.
type Fields = &'static [(&'static str, &'static str)];

/// What goes to and fro on each stream.
struct Dialogue {
    /// Indices of fields in the static table, then fields.
    request: (&'static [u8], Fields),
    body: &'static [u8],
    response: (&'static [u8], Fields),
    content: &'static [u8],
    trailers: Fields,
}

/// The same as the HTTP/1.1 of the other cases.
const GET: Dialogue = Dialogue {
    request: (
        &[0x82, 0x86],
        &[
            (":path", "/api/users/42?verbose=1"),
            (":authority", "shop.example:8080"),
            ("user-agent", "curl/8.5.0"),
            ("accept", "*/*"),
        ],
    ),
    body: b"",
    response: (
        &[0x88],
        &[
            ("server", "nginx/1.26"),
            ("content-type", "application/json"),
            ("content-length", "28"),
        ],
    ),
    content: b"{\"id\":42,\"name\":\"pilotfish\"}",
    trailers: &[],
};

const CALL: Dialogue = Dialogue {
    request: (
        &[0x83, 0x86],
        &[
            (":path", "/shop.Orders/Get"),
            (":authority", "shop.example:8080"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
            ("grpc-accept-encoding", "identity, deflate, gzip"),
            (
                "user-agent",
                "grpc-python/1.60.0 grpc-c/37.0.0 (linux; chttp2)",
            ),
        ],
    ),
    body: b"\0\0\0\0\x02\x08\x2a",
    response: (
        &[0x88],
        &[
            ("content-type", "application/grpc"),
            ("grpc-accept-encoding", "identity, deflate, gzip"),
        ],
    ),
    content: b"\0\0\0\0\x09\x0a\x07payload",
    trailers: &[("grpc-status", "0"), ("grpc-message", "")],
};

pub(super) const CASES: [Case; 4] = [
    Case {
        name: "http2 server",
        records: || records(&GET, 1),
        per_request: 1,
        settings: false,
    },
    Case {
        name: "http2 server, 100 concurrent streams",
        records: || records(&GET, 100),
        per_request: 1,
        settings: false,
    },
    Case {
        name: "http2 gRPC server, unary calls",
        records: || records(&CALL, 1),
        per_request: 1,
        settings: false,
    },
    Case {
        name: "http2 gRPC server, 100 concurrent unary calls",
        records: || records(&CALL, 100),
        per_request: 1,
        settings: false,
    },
];

/// Flows on `FLOWS` threads; so many requests are received, then answered.
fn records(dialogue: &Dialogue, concurrent: u64) -> Vec<Moved> {
    let mut records = Vec::new();
    let mut time = 1_000_000;
    let mut offsets = [[0_u64; 2]; FLOWS as usize];
    let mut push = |flow: u64, kind, payload: Vec<u8>| {
        time += 1_000;
        let side = usize::from(kind == Kind::Send);
        let offset = &mut offsets[flow as usize - 1][side];
        let place = Place {
            flow,
            upstream: false,
            offset: *offset,
            time,
        };
        *offset += payload.len() as u64;
        records.push(place.moved(kind, Cow::Owned(payload)));
    };
    for flow in 1..=FLOWS {
        push(flow, Kind::Receive, OPENING.to_vec());
        push(flow, Kind::Send, OPENING[PREFACE..].to_vec());
    }
    for batch in 0..EXCHANGES_PER_FLOW / concurrent {
        let streams = || (batch * concurrent..(batch + 1) * concurrent).map(|n| n as u32 * 2 + 1);
        for flow in 1..=FLOWS {
            push(
                flow,
                Kind::Receive,
                streams()
                    .flat_map(|stream| dialogue.asked(stream))
                    .collect(),
            );
            push(
                flow,
                Kind::Send,
                streams()
                    .flat_map(|stream| dialogue.answered(stream))
                    .collect(),
            );
        }
    }
    records
}

impl Dialogue {
    fn asked(&self, stream: u32) -> Vec<u8> {
        let (known, fields) = self.request;
        let block = block(known, fields, 0, stream == 1);
        if self.body.is_empty() {
            return frame(HEADERS, END_HEADERS | END_STREAM, stream, &block);
        }
        let head = frame(HEADERS, END_HEADERS, stream, &block);
        [head, frame(DATA, END_STREAM, stream, self.body)].concat()
    }

    fn answered(&self, stream: u32) -> Vec<u8> {
        let (known, fields) = self.response;
        let later = if stream == 1 { 0 } else { self.trailers.len() };
        let head = frame(
            HEADERS,
            END_HEADERS,
            stream,
            &block(known, fields, later, stream == 1),
        );
        if self.trailers.is_empty() {
            return [head, frame(DATA, END_STREAM, stream, self.content)].concat();
        }
        let trailers = block(&[], self.trailers, 0, stream == 1);
        let content = frame(DATA, 0, stream, self.content);
        [
            head,
            content,
            frame(HEADERS, END_HEADERS | END_STREAM, stream, &trailers),
        ]
        .concat()
    }
}

/// A header block: indices of the static table, then fields, inserted or by the index that they have with so many
/// `later` ones behind them.
fn block(known: &[u8], fields: Fields, later: usize, is_first: bool) -> Vec<u8> {
    let mut block = known.to_vec();
    for (place, (name, value)) in fields.iter().enumerate() {
        if is_first {
            block.push(0x40);
            for text in [name, value] {
                block.push(text.len() as u8);
                block.extend(text.as_bytes());
            }
        } else {
            block.push(0x80 + (62 + later + fields.len() - 1 - place) as u8);
        }
    }
    block
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}
