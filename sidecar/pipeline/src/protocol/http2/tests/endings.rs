//! Resets, GOAWAY, and connections that close in the middle.

use super::wire::{END, Talk, data, go_away, reset};
use super::{Step, both, client, server};

#[test]
fn every_code_of_a_reset_has_a_name() {
    let names = [
        "NO_ERROR",
        "PROTOCOL_ERROR",
        "INTERNAL_ERROR",
        "FLOW_CONTROL_ERROR",
        "SETTINGS_TIMEOUT",
        "STREAM_CLOSED",
        "FRAME_SIZE_ERROR",
        "REFUSED_STREAM",
        "CANCEL",
        "COMPRESSION_ERROR",
        "CONNECT_ERROR",
        "ENHANCE_YOUR_CALM",
        "INADEQUATE_SECURITY",
        "HTTP_1_1_REQUIRED",
        "_OTHER",
    ];
    for (code, name) in (0..).zip(names) {
        for by_client in [true, false] {
            let mut talk = Talk::open();
            talk.get(1, "/a");
            let step = if by_client {
                Step::Request
            } else {
                Step::Response
            };
            talk.step(step(reset(1, code)));
            assert_eq!(
                both(&talk),
                ["+1", &format!("1 GET /a error={name} req=0 @4")]
            );
        }
    }
    let mut talk = Talk::open();
    talk.get(1, "/a").answer(reset(1, u32::MAX));
    assert_eq!(both(&talk), ["+1", "1 GET /a error=_OTHER req=0 @4"]);
}

#[test]
fn a_reset_behind_the_head_keeps_the_status() {
    let mut talk = Talk::open();
    let head = talk.response(1, 0, "200");
    talk.get(1, "/a")
        .answer([head, data(1, 0, b"part")].concat())
        .ask(reset(1, 8));
    assert_eq!(both(&talk), ["+1", "1 GET /a 200 error=CANCEL req=0 @5"]);
    let mut talk = Talk::open();
    let head = talk.response(1, 0, "500");
    talk.get(1, "/a").answer(head).answer(reset(1, 2));
    assert_eq!(both(&talk), ["+1", "1 GET /a 500 error=500 req=0 @5"]);
}

#[test]
fn a_reset_behind_a_whole_response_changes_nothing() {
    let mut talk = Talk::open();
    let head = talk.request(1, 0, "POST", "/a");
    talk.ask(head)
        .ok(1, "x")
        .answer(reset(1, 0))
        .ask(reset(1, 8));
    assert_eq!(both(&talk), ["+1", "1 POST /a 200 res=1 @4"]);
}

#[test]
fn what_goaway_leaves_out_is_refused_and_the_rest_goes_on() {
    let mut talk = Talk::open();
    talk.get(1, "/a").get(3, "/b").get(5, "/c");
    let begun = talk.response(5, 0, "200");
    talk.answer(begun)
        .answer(go_away(u32::MAX >> 1, 0))
        .answer(go_away(1, 0))
        .ok(1, "x")
        .answer(data(5, END, b"y"));
    let expected = [
        "+1",
        "+3",
        "+5",
        "3 GET /b error=REFUSED_STREAM req=0 @8",
        "1 GET /a 200 req=0 res=1 @9",
        "5 GET /c 200 req=0 res=1 @10",
    ];
    assert_eq!(both(&talk), expected);
    // That of a client is about what the server pushes.
    let mut talk = Talk::open();
    talk.get(1, "/a").ask(go_away(0, 0)).ok(1, "x");
    assert_eq!(both(&talk), ["+1", "1 GET /a 200 req=0 res=1 @5"]);
}

#[test]
fn a_close_in_the_middle_is_a_failure_that_a_client_sees() {
    let mut talk = Talk::open();
    talk.get(1, "/a").get(3, "/b").get(5, "/c");
    let begun = talk.response(3, 0, "200");
    talk.ok(1, "x")
        .answer([begun, data(3, 0, b"pa")].concat())
        .step(Step::ResponseClose);
    let started = ["+1", "+3", "+5", "1 GET /a 200 req=0 res=1 @6"];
    let cut = "3 GET /b 200 error=incomplete_response req=0 @8";
    let of_client = [&started[..], &[cut, "5 GET /c error=no_response req=0 @8"]].concat();
    assert_eq!(client(&talk), of_client);
    assert_eq!(server(&talk), [&started[..], &[cut, "-5"]].concat());
}

#[test]
fn the_end_of_the_flow_proves_nothing() {
    let mut talk = Talk::open();
    let begun = talk.response(1, 0, "200");
    talk.get(1, "/a").get(3, "/b").answer(begun);
    talk.step(Step::End)
        .step(Step::End)
        .get(5, "/c")
        .step(Step::Tick(u64::MAX));
    assert_eq!(both(&talk), ["+1", "+3", "-1", "-3"]);
}
