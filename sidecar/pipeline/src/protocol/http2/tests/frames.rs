//! Frames in every shape, whole, in pieces, cut off, and those of something else.

use super::wire::{END, END_HEADERS, Talk, data, frame, headers, preface, settings};
use super::{Step, both, server};
use crate::protocol::http2::frame::{flag, kind};

#[test]
fn padding_and_priority_are_no_content() {
    let mut talk = Talk::open();
    let block = talk
        .client
        .block(&[(":method", "POST"), (":scheme", "http"), (":path", "/a")]);
    let head = [&b"\x02ppppw"[..], &block, b"\0\0"].concat();
    let flags = END_HEADERS | flag::PADDED | flag::PRIORITY;
    talk.ask(frame(kind::PRIORITY, 0, 3, b"ppppw"))
        .ask(frame(kind::HEADERS, flags, 1, &head))
        .ask(data(1, END | flag::PADDED, b"\x04body\0\0\0\0"));
    let block = talk.server.block(&[(":status", "200")]);
    let head = [&b"\x01"[..], &block, b"\0"].concat();
    talk.answer(frame(kind::HEADERS, END_HEADERS | flag::PADDED, 1, &head))
        .answer(data(1, flag::PADDED, b"\x00xy"))
        .answer(data(1, END | flag::PADDED, b"\x02\0\0"));
    assert_eq!(both(&talk), ["+1", "1 POST /a 200 req=4 res=2 @8"]);
}

/// A request whose block has been cut at every place into a HEADERS and two CONTINUATION frames.
#[test]
fn a_block_may_continue_anywhere() {
    let mut talk = Talk::open();
    let block = talk
        .client
        .block(&[(":method", "GET"), (":scheme", "http"), (":path", "/a/b")]);
    for first in 0..=block.len() {
        for second in first..=block.len() {
            let mut talk = Talk::open();
            let frames = [
                frame(kind::HEADERS, END, 1, &block[..first]),
                frame(kind::CONTINUATION, 0, 1, &block[first..second]),
                frame(kind::CONTINUATION, END_HEADERS, 1, &block[second..]),
            ];
            let [head, middle, rest] = frames;
            talk.ask([head, middle].concat()).ask(rest).ok(1, "x");
            assert_eq!(both(&talk), ["+1", "1 GET /a/b 200 req=0 res=1 @5"]);
        }
    }
}

/// Every frame of the conversation, cut into single bytes and at every place.
#[test]
fn pieces_do_not_matter() {
    let ask = |talk: &mut Talk| {
        let head = talk.request(1, 0, "POST", "/a");
        [head, data(1, END | flag::PADDED, b"\x01body\0")].concat()
    };
    let mut talk = Talk::open();
    let whole = ask(&mut talk);
    for cut in 0..whole.len() {
        let mut talk = Talk::open();
        let whole = ask(&mut talk);
        talk.ask(&whole[..cut]).ask(&whole[cut..]).ok(1, "x");
        assert_eq!(both(&talk), ["+1", "1 POST /a 200 req=4 res=1 @5"], "{cut}");
    }
    let mut talk = Talk::default();
    let mut request = preface();
    request.extend(ask(&mut talk));
    let mut response = settings();
    response.extend(talk.response(1, 0, "404"));
    response.extend(data(1, END, b"none"));
    for byte in request {
        talk.ask([byte]);
    }
    let asked = talk.steps().len();
    for byte in &response {
        talk.answer([*byte]);
    }
    let expected = format!("1 POST /a 404 req=4 res=4 @{}", asked + response.len());
    assert_eq!(server(&talk), ["+1", &expected]);
}

/// What was whole before the end is told, and nothing else is.
#[test]
fn truncation_at_every_byte_ends_in_order() {
    let mut talk = Talk::default();
    let mut request = preface();
    for stream in [1, 3] {
        request.extend(talk.request(stream, END, "GET", "/a"));
    }
    let first = [settings(), talk.response(1, 0, "200"), data(1, END, b"one")].concat();
    let second = [talk.response(3, 0, "200"), data(3, END, b"two")].concat();
    let response = [&first[..], &second].concat();
    for end in 0..=response.len() {
        let mut cut = Talk::default();
        cut.ask(&request)
            .answer(&response[..end])
            .step(Step::ResponseClose);
        let events = server(&cut);
        let is_told = |line: &str| events.iter().any(|event| event == line);
        assert_eq!(
            is_told("1 GET /a 200 req=0 res=3 @2"),
            end >= first.len(),
            "{end}"
        );
        assert_eq!(
            is_told("3 GET /a 200 req=0 res=3 @2"),
            end == response.len(),
            "{end}"
        );
        assert_eq!(events.len(), 4, "{end}: {events:?}");
    }
    for end in 0..request.len() {
        let mut cut = Talk::default();
        cut.ask(&request[..end]).step(Step::End);
        let events = server(&cut);
        let started = events.iter().filter(|event| event.starts_with('+')).count();
        let abandoned = events.iter().filter(|event| event.starts_with('-')).count();
        assert_eq!(
            (started, started),
            (abandoned, events.len() - abandoned),
            "{end}"
        );
    }
}

