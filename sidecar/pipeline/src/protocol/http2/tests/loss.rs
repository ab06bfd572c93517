//! Missing bytes: spans may be missing, none may be wrong.

use super::wire::{END, END_HEADERS, Talk, data, frame, headers, reset, settings};
use super::{ROLES, Step, both, client, play, server};
use crate::protocol::http2::frame::{flag, kind};

/// A frame's header and the first bytes of its payload; the rest is not captured.
fn cut(whole: &[u8], kept: usize) -> (Vec<u8>, u64) {
    let (kept, missing) = whole.split_at(kept);
    (kept.to_vec(), missing.len() as u64)
}

/// A sound exchange behind the loss, on stream 99, is told in full.
fn and_goes_on(talk: &mut Talk) -> Vec<String> {
    talk.client = super::wire::Encoder::default();
    talk.server = super::wire::Encoder::default();
    talk.get(99, "/next").answer(settings()).ok(99, "next");
    let events = both(talk);
    let [rest @ .., last] = events.as_slice() else {
        panic!("no events");
    };
    let time = talk.steps().len();
    assert_eq!(*last, format!("99 GET /next 200 req=0 res=4 @{time}"));
    rest.iter()
        .filter(|event| *event != "+99")
        .cloned()
        .collect()
}

#[test]
fn content_that_is_not_captured_counts() {
    let mut talk = Talk::open();
    let head = talk.request(1, 0, "POST", "/a");
    let (upload, missing) = cut(&data(1, END, &[7; 10_000]), 100);
    talk.ask([head, upload].concat())
        .step(Step::RequestGap(missing));
    let head = talk.response(1, 0, "200");
    let (download, missing) = cut(&data(1, END, &[7; 16_000]), 9);
    talk.answer([head, download].concat())
        .step(Step::ResponseGap(missing - 5))
        .answer([7; 5]);
    assert_eq!(both(&talk), ["+1", "1 POST /a 200 req=10000 res=16000 @7"]);
    assert_eq!(and_goes_on(&mut talk).len(), 2);
}

#[test]
fn a_gap_over_a_frame_boundary_costs_what_may_be_in_it() {
    let mut talk = Talk::open();
    talk.get(1, "/a").get(3, "/b").ok(1, "x");
    let head = talk.response(3, 0, "200");
    talk.answer([head, data(3, 0, b"part")].concat())
        .step(Step::ResponseGap(200))
        .answer(b"content in the middle of a frame")
        .answer([data(3, 0, b"more"), data(3, END, b"end")].concat());
    // Its end was seen, and its status; its size was not.
    let events = and_goes_on(&mut talk);
    let expected = [
        "+1",
        "+3",
        "1 GET /a 200 req=0 res=1 @5",
        "lost",
        "3 GET /b 200 req=0 @9",
    ];
    assert_eq!(events, expected);
}

#[test]
fn a_stream_whose_head_or_end_was_lost_gives_no_span() {
    let mut talk = Talk::open();
    talk.get(1, "/a").get(3, "/b").step(Step::ResponseGap(50));
    // The end of one whose head is missing, then a close that may come after the end of the other.
    talk.answer([data(1, 0, b"x"), data(1, END, b"y")].concat())
        .step(Step::ResponseClose);
    assert_eq!(both(&talk), ["+1", "+3", "lost", "-1", "-3"]);
}

/// The trailers of a call whose head was lost look like a head without a known status.
#[test]
fn trailers_of_a_lost_head_are_no_head() {
    let mut talk = Talk::open();
    talk.get(1, "/a").step(Step::ResponseGap(50));
    let unknown = headers(1, END, &[super::wire::indexed(0)]);
    talk.answer([settings(), unknown].concat());
    assert_eq!(both(&talk), ["+1", "lost", "-1"]);
}

#[test]
fn a_reset_that_may_follow_a_lost_response_proves_nothing() {
    let mut talk = Talk::open();
    let head = talk.request(1, 0, "POST", "/a");
    talk.ask(head).step(Step::ResponseGap(50)).ask(reset(1, 8));
    assert_eq!(both(&talk), ["+1", "lost", "-1"]);
    // What the client lost says nothing about the response.
    let mut talk = Talk::open();
    talk.get(1, "/a")
        .step(Step::RequestGap(50))
        .answer(reset(1, 2));
    assert_eq!(
        both(&talk),
        ["+1", "lost", "1 GET /a error=INTERNAL_ERROR req=0 @5"]
    );
}

/// Requests go on while the place in the responses is lost: their responses are lost too.
#[test]
fn requests_during_a_loss_are_doubtful() {
    for role in ROLES {
        let mut talk = Talk::open();
        talk.get(1, "/a").step(Step::ResponseGap(50));
        talk.get(3, "/b").step(Step::ResponseGap(50));
        talk.get(5, "/c")
            .answer(settings())
            .step(Step::ResponseClose);
        let events = play(role, talk.steps());
        assert_eq!(events, ["+1", "lost", "+3", "+5", "-1", "-3", "-5"]);
    }
}

/// A client's request may be recorded just behind the loss of its response.
#[test]
fn a_request_right_behind_the_loss_of_a_response_is_doubtful_to_a_client() {
    let mut talk = Talk::open();
    talk.step(Step::ResponseGap(50))
        .answer(settings())
        .get(1, "/a")
        .step(Step::ResponseClose);
    assert_eq!(client(&talk), ["lost", "+1", "-1"]);
}

