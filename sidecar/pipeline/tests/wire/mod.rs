//! Records made by hand, and a line protocol that is small enough to see through.
//!
//! Request: `Q PATH [TRACEPARENT [TRACESTATE]]\n`; response: `A STATUS\n`, where a status other than `ok` is an error.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test binary uses its own part"
)]
#![allow(clippy::needless_pass_by_value, reason = "a packet is made to be fed")]

mod lines;

pub use lines::LINES;

use pilotfish_abi::{Family, Header, Kind as RecordKind, flag};
use pilotfish_pipeline::{
    Config, Encrypted, Kind, Measurement, Pipeline, Record, Sink, SlotConfig, Span, SpanId,
    TraceId, Value,
};
use std::net::{IpAddr, SocketAddr};

/// Keeps what it is given.
#[derive(Default)]
pub struct Results {
    pub spans: Vec<Span>,
    pub measurements: Vec<Measurement>,
    pub encrypted: Vec<Encrypted>,
}

impl Sink for Results {
    fn span(&mut self, span: Span) {
        self.spans.push(span);
    }

    fn measurement(&mut self, measurement: Measurement) {
        self.measurements.push(measurement);
    }

    fn encrypted(&mut self, flow: Encrypted) {
        self.encrypted.push(flow);
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

    /// The plaintext of the TLS connection that this socket carries.
    pub fn tls(mut self) -> Self {
        self.header.flags |= flag::TLS;
        self.header.cookie |= 1 << 63;
        self
    }

    /// As long as its socket is not known.
    pub fn without_socket(mut self) -> Self {
        self.header = Header {
            family: 0,
            netns: 0,
            local: [0; 16],
            remote: [0; 16],
            local_port: 0,
            remote_port: 0,
            ..self.header
        };
        self
    }

    /// From when its socket is known, which has these addresses.
    pub fn carried_by(&mut self, local: &str, remote: &str) -> &mut Self {
        let known = Self::new(0, 0, local, remote).header;
        let Header {
            flags,
            slot,
            cookie,
            tgid,
            tid,
            ..
        } = self.header;
        self.header = Header {
            flags,
            slot,
            cookie,
            tgid,
            tid,
            ..known
        };
        self
    }

    pub fn tid(&mut self, tid: u32) -> &mut Self {
        self.header.tid = tid;
        self
    }

    pub fn send(&mut self, time: u64, bytes: &(impl AsRef<[u8]> + ?Sized)) -> Packet {
        let bytes = bytes.as_ref();
        let mut packet = self.packet(RecordKind::Send, time, self.sent, bytes);
        packet.header.opposite = self.received;
        self.sent += bytes.len() as u64;
        packet
    }

    pub fn receive(&mut self, time: u64, bytes: &(impl AsRef<[u8]> + ?Sized)) -> Packet {
        let bytes = bytes.as_ref();
        let mut packet = self.packet(RecordKind::Receive, time, self.received, bytes);
        packet.header.opposite = self.sent;
        self.received += bytes.len() as u64;
        packet
    }

    pub fn receive_end(&self, time: u64) -> Packet {
        self.packet(RecordKind::ReceiveEnd, time, self.received, b"")
    }

    pub fn send_end(&self, time: u64) -> Packet {
        self.packet(RecordKind::SendEnd, time, self.sent, b"")
    }

    /// The kernel runs this on any thread, and without a port for a socket.
    pub fn close(&self, time: u64) -> Packet {
        self.close_unread(time, 0)
    }

    /// The close of a connection with so many bytes that arrived and were not read yet.
    pub fn close_unread(&self, time: u64, unread: u32) -> Packet {
        let mut packet = self.packet(RecordKind::Close, time, self.sent, b"");
        packet.header.total = unread;
        packet.header.opposite = self.received;
        packet.header.tid = 0;
        if packet.header.flags & flag::TLS == 0 {
            packet.header.local_port = 0;
        }
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
