//! Conversations for a protocol's parser, and the contract that its events have to keep.
//!
//! Shared by the generic protocol tests and by the fuzz targets.

use pilotfish_pipeline::protocol::{
    Direction, Event, Events, Exchange, ExchangeId, FlowInfo, Moment,
};
use pilotfish_pipeline::protocol::{Parser, Protocol, Side};
use std::collections::{BTreeSet, HashSet};

/// Longest attribute value that may leave a parser, in bytes.
const MAX_VALUE: usize = 4096;

/// Most bytes that a parser may keep of one flow.
const MAX_HELD: usize = 2 * 1024 * 1024;

/// One thing that happens on a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Bytes(Direction, Vec<u8>),
    Gap(Direction, u64),
    Close(Direction),
    /// So many nanoseconds pass.
    Tick(u64),
}

/// Records events and checks that each exchange starts once, in order, and ends at most once.
#[derive(Default)]
pub(crate) struct Ledger {
    pub(crate) events: Vec<Event>,
    open: BTreeSet<ExchangeId>,
    latest: Option<ExchangeId>,
    losses: usize,
    /// How many places could have been lost so far: one for each step, and for each request that was seen.
    chances: usize,
}

impl Events for Ledger {
    fn event(&mut self, event: Event) {
        assert!(!self.is_opaque(), "an event after Opaque: {event:?}");
        match &event {
            Event::Started(started) => {
                assert!(self.latest < Some(started.id), "ids ascend");
                self.latest = Some(started.id);
                self.open.insert(started.id);
                self.chances += 1;
            }
            Event::Finished(exchange) => {
                assert!(
                    self.open.remove(&exchange.id),
                    "finished, but not open: {exchange:?}"
                );
                check(exchange);
            }
            Event::Abandoned(id) => {
                assert!(self.open.remove(id), "abandoned, but not open: {id:?}");
            }
            Event::Lost(_) => {
                self.losses += 1;
                assert!(
                    self.losses <= self.chances,
                    "more losses than things happened"
                );
            }
            Event::Opaque => assert!(self.open.is_empty(), "opaque with open exchanges"),
        }
        self.events.push(event);
    }
}

impl Ledger {
    pub(crate) fn is_opaque(&self) -> bool {
        matches!(self.events.last(), Some(Event::Opaque))
    }

    /// The exchanges that finished.
    pub(crate) fn finished(&self) -> impl Iterator<Item = &Exchange> {
        self.events.iter().filter_map(|event| match event {
            Event::Finished(exchange) => Some(&**exchange),
            _ => None,
        })
    }
}

fn check(exchange: &Exchange) {
    for attributes in [&exchange.attributes[..], &exchange.dimensions[..]] {
        let keys: HashSet<_> = attributes.iter().map(|attribute| attribute.key).collect();
        assert_eq!(keys.len(), attributes.len(), "keys repeat: {attributes:?}");
        let fits = |attribute: &pilotfish_pipeline::Attribute| match &attribute.value {
            pilotfish_pipeline::Value::Str(text) => text.len() <= MAX_VALUE,
            _ => true,
        };
        assert!(
            attributes.iter().all(fits),
            "a value is too long: {attributes:?}"
        );
    }
    assert!(exchange.path.len() <= MAX_VALUE);
}

/// A parser with its clock, offsets and ledger.
pub(crate) struct Player {
    parser: Box<dyn Parser>,
    pub(crate) ledger: Ledger,
    time: u64,
    offsets: [u64; 2],
    closed: [bool; 2],
}

impl Player {
    pub(crate) fn new(protocol: &Protocol, info: FlowInfo, requests: Direction) -> Self {
        Self {
            parser: (protocol.parser)(info, requests, Side::Request),
            ledger: Ledger::default(),
            time: 1,
            offsets: [0; 2],
            closed: [false; 2],
        }
    }

