//! Records made by hand, and a line protocol that is small enough to see through.
//!
//! Request: `Q PATH [TRACEPARENT [TRACESTATE]]\n`; response: `A STATUS\n`, where a status other than `ok` is an error.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test binary uses its own part"
)]
#![allow(clippy::needless_pass_by_value, reason = "a packet is made to be fed")]

use pilotfish_abi::{Family, Header, Kind as RecordKind, flag};
use pilotfish_pipeline::protocol::{
    Direction, Event, Events, Exchange, ExchangeId, Moment, Parser, Protocol, Side, Started,
    Verdict,
};
use pilotfish_pipeline::{
    Config, Instrument, Kind, Measurement, Pipeline, Record, Sink, SlotConfig, Span, SpanId,
    Status, TraceId, Value,
};
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

pub static DURATION: Instrument = Instrument {
    name: "line.duration",
    unit: "s",
    description: "Duration of line exchanges.",
    boundaries: &[1.0],
};

pub static LINES: &[Protocol] = &[Protocol {
    name: "line",
    summary: "the line protocol of these tests",
    detect,
    parser: |_, direction, side| Box::new(LineParser::new(direction, side)),
    samples: &[(b"Q /\n", b"A ok\n")],
}];

fn detect(bytes: &[u8]) -> Verdict {
    match bytes {
        [b'Q', b' ', ..] => Verdict::Yes(Side::Request),
        [b'A', b' ', ..] => Verdict::Yes(Side::Response),
        [] | [b'Q' | b'A'] => Verdict::NeedMore,
        _ => Verdict::No,
    }
}

struct Line {
    text: Vec<u8>,
    at: Option<Moment>,
}

struct LineParser {
    requests: Direction,
    request: Line,
    response: Line,
    waiting: VecDeque<(ExchangeId, String)>,
    next: u64,
}

impl LineParser {
    fn new(direction: Direction, side: Side) -> Self {
        let requests = if side == Side::Request {
            direction
        } else {
            direction.opposite()
        };
        let line = || Line {
            text: Vec::new(),
            at: None,
        };
        Self {
            requests,
            request: line(),
            response: line(),
            waiting: VecDeque::new(),
            next: 0,
        }
    }

    fn line(
        &mut self,
        direction: Direction,
        line: &str,
        first: Moment,
        last: Moment,
        events: &mut dyn Events,
    ) {
        if direction == self.requests {
            let mut words = line.split(' ').skip(1);
            let id = ExchangeId(self.next);
            self.next += 1;
            self.waiting
                .push_back((id, words.next().unwrap_or_default().to_owned()));
            let kind = if direction == Direction::Received {
                Kind::Server
            } else {
                Kind::Client
            };
            let traceparent = words.next().map(|word| word.as_bytes().into());
            let tracestate = words.next().map(|word| word.as_bytes().into());
            events.event(Event::Started(Started {
                id,
                kind,
                at: first,
                traceparent,
                tracestate,
            }));
        } else if let Some((id, path)) = self.waiting.pop_front() {
            let status = line.split(' ').nth(1).unwrap_or_default();
            let failed = status != "ok";
            events.event(Event::Finished(Box::new(Exchange {
                id,
                end: last.time,
                verb: "Q".into(),
                path: path.as_str().into(),
                route_key: (self.requests == Direction::Received).then_some("line.route"),
                attributes: Vec::new(),
                dimensions: smallvec::SmallVec::new(),
                error_type: failed.then(|| status.into()),
                status: if failed { Status::Error } else { Status::Unset },
                duration: &DURATION,
                values: smallvec::SmallVec::new(),
            })));
            if status == "opaque" {
                events.event(Event::Opaque);
            }
        }
    }
}

