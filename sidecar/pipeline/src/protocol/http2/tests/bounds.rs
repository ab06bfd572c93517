//! Peers that send too much: memory stays within the bound, and what is given up is told.

use super::wire::{END, END_HEADERS, Talk, data, frame, headers, plain, settings};
use super::{Player, ROLES, both};
use crate::protocol::http2::frame::kind;
use crate::protocol::http2::streams::{MAX_BYTES, MAX_STREAMS};
use crate::protocol::{Direction, FlowInfo};

/// The bound of one connection, as `connection` states it. Bytes.
const MAX_HELD: usize = 2 * 1024 * 1024;

/// What a server tells, and the most that it held.
fn watched(talk: &Talk) -> (Vec<String>, usize) {
    let mut player = Player::new(Direction::Received, FlowInfo::default());
    player.play(talk.steps());
    assert!(player.most_held <= MAX_HELD, "{}", player.most_held);
    (player.texts(), player.most_held)
}

#[test]
fn a_flood_of_continuations_is_one_lost_head() {
    for size in [0, 1, 16_000] {
        let mut talk = Talk::open();
        talk.ask(frame(kind::HEADERS, END, 1, &[0x82]));
        for _ in 0..1000 {
            talk.ask(frame(kind::CONTINUATION, 0, 1, &vec![0x82; size]));
        }
        talk.ask(frame(kind::CONTINUATION, END_HEADERS, 1, &[]));
        let (events, held) = watched(&talk);
        assert!(held < 256 * 1024, "{held}");
        // Without octets, or with few, it is a block as any other.
        let expected: &[&str] = if size > 1 { &["lost"] } else { &["+1"] };
        assert_eq!(events, expected, "{size}");
        talk.client = super::wire::Encoder::default();
        talk.get(3, "/b").ok(3, "x");
        assert_eq!(
            watched(&talk).0.last().unwrap(),
            "3 GET /b 200 req=0 res=1 @1006"
        );
    }
}

#[test]
fn a_header_list_beyond_the_bound_is_one_lost_head() {
    let mut talk = Talk::open();
    let mut block = vec![0x82, 0x86, 0x84];
    for _ in 0..30 {
        block.extend(plain("x-large", &"v".repeat(1000)));
    }
    talk.ask(headers(1, END, &block)).ok(1, "x");
    assert_eq!(both(&talk), ["+1", "1 GET / 200 req=0 res=1 @4"]);
    for _ in 0..40 {
        block.extend(plain("x-large", &"v".repeat(1000)));
    }
    for block in [block, [0x82].repeat(4000)] {
        let mut talk = Talk::open();
        talk.ask(headers(1, END, &block))
            .ok(1, "x")
            .get(3, "/b")
            .ok(3, "y");
        let (events, _) = watched(&talk);
        assert_eq!(events, ["lost", "+3", "3 GET /b 200 req=0 res=1 @6"]);
    }
}

#[test]
fn tables_beyond_the_bound_are_forgotten() {
    let mut talk = Talk::open();
    // The largest limit that can be written, then entries of a wanted name without end.
    talk.ask(headers(1, END, &[0x3f, 0xe1, 0xff, 0xff, 0x07, 0x82]));
    for stream in 1..500 {
        let mut block = vec![0x82, 0x86, 0x84, 0x40];
        block.extend(&plain("user-agent", &"u".repeat(2000))[1..]);
        talk.ask(headers(stream * 2 + 1, END, &block)).answer([]);
    }
    let (events, held) = watched(&talk);
    assert!(held > 64 * 1024, "the table is kept: {held}");
    assert_eq!(
        events.iter().filter(|event| event.starts_with('+')).count(),
        500
    );
}

#[test]
fn storms_of_settings_and_pings_keep_nothing() {
    let mut talk = Talk::open();
    let (_, before) = watched(&talk);
    let storm = [
        settings(),
        frame(kind::PING, 0, 0, &[0; 8]),
        frame(kind::SETTINGS, 0, 0, &[0; 600]),
    ];
    for _ in 0..1000 {
        talk.ask(storm.concat()).answer(storm.concat());
    }
    assert_eq!(watched(&talk).1, before);
    talk.get(1, "/a").ok(1, "x");
    assert_eq!(both(&talk), ["+1", "1 GET /a 200 req=0 res=1 @2004"]);
}

#[test]
fn of_thousands_of_streams_the_latest_are_kept() {
    let mut talk = Talk::open();
    let total = 5000;
    for index in 0..total {
        talk.get(index * 2 + 1, "/a");
    }
    let (events, _) = watched(&talk);
    let abandoned: Vec<_> = events
        .iter()
        .filter(|event| event.starts_with('-'))
        .collect();
    assert_eq!(abandoned.len(), total as usize - MAX_STREAMS);
    assert_eq!(abandoned[0], "-1");
    talk.ok(1, "of one that was given up")
        .ok(total * 2 - 1, "x");
    let (events, _) = watched(&talk);
    assert_eq!(events.last().unwrap(), "9999 GET /a 200 req=0 res=1 @5004");
}

#[test]
fn large_heads_count_by_their_bytes() {
    let mut talk = Talk::open();
    let path = format!("/{}", "p".repeat(3000));
    for index in 0..1000_u32 {
        let block = [
            vec![0x82, 0x86],
            plain(":path", &path),
            plain("user-agent", &path),
        ]
        .concat();
        talk.ask(headers(index * 2 + 1, END, &block));
    }
    let (events, held) = watched(&talk);
    let abandoned = events.iter().filter(|event| event.starts_with('-')).count();
    assert!(abandoned > 300 && abandoned < 900, "{abandoned}");
    assert!(held <= MAX_BYTES + 16 * 1024, "{held}");
}

/// Responses to what was never asked: they wait a second for their requests, and are not kept in masses.
#[test]
fn unasked_responses_are_bounded_and_forgotten() {
    for role in ROLES {
        let mut player = Player::new(role, FlowInfo::default());
        player.play(Talk::open().steps());
        for index in 0..5000_u32 {
            player.step(&super::Step::Response(headers(index * 2 + 1, END, &[0x88])));
        }
        assert!(player.most_held <= MAX_HELD);
        let full = player.parser.held_bytes();
        player.step(&super::Step::Tick(2_000_000_000));
        assert!(player.parser.held_bytes() < full / 100);
        assert!(player.texts().is_empty());
    }
}

/// Whatever was held is let go with the last stream.
#[test]
fn what_is_held_is_let_go() {
    let mut player = Player::new(Direction::Received, FlowInfo::default());
    player.play(Talk::open().steps());
    let mut talk = Talk::default();
    let blocks = |index: u32| {
        [
            vec![0x82, 0x86],
            plain(":path", &format!("/{}", "p".repeat(index as usize * 10))),
        ]
        .concat()
    };
    for index in 0..100 {
        talk.ask(headers(index * 2 + 1, END, &blocks(index)));
    }
    player.play(talk.steps());
    assert!(player.parser.held_bytes() > 100 * 500);
    for index in 0..100_u32 {
        let end = match index % 3 {
            0 => headers(index * 2 + 1, END, &[0x88]),
            1 => [
                headers(index * 2 + 1, 0, &[0x88]),
                data(index * 2 + 1, END, b"x"),
            ]
            .concat(),
            _ => super::wire::reset(index * 2 + 1, 8),
        };
        player.step(&super::Step::Response(end));
    }
    assert_eq!(player.parser.held_bytes(), 0);
    assert_eq!(player.texts().len(), 200);
}
