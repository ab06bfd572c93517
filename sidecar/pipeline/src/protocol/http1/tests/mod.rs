//! Conversations played into the parser; what comes out is written as text.
//!
//! `+0` an exchange started, `0 GET /a 200 req=0 res=5 @3` it finished (status, error, sizes, end), `-0` it was
//! abandoned, `opaque` the connection was given up. What was lost on the way is asked for with [`losses`]. Each step of a conversation takes one unit of time.

mod attributes;
mod bodies;
mod loss;
mod pairing;

use super::PROTOCOL;
use crate::model::{Attribute, Value};
use crate::protocol::{Direction, Event, Events, Exchange, FlowInfo, Loss, Moment, Parser, Side};
use crate::semconv;

/// One thing that happens on a connection.
#[derive(Clone, Debug)]
enum Step {
    Request(Vec<u8>),
    Response(Vec<u8>),
    RequestGap(u64),
    ResponseGap(u64),
    RequestClose,
    ResponseClose,
    End,
    Tick(u64),
}

fn request(bytes: impl AsRef<[u8]>) -> Step {
    Step::Request(bytes.as_ref().to_vec())
}

fn response(bytes: impl AsRef<[u8]>) -> Step {
    Step::Response(bytes.as_ref().to_vec())
}

/// A GET of this path.
fn get(path: &str) -> Step {
    request(format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n"))
}

/// A 200 with this content.
fn ok(content: &str) -> Step {
    response(format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{content}",
        content.len()
    ))
}

#[derive(Default)]
struct Log(Vec<Event>);

impl Events for Log {
    fn event(&mut self, event: Event) {
        self.0.push(event);
    }
}

/// Plays a conversation to a server's (requests are received) or client's parser.
fn play(request_direction: Direction, info: FlowInfo, steps: &[Step]) -> Vec<Event> {
    let mut parser: Box<dyn Parser> = (PROTOCOL.parser)(info, request_direction, Side::Request);
    let mut log = Log::default();
    let mut offsets = [0_u64; 2];
    for (time, step) in (1..).zip(steps) {
        let (direction, index) = match step {
            Step::Request(_) | Step::RequestGap(_) | Step::RequestClose => (request_direction, 0),
            _ => (request_direction.opposite(), 1),
        };
        let at = Moment {
            time,
            tid: 7,
            offset: offsets[index],
            unwitnessed: false,
        };
        match step {
            Step::Request(bytes) | Step::Response(bytes) => {
                offsets[index] = offsets[index].saturating_add(bytes.len() as u64);
                parser.on_bytes(direction, bytes, at, &mut log);
            }
            Step::RequestGap(length) | Step::ResponseGap(length) => {
                offsets[index] = offsets[index].saturating_add(*length);
                parser.on_gap(direction, *length, at, &mut log);
            }
            Step::RequestClose | Step::ResponseClose => parser.on_close(direction, at, &mut log),
            Step::End => parser.on_end(&mut log),
            Step::Tick(now) => parser.on_tick(*now, &mut log),
        }
    }
    log.0
}

fn server(steps: &[Step]) -> Vec<String> {
    texts(&play(Direction::Received, FlowInfo::default(), steps))
}

fn client(steps: &[Step]) -> Vec<String> {
    texts(&play(Direction::Sent, FlowInfo::default(), steps))
}

fn joined_late(request_direction: Direction, steps: &[Step]) -> Vec<String> {
    let info = FlowInfo {
        joined_late: true,
        ..FlowInfo::default()
    };
    texts(&play(request_direction, info, steps))
}

/// Why a server's parser lost its place, each time.
fn losses(steps: &[Step]) -> Vec<Loss> {
    play(Direction::Received, FlowInfo::default(), steps)
        .iter()
        .filter_map(|event| match event {
            Event::Lost(loss) => Some(*loss),
            _ => None,
        })
        .collect()
}

fn texts(events: &[Event]) -> Vec<String> {
    events.iter().filter_map(text).collect()
}

fn text(event: &Event) -> Option<String> {
    Some(match event {
        Event::Started(started) => format!("+{}", started.id.0),
        Event::Finished(exchange) => finished(exchange),
        Event::Abandoned(id) => format!("-{}", id.0),
        Event::Lost(_) => return None,
        Event::Opaque => "opaque".into(),
    })
}

fn finished(exchange: &Exchange) -> String {
    let mut parts = vec![exchange.id.0.to_string(), exchange.verb.to_string()];
    parts.extend((!exchange.path.is_empty()).then(|| exchange.path.to_string()));
    parts.extend(
        number(&exchange.attributes, semconv::HTTP_RESPONSE_STATUS_CODE)
            .map(|status| status.to_string()),
    );
    parts.extend(
        exchange
            .error_type
            .as_ref()
            .map(|error| format!("error={error}")),
    );
    for (instrument, value) in &exchange.values {
        let label = if instrument.name.contains("request.body") {
            "req"
        } else {
            "res"
        };
        parts.push(format!("{label}={value}"));
    }
    parts.push(format!("@{}", exchange.end));
    parts.join(" ")
}

fn number(attributes: &[Attribute], key: &str) -> Option<i64> {
    attributes
        .iter()
        .find(|attribute| attribute.key == key)
        .and_then(|attribute| match attribute.value {
            Value::Int(number) => Some(number),
            _ => None,
        })
}
