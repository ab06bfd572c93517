//! Heads and bodies: where messages end.

use super::{Step, client, get, ok, request, response, server};

fn one(request_bytes: &str, response_bytes: &str) -> Vec<String> {
    server(&[
        request(request_bytes),
        response(response_bytes),
        Step::ResponseClose,
    ])
}

/// Cases are not worth splitting: they are read as one table.
#[allow(clippy::too_many_lines)]
#[test]
fn framing_of_responses() {
    let get = "GET /a HTTP/1.1\r\nHost: h\r\n\r\n";
    let head = "HEAD /a HTTP/1.1\r\nHost: h\r\n\r\n";
    let cases = [
        (
            get,
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
            "0 GET /a 200 req=0 res=3 @2",
        ),
        (
            get,
            "HTTP/1.1 200 OK\r\ncontent-length: 3, 3\r\n\r\nabc",
            "0 GET /a 200 req=0 res=3 @2",
        ),
        (
            get,
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            "0 GET /a 200 req=0 res=3 @2",
        ),
        // Transfer-Encoding overrides Content-Length.
        (
            get,
            "HTTP/1.1 200 OK\r\nContent-Length: 99\r\nTransfer-Encoding: gzip, chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            "0 GET /a 200 req=0 res=3 @2",
        ),
        (
            get,
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nabcd",
            "0 GET /a 200 req=0 res=4 @2",
        ),
        (
            get,
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\nContent-Length: 1\r\n\r\nx",
            "0 GET /a 200 req=0 res=1 @2",
        ),
        (
            get,
            "HTTP/1.0 200 OK\r\n\r\nuntil the close",
            "0 GET /a 200 req=0 res=15 @2",
        ),
        (
            get,
            "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n",
            "0 GET /a 204 req=0 res=0 @2",
        ),
        (
            get,
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
            "0 GET /a 304 req=0 res=0 @2",
        ),
        (
            head,
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
            "0 HEAD /a 200 req=0 res=0 @2",
        ),
        (
            head,
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "0 HEAD /a 200 req=0 res=0 @2",
        ),
        (
            get,
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 404\r\nContent-Length: 0\r\n\r\n",
            "0 GET /a 404 req=0 res=0 @2",
        ),
        (
            get,
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc",
            "0 GET /a 200 error=incomplete_response req=0 @2",
        ),
        (
            get,
            "HTTP/1.1 500 No\r\nContent-Length: 9\r\n\r\nabc",
            "0 GET /a 500 error=500 req=0 @2",
        ),
        (
            get,
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab",
            "0 GET /a 200 error=incomplete_response req=0 @2",
        ),
        // Folded, spaced and invalid lines that do not touch the framing.
        (
            get,
            "HTTP/1.1 200 OK\r\nX-Long: a\r\n  b\r\nContent-Length: 1\r\n\r\nx",
            "0 GET /a 200 req=0 res=1 @2",
        ),
        (
            get,
            "HTTP/1.1 200 OK\r\nContent-Length : 1\r\n\r\nx",
            "0 GET /a 200 req=0 res=1 @2",
        ),
        (
            get,
            "HTTP/1.1 200 OK\r\nno colon\r\nContent-Length: 1\r\n\r\nx",
            "0 GET /a 200 req=0 res=1 @2",
        ),
        (
            get,
            "HTTP/1.1 200 OK\r\nContent-Length:\r\n 1\r\n\r\nx",
            "0 GET /a 200 req=0 res=1 @2",
        ),
        (
            get,
            "HTTP/1.1 200 OK\nContent-Length: 1\n\nx",
            "0 GET /a 200 req=0 res=1 @2",
        ),
    ];
    for (request, response, expected) in cases {
        assert_eq!(one(request, response), ["+0", expected], "{response}");
    }
}

#[test]
fn a_response_whose_end_is_not_certain_gives_nothing() {
    let cases = [
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        "HTTP/1.1 200 OK\r\nContent-Length: +3\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked,\r\n\r\nabc",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz",
        "HTTP/1.1 200 OK\r\nContent-Length\x01: 3\r\nX: y\r\n\r\nabc",
        "HTTP/2.0 200 OK\r\n\r\n",
        "ICY 200 OK\r\n\r\n",
        "SSH-2.0-OpenSSH\r\n",
    ];
    for case in cases {
        assert_eq!(
            one("GET /a HTTP/1.1\r\nHost: h\r\n\r\n", case),
            ["+0", "-0"],
            "{case}"
        );
    }
}

