//! gRPC and gRPC-Web: what a stream means whose content says so.

use super::wire::{END, Talk, data, headers, reset};
use super::{Step, both, client, server};

const MESSAGE: &[u8] = b"\0\0\0\0\x02hi";

/// The frame of a call's head.
fn call(talk: &mut Talk, stream: u32, content: &str) -> Vec<u8> {
    let block = talk.client.block(&[
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/shop.Orders/Get"),
        (":authority", "shop:8080"),
        ("content-type", content),
        ("te", "trailers"),
    ]);
    headers(stream, 0, &block)
}

fn accepted(talk: &mut Talk, stream: u32) -> Vec<u8> {
    let block = talk
        .server
        .block(&[(":status", "200"), ("content-type", "application/grpc")]);
    headers(stream, 0, &block)
}

fn trailers(talk: &mut Talk, stream: u32, status: &str) -> Vec<u8> {
    let block = talk
        .server
        .block(&[("grpc-status", status), ("grpc-message", "m")]);
    headers(stream, END, &block)
}

fn started() -> Talk {
    let mut talk = Talk::open();
    let head = call(&mut talk, 1, "application/grpc+proto");
    talk.ask(head);
    talk
}

/// Unary, server, client and bidirectional streaming: as many messages as there are, one call.
#[test]
fn calls_of_every_kind() {
    for (asked, answered) in [(1, 1), (1, 5), (5, 1), (5, 5), (0, 0)] {
        let mut talk = started();
        for _ in 0..asked {
            talk.ask(data(1, 0, MESSAGE));
        }
        let head = accepted(&mut talk, 1);
        talk.answer(head);
        for _ in 0..answered {
            talk.answer(data(1, 0, MESSAGE));
        }
        talk.ask(data(1, END, b""));
        let end = trailers(&mut talk, 1, "0");
        talk.answer(end);
        let time = talk.steps().len();
        assert_eq!(
            both(&talk),
            ["+1", &format!("1 grpc /shop.Orders/Get OK @{time}")]
        );
    }
}

#[test]
fn messages_in_turns_are_one_call() {
    let mut talk = started();
    let head = accepted(&mut talk, 1);
    talk.ask(data(1, 0, MESSAGE)).answer(head);
    for _ in 0..3 {
        talk.answer(data(1, 0, MESSAGE)).ask(data(1, 0, MESSAGE));
    }
    let end = trailers(&mut talk, 1, "0");
    // The server may end a call before its client has.
    talk.answer(end).ask(data(1, END, b"")).ask(reset(1, 0));
    assert_eq!(both(&talk), ["+1", "1 grpc /shop.Orders/Get OK @12"]);
}

#[test]
fn a_status_is_a_failure_by_role() {
    for (code, name, is_servers) in [
        ("1", "CANCELLED", false),
        ("2", "UNKNOWN", true),
        ("4", "DEADLINE_EXCEEDED", true),
        ("5", "NOT_FOUND", false),
        ("12", "UNIMPLEMENTED", true),
        ("13", "INTERNAL", true),
        ("14", "UNAVAILABLE", true),
        ("15", "DATA_LOSS", true),
        ("16", "UNAUTHENTICATED", false),
        ("77", "77", false),
    ] {
        let mut talk = started();
        let [head, end] = [accepted(&mut talk, 1), trailers(&mut talk, 1, code)];
        talk.answer([head, end].concat());
        let failed = format!("1 grpc /shop.Orders/Get {name} error={name} @4");
        let fine = format!("1 grpc /shop.Orders/Get {name} @4");
        assert_eq!(client(&talk), ["+1", &failed]);
        let of_server = if is_servers { &failed } else { &fine };
        assert_eq!(server(&talk), ["+1", of_server]);
    }
}

#[test]
fn trailers_may_be_all_of_a_response() {
    let mut talk = started();
    let block = talk.server.block(&[
        (":status", "200"),
        ("content-type", "application/grpc"),
        ("grpc-status", "12"),
    ]);
    talk.answer(headers(1, END, &block));
    assert_eq!(
        both(&talk),
        [
            "+1",
            "1 grpc /shop.Orders/Get UNIMPLEMENTED error=UNIMPLEMENTED @4"
        ]
    );
}