impl Parser for LineParser {
    fn on_bytes(
        &mut self,
        direction: Direction,
        bytes: &[u8],
        at: Moment,
        events: &mut dyn Events,
    ) {
        for (index, &byte) in bytes.iter().enumerate() {
            let line = if direction == self.requests {
                &mut self.request
            } else {
                &mut self.response
            };
            line.at.get_or_insert(Moment {
                offset: at.offset + index as u64,
                ..at
            });
            if byte != b'\n' {
                line.text.push(byte);
                continue;
            }
            let (text, first) = (std::mem::take(&mut line.text), line.at.take().unwrap());
            self.line(
                direction,
                &String::from_utf8_lossy(&text),
                first,
                at,
                events,
            );
        }
    }

    fn on_gap(&mut self, _: Direction, _: u64, _: Moment, events: &mut dyn Events) {
        self.request.text.clear();
        self.response.text.clear();
        self.on_end(events);
    }

    fn on_close(&mut self, direction: Direction, _: Moment, events: &mut dyn Events) {
        if direction != self.requests {
            self.on_end(events);
        }
    }

    fn held_bytes(&self) -> usize {
        self.request.text.capacity() + self.response.text.capacity()
    }

    fn on_end(&mut self, events: &mut dyn Events) {
        for (id, _) in self.waiting.drain(..) {
            events.event(Event::Abandoned(id));
        }
    }
}

/// Keeps what it is given.
#[derive(Default)]
pub struct Results {
    pub spans: Vec<Span>,
    pub measurements: Vec<Measurement>,
}

impl Sink for Results {
    fn span(&mut self, span: Span) {
        self.spans.push(span);
    }

    fn measurement(&mut self, measurement: Measurement) {
        self.measurements.push(measurement);
    }
}

/// One end of a connection; keeps count of its own offsets.
#[derive(Clone)]
pub struct Wire {
    pub header: Header,
    sent: u64,
    received: u64,
}

impl Wire {
    pub fn new(cookie: u64, slot: u32, local: &str, remote: &str) -> Self {
        let (local, remote): (SocketAddr, SocketAddr) =
            (local.parse().unwrap(), remote.parse().unwrap());
        let family = if local.is_ipv4() {
            Family::V4
        } else {
            Family::V6
        } as u16;
        let header = Header {
            family,
            slot,
            cookie,
            netns: 4_026_531_840,
            local: bytes(local.ip()),
            remote: bytes(remote.ip()),
            local_port: local.port(),
            remote_port: remote.port(),
            tgid: 100,
            tid: 100,
            ..Header::default()
        };
        Self {
            header,
            sent: 0,
            received: 0,
        }
    }

    pub fn unix(cookie: u64, slot: u32, tgid: u32) -> Self {
        let header = Header {
            family: Family::Unix as u16,
            slot,
            cookie,
            tgid,
            tid: tgid,
            ..Header::default()
        };
        Self {
            header,
            sent: 0,
            received: 0,
        }
    }

    pub fn late(mut self) -> Self {
        self.header.flags |= flag::JOINED_LATE;
        self
    }

    pub fn tid(&mut self, tid: u32) -> &mut Self {
        self.header.tid = tid;
        self
    }

    pub fn send(&mut self, time: u64, text: &str) -> Packet {
        let mut packet = self.packet(RecordKind::Send, time, self.sent, text.as_bytes());
        packet.header.opposite = self.received;
        self.sent += text.len() as u64;
        packet
    }

    pub fn receive(&mut self, time: u64, text: &str) -> Packet {
        let mut packet = self.packet(RecordKind::Receive, time, self.received, text.as_bytes());
        packet.header.opposite = self.sent;
        self.received += text.len() as u64;
        packet
    }

    pub fn receive_end(&self, time: u64) -> Packet {
        self.packet(RecordKind::ReceiveEnd, time, self.received, b"")
    }

    pub fn send_end(&self, time: u64) -> Packet {
        self.packet(RecordKind::SendEnd, time, self.sent, b"")
    }

    /// The kernel runs this on any thread, without a port.
    pub fn close(&self, time: u64) -> Packet {
        self.close_unread(time, 0)
    }

