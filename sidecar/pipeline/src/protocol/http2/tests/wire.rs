//! Frames and header blocks as peers write them.

use super::Step;
use crate::protocol::http2::frame::{HEADER, PREFACE, flag, kind};

pub(super) const END: u8 = flag::END_STREAM;
pub(super) const END_HEADERS: u8 = flag::END_HEADERS;

/// What the static table has of what the tests send (RFC 7541, appendix A).
const STATIC: [(u8, &str, &str); 10] = [
    (2, ":method", "GET"),
    (3, ":method", "POST"),
    (4, ":path", "/"),
    (6, ":scheme", "http"),
    (7, ":scheme", "https"),
    (8, ":status", "200"),
    (9, ":status", "204"),
    (13, ":status", "404"),
    (14, ":status", "500"),
    (31, "content-type", ""),
];

/// A frame of any kind.
pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = Vec::with_capacity(HEADER + payload.len());
    bytes.extend(&length[1..]);
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

pub(super) fn settings() -> Vec<u8> {
    frame(kind::SETTINGS, 0, 0, &[])
}

pub(super) fn preface() -> Vec<u8> {
    [PREFACE, &settings()].concat()
}

pub(super) fn data(stream: u32, flags: u8, content: &[u8]) -> Vec<u8> {
    frame(kind::DATA, flags, stream, content)
}

pub(super) fn headers(stream: u32, flags: u8, block: &[u8]) -> Vec<u8> {
    frame(kind::HEADERS, flags | END_HEADERS, stream, block)
}

pub(super) fn reset(stream: u32, code: u32) -> Vec<u8> {
    frame(kind::RST_STREAM, 0, stream, &code.to_be_bytes())
}

pub(super) fn go_away(last: u32, code: u32) -> Vec<u8> {
    frame(
        kind::GOAWAY,
        0,
        0,
        &[last.to_be_bytes(), code.to_be_bytes()].concat(),
    )
}

/// One side's header compression: what it has sent goes by its index, everything else is inserted. Entries never
/// leave the table, so that a test must not send more than fits.
#[derive(Clone, Default)]
pub(super) struct Encoder {
    /// Newest last.
    table: Vec<(String, String)>,
}

impl Encoder {
    pub(super) fn block(&mut self, fields: &[(&str, &str)]) -> Vec<u8> {
        let mut block = Vec::new();
        for &(name, value) in fields {
            let known = STATIC
                .iter()
                .find(|entry| (entry.1, entry.2) == (name, value));
            let sent = self
                .table
                .iter()
                .rev()
                .position(|entry| entry.0 == name && entry.1 == value);
            match (known, sent) {
                (Some((index, ..)), _) => block.push(0x80 | index),
                (None, Some(place)) => integer(&mut block, 0x80, 0x7f, 62 + place),
                (None, None) => {
                    block.push(0x40);
                    string(&mut block, name);
                    string(&mut block, value);
                    self.table.push((name.into(), value.into()));
                }
            }
        }
        block
    }
}

/// The field that was inserted `age` insertions before the latest, by its index.
pub(super) fn indexed(age: u8) -> u8 {
    0x80 + 62 + age
}

/// A field that is not inserted.
pub(super) fn plain(name: &str, value: &str) -> Vec<u8> {
    let mut block = vec![0];
    string(&mut block, name);
    string(&mut block, value);
    block
}

fn string(block: &mut Vec<u8>, text: &str) {
    integer(block, 0, 0x7f, text.len());
    block.extend(text.as_bytes());
}

/// RFC 7541, section 5.1.
fn integer(block: &mut Vec<u8>, pattern: u8, prefix: u8, number: usize) {
    let Some(mut rest) = number.checked_sub(usize::from(prefix)) else {
        return block.push(pattern | u8::try_from(number).unwrap());
    };
    block.push(pattern | prefix);
    while rest >= 0x80 {
        block.push(0x80 | u8::try_from(rest & 0x7f).unwrap());
        rest >>= 7;
    }
    block.push(u8::try_from(rest).unwrap());
}

/// A conversation, as one operation after another.
#[derive(Clone, Default)]
pub(super) struct Talk {
    pub(super) client: Encoder,
    pub(super) server: Encoder,
    steps: Vec<Step>,
}

impl Talk {
    /// Opened by both sides.
    pub(super) fn open() -> Self {
        let mut talk = Self::default();
        talk.ask(preface()).answer(settings());
        talk
    }

    pub(super) fn steps(&self) -> &[Step] {
        &self.steps
    }

    pub(super) fn step(&mut self, step: Step) -> &mut Self {
        self.steps.push(step);
        self
    }

    /// Bytes of the client.
    pub(super) fn ask(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.step(Step::Request(bytes.as_ref().into()))
    }

    /// Bytes of the server.
    pub(super) fn answer(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.step(Step::Response(bytes.as_ref().into()))
    }

    /// The frame of a request head.
    pub(super) fn request(&mut self, stream: u32, flags: u8, method: &str, path: &str) -> Vec<u8> {
        let block = self.client.block(&[
            (":method", method),
            (":scheme", "http"),
            (":path", path),
            (":authority", "h"),
        ]);
        headers(stream, flags, &block)
    }

    /// The frame of a response head.
    pub(super) fn response(&mut self, stream: u32, flags: u8, status: &str) -> Vec<u8> {
        let block = self.server.block(&[(":status", status)]);
        headers(stream, flags, &block)
    }

    /// A GET of this path, in one operation.
    pub(super) fn get(&mut self, stream: u32, path: &str) -> &mut Self {
        let request = self.request(stream, END, "GET", path);
        self.ask(request)
    }

    /// A 200 with this content, in one operation.
    pub(super) fn ok(&mut self, stream: u32, content: &str) -> &mut Self {
        let head = self.response(stream, 0, "200");
        self.answer([head, data(stream, END, content.as_bytes())].concat())
    }
}