#[test]
fn framing_of_requests() {
    let cases = [
        (
            "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc",
            "0 POST /a 200 req=3 res=0 @2",
        ),
        (
            "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            "0 POST /a 200 req=3 res=0 @2",
        ),
        (
            "\r\n\r\nPOST /a HTTP/1.0\r\n\r\n",
            "0 POST /a 200 req=0 res=0 @2",
        ),
        (
            "GET /a HTTP/1.1\r\nHost: h\r\nX: a\r\n\tb\r\n\r\n",
            "0 GET /a 200 req=0 res=0 @2",
        ),
    ];
    for (request, expected) in cases {
        assert_eq!(
            one(request, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
            ["+0", expected],
            "{request}"
        );
    }
}

#[test]
fn a_request_whose_end_is_not_certain_is_not_started() {
    let cases = [
        "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip\r\n\r\nabc",
        "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked, gzip\r\n\r\nabc",
        "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length : 3\r\n\r\nabc",
        "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nContent-Length: 5\r\n\r\nabc",
        "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: -1\r\n\r\nabc",
    ];
    for case in cases {
        assert!(
            one(case, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").is_empty(),
            "{case}"
        );
    }
}

#[test]
fn heads_in_pieces_and_large_heads() {
    let cookie = "c".repeat(40_000);
    let head = format!("GET /a HTTP/1.1\r\nHost: h\r\nCookie: {cookie}\r\n\r\n");
    let (first, second) = head.split_at(4096);
    let (second, third) = second.split_at(30_000);
    let steps = [request(first), request(second), request(third), ok("hi")];
    assert_eq!(server(&steps), ["+0", "0 GET /a 200 req=0 res=2 @4"]);

    let many = "X-Field: v\r\n".repeat(500);
    let steps = [
        request(format!("GET /a HTTP/1.1\r\nHost: h\r\n{many}\r\n")),
        ok("hi"),
    ];
    assert_eq!(server(&steps), ["+0", "0 GET /a 200 req=0 res=2 @2"]);
}

#[test]
fn a_head_beyond_the_bound_is_given_up_until_the_next_request() {
    let endless = format!("GET /a HTTP/1.1\r\nX: {}", "x".repeat(16_000));
    let mut steps = vec![request(&endless)];
    steps.extend(std::iter::repeat_n(request("y".repeat(16_000)), 5));
    steps.extend([request("\r\n\r\n"), ok("lost"), get("/b"), ok("hi")]);
    assert_eq!(server(&steps), ["+0", "0 GET /b 200 req=0 res=2 @10"]);

    let too_many = "X-Field: v\r\n".repeat(600);
    let steps = [
        request(format!("GET /a HTTP/1.1\r\n{too_many}\r\n")),
        ok("lost"),
        get("/b"),
        ok("hi"),
    ];
    assert_eq!(server(&steps), ["+0", "0 GET /b 200 req=0 res=2 @4"]);
}

#[test]
fn expect_continue() {
    let head =
        request("PUT /a HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n");
    let steps = [
        head.clone(),
        response("HTTP/1.1 100 Continue\r\n\r\n"),
        request("abc"),
        ok(""),
    ];
    assert_eq!(server(&steps), ["+0", "0 PUT /a 200 req=3 res=0 @4"]);

    // Refused: the client may send the body all the same, or go on with its next request.
    let refused = response("HTTP/1.1 417 No\r\nContent-Length: 0\r\n\r\n");
    let next = [get("/b"), ok("hi")];
    let expected = ["+0", "0 PUT /a 417 res=0 @2", "+1"];
    for (between, end) in [(vec![], 4), (vec![request("abc")], 5)] {
        let steps = [vec![head.clone(), refused.clone()], between, next.to_vec()].concat();
        let last = format!("1 GET /b 200 req=0 res=2 @{end}");
        assert_eq!(server(&steps), [&expected[..], &[&last]].concat());
    }
}

#[test]
fn a_response_before_the_end_of_its_request() {
    let steps = [
        request("POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 6\r\n\r\nabc"),
        response("HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n"),
        request("def"),
        get("/b"),
        ok("hi"),
    ];
    assert_eq!(
        server(&steps),
        [
            "+0",
            "0 POST /a 413 res=0 @2",
            "+1",
            "1 GET /b 200 req=0 res=2 @5"
        ]
    );
}

#[test]
fn other_protocols_take_over() {
    let upgrade =
        request("GET /ws HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    let switched =
        response("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n\x01\x02");
    let steps = [
        upgrade.clone(),
        switched,
        request("\x01\x02"),
        get("/b"),
        ok("x"),
    ];
    assert_eq!(server(&steps), ["+0", "0 GET /ws 101 req=0 @2", "opaque"]);

    let steps = [upgrade, ok("no"), get("/b"), ok("hi")];
    assert_eq!(
        server(&steps),
        [
            "+0",
            "0 GET /ws 200 req=0 res=2 @2",
            "+1",
            "1 GET /b 200 req=0 res=2 @4"
        ]
    );

    let connect = request("CONNECT example.org:443 HTTP/1.1\r\nHost: example.org:443\r\n\r\n");
    let steps = [
        connect.clone(),
        response("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"),
        request("\x16\x03\x01"),
    ];
    assert_eq!(client(&steps), ["+0", "0 CONNECT 200 req=0 @2", "opaque"]);

    let refused = response("HTTP/1.1 407 Auth\r\nContent-Length: 2\r\n\r\nno");
    let steps = [connect.clone(), refused.clone(), get("/b"), ok("hi")];
    let refused_text = "0 CONNECT 407 error=407 req=0 res=2 @2";
    assert_eq!(
        client(&steps),
        ["+0", refused_text, "+1", "1 GET /b 200 req=0 res=2 @4"]
    );

    // Bytes sent before the answer cannot be read either way; the next head is.
    let steps = [
        connect,
        request("\x16\x03\x01"),
        refused,
        get("/b"),
        ok("hi"),
    ];
    let refused_text = "0 CONNECT 407 error=407 req=0 res=2 @3";
    assert_eq!(
        client(&steps),
        ["+0", refused_text, "+1", "1 GET /b 200 req=0 res=2 @5"]
    );
}

#[test]
fn closes() {
    let post = request("POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 6\r\n\r\nabc");
    let half = response("HTTP/1.1 2");
    // Server: no status was on the wire, so there is no span.
    assert_eq!(
        server(&[
            get("/a"),
            Step::RequestClose,
            Step::ResponseClose,
            Step::End
        ]),
        ["+0", "-0"]
    );
    assert_eq!(
        server(&[post.clone(), Step::RequestClose, Step::ResponseClose]),
        ["+0", "-0"]
    );
    assert_eq!(
        server(&[get("/a"), half.clone(), Step::ResponseClose]),
        ["+0", "-0"]
    );
    // A client that half-closes is still answered.
    assert_eq!(
        server(&[get("/a"), Step::RequestClose, ok("x")]),
        ["+0", "0 GET /a 200 req=0 res=1 @3"]
    );
    // Client: a request without a response failed.
    assert_eq!(
        client(&[get("/a"), Step::ResponseClose]),
        ["+0", "0 GET /a error=no_response req=0 @2"]
    );
    assert_eq!(
        client(&[post, Step::ResponseClose]),
        ["+0", "0 POST /a error=no_response @2"]
    );
    assert_eq!(
        client(&[get("/a"), half, Step::ResponseClose]),
        ["+0", "0 GET /a error=incomplete_response req=0 @3"]
    );
    // The flow went away without a close that was seen: nothing is known.
    assert_eq!(client(&[get("/a"), Step::End]), ["+0", "-0"]);
    let open_ended = response("HTTP/1.1 200 OK\r\n\r\nabc");
    assert_eq!(
        server(&[get("/a"), open_ended.clone(), Step::End]),
        ["+0", "-0"]
    );
    let steps = [
        get("/a"),
        open_ended,
        response("def"),
        Step::ResponseClose,
        get("/b"),
        Step::End,
    ];
    assert_eq!(server(&steps), ["+0", "0 GET /a 200 req=0 res=6 @3"]);
    // A cut request head is no request.
    assert!(
        server(&[
            request("GET /a HTTP/1.1\r\nHo"),
            Step::RequestClose,
            Step::ResponseClose,
            Step::End
        ])
        .is_empty()
    );
}
