//! Which protocol a flow speaks, from its opening bytes.
//!
//! A flow seen from its start is judged once: no enabled protocol means no interest, for good, at no cost. A flow
//! joined late, or with a gap before the verdict, is judged at the start of every operation until one fits. What no
//! protocol claims may turn out to be TLS: then there is nothing to be read, which is a verdict too.

use crate::config::ConfigError;
use crate::protocol::{Direction, Moment, Protocol, Side, Verdict};
use crate::reassembly::Piece;
use crate::tls;

/// Opening bytes per direction that a verdict may need: a whole HTTP/1 request line.
const MAX_PREFIX: usize = 16 * 1024;

/// Most bytes kept for the parser while no verdict is possible.
const MAX_RETAINED_BYTES: usize = 16 * 1024;

/// Most pieces kept for the parser while no verdict is possible; each is judged with all before it.
const MAX_RETAINED_PIECES: usize = 128;

/// The enabled protocols.
pub(crate) struct Detector(Vec<&'static Protocol>);

/// What the protocols together say about some bytes.
#[derive(Clone, Copy)]
enum Judgement {
    Yes(&'static Protocol, Side),
    Encrypted,
    NeedMore,
    No,
}

impl Detector {
    /// The protocols of `table` with these names; `None` for all.
    pub(crate) fn new(
        table: &'static [Protocol],
        names: Option<&[String]>,
    ) -> Result<Self, ConfigError> {
        let Some(names) = names else {
            return Ok(Self(table.iter().collect()));
        };
        for name in names {
            if !table.iter().any(|protocol| protocol.name == name) {
                let known: Vec<_> = table.iter().map(|protocol| protocol.name).collect();
                return Err(ConfigError::Protocol {
                    name: name.clone(),
                    known: known.join(", "),
                });
            }
        }
        Ok(Self(
            table
                .iter()
                .filter(|protocol| names.iter().any(|name| name == protocol.name))
                .collect(),
        ))
    }

    /// True if this protocol is among them.
    pub(crate) fn enables(&self, protocol: &'static Protocol) -> bool {
        self.0
            .iter()
            .any(|&enabled| std::ptr::eq(enabled, protocol))
    }

    /// True if some protocol is among them that is not among `former`.
    pub(crate) fn enables_more(&self, former: &Self) -> bool {
        !self.0.iter().all(|&protocol| former.enables(protocol))
    }

    /// The strongest protocol that does not say no has the word, even if it needs more bytes. `late` says that these need
    /// not be the connection's first.
    fn judge(&self, bytes: &[u8], late: bool) -> Judgement {
        let verdicts = self
            .0
            .iter()
            .map(|&protocol| match (protocol.detect)(bytes, late) {
                Verdict::Yes(side) => Judgement::Yes(protocol, side),
                Verdict::NeedMore => Judgement::NeedMore,
                Verdict::No => Judgement::No,
            });
        verdicts
            .into_iter()
            .find(|judgement| !matches!(judgement, Judgement::No))
            .unwrap_or_else(|| Judgement::of_unclaimed(bytes, late))
    }
}

impl Judgement {
    /// What bytes are that no protocol claims.
    fn of_unclaimed(bytes: &[u8], late: bool) -> Self {
        let verdict = if late {
            tls::within(bytes)
        } else {
            tls::opening(bytes)
        };
        match verdict {
            tls::Verdict::Tls => Self::Encrypted,
            tls::Verdict::NeedMore => Self::NeedMore,
            tls::Verdict::Other => Self::No,
        }
    }
}

/// A piece kept until the parser exists.
#[derive(Debug)]
pub(crate) struct Retained {
    pub(crate) direction: Direction,
    pub(crate) at: Moment,
    pub(crate) content: RetainedContent,
}

/// [`Piece`] with its own bytes.
#[derive(Debug)]
pub(crate) enum RetainedContent {
    Bytes(Box<[u8]>),
    End,
}

impl RetainedContent {
    pub(crate) fn as_piece(&self) -> Piece<'_> {
        match self {
            Self::Bytes(bytes) => Piece::Bytes(bytes),
            Self::End => Piece::End,
        }
    }
}

/// Where detection stands after a piece.
pub(crate) enum Outcome {
    /// Nothing known yet.
    Undecided,
    /// No enabled protocol; nothing needs to be kept.
    Unknown,
    /// TLS; nothing needs to be kept.
    Encrypted,
    /// The piece just given, after the retained ones, opens this protocol.
    Found(&'static Protocol, Direction, Side),
}

/// Detection of one flow.
#[derive(Debug, Default)]
pub(crate) struct Opening {
    /// The connection's first bytes are not known.
    pub(crate) late: bool,
    /// A client has asked for TLS. Whose plaintext is seen answers without a record; an answer says that it is not.
    greeted: bool,
    sent: Vec<u8>,
    received: Vec<u8>,
    retained: Vec<Retained>,
    retained_bytes: usize,
}

impl Opening {
    pub(crate) fn new(late: bool) -> Self {
        Self {
            late,
            ..Self::default()
        }
    }

    /// Bytes allocated for what is kept.
    pub(crate) fn held_bytes(&self) -> usize {
        let pieces = self
            .retained
            .capacity()
            .saturating_mul(size_of::<Retained>());
        self.retained_bytes
            .saturating_add(pieces)
            .saturating_add(self.sent.capacity())
            .saturating_add(self.received.capacity())
    }

    /// Judges one piece. Unless the outcome is `Found`, the piece is kept if it is needed later.
    pub(crate) fn on_piece(
        &mut self,
        detector: &Detector,
        direction: Direction,
        piece: Piece<'_>,
        at: Moment,
    ) -> Outcome {
        match piece {
            Piece::Bytes(bytes) => self.on_bytes(detector, direction, bytes, at),
            Piece::Gap(_) => {
                self.late = true;
                self.discard();
                Outcome::Undecided
            }
            Piece::End => {
                if !self.retained.is_empty() {
                    self.retained.push(Retained {
                        direction,
                        at,
                        content: RetainedContent::End,
                    });
                }
                Outcome::Undecided
            }
        }
    }

    /// What the parser has to be given first.
    pub(crate) fn take_retained(&mut self) -> Vec<Retained> {
        std::mem::take(&mut self.retained)
    }

    fn on_bytes(
        &mut self,
        detector: &Detector,
        direction: Direction,
        bytes: &[u8],
        at: Moment,
    ) -> Outcome {
        if self.greeted {
            return match direction {
                Direction::Sent => Outcome::Encrypted,
                Direction::Received => Outcome::Undecided,
            };
        }
        let had_prefix = !self.prefix(direction).is_empty();
        let judgement = if had_prefix {
            self.extend_prefix(direction, bytes);
            let late = self.late;
            detector.judge(self.prefix(direction), late)
        } else {
            detector.judge(bytes, self.late)
        };
        match judgement {
            Judgement::Yes(protocol, side) => return Outcome::Found(protocol, direction, side),
            Judgement::Encrypted => return self.greet(direction),
            Judgement::NeedMore => {
                if !had_prefix {
                    self.extend_prefix(direction, bytes);
                }
                if self.retain(direction, bytes, at) {
                    return Outcome::Undecided;
                }
            }
            Judgement::No => {}
        }
        if !self.late {
            return Outcome::Unknown;
        }
        self.discard();
        if had_prefix {
            self.start_again(detector, direction, bytes, at)
        } else {
            Outcome::Undecided
        }
    }

    /// These bytes are TLS: known to be unread unless they are the first that a client has sent.
    fn greet(&mut self, direction: Direction) -> Outcome {
        if self.late || direction == Direction::Sent {
            return Outcome::Encrypted;
        }
        self.discard();
        self.greeted = true;
        Outcome::Undecided
    }

    /// A late flow: what was retained led nowhere, but this operation may be the start of a message.
    fn start_again(
        &mut self,
        detector: &Detector,
        direction: Direction,
        bytes: &[u8],
        at: Moment,
    ) -> Outcome {
        match detector.judge(bytes, self.late) {
            Judgement::Yes(protocol, side) => return Outcome::Found(protocol, direction, side),
            Judgement::Encrypted => return Outcome::Encrypted,
            Judgement::NeedMore => {
                self.extend_prefix(direction, bytes);
                if !self.retain(direction, bytes, at) {
                    self.discard();
                }
            }
            Judgement::No => {}
        }
        Outcome::Undecided
    }

    fn extend_prefix(&mut self, direction: Direction, bytes: &[u8]) {
        let prefix = self.prefix(direction);
        let room = MAX_PREFIX.saturating_sub(prefix.len());
        prefix.extend(bytes.iter().take(room));
    }

    /// Keeps a piece; false if there is no room for it or if the prefix is full, so that more would not help.
    fn retain(&mut self, direction: Direction, bytes: &[u8], at: Moment) -> bool {
        let kept = self.retained_bytes.saturating_add(bytes.len());
        if self.prefix(direction).len() >= MAX_PREFIX
            || kept > MAX_RETAINED_BYTES
            || self.retained.len() >= MAX_RETAINED_PIECES
        {
            return false;
        }
        self.retained_bytes = kept;
        self.retained.push(Retained {
            direction,
            at,
            content: RetainedContent::Bytes(bytes.into()),
        });
        true
    }

    fn discard(&mut self) {
        self.sent = Vec::new();
        self.received = Vec::new();
        self.retained = Vec::new();
        self.retained_bytes = 0;
    }

    fn prefix(&mut self, direction: Direction) -> &mut Vec<u8> {
        match direction {
            Direction::Sent => &mut self.sent,
            Direction::Received => &mut self.received,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Detector, MAX_PREFIX, MAX_RETAINED_PIECES, Opening, Outcome};
    use crate::config::ConfigError;
    use crate::protocol::{Direction, Events, FlowInfo, Moment, Parser, Protocol, Side, Verdict};
    use crate::reassembly::Piece;

    struct Silent;

    impl Parser for Silent {
        fn on_bytes(&mut self, _: Direction, _: &[u8], _: Moment, _: &mut dyn Events) {}
        fn on_gap(&mut self, _: Direction, _: u64, _: Moment, _: &mut dyn Events) {}
        fn on_close(&mut self, _: Direction, _: Moment, _: &mut dyn Events) {}
        fn on_end(&mut self, _: &mut dyn Events) {}
        fn held_bytes(&self) -> usize {
            0
        }
    }

    fn silent(_: FlowInfo, _: Direction, _: Side) -> Box<dyn Parser> {
        Box::new(Silent)
    }

    fn opens_with(magic: &[u8], bytes: &[u8]) -> Verdict {
        if bytes.starts_with(magic) {
            Verdict::Yes(Side::Request)
        } else if magic.starts_with(bytes) {
            Verdict::NeedMore
        } else {
            Verdict::No
        }
    }

    static TABLE: &[Protocol] = &[
        Protocol {
            name: "strong",
            summary: "",
            detect: |bytes, _| opens_with(b"HELLO", bytes),
            parser: silent,
            samples: &[],
        },
        Protocol {
            name: "weak",
            summary: "",
            detect: |bytes, _| opens_with(b"HE", bytes),
            parser: silent,
            samples: &[],
        },
        Protocol {
            name: "endless",
            summary: "",
            detect: |bytes, _| {
                if bytes.iter().all(|&byte| byte == b'.') {
                    Verdict::NeedMore
                } else {
                    Verdict::No
                }
            },
            parser: silent,
            samples: &[],
        },
    ];

    fn say(opening: &mut Opening, bytes: &[u8]) -> &'static str {
        let detector = Detector::new(TABLE, None).unwrap();
        match opening.on_piece(
            &detector,
            Direction::Sent,
            Piece::Bytes(bytes),
            Moment::default(),
        ) {
            Outcome::Undecided => "undecided",
            Outcome::Unknown => "unknown",
            Outcome::Encrypted => "encrypted",
            Outcome::Found(protocol, ..) => protocol.name,
        }
    }

    #[test]
    fn the_strongest_protocol_has_the_word() {
        assert_eq!(say(&mut Opening::new(false), b"HELLO"), "strong");
        assert_eq!(say(&mut Opening::new(false), b"HEAVY"), "weak");
        let mut opening = Opening::new(false);
        assert_eq!(
            (say(&mut opening, b"HE"), say(&mut opening, b"LLO")),
            ("undecided", "strong")
        );
        assert_eq!(opening.take_retained().len(), 1);
    }

    #[test]
    fn endless_indecision_is_bounded() {
        for (late, end) in [(false, "unknown"), (true, "undecided")] {
            let mut opening = Opening::new(late);
            let pieces = 0..=MAX_RETAINED_PIECES;
            let verdicts: Vec<_> = pieces.map(|_| say(&mut opening, b".")).collect();
            assert_eq!(verdicts.last(), Some(&end));
            assert!(opening.retained.len() <= MAX_RETAINED_PIECES);

            let mut opening = Opening::new(late);
            let half = vec![b'.'; MAX_PREFIX / 2];
            assert_eq!(say(&mut opening, &half), "undecided");
            assert_eq!(say(&mut opening, &half), end);
            assert!(opening.retained_bytes < MAX_PREFIX);
        }
    }

    #[test]
    fn a_gap_makes_a_flow_late() {
        let mut opening = Opening::new(false);
        let detector = Detector::new(TABLE, None).unwrap();
        assert_eq!(say(&mut opening, b"HEL"), "undecided");
        opening.on_piece(&detector, Direction::Sent, Piece::Gap(1), Moment::default());
        assert!(opening.late);
        assert_eq!(
            (say(&mut opening, b"LO"), say(&mut opening, b"HELLO")),
            ("undecided", "strong")
        );
    }

    #[test]
    fn names_choose_protocols() {
        let detector = Detector::new(TABLE, Some(&["weak".to_owned()])).unwrap();
        let outcome = Opening::new(false).on_piece(
            &detector,
            Direction::Sent,
            Piece::Bytes(b"HELLO"),
            Moment::default(),
        );
        assert!(
            matches!(outcome, Outcome::Found(protocol, Direction::Sent, Side::Request) if protocol.name == "weak")
        );
        let error = Detector::new(TABLE, Some(&["none".to_owned()])).err();
        assert!(
            matches!(error, Some(ConfigError::Protocol { known, .. }) if known == "strong, weak, endless")
        );
    }
}
