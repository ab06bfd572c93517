//! The line protocol.

use pilotfish_pipeline::protocol::{
    Direction, Event, Events, Exchange, ExchangeId, Moment, Parser, Protocol, Route, Side, Started,
    Verdict,
};
use pilotfish_pipeline::{Instrument, Kind, Status};
use std::collections::VecDeque;

pub static DURATION: Instrument = Instrument {
    name: "line.duration",
    unit: "s",
    description: "Duration of line exchanges.",
    boundaries: &[1.0],
};

pub static LINES: &[Protocol] = &[Protocol {
    name: "line",
    summary: "the line protocol of these tests",
    detect: |bytes, _| detect(bytes),
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
                route: if self.requests == Direction::Received {
                    Route::Path("line.route")
                } else {
                    Route::None
                },
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
