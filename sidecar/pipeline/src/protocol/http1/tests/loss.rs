//! Missing bytes: spans may be missing, none may be wrong.

use super::{Step, client, get, joined_late, losses, ok, play, request, response, server, texts};
use crate::protocol::{Direction, FlowInfo, Loss};

/// The exchange after the loss, numbered `id`, finished at `end`.
fn recovered(id: usize, end: usize) -> Vec<String> {
    vec![
        format!("+{id}"),
        format!("{id} GET /next 200 req=0 res=4 @{end}"),
    ]
}

/// Plays `steps`, then one sound exchange, and splits off what the latter gave.
fn then_next(steps: &[Step]) -> (Vec<String>, bool) {
    let all = [steps, &[get("/next"), ok("next")]].concat();
    let events = server(&all);
    let started = events.iter().filter(|event| event.starts_with('+')).count();
    let tail = recovered(started.saturating_sub(1), all.len());
    let found = events.ends_with(&tail);
    let rest = if found {
        events[..events.len() - tail.len()].to_vec()
    } else {
        events
    };
    (rest, found)
}

fn head(length: u64) -> Step {
    response(format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n12345"
    ))
}

fn chunked(bytes: &str) -> Step {
    response(format!(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{bytes}"
    ))
}

#[test]
fn gaps_inside_bodies_are_skipped_by_length() {
    let upload = request("POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 1000003\r\n\r\nabc");
    let cases: [(Vec<Step>, &[&str]); 7] = [
        (
            vec![
                get("/a"),
                head(1_000_005),
                Step::ResponseGap(600_000),
                Step::ResponseGap(400_000),
            ],
            &["+0", "0 GET /a 200 req=0 res=1000005 @4"],
        ),
        (
            vec![get("/a"), head(105), Step::ResponseGap(97), response("end")],
            &["+0", "0 GET /a 200 req=0 res=105 @4"],
        ),
        (
            vec![upload.clone(), Step::RequestGap(1_000_000), ok("")],
            &["+0", "0 POST /a 200 req=1000003 res=0 @3"],
        ),
        (
            vec![
                get("/a"),
                chunked("3e8\r\nabc"),
                Step::ResponseGap(997),
                response("\r\n0\r\n\r\n"),
            ],
            &["+0", "0 GET /a 200 req=0 res=1000 @4"],
        ),
        (
            vec![
                get("/a"),
                chunked("3e8\r\nabc"),
                Step::ResponseGap(999),
                response("2\r\nxy\r\n0\r\n\r\n"),
            ],
            &["+0", "0 GET /a 200 req=0 res=1002 @4"],
        ),
        // Over the chunk framing: the end is where the next request begins, the size is not known.
        (
            vec![
                get("/a"),
                chunked("3e8\r\nabc"),
                Step::ResponseGap(1004),
                response("more"),
            ],
            &["+0", "0 GET /a 200 req=0 @4"],
        ),
        // The end of the upload is not known, its response is.
        (
            vec![
                request(
                    "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nabc",
                ),
                Step::RequestGap(100),
                request("rest of the upload"),
                ok("x"),
            ],
            &["+0", "0 POST /a 200 res=1 @4"],
        ),
    ];
    for (steps, expected) in cases {
        let (events, recovered) = then_next(&steps);
        assert_eq!(events, expected, "{steps:?}");
        assert!(recovered, "{steps:?}");
    }
}

#[test]
fn gaps_in_heads_and_past_ends_lose_both_directions() {
    let cases = [
        // In the request's head, between requests, past the end of an upload.
        (
            vec![request("GET /a HT"), Step::RequestGap(20), ok("lost")],
            vec![],
        ),
        (vec![Step::RequestGap(100), ok("lost")], vec![]),
        (
            vec![
                request("POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n"),
                Step::RequestGap(6),
                ok("lost"),
            ],
            vec!["+0", "-0"],
        ),
        // Where a response was expected, in its head, past its end.
        (
            vec![get("/a"), Step::ResponseGap(100), response("rest")],
            vec!["+0", "-0"],
        ),
        (
            vec![
                get("/a"),
                response("HTTP/1.1 200"),
                Step::ResponseGap(10),
                response("rest"),
            ],
            vec!["+0", "-0"],
        ),
        (
            vec![get("/a"), head(10), Step::ResponseGap(6), response("rest")],
            vec!["+0", "-0"],
        ),
        (
            vec![get("/a"), head(10), Step::ResponseGap(u64::MAX)],
            vec!["+0", "-0"],
        ),
        // Garbage.
        (
            vec![get("/a"), response("garbage\r\n\r\n")],
            vec!["+0", "-0"],
        ),
        (
            vec![request("garbage\r\n\r\n"), response("garbage")],
            vec![],
        ),
    ];
    for (steps, expected) in cases {
        let (events, recovered) = then_next(&steps);
        assert_eq!(events, expected, "{steps:?}");
        assert!(recovered, "{steps:?}");
    }
}

#[test]
fn a_spilled_response_ends_with_its_connection_too() {
    let steps = [
        get("/a"),
        chunked("5\r\nab"),
        Step::ResponseGap(50),
        Step::ResponseGap(7),
        Step::ResponseClose,
    ];
    assert_eq!(client(&steps), ["+0", "0 GET /a 200 req=0 @4"]);
    let steps = [
        get("/a"),
        chunked("5\r\nab"),
        Step::ResponseGap(50),
        Step::End,
    ];
    assert_eq!(client(&steps), ["+0", "-0"]);
}

