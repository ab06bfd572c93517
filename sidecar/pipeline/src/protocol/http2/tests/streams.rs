//! Streams side by side, and what becomes of each.

use super::wire::{END, Talk, data, frame, headers};
use super::{ROLES, both, client, play, server};
use crate::protocol::http2::frame::{flag, kind};

#[test]
fn streams_take_turns_in_both_directions() {
    let mut talk = Talk::open();
    let first = talk.request(1, 0, "POST", "/a");
    let second = talk.request(3, END, "GET", "/b");
    let third = talk.request(5, 0, "POST", "/c");
    talk.ask([first, second, data(1, 0, b"12")].concat())
        .ask([third, data(5, END, b"abc"), data(1, END, b"3")].concat());
    let heads = [(5, "404"), (1, "200"), (3, "500")]
        .map(|(stream, status)| talk.response(stream, 0, status));
    talk.answer(heads.concat())
        .answer([data(3, 0, b"x"), data(1, 0, b"y"), data(5, 0, b"z")].concat())
        .answer([data(3, 0, b"x"), data(5, END, b""), data(1, END, b"yy")].concat())
        .answer(data(3, END, b"x"));
    let expected = [
        "+1",
        "+3",
        "+5",
        "5 POST /c 404 req=3 res=1 @7",
        "1 POST /a 200 req=3 res=3 @7",
        "3 GET /b 500 error=500 req=0 res=3 @8",
    ];
    assert_eq!(server(&talk), expected);
    let of_client = expected.map(|line| line.replace("404 ", "404 error=404 "));
    assert_eq!(client(&talk), of_client);
}

#[test]
fn a_hundred_streams_answered_backwards() {
    let mut talk = Talk::open();
    let streams: Vec<u32> = (0..100).map(|index| index * 2 + 1).collect();
    for &stream in &streams {
        talk.get(stream, "/x");
    }
    for &stream in streams.iter().rev() {
        talk.ok(stream, &"y".repeat(stream as usize));
    }
    let starts = streams.iter().map(|stream| format!("+{stream}"));
    let ends = streams
        .iter()
        .rev()
        .zip(103..)
        .map(|(stream, time)| format!("{stream} GET /x 200 req=0 res={stream} @{time}"));
    assert_eq!(both(&talk), starts.chain(ends).collect::<Vec<_>>());
}

#[test]
fn trailers_end_a_stream_on_either_side() {
    let mut talk = Talk::open();
    let head = talk.request(1, 0, "POST", "/a");
    let trailers = headers(1, END, &talk.client.block(&[("checksum", "1")]));
    talk.ask([head, data(1, 0, b"body"), trailers].concat());
    let head = talk.response(1, 0, "200");
    let trailers = headers(1, END, &talk.server.block(&[("checksum", "2")]));
    talk.answer([head, data(1, 0, b"xyz")].concat())
        .answer(trailers);
    assert_eq!(both(&talk), ["+1", "1 POST /a 200 req=4 res=3 @5"]);
}

#[test]
fn interim_responses_are_no_answer() {
    for status in ["100", "103"] {
        let mut talk = Talk::open();
        talk.get(1, "/a");
        let interim = talk.response(1, 0, status);
        talk.answer(interim);
        assert_eq!(both(&talk), ["+1"]);
        talk.ok(1, "x");
        assert_eq!(both(&talk), ["+1", "1 GET /a 200 req=0 res=1 @5"]);
    }
}

#[test]
fn heads_end_responses_without_content() {
    for (method, status) in [("HEAD", "200"), ("GET", "204"), ("GET", "304")] {
        let mut talk = Talk::open();
        let request = talk.request(1, END, method, "/a");
        let response = talk.response(1, END, status);
        talk.ask(request).answer(response);
        let expected = format!("1 {method} /a {status} req=0 res=0 @4");
        assert_eq!(both(&talk), ["+1", &expected]);
    }
}

#[test]
fn an_accepted_tunnel_ends_with_its_head_and_a_declined_one_does_not() {
    let connect = |status| {
        let mut talk = Talk::open();
        let block = talk
            .client
            .block(&[(":method", "CONNECT"), (":authority", "db:5432")]);
        let head = talk.response(1, 0, status);
        talk.ask(headers(1, 0, &block))
            .answer(head)
            .ask(data(1, 0, b"bytes of the tunnel"))
            .answer(data(1, END, b"more of them"))
            .get(3, "/b")
            .ok(3, "b");
        server(&talk)
    };
    let next = ["+3", "3 GET /b 200 req=0 res=1 @8"];
    let expected = [&["+1", "1 CONNECT 200 @4"], &next[..]].concat();
    assert_eq!(connect("200"), expected);
    let expected = [&["+1", "1 CONNECT 500 error=500 res=12 @6"], &next[..]].concat();
    assert_eq!(connect("500"), expected);
}

