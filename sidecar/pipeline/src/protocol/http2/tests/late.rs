//! Connections that are older than the observation.

use super::wire::{END, Encoder, Talk, data, headers, indexed, plain};
use super::{ROLES, Step, joined_late};
use crate::protocol::http2::detect::detect;
use crate::protocol::{Side, Verdict};

/// The encoders have inserted what these name, before anybody looked.
fn in_the_middle() -> Talk {
    let mut talk = Talk::default();
    talk.request(1, END, "GET", "/old");
    talk.response(1, END, "418");
    talk
}

/// Something harmless shows where the frames of the server are.
fn in_step() -> Talk {
    let mut talk = in_the_middle();
    talk.answer(super::wire::settings());
    talk
}

#[test]
fn names_that_were_sent_before_are_marked() {
    for role in ROLES {
        let mut talk = in_the_middle();
        talk.get(3, "/old").ok(3, "x");
        assert_eq!(
            joined_late(role, talk.steps()),
            ["+3", "3 GET 200 req=0 res=1 @2 ?"]
        );
    }
}

#[test]
fn what_is_sent_again_is_right() {
    for role in ROLES {
        let mut talk = in_the_middle();
        talk.get(3, "/old").ok(3, "x");
        talk.client = Encoder::default();
        talk.get(5, "/new").ok(5, "y").get(7, "/new").ok(7, "z");
        let events = joined_late(role, talk.steps());
        let expected = [
            "+5",
            "5 GET /new 200 req=0 res=1 @4",
            "+7",
            "7 GET /new 200 req=0 res=1 @6",
        ];
        assert_eq!(events[2..], expected);
    }
}

#[test]
fn an_unknown_status_is_marked_and_none_is_made_up() {
    for role in ROLES {
        let mut talk = in_step();
        let plain_head = [
            vec![0x82, 0x86],
            plain(":path", "/a"),
            plain(":authority", "h"),
        ]
        .concat();
        let teapot = talk.response(3, 0, "418");
        talk.ask(headers(3, END, &plain_head))
            .answer([teapot, data(3, END, b"x")].concat());
        assert_eq!(
            joined_late(role, talk.steps()),
            ["+3", "3 GET /a req=0 res=1 @3 ?"]
        );
    }
}

/// A head without a known status may be an interim one.
#[test]
fn a_known_status_behind_an_unknown_one_is_the_answer() {
    for role in ROLES {
        let mut talk = in_step();
        let plain_head = [
            vec![0x82, 0x86],
            plain(":path", "/a"),
            plain(":authority", "h"),
        ]
        .concat();
        let unknown = talk.response(3, 0, "418");
        let known = talk.response(3, END, "404");
        talk.ask(headers(3, END, &plain_head))
            .answer([unknown, known].concat());
        let events = joined_late(role, talk.steps());
        assert!(events[1].starts_with("3 GET /a 404"), "{events:?}");
    }
}

/// Nobody saw whether a request came before: a block without a known method may be the trailers of one.
#[test]
fn a_block_without_a_method_is_no_request_until_one_was_seen() {
    for role in ROLES {
        let mut talk = in_the_middle();
        let unknown = [indexed(0), indexed(1)];
        talk.ask([headers(3, END, &unknown), super::wire::settings()].concat())
            .ok(3, "x");
        talk.get(5, "/old")
            .ok(5, "y")
            .ask(headers(7, END, &unknown))
            .ok(7, "z");
        let expected = [
            "+5",
            "5 GET 200 req=0 res=1 @4 ?",
            "+7",
            "7 HTTP 200 req=0 res=1 @6 ?",
        ];
        assert_eq!(joined_late(role, talk.steps()), expected);
    }
}

/// Its response was under way, or had ended, when the observation began.
#[test]
fn a_request_before_the_first_response_frame_is_doubtful() {
    for role in ROLES {
        let mut talk = in_the_middle();
        talk.get(3, "/a")
            .answer(super::wire::settings())
            .step(Step::ResponseClose);
        assert_eq!(joined_late(role, talk.steps()), ["+3", "-3"]);
    }
}

/// A POST whose content type is not known may be a call that has failed.
#[test]
fn a_call_that_does_not_show_is_marked() {
    for role in ROLES {
        let mut talk = Talk::default();
        let hidden = [indexed(0)];
        let known = [
            vec![0x83, 0x86],
            plain(":path", "/s/M"),
            plain(":authority", "h"),
        ]
        .concat();
        talk.ask(headers(3, END, &[&known[..], &hidden].concat()))
            .ok(3, "x");
        let events = joined_late(role, talk.steps());
        assert_eq!(events[1], "3 POST /s/M 200 req=0 res=1 @2 ?");
        let mut talk = Talk::default();
        let json = plain("content-type", "application/json");
        talk.ask(headers(3, END, &[&known[..], &json, &hidden].concat()))
            .ok(3, "x");
        let events = joined_late(role, talk.steps());
        assert_eq!(events[1], "3 POST /s/M 200 req=0 res=1 @2");
    }
}

#[test]
fn a_side_is_recognised_by_its_own_header_block() {
    let mut talk = Talk::default();
    let request = talk.request(3, END, "GET", "/a");
    let response = talk.response(3, END, "200");
    let window = super::wire::frame(8, 0, 0, &[0, 0, 0, 9]);
    for (bytes, expected) in [
        (
            [&window[..], &request].concat(),
            Verdict::Yes(Side::Request),
        ),
        (response.clone(), Verdict::Yes(Side::Response)),
        (
            [&data(3, 0, b"x")[..], &response].concat(),
            Verdict::Yes(Side::Response),
        ),
        (data(3, 0, b"x"), Verdict::No),
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), Verdict::No),
    ] {
        assert_eq!(detect(&bytes, true), expected);
        assert_eq!(detect(&bytes, false), Verdict::No);
    }
}