    pub(crate) fn play(&mut self, steps: &[Step]) {
        for step in steps {
            self.step(step);
        }
    }

    /// Plays one step as the flow would: nothing after `Opaque`, and nothing in a direction that has closed.
    pub(crate) fn step(&mut self, step: &Step) {
        if self.ledger.is_opaque() {
            return;
        }
        self.ledger.chances += 1;
        match step {
            Step::Bytes(direction, bytes) => {
                if let Some(at) = self
                    .moment(*direction, bytes.len() as u64)
                    .filter(|_| !bytes.is_empty())
                {
                    self.parser
                        .on_bytes(*direction, bytes, at, &mut self.ledger);
                }
            }
            Step::Gap(direction, length) => {
                if let Some(at) = self.moment(*direction, *length).filter(|_| *length > 0) {
                    self.parser
                        .on_gap(*direction, *length, at, &mut self.ledger);
                }
            }
            Step::Close(direction) => {
                if let Some(at) = self.moment(*direction, 0) {
                    self.closed[usize::from(*direction == Direction::Sent)] = true;
                    self.parser.on_close(*direction, at, &mut self.ledger);
                }
            }
            Step::Tick(nanoseconds) => {
                self.time = self.time.saturating_add(*nanoseconds);
                self.parser.on_tick(self.time, &mut self.ledger);
            }
        }
        assert!(self.parser.held_bytes() <= MAX_HELD);
    }

    /// Ends the flow; nothing may be open after that.
    pub(crate) fn end(mut self) -> Ledger {
        if !self.ledger.is_opaque() {
            self.parser.on_end(&mut self.ledger);
        }
        assert!(
            self.ledger.open.is_empty(),
            "open after the end: {:?}",
            self.ledger.open
        );
        self.ledger
    }

    fn moment(&mut self, direction: Direction, length: u64) -> Option<Moment> {
        let index = usize::from(direction == Direction::Sent);
        let at = Moment {
            time: self.time,
            tid: 1,
            offset: self.offsets[index],
            unwitnessed: false,
        };
        self.offsets[index] = self.offsets[index].saturating_add(length);
        (!self.closed[index]).then_some(at)
    }
}

/// Reads steps from fuzz input: one byte for kind and direction, two for a length, then that many bytes. Input that
/// ends early ends the conversation.
pub(crate) fn decode(mut input: &[u8]) -> Vec<Step> {
    let mut steps = Vec::new();
    while let [operation, low, high, rest @ ..] = input {
        let direction = if operation & 1 == 0 {
            Direction::Received
        } else {
            Direction::Sent
        };
        let length = u16::from_le_bytes([*low, *high]);
        input = rest;
        steps.push(match (operation >> 1) & 7 {
            0..4 => {
                let (bytes, rest) = input.split_at(usize::from(length).min(input.len()));
                input = rest;
                Step::Bytes(direction, bytes.to_vec())
            }
            4 => Step::Gap(direction, length.into()),
            // Far beyond any message.
            5 => Step::Gap(direction, u64::from(length) << 48),
            6 => Step::Close(direction),
            _ => Step::Tick(u64::from(length) << 20),
        });
    }
    steps
}

/// The fuzz input that [`decode`] turns into a conversation of requests that arrive whole and are answered.
pub(crate) fn encode(requests: &[u8], responses: &[u8]) -> Vec<u8> {
    encode_turns(&[requests, responses])
}

/// The same of turns that begin with the requests'.
pub(crate) fn encode_turns(turns: &[&[u8]]) -> Vec<u8> {
    let mut input = Vec::new();
    for (operation, bytes) in [0, 1].into_iter().cycle().zip(turns) {
        for piece in bytes.chunks(256) {
            input.push(operation);
            input.extend(
                u16::try_from(piece.len())
                    .expect("pieces are short")
                    .to_le_bytes(),
            );
            input.extend(piece);
        }
    }
    input.extend([12, 0, 0, 13, 0, 0]);
    input
}