#[test]
fn a_pipelined_connection_that_loses_bytes_is_given_up() {
    let pipelined = [get("/a"), get("/b")];
    let losses = [
        vec![chunked("5\r\nab"), Step::ResponseGap(50)],
        vec![response("garbage\r\n\r\n")],
    ];
    for loss in losses {
        let (events, recovered) = then_next(&[&pipelined[..], &loss].concat());
        assert_eq!(events, ["+0", "+1", "-0", "-1", "opaque"], "{loss:?}");
        assert!(!recovered, "{loss:?}");
    }
    // Three open requests are proof enough.
    for loss in [Step::ResponseGap(9), Step::RequestGap(9)] {
        let (events, recovered) = then_next(&[get("/a"), get("/b"), get("/c"), loss]);
        assert_eq!(events[3..], ["-0", "-1", "-2", "opaque"]);
        assert!(!recovered);
    }
    // Also when the pipelining was long ago.
    let (events, _) = then_next(&[
        get("/a"),
        get("/b"),
        ok("1"),
        ok("2"),
        get("/c"),
        Step::ResponseGap(9),
    ]);
    assert_eq!(&events[4..], ["+2", "-2", "opaque"]);
}

#[test]
fn a_request_before_the_end_of_a_spilled_response_is_not_paired_with_its_rest() {
    let steps = [
        get("/a"),
        chunked("5\r\nab"),
        Step::ResponseGap(50),
        get("/b"),
        response("rest of /a"),
        ok("b"),
    ];
    let (events, recovered) = then_next(&steps);
    assert_eq!(events, ["+0", "0 GET /a 200 req=0 @3", "+1", "-1"]);
    assert!(recovered);
}

#[test]
fn every_start_is_answered_once() {
    let steps = [
        get("/a"),
        get("/b"),
        ok("1"),
        Step::End,
        Step::End,
        get("/c"),
        Step::Tick(u64::MAX),
    ];
    assert_eq!(
        server(&steps),
        ["+0", "+1", "0 GET /a 200 req=0 res=1 @3", "-1"]
    );
}

/// The request that comes after the lost response to another one is not pipelined.
#[test]
fn a_lost_response_does_not_end_a_keep_alive_connection() {
    let lost = [get("/a"), Step::ResponseGap(40), get("/b"), ok("b")];
    let (events, recovered) = then_next(&lost);
    assert_eq!(events[..3], ["+0", "-0", "+1"]);
    assert!(recovered);

    // Nor while the place has just been found again, or the connection was joined late.
    let twice = [&lost[..], &lost[..]].concat();
    let (events, recovered) = then_next(&twice);
    assert_eq!(events[4..7], ["+2", "-2", "+3"]);
    assert!(recovered);
    let next = [get("/next"), ok("next")];
    let late = joined_late(Direction::Received, &[&lost[..], &next].concat());
    assert_eq!(late.last().unwrap(), "2 GET /next 200 req=0 res=4 @6");
}

#[test]
fn every_loss_is_told_once_with_its_reason() {
    let long = request(format!("GET /a HTTP/1.1\r\nX: {}", "y".repeat(70_000)));
    let upload =
        request("POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nabc");
    let cases: [(Vec<Step>, &[Loss]); 10] = [
        (vec![get("/a"), ok("x"), get("/b")], &[]),
        (vec![Step::RequestGap(9), Step::RequestGap(9)], &[Loss::Gap]),
        (vec![get("/a"), Step::ResponseGap(9), ok("x")], &[Loss::Gap]),
        (vec![upload, Step::RequestGap(100)], &[Loss::Gap]),
        (vec![long.clone()], &[Loss::HeadTooLong]),
        (
            vec![request("GET /a HT"), Step::RequestGap(9), long, get("/b")],
            &[Loss::HeadTooLong, Loss::HeadTooLong],
        ),
        (
            vec![get("/a"), response("HTTP/1.1 20"), Step::ResponseGap(9)],
            &[Loss::HeadTooLong],
        ),
        (
            vec![get("/a"), response("what?\r\n\r\n"), ok("x")],
            &[Loss::Malformed],
        ),
        (vec![ok("unasked"), ok("again")], &[Loss::Unproven]),
        (
            vec![Step::RequestGap(9), get("/a"), get("/b"), ok("x")],
            &[Loss::Gap, Loss::Unproven],
        ),
    ];
    for (steps, expected) in cases {
        assert_eq!(losses(&steps), expected, "{steps:?}");
    }
    // Where nothing was known, nothing is lost.
    let info = FlowInfo {
        joined_late: true,
        ..FlowInfo::default()
    };
    assert!(
        play(
            Direction::Received,
            info,
            &[ok("x"), request("body"), Step::RequestGap(9)]
        )
        .is_empty()
    );
}

/// A pause is no proof of the end, and what comes after it would make a span wrong.
#[test]
fn a_response_whose_end_will_not_be_seen_is_given_up_after_a_pause() {
    let steps = |pause: u64| {
        [
            get("/a"),
            response("HTTP/1.0 200 OK\r\n\r\nabc"),
            Step::Tick(pause),
            response("def"),
            Step::ResponseClose,
        ]
    };
    let at = |close_unseen, direction, pause| {
        let info = FlowInfo {
            close_unseen,
            ..FlowInfo::default()
        };
        texts(&play(direction, info, &steps(pause)))
    };
    let whole = ["+0", "0 GET /a 200 req=0 res=6 @4"];
    assert_eq!(
        at(true, Direction::Received, 2 + 10_000_000_000),
        ["+0", "-0", "opaque"]
    );
    assert_eq!(at(true, Direction::Received, 1 + 10_000_000_000), whole);
    // A client reads the end of what its peer sends, whatever the transport.
    assert_eq!(at(true, Direction::Sent, u64::MAX), whole);
    assert_eq!(at(false, Direction::Received, u64::MAX), whole);
}