#[test]
fn what_is_doubtful_does_not_stay_open_for_ever() {
    let minute = 60_000_000_000;
    for gap in [Step::ResponseGap(50), Step::RequestGap(50)] {
        let mut talk = Talk::open();
        talk.get(1, "/a").step(gap).step(Step::Tick(minute));
        assert_eq!(both(&talk), ["+1", "lost"]);
        talk.step(Step::Tick(minute + 10));
        assert_eq!(both(&talk), ["+1", "lost", "-1"]);
    }
    // A stream on which nothing was lost may last.
    let mut talk = Talk::open();
    talk.get(1, "/a").step(Step::Tick(100 * minute)).ok(1, "x");
    assert_eq!(both(&talk), ["+1", "1 GET /a 200 req=0 res=1 @5"]);
}

#[test]
fn a_cut_request_head_costs_its_own_exchange() {
    let mut talk = Talk::open();
    let whole = talk.request(1, END, "GET", "/a");
    let (kept, missing) = cut(&whole, 12);
    talk.ask(kept).step(Step::RequestGap(missing)).ok(1, "x");
    assert_eq!(both(&talk), ["lost"]);
    assert_eq!(and_goes_on(&mut talk), ["lost"]);
}

#[test]
fn a_cut_response_head_costs_its_own_exchange() {
    let mut talk = Talk::open();
    talk.get(1, "/a");
    let whole = talk.response(1, 0, "404");
    let (kept, missing) = cut(&[whole, Vec::new()].concat(), 9);
    talk.answer(kept)
        .step(Step::ResponseGap(missing))
        .answer(data(1, END, b"x"));
    assert_eq!(both(&talk), ["+1", "lost", "-1"]);
    assert_eq!(and_goes_on(&mut talk), ["+1", "lost", "-1"]);
}

#[test]
fn a_gap_in_a_continued_block_costs_its_own_exchange() {
    let mut talk = Talk::open();
    let block = talk
        .client
        .block(&[(":method", "GET"), (":scheme", "http"), (":path", "/a")]);
    talk.ask(frame(kind::HEADERS, END, 1, &block[..2]))
        .ask(&frame(kind::CONTINUATION, END_HEADERS, 1, &block[2..])[..10])
        .step(Step::RequestGap(block.len() as u64 - 3));
    assert_eq!(and_goes_on(&mut talk), ["lost"]);
}

/// Of a whole operation nothing is known, neither where frames ended nor what the table is.
#[test]
fn a_lost_operation_costs_what_was_in_it() {
    let mut talk = Talk::open();
    talk.get(1, "/a")
        .step(Step::RequestGap(40))
        .ok(3, "of the lost one")
        .ok(1, "x");
    let events = and_goes_on(&mut talk);
    assert_eq!(events, ["+1", "lost", "1 GET /a 200 req=0 res=1 @6"]);
}

#[test]
fn an_end_that_nobody_saw_has_no_time() {
    let mut talk = Talk::open();
    talk.get(1, "/a");
    let head = talk.response(1, 0, "200");
    let (kept, missing) = cut(&data(1, END, &[7; 1000]), 20);
    talk.answer([head, kept].concat());
    let mut hole = talk.clone();
    hole.step(Step::ResponseHole(missing));
    assert_eq!(server(&hole), ["+1", "-1"]);
    talk.step(Step::ResponseGap(missing));
    assert_eq!(server(&talk), ["+1", "1 GET /a 200 req=0 res=1000 @5"]);
}

/// A reset whose code was not captured: that the stream is over is all that is known.
#[test]
fn a_cut_reset_gives_no_span() {
    let mut talk = Talk::open();
    let (kept, missing) = cut(&reset(1, 8), 11);
    talk.get(1, "/a")
        .answer(kept)
        .step(Step::ResponseGap(missing));
    assert_eq!(both(&talk), ["+1", "-1"]);
}

/// Behind a loss, a block without a known method may be the trailers of a request that was lost.
#[test]
fn trailers_of_a_lost_request_are_no_request() {
    let mut talk = Talk::open();
    let unknown = headers(3, END, &[super::wire::indexed(0)]);
    talk.get(1, "/a")
        .step(Step::RequestGap(40))
        .ask([settings(), unknown].concat())
        .ok(3, "of the lost one");
    assert_eq!(and_goes_on(&mut talk), ["+1", "lost"]);
}

/// They come before the record of the request whose response's head was lost.
#[test]
fn early_trailers_of_a_lost_head_are_no_head() {
    let mut talk = Talk::open();
    let unknown = headers(1, END, &[super::wire::indexed(0)]);
    talk.step(Step::ResponseGap(50))
        .answer([settings(), unknown].concat())
        .get(1, "/a");
    assert_eq!(client(&talk), ["lost", "+1", "-1"]);
}

#[test]
fn padding_of_unknown_length_hides_the_size() {
    let mut talk = Talk::open();
    let head = talk.response(1, 0, "200");
    let padded = data(1, END | flag::PADDED, &[&[4][..], &[0; 20]].concat());
    talk.get(1, "/a")
        .answer([&head[..], &padded[..9]].concat())
        .step(Step::ResponseGap(3))
        .answer(&padded[12..]);
    assert_eq!(both(&talk), ["+1", "1 GET /a 200 req=0 @6"]);
}

#[test]
fn a_loss_is_told_once_per_operation() {
    // Index 0 stands for no field.
    let bad = |stream| headers(stream, END, &[0x80]);
    let mut talk = Talk::open();
    talk.ask([bad(1), bad(3)].concat()).ask(bad(5));
    assert_eq!(both(&talk), ["lost", "lost"]);
    let between = talk.request(9, END, "GET", "/a");
    talk.ask([bad(7), between, bad(11)].concat());
    assert_eq!(both(&talk), ["lost", "lost", "lost", "+9", "lost"]);
}