#[test]
fn an_early_response_is_the_answer_and_the_rest_of_the_upload_nothing() {
    let mut talk = Talk::open();
    let head = talk.request(1, 0, "POST", "/up");
    talk.ask([head, data(1, 0, b"12")].concat())
        .ok(1, "enough")
        .ask(data(1, 0, b"345"))
        .ask(data(1, END, b""))
        .get(3, "/b")
        .ok(3, "b");
    let expected = [
        "+1",
        "1 POST /up 200 res=6 @4",
        "+3",
        "3 GET /b 200 req=0 res=1 @8",
    ];
    assert_eq!(both(&talk), expected);
}

/// The promise and the pushed response fill the server's table, and nothing else.
#[test]
fn a_pushed_stream_gives_nothing_but_its_fields() {
    for padding in [&b""[..], b"\x03"] {
        let mut talk = Talk::open();
        talk.get(1, "/a");
        let promise = talk.server.block(&[
            (":method", "GET"),
            (":path", "/pushed"),
            ("content-type", "application/grpc"),
        ]);
        let flags = flag::END_HEADERS | if padding.is_empty() { 0 } else { flag::PADDED };
        let tail = &b"\0\0\0"[..padding.len() * 3];
        let payload = [padding, &2_u32.to_be_bytes(), &promise, tail].concat();
        let pushed = talk.response(2, 0, "201");
        talk.answer(
            [
                frame(kind::PUSH_PROMISE, flags, 1, &payload),
                pushed,
                data(2, END, b"p"),
            ]
            .concat(),
        );
        let block = talk.server.block(&[(":status", "201")]);
        assert_eq!(block.len(), 1, "by its index");
        talk.answer(headers(1, END, &block));
        assert_eq!(both(&talk), ["+1", "1 GET /a 201 req=0 res=0 @5"]);
    }
}

#[test]
fn a_response_may_be_recorded_before_its_request() {
    let mut talk = Talk::open();
    let request = talk.request(1, END, "GET", "/a");
    let refused = talk.request(3, END, "GET", "/b");
    talk.ok(1, "early")
        .answer(super::wire::reset(3, 7))
        .ask([request, refused].concat());
    let expected = [
        "+1",
        "1 GET /a 200 req=0 res=5 @3",
        "+3",
        "3 GET /b error=REFUSED_STREAM req=0 @4",
    ];
    assert_eq!(client(&talk), expected);
}

#[test]
fn numbers_that_go_backwards_and_frames_on_closed_streams_change_nothing() {
    for role in ROLES {
        let mut talk = Talk::open();
        talk.get(5, "/a")
            .get(3, "/late")
            .ok(5, "x")
            .ok(5, "again")
            .ok(3, "y");
        talk.ask(data(5, END, b"more"))
            .answer(super::wire::reset(5, 8));
        talk.get(6, "/even").ok(6, "z").get(7, "/b").ok(7, "b");
        let expected = [
            "+5",
            "5 GET /a 200 req=0 res=1 @5",
            "+7",
            "7 GET /b 200 req=0 res=1 @13",
        ];
        assert_eq!(play(role, talk.steps()), expected);
    }
}

#[test]
fn the_scheme_is_the_requests() {
    let mut talk = Talk::open();
    let block = talk.client.block(&[
        (":method", "GET"),
        (":scheme", "https"),
        (":path", "/a?token=1"),
        (":authority", "shop.example"),
    ]);
    talk.ask(headers(1, END, &block)).ok(1, "x");
    for tls in [false, true] {
        let info = crate::protocol::FlowInfo {
            tls,
            ..Default::default()
        };
        let mut player = super::Player::new(crate::protocol::Direction::Sent, info);
        player.play(talk.steps());
        let Some(crate::protocol::Event::Finished(exchange)) = player.log.0.last() else {
            panic!("{:?}", player.texts());
        };
        let of = |key| super::find(&exchange.attributes, key);
        assert_eq!(
            of("url.full").as_deref(),
            Some("https://shop.example/a?token=REDACTED")
        );
        assert_eq!(of("server.port").as_deref(), Some("443"));
        assert_eq!(of("network.protocol.version").as_deref(), Some("2"));
    }
}