#[test]
fn what_contradicts_the_protocol_is_given_up() {
    let mut talk = Talk::open();
    let open = talk.request(1, 0, "POST", "/a");
    let block = talk.client.block(&[(":method", "GET")]);
    let unlawful = [
        frame(kind::SETTINGS, 0, 0, b"12345"),
        frame(kind::SETTINGS, flag::ACK, 0, b"123456"),
        frame(kind::SETTINGS, 0, 1, b""),
        frame(kind::DATA, 0, 0, b"x"),
        frame(kind::RST_STREAM, 0, 1, b"123"),
        frame(kind::PING, 0, 0, b"1234567"),
        frame(kind::GOAWAY, 0, 0, b"1234567"),
        frame(kind::WINDOW_UPDATE, 0, 0, b"12345"),
        frame(kind::CONTINUATION, END_HEADERS, 1, &block),
        // A block that is not continued, or on another stream.
        [frame(kind::HEADERS, END, 3, &block), data(1, 0, b"x")].concat(),
        [
            frame(kind::HEADERS, END, 3, &block),
            frame(kind::CONTINUATION, END_HEADERS, 1, b""),
        ]
        .concat(),
        // More padding than payload.
        frame(kind::HEADERS, END_HEADERS | flag::PADDED, 3, b"\x09abc"),
    ];
    for bytes in unlawful {
        let mut talk = Talk::open();
        talk.ask(&open).ask(&bytes).get(5, "/b").ok(5, "b");
        assert_eq!(both(&talk), ["+1", "lost", "-1", "opaque"], "{bytes:?}");
    }
}

#[test]
fn unknown_frames_and_flags_are_passed_over() {
    let mut talk = Talk::open();
    let head = talk.request(1, 0xc0 | END, "GET", "/a");
    talk.ask(
        [
            frame(0x0a, 0xff, 0, b"altsvc"),
            frame(0xee, 0, 1, b"?"),
            head,
        ]
        .concat(),
    );
    let head = talk.response(1, 0, "200");
    talk.answer(
        [
            frame(0x10, 0, 0, b"priority"),
            head,
            frame(0xbb, 0, 1, b""),
            data(1, END, b"x"),
        ]
        .concat(),
    );
    assert_eq!(both(&talk), ["+1", "1 GET /a 200 req=0 res=1 @4"]);
}

/// Another multiplexer behind the preface: its window update and data frames (yamux, version 0).
#[test]
fn a_preface_followed_by_another_protocol_is_given_up() {
    let yamux = [
        &b"\0\x01\0\x01\0\0\0\x01\0\0\0\0"[..],
        b"\0\0\0\0\0\0\0\x01\0\0\0\x05hello",
        b"\0\x02\0\x01\0\0\0\0\0\0\0\0",
    ];
    for first in yamux {
        let mut talk = Talk::default();
        talk.ask(crate::protocol::http2::frame::PREFACE)
            .ask(first)
            .ask(yamux.concat())
            .answer(yamux.concat());
        assert_eq!(both(&talk), ["lost", "opaque"]);
    }
    let mut talk = Talk::default();
    talk.ask(preface()).answer(yamux.concat());
    assert_eq!(both(&talk), ["lost", "opaque"]);
}

#[test]
fn the_first_frame_of_either_side_is_settings() {
    let mut talk = Talk::default();
    let head = talk.request(1, END, "GET", "/a");
    talk.ask(crate::protocol::http2::frame::PREFACE).ask(head);
    assert_eq!(both(&talk), ["lost", "opaque"]);
    let mut talk = Talk::default();
    let head = headers(1, END, &[0x88]);
    talk.ask(preface()).get(1, "/a").answer(head);
    assert_eq!(both(&talk), ["+1", "lost", "-1", "opaque"]);
    // A preface that is none.
    let mut talk = Talk::default();
    talk.ask("PRI * HTTP/2.0\r\n\r\nXX");
    assert_eq!(both(&talk), ["lost", "opaque"]);
}
