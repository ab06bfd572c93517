//! What every protocol of the table has to keep, over its own samples.

mod conversation;

use conversation::{Ledger, Player, Step, decode, encode};
use pilotfish_pipeline::protocol::{
    Direction, Event, Exchange, FlowInfo, PROTOCOLS, Protocol, Side, Verdict,
};
use pilotfish_pipeline::{Attribute, Value, semconv};
use proptest::prelude::*;

const DIRECTIONS: [Direction; 2] = [Direction::Received, Direction::Sent];

/// What may differ above TLS: the scheme, what contains it, and the port that it implies.
const OF_SCHEME: [&str; 3] = ["url.scheme", "url.full", "server.port"];

/// Every protocol with each of its samples.
fn samples() -> impl Iterator<Item = (&'static Protocol, &'static [u8], &'static [u8])> {
    PROTOCOLS.iter().flat_map(|protocol| {
        protocol
            .samples
            .iter()
            .map(move |(ask, answer)| (protocol, *ask, *answer))
    })
}

/// Plays a conversation in clear, and above TLS, where its parser must tell the same of it.
fn play(protocol: &Protocol, requests: Direction, steps: &[Step]) -> Ledger {
    let [plain, above_tls] = [false, true].map(|tls| {
        let mut player = Player::new(protocol, from_start(tls), requests);
        player.play(steps);
        player.end()
    });
    assert_eq!(without_scheme(&plain), without_scheme(&above_tls));
    plain
}

fn from_start(tls: bool) -> FlowInfo {
    FlowInfo {
        tls,
        ..FlowInfo::default()
    }
}

/// The events without what the scheme decides.
fn without_scheme(ledger: &Ledger) -> Vec<Event> {
    let mut events = ledger.events.clone();
    for event in &mut events {
        if let Event::Finished(exchange) = event {
            let stays = |attribute: &Attribute| !OF_SCHEME.contains(&attribute.key);
            exchange.attributes.retain(stays);
            exchange.dimensions.retain(|attribute| stays(attribute));
        }
    }
    events
}

/// A sample in pieces that end at `cuts`, closed at the end.
fn in_pieces(requests: Direction, ask: &[u8], answer: &[u8], cuts: &[usize]) -> Vec<Step> {
    let mut steps = Vec::new();
    for (direction, bytes) in [(requests, ask), (requests.opposite(), answer)] {
        let mut ends: Vec<usize> = cuts.iter().map(|cut| cut % bytes.len().max(1)).collect();
        ends.sort_unstable();
        ends.push(bytes.len());
        let mut start = 0;
        for end in ends {
            steps.push(Step::Bytes(direction, bytes[start..end].to_vec()));
            start = end;
        }
    }
    steps.extend([Step::Close(requests), Step::Close(requests.opposite())]);
    steps
}

fn whole(protocol: &Protocol, requests: Direction, ask: &[u8], answer: &[u8]) -> Ledger {
    play(protocol, requests, &in_pieces(requests, ask, answer, &[]))
}

/// What an exchange claims, without what a gap may rightly take from it.
/// Verb, path and attributes.
type Claim = (String, String, Vec<Attribute>);

fn claim(exchange: &Exchange) -> Claim {
    let kept = |attribute: &&Attribute| !attribute.key.ends_with("body.size");
    let attributes = exchange.attributes.iter().filter(kept).cloned().collect();
    (
        exchange.verb.to_string(),
        exchange.path.to_string(),
        attributes,
    )
}

#[test]
fn the_table_has_names_and_samples() {
    for protocol in PROTOCOLS {
        let name = protocol.name;
        assert!(
            !name.is_empty()
                && name
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        );
        assert!(
            !protocol.summary.is_empty() && !protocol.samples.is_empty(),
            "{name}"
        );
        assert_eq!(
            PROTOCOLS.iter().filter(|other| other.name == name).count(),
            1,
            "{name}"
        );
    }
}

#[test]
fn every_exchange_of_a_sample_finishes() {
    for (protocol, ask, answer) in samples() {
        for direction in DIRECTIONS {
            let ledger = whole(protocol, direction, ask, answer);
            assert!(ledger.finished().count() > 0, "{}", protocol.name);
            assert!(
                !ledger
                    .events
                    .iter()
                    .any(|event| matches!(event, Event::Abandoned(_))),
                "{:?}",
                ledger.events
            );
        }
    }
}