/// A deadline that has passed and a call that was cancelled look the same on the wire.
#[test]
fn a_cancelled_call_has_no_status_but_its_reset() {
    for is_accepted in [false, true] {
        let mut talk = started();
        let head = accepted(&mut talk, 1);
        if is_accepted {
            talk.answer(head);
        }
        talk.ask(reset(1, 8));
        let time = talk.steps().len();
        let expected = format!("1 grpc /shop.Orders/Get error=CANCEL @{time}");
        assert_eq!(both(&talk), ["+1", &expected]);
    }
}

#[test]
fn a_failure_of_http_is_one_of_the_call() {
    let mut talk = started();
    let head = talk.response(1, END, "503");
    talk.answer(head);
    assert_eq!(both(&talk), ["+1", "1 grpc /shop.Orders/Get error=503 @4"]);
}

#[test]
fn grpc_web_has_its_status_in_the_body() {
    let mut talk = Talk::open();
    let head = call(&mut talk, 1, "application/grpc-web+proto");
    talk.ask([head, data(1, END, MESSAGE)].concat())
        .ok(1, "body with trailers in it");
    assert_eq!(both(&talk), ["+1", "1 grpc /shop.Orders/Get @4"]);
}

#[test]
fn what_only_looks_like_a_call_is_http() {
    for content in ["application/json", "application/grpcfoo", ""] {
        let mut talk = Talk::open();
        let head = call(&mut talk, 1, content);
        talk.ask([head, data(1, END, MESSAGE)].concat()).ok(1, "x");
        assert_eq!(
            both(&talk),
            ["+1", "1 POST /shop.Orders/Get 200 req=7 res=1 @4"]
        );
    }
}

/// The status tells a call whose content types were not seen.
#[test]
fn a_status_of_a_call_is_proof_of_one() {
    let mut talk = Talk::open();
    let request = talk.request(1, END, "POST", "/s/M");
    let [head, end] = [talk.response(1, 0, "200"), trailers(&mut talk, 1, "5")];
    talk.ask(request).answer([head, end].concat());
    assert_eq!(server(&talk), ["+1", "1 grpc /s/M NOT_FOUND @4"]);
}

#[test]
fn a_call_without_its_trailers_is_not_told() {
    let mut talk = started();
    let head = accepted(&mut talk, 1);
    talk.answer(head)
        .step(Step::ResponseGap(100))
        .answer(super::wire::settings());
    talk.step(Step::Tick(100_000_000_000));
    assert_eq!(both(&talk), ["+1", "lost", "-1"]);
    // Its trailers alone are enough.
    let mut talk = started();
    talk.step(Step::ResponseGap(100));
    let end = trailers(&mut talk, 1, "0");
    talk.answer(end);
    assert_eq!(both(&talk), ["+1", "lost", "1 grpc /shop.Orders/Get OK @5"]);
    // Trailers that were cut may say anything.
    let mut talk = started();
    let [head, end] = [accepted(&mut talk, 1), trailers(&mut talk, 1, "0")];
    talk.answer([&head[..], &end[..12]].concat())
        .step(Step::ResponseGap(end.len() as u64 - 12));
    assert_eq!(both(&talk), ["+1", "lost", "-1"]);
}

/// The trailers refer to what was sent before the loss.
#[test]
fn an_unknown_status_of_a_call_is_marked() {
    let mut talk = started();
    let head = accepted(&mut talk, 1);
    let end = trailers(&mut talk, 1, "13");
    talk.answer([head, end].concat());
    let next = call(&mut talk, 3, "application/grpc+proto");
    let [head, end] = [accepted(&mut talk, 3), trailers(&mut talk, 3, "13")];
    talk.ask(next)
        .answer(&head[..9])
        .step(Step::ResponseGap(head.len() as u64 - 9))
        .answer(end);
    let events = server(&talk);
    assert_eq!(events[2..], ["+3", "lost", "-3"]);
    let next = call(&mut talk, 5, "application/grpc+proto");
    let [head, end] = [accepted(&mut talk, 5), trailers(&mut talk, 5, "13")];
    talk.ask(next).answer([head, end].concat());
    assert_eq!(server(&talk)[5..], ["+5", "5 grpc /shop.Orders/Get @10 ?"]);
}
