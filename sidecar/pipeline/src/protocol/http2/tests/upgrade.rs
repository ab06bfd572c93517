//! Connections that begin in HTTP/1.1 and go on in HTTP/2 (RFC 7540, section 3.2).

use super::wire::{END, Talk, data, headers, preface, settings};
use super::{Player, ROLES, Step};
use crate::protocol::http1;
use crate::protocol::{Direction, FlowInfo, Side};

const OFFER: &str = "GET /a HTTP/1.1\r\nHost: h\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\
    HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n\r\n";
const TAKEN: &[u8] =
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n";

fn play(requests: Direction, talk: &Talk) -> Vec<String> {
    let parser = (http1::PROTOCOL.parser)(FlowInfo::default(), requests, Side::Request);
    let mut player = Player::of(parser, requests);
    player.play(talk.steps());
    player.texts()
}

fn taken() -> Talk {
    let mut talk = Talk::default();
    talk.ask(OFFER)
        .answer([TAKEN, &settings()].concat())
        .ask(preface());
    talk
}

#[test]
fn stream_1_answers_the_request_that_asked() {
    for role in ROLES {
        let mut talk = taken();
        talk.ok(1, "hello").get(3, "/b").ok(3, "b");
        let expected = [
            "+0",
            "0 GET /a 200 req=0 res=5 @4",
            "+2",
            "2 GET /b 200 req=0 res=1 @6",
        ];
        assert_eq!(play(role, &talk), expected);
    }
}

#[test]
fn the_response_may_come_with_the_agreement_and_fail() {
    for role in ROLES {
        let mut talk = Talk::default();
        let head = talk.response(1, END, "500");
        talk.ask(OFFER)
            .answer([TAKEN, &settings(), &head].concat())
            .ask(preface());
        assert_eq!(
            play(role, &talk),
            ["+0", "0 GET /a 500 error=500 req=0 res=0 @2"]
        );
    }
}

#[test]
fn the_version_is_the_one_agreed_on() {
    let mut talk = taken();
    talk.ok(1, "x");
    let parser = (http1::PROTOCOL.parser)(FlowInfo::default(), Direction::Received, Side::Request);
    let mut player = Player::of(parser, Direction::Received);
    player.play(talk.steps());
    let Some(crate::protocol::Event::Finished(exchange)) = player.log.0.last() else {
        panic!("{:?}", player.texts());
    };
    for attributes in [&exchange.attributes[..], &exchange.dimensions] {
        let version = super::find(attributes, "network.protocol.version");
        assert_eq!(version.as_deref(), Some("2"));
    }
    assert!(player.parser.held_bytes() < 1024);
}

#[test]
fn exchanges_before_the_offer_are_those_of_http1() {
    let mut talk = Talk::default();
    talk.ask("GET /x HTTP/1.1\r\nHost: h\r\n\r\n")
        .answer("HTTP/1.1 204 No Content\r\n\r\n")
        .ask(OFFER)
        .answer([TAKEN, &settings()].concat())
        .ask(preface())
        .ok(1, "x");
    let expected = [
        "+0",
        "0 GET /x 204 req=0 res=0 @2",
        "+1",
        "1 GET /a 200 req=0 res=1 @6",
    ];
    assert_eq!(play(Direction::Received, &talk), expected);
}

#[test]
fn a_declined_offer_stays_http1() {
    let mut talk = Talk::default();
    talk.ask(OFFER)
        .answer("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        .ask("GET /b HTTP/1.1\r\nHost: h\r\n\r\n")
        .answer("HTTP/1.1 204 No Content\r\n\r\n");
    let expected = [
        "+0",
        "0 GET /a 200 req=0 res=2 @2",
        "+1",
        "1 GET /b 204 req=0 res=0 @4",
    ];
    assert_eq!(play(Direction::Received, &talk), expected);
}

#[test]
fn an_agreement_on_something_else_ends_with_its_101() {
    let offers = [
        OFFER.replace("h2c", "websocket"),
        OFFER.replace("h2c", "h2c, websocket"),
    ];
    for offer in offers {
        let mut talk = Talk::default();
        talk.ask(offer).answer(TAKEN).ask(preface());
        assert_eq!(
            play(Direction::Received, &talk),
            ["+0", "0 GET /a 101 req=0 @2", "opaque"]
        );
    }
}

#[test]
fn what_follows_is_lost_resynchronised_and_ended_as_in_http2() {
    let mut talk = taken();
    let head = talk.response(1, 0, "200");
    talk.answer([head, data(1, 0, b"part")].concat())
        .step(Step::ResponseGap(90));
    talk.answer([settings(), data(1, END, b"end")].concat());
    talk.get(3, "/b").answer(headers(3, END, &[0x88]));
    talk.get(5, "/c").step(Step::End);
    let expected = [
        "+0",
        "lost",
        "0 GET /a 200 req=0 @6",
        "+2",
        "2 GET /b 200 req=0 res=0 @8",
        "+4",
        "-4",
    ];
    assert_eq!(play(Direction::Received, &talk), expected);
    let mut talk = taken();
    talk.step(Step::ResponseClose);
    assert_eq!(
        play(Direction::Sent, &talk),
        ["+0", "0 GET /a error=no_response req=0 @4"]
    );
}