#[test]
fn detection_never_changes_its_mind() {
    for (protocol, ask, answer) in samples() {
        for (bytes, side) in [(ask, Side::Request), (answer, Side::Response)] {
            let verdicts: Vec<_> = (0..=bytes.len())
                .map(|end| (protocol.detect)(&bytes[..end], false))
                .collect();
            let undecided = verdicts
                .iter()
                .take_while(|verdict| **verdict == Verdict::NeedMore)
                .count();
            let decided = &verdicts[undecided..];
            assert!(
                !decided.is_empty() && decided.iter().all(|verdict| *verdict == Verdict::Yes(side)),
                "{verdicts:?}"
            );
        }
    }
}

#[test]
fn every_prefix_ends_in_order() {
    for (protocol, ask, answer) in samples() {
        for end in 0..=ask.len() {
            whole(protocol, Direction::Received, &ask[..end], &[]);
        }
        for end in 0..=answer.len() {
            whole(protocol, Direction::Sent, ask, &answer[..end]);
        }
    }
}

#[test]
fn every_size_of_pieces_gives_the_same_events() {
    for (protocol, ask, answer) in samples() {
        let expected = whole(protocol, Direction::Received, ask, answer).events;
        for size in 1..ask.len().max(answer.len()) {
            let cuts: Vec<usize> = (size..ask.len().min(answer.len())).step_by(size).collect();
            let events = play(
                protocol,
                Direction::Received,
                &in_pieces(Direction::Received, ask, answer, &cuts),
            )
            .events;
            assert_eq!(events, expected, "{} in pieces of {size}", protocol.name);
        }
    }
}

#[test]
fn a_lost_place_is_told() {
    for (protocol, ask, _) in samples() {
        for direction in DIRECTIONS {
            // Longer than any message, so that no framing can tell where it ended.
            let gap = Step::Gap(direction, u64::MAX / 2);
            let steps = [gap, Step::Bytes(direction, ask.to_vec())];
            let events = play(protocol, direction, &steps).events;
            let told = |event: &Event| matches!(event, Event::Lost(_) | Event::Opaque);
            assert!(
                events.first().is_some_and(told),
                "{} {events:?}",
                protocol.name
            );
        }
    }
}

fn claims(ledger: &Ledger) -> Vec<Claim> {
    ledger.finished().map(claim).collect()
}

/// What is claimed is true; of an exchange that is marked as incomplete, what is left.
fn is_true(claim: &Claim, truth: &[Claim]) -> bool {
    let (_, path, attributes) = claim;
    let is_marked = attributes
        .iter()
        .any(|attribute| attribute.key == semconv::HEAD_INCOMPLETE);
    let is_placeholder = |attribute: &Attribute| {
        attribute.key == semconv::HEAD_INCOMPLETE
            || matches!(&attribute.value, Value::Str(text) if text == semconv::OTHER)
    };
    let holds = |known: &[Attribute]| {
        // A call whose content type is not known is told as the HTTP request that it is.
        let is_call = known
            .iter()
            .any(|attribute| attribute.key == semconv::RPC_SYSTEM_NAME);
        attributes.iter().all(|attribute| {
            is_placeholder(attribute)
                || known.contains(attribute)
                || is_call
                    && ["http.", "url."]
                        .iter()
                        .any(|part| attribute.key.starts_with(part))
        })
    };
    truth.contains(claim)
        || is_marked
            && truth
                .iter()
                .any(|(_, whole, known)| (path.is_empty() || path == whole) && holds(known))
}

/// The number of a sample, of whichever protocol.
fn any_sample() -> impl Strategy<Value = usize> {
    0..samples().count()
}

/// A sample as a conversation in turns: each request, then its response, each one operation. The close is left out.
fn in_turns(protocol: &Protocol, requests: Direction, ask: &[u8], answer: &[u8]) -> Vec<Step> {
    let mut player = Player::new(protocol, FlowInfo::default(), requests);
    player.step(&Step::Bytes(requests, ask.to_vec()));
    let mut starts: Vec<usize> = Vec::new();
    for event in &player.ledger.events {
        if let Event::Started(started) = event {
            starts.push(usize::try_from(started.at.offset).unwrap());
        }
    }
    let mut ends = Vec::new();
    for (position, byte) in answer.iter().enumerate() {
        let before = player.ledger.finished().count();
        player.step(&Step::Bytes(requests.opposite(), vec![*byte]));
        if player.ledger.finished().count() > before {
            ends.push(position + 1);
        }
    }
    if ends.len() < starts.len() {
        ends.push(answer.len());
    }
    let bounds = starts.iter().skip(1).copied().chain([ask.len()]);
    let (mut asked, mut answered) = (0, 0);
    let mut turns = Vec::new();
    for (start, end) in bounds.zip(ends) {
        turns.push(Step::Bytes(requests, ask[asked..start].to_vec()));
        turns.push(Step::Bytes(
            requests.opposite(),
            answer[answered..end].to_vec(),
        ));
        (asked, answered) = (start, end);
    }
    turns
}