    /// The close of a connection with so many bytes that arrived and were not read yet.
    pub fn close_unread(&self, time: u64, unread: u32) -> Packet {
        let mut packet = self.packet(RecordKind::Close, time, self.sent, b"");
        packet.header.total = unread;
        packet.header.opposite = self.received;
        (packet.header.tid, packet.header.local_port) = (0, 0);
        packet
    }

    fn packet(&self, kind: RecordKind, time: u64, offset: u64, payload: &[u8]) -> Packet {
        let length = payload.len() as u32;
        let header = Header {
            kind: kind as u8,
            time,
            offset,
            total: length,
            captured: length,
            ..self.header
        };
        Packet {
            kind,
            header,
            payload: payload.to_vec(),
        }
    }
}

fn bytes(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V6(address) => address.octets(),
        IpAddr::V4(address) => {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&address.octets());
            bytes
        }
    }
}

/// A record with its own bytes.
#[derive(Clone)]
pub struct Packet {
    pub kind: RecordKind,
    pub header: Header,
    pub payload: Vec<u8>,
}

impl Packet {
    /// The same operation with only its first bytes captured.
    pub fn captured(mut self, length: usize) -> Self {
        self.payload.truncate(length);
        self.header.captured = self.payload.len() as u32;
        self
    }
}

/// A pipeline of the line protocol with its results.
pub struct Bench {
    pub pipeline: Pipeline,
    pub results: Results,
}

impl Bench {
    pub fn new() -> Self {
        Self::with(Config::default())
    }

    /// A pipeline whose containers have these settings.
    pub fn of(defaults: SlotConfig) -> Self {
        Self::with(Config {
            defaults,
            ..Config::default()
        })
    }

    pub fn with(config: Config) -> Self {
        let pipeline = Pipeline::with_protocols(
            Config {
                seed: [1; 32],
                ..config
            },
            LINES,
        )
        .unwrap();
        Self {
            pipeline,
            results: Results::default(),
        }
    }

    pub fn feed(&mut self, packet: Packet) -> &mut Self {
        let record = Record {
            kind: packet.kind,
            header: packet.header,
            payload: &packet.payload,
        };
        self.pipeline.on_record(&record, &mut self.results);
        self
    }

    pub fn exit(&mut self, tgid: u32) {
        let header = Header {
            kind: RecordKind::Exit as u8,
            tgid,
            ..Header::default()
        };
        self.feed(Packet {
            kind: RecordKind::Exit,
            header,
            payload: Vec::new(),
        });
    }

    pub fn tick(&mut self, now: u64) {
        self.pipeline.on_tick(now, 0, &mut self.results);
    }

    pub fn finish(&mut self) {
        self.pipeline.finish(&mut self.results);
        assert_eq!(
            (self.pipeline.flows_open(), self.pipeline.exchanges_open()),
            (0, 0)
        );
    }

    pub fn only_span(&self) -> &Span {
        assert_eq!(self.results.spans.len(), 1, "{:#?}", self.results.spans);
        &self.results.spans[0]
    }

    /// The span of the exchange on this slot with this role, the only one of it.
    pub fn span(&self, slot: u32, kind: Kind) -> &Span {
        let mut spans = self
            .results
            .spans
            .iter()
            .filter(|span| span.slot.0 == slot && span.kind == kind);
        let span = spans.next().expect("no such span");
        assert!(spans.next().is_none(), "several such spans");
        span
    }
}

pub fn text(span: &Span, key: &str) -> Option<String> {
    span.attributes
        .iter()
        .find(|attribute| attribute.key == key)
        .map(|attribute| match &attribute.value {
            Value::Str(text) => text.to_string(),
            Value::Int(number) => number.to_string(),
            Value::Float(number) => number.to_string(),
            Value::Bool(flag) => flag.to_string(),
        })
}

pub const TRACE: TraceId = TraceId([0xab; 16]);
pub const PARENT: SpanId = SpanId([0xcd; 8]);

pub fn traceparent() -> String {
    format!("00-{}-{}-01", "ab".repeat(16), "cd".repeat(8))
}
