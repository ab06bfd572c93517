//! Conversations played into the parser; what comes out is written as text.
//!
//! `+1` the exchange of stream 1 started, `1 GET /a 200 req=0 res=5 @4` it finished (status, error, sizes, end; `?` if its
//! head is marked as incomplete), `-1` it was abandoned, `opaque` the connection was given up, `lost` the place was. A call
//! is `1 grpc /shop.Orders/Get OK @4`. Each step of a conversation takes one unit of time; the first two open the connection.

mod bounds;
mod calls;
mod endings;
mod frames;
mod late;
mod loss;
mod streams;
mod truth;
mod upgrade;
mod wire;

use super::PROTOCOL;
use crate::model::{Attribute, Value};
use crate::protocol::{Direction, Event, Events, Exchange, FlowInfo, Moment, Parser, Side};
use crate::semconv;
use wire::Talk;

const ROLES: [Direction; 2] = [Direction::Received, Direction::Sent];

/// One thing that happens on a connection.
#[derive(Clone, Debug)]
enum Step {
    Request(Vec<u8>),
    Response(Vec<u8>),
    RequestGap(u64),
    ResponseGap(u64),
    /// The record was lost, so that nobody saw when the bytes moved.
    ResponseHole(u64),
    ResponseClose,
    End,
    Tick(u64),
}

#[derive(Default)]
struct Log(Vec<Event>);

impl Events for Log {
    fn event(&mut self, event: Event) {
        self.0.push(event);
    }
}

/// A parser with its clock and offsets, and the most that it ever held.
struct Player {
    parser: Box<dyn Parser>,
    requests: Direction,
    log: Log,
    time: u64,
    offsets: [u64; 2],
    most_held: usize,
}

impl Player {
    fn new(requests: Direction, info: FlowInfo) -> Self {
        Self::of((PROTOCOL.parser)(info, requests, Side::Request), requests)
    }

    fn of(parser: Box<dyn Parser>, requests: Direction) -> Self {
        Self {
            parser,
            requests,
            log: Log::default(),
            time: 0,
            offsets: [0; 2],
            most_held: 0,
        }
    }

    fn play(&mut self, steps: &[Step]) {
        for step in steps {
            self.step(step);
        }
    }

    fn step(&mut self, step: &Step) {
        self.time += 1;
        let (direction, index) = match step {
            Step::Request(_) | Step::RequestGap(_) => (self.requests, 0),
            _ => (self.requests.opposite(), 1),
        };
        let at = Moment {
            time: self.time,
            tid: 7,
            offset: self.offsets[index],
            unwitnessed: matches!(step, Step::ResponseHole(_)),
        };
        let (parser, log) = (&mut self.parser, &mut self.log);
        match step {
            Step::Request(bytes) | Step::Response(bytes) => {
                self.offsets[index] += bytes.len() as u64;
                parser.on_bytes(direction, bytes, at, log);
            }
            Step::RequestGap(length) | Step::ResponseGap(length) | Step::ResponseHole(length) => {
                self.offsets[index] += length;
                parser.on_gap(direction, *length, at, log);
            }
            Step::ResponseClose => parser.on_close(direction, at, log),
            Step::End => parser.on_end(log),
            Step::Tick(now) => parser.on_tick(*now, log),
        }
        self.most_held = self.most_held.max(self.parser.held_bytes());
    }

    fn texts(&self) -> Vec<String> {
        self.log.0.iter().map(text).collect()
    }
}

fn play(requests: Direction, steps: &[Step]) -> Vec<String> {
    let mut player = Player::new(requests, FlowInfo::default());
    player.play(steps);
    player.texts()
}

fn server(talk: &Talk) -> Vec<String> {
    play(Direction::Received, talk.steps())
}

fn client(talk: &Talk) -> Vec<String> {
    play(Direction::Sent, talk.steps())
}

/// What either role tells, which has to be the same.
fn both(talk: &Talk) -> Vec<String> {
    let [server, client] = [server(talk), client(talk)];
    assert_eq!(server, client);
    server
}

fn joined_late(requests: Direction, steps: &[Step]) -> Vec<String> {
    let info = FlowInfo {
        joined_late: true,
        ..FlowInfo::default()
    };
    let mut player = Player::new(requests, info);
    player.play(steps);
    player.texts()
}

fn text(event: &Event) -> String {
    match event {
        Event::Started(started) => format!("+{}", started.id.0),
        Event::Finished(exchange) => finished(exchange),
        Event::Abandoned(id) => format!("-{}", id.0),
        Event::Lost(_) => "lost".into(),
        Event::Opaque => "opaque".into(),
    }
}

fn finished(exchange: &Exchange) -> String {
    let attributes = &exchange.attributes;
    let mut parts = vec![exchange.id.0.to_string()];
    let is_call = find(attributes, semconv::RPC_SYSTEM_NAME).is_some();
    parts.extend(is_call.then(|| "grpc".into()));
    let named = [&exchange.verb, &exchange.path];
    parts.extend(
        named
            .into_iter()
            .filter(|name| !name.is_empty())
            .map(ToString::to_string),
    );
    for key in [
        semconv::HTTP_RESPONSE_STATUS_CODE,
        semconv::RPC_RESPONSE_STATUS_CODE,
    ] {
        parts.extend(find(attributes, key));
    }
    let error = exchange.error_type.as_ref();
    parts.extend(error.map(|error| format!("error={error}")));
    for (instrument, value) in &exchange.values {
        let is_request = instrument.name.contains("request.body");
        parts.push(format!(
            "{}={value}",
            if is_request { "req" } else { "res" }
        ));
    }
    parts.push(format!("@{}", exchange.end));
    let is_incomplete = find(attributes, semconv::HEAD_INCOMPLETE).is_some();
    parts.extend(is_incomplete.then(|| "?".into()));
    parts.join(" ")
}

/// An attribute as text.
fn find(attributes: &[Attribute], key: &str) -> Option<String> {
    let attribute = attributes.iter().find(|attribute| attribute.key == key)?;
    Some(match &attribute.value {
        Value::Str(text) => text.to_string(),
        Value::Int(number) => number.to_string(),
        other => format!("{other:?}"),
    })
}