/// Loses the end of operations, as capture limits do, or all of them, as a full ring buffer does.
fn with_losses(turns: &[Step], losses: &[(usize, usize)]) -> Vec<Step> {
    let mut lossy = Vec::new();
    for (index, turn) in turns.iter().enumerate() {
        let loss = losses
            .iter()
            .find(|(place, _)| place % turns.len() == index);
        let (Step::Bytes(direction, bytes), Some((_, kept))) = (turn, loss) else {
            lossy.push(turn.clone());
            continue;
        };
        let (kept, missing) = bytes.split_at(kept % bytes.len());
        lossy.extend([
            Step::Bytes(*direction, kept.to_vec()),
            Step::Gap(*direction, missing.len() as u64),
        ]);
    }
    lossy
}

proptest! {
    #[test]
    fn random_pieces_give_the_same_events(number in any_sample(), cuts in prop::collection::vec(any::<usize>(), 0..20)) {
        let (protocol, ask, answer) = samples().nth(number).unwrap();
        for direction in DIRECTIONS {
            let expected = whole(protocol, direction, ask, answer).events;
            let events = play(protocol, direction, &in_pieces(direction, ask, answer, &cuts)).events;
            prop_assert_eq!(events, expected);
        }
    }

    #[test]
    fn after_losses_spans_are_missing_but_none_is_wrong(
        number in any_sample(),
        losses in prop::collection::vec((any::<usize>(), any::<usize>()), 1..4),
        tls: bool,
    ) {
        let (protocol, ask, answer) = samples().nth(number).unwrap();
        for direction in DIRECTIONS {
            let turns = in_turns(protocol, direction, ask, answer);
            let mut sound = Player::new(protocol, from_start(tls), direction);
            sound.play(&turns);
            let finished = sound.ledger.finished().count();
            // Not so where messages are numbered for the life of a connection.
            sound.play(&turns);
            let can_be_repeated =
                finished * 2 == turns.len() && sound.ledger.finished().count() == finished * 2;

            let mut player = Player::new(protocol, from_start(tls), direction);
            player.play(&with_losses(&turns, &losses));
            let before = player.ledger.finished().count();
            if can_be_repeated {
                player.play(&turns);
                prop_assert!(player.ledger.finished().count() > before, "{:?}", player.ledger.events);
            }
            let mut whole = Player::new(protocol, from_start(tls), direction);
            whole.play(&in_pieces(direction, ask, answer, &[]));
            let truth = claims(&whole.end());
            for claim in claims(&player.end()) {
                prop_assert!(is_true(&claim, &truth), "{claim:?} is not in {truth:?}");
            }
        }
    }

    #[test]
    fn after_garbage_the_next_sound_conversation_is_read(
        number in any_sample(),
        garbage in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 1..300)), 1..8),
        tls: bool,
    ) {
        let (protocol, ask, answer) = samples().nth(number).unwrap();
        for direction in DIRECTIONS {
            let expected = whole(protocol, direction, ask, answer).finished().count();
            let info = FlowInfo { joined_late: true, ..from_start(tls) };
            let mut player = Player::new(protocol, info, direction);
            for (sent, bytes) in &garbage {
                player.step(&Step::Bytes(DIRECTIONS[usize::from(*sent)], bytes.clone()));
            }
            // One exchange is enough to show that the place was found: the sample may pipeline.
            player.play(&in_pieces(direction, ask, answer, &[]));
            let ledger = player.end();
            prop_assert!(ledger.finished().count() <= expected);
            let started = ledger.events.iter().any(|event| matches!(event, Event::Started(_)));
            prop_assert!(started, "{:?}", ledger.events);
        }
    }

    #[test]
    fn any_input_keeps_the_contract(joined_late: bool, tls: bool, input in prop::collection::vec(any::<u8>(), 0..2000)) {
        for protocol in PROTOCOLS {
            (protocol.detect)(&input, joined_late);
            let info = FlowInfo { joined_late, ..from_start(tls) };
            let mut player = Player::new(protocol, info, Direction::Received);
            player.play(&decode(&input));
            player.end();
        }
    }
}

#[test]
fn seeds_decode_to_what_they_encode() {
    for (protocol, ask, answer) in samples() {
        let expected = claims(&whole(protocol, Direction::Received, ask, answer));
        let ledger = play(protocol, Direction::Received, &decode(&encode(ask, answer)));
        assert_eq!(claims(&ledger), expected, "{}", protocol.name);
    }
    assert!(
        matches!(decode(&[1, 3, 0, b'a'])[..], [Step::Bytes(Direction::Sent, ref bytes)] if bytes == b"a")
    );
}
