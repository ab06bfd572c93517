//! What an exchange says, key by key.

use super::{Step, play, request, response};
use crate::model::{Attribute, Status, Value};
use crate::protocol::{Direction, Event, Exchange, FlowInfo, Route, Started};

fn exchange(direction: Direction, tls: bool, head: &str, answer: &str) -> (Started, Exchange) {
    let steps = [request(head), response(answer), Step::ResponseClose];
    let mut events = play(
        direction,
        FlowInfo {
            tls,
            ..FlowInfo::default()
        },
        &steps,
    )
    .into_iter();
    match (events.next(), events.next()) {
        (Some(Event::Started(started)), Some(Event::Finished(exchange))) => (started, *exchange),
        other => panic!("{other:?}"),
    }
}

fn lines(attributes: &[Attribute]) -> Vec<String> {
    let line = |attribute: &Attribute| match &attribute.value {
        Value::Str(text) => format!("{}={text}", attribute.key),
        Value::Int(number) => format!("{}={number}", attribute.key),
        other => panic!("{other:?}"),
    };
    attributes.iter().map(line).collect()
}

/// The attributes of a server's span; the answer is a plain 200.
fn served(head: &str) -> Vec<String> {
    lines(
        &exchange(
            Direction::Received,
            false,
            head,
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        )
        .1
        .attributes,
    )
}

#[test]
fn a_server_span() {
    let head = "POST /users/42?token=s3cret&page=2 HTTP/1.1\r\nHost: shop.example:8080\r\nUser-Agent: curl/8.5.0\r\n\
                Content-Length: 3\r\nX-Forwarded-For: 203.0.113.9, 10.0.0.1\r\nX-Forwarded-Proto: https\r\n\r\nabc";
    let (_, exchange) = exchange(
        Direction::Received,
        false,
        head,
        "HTTP/1.1 404 N\r\nContent-Length: 2\r\n\r\nno",
    );
    let expected = [
        "http.request.method=POST",
        "url.scheme=https",
        "url.path=/users/42",
        "url.query=token=REDACTED&page=REDACTED",
        "client.address=203.0.113.9",
        "server.address=shop.example",
        "server.port=8080",
        "network.protocol.version=1.1",
        "user_agent.original=curl/8.5.0",
        "http.response.status_code=404",
        "http.request.body.size=3",
        "http.response.body.size=2",
    ];
    assert_eq!(lines(&exchange.attributes), expected);
    let dimensions = [
        "http.request.method=POST",
        "url.scheme=https",
        "http.response.status_code=404",
        "network.protocol.version=1.1",
    ];
    assert_eq!(lines(&exchange.dimensions), dimensions);
    assert_eq!(
        (exchange.verb.as_str(), exchange.path.as_str()),
        ("POST", "/users/42")
    );
    assert_eq!(exchange.route, Route::Path("http.route"));
    // A 404 is the client's failure.
    assert_eq!(
        (exchange.status, exchange.error_type),
        (Status::Unset, None)
    );
    assert_eq!(exchange.duration.name, "http.server.request.duration");
    let values: Vec<_> = exchange
        .values
        .iter()
        .map(|(instrument, value)| (instrument.name, *value))
        .collect();
    assert_eq!(
        values,
        [
            ("http.server.request.body.size", 3.0),
            ("http.server.response.body.size", 2.0)
        ]
    );
}

#[test]
fn a_client_span() {
    let head = "GET /v1/items?key=s3cret HTTP/1.1\r\nHost: api.example\r\nUser-Agent: node\r\n\r\n";
    let (_, exchange) = exchange(
        Direction::Sent,
        true,
        head,
        "HTTP/1.1 404 N\r\nContent-Length: 0\r\n\r\n",
    );
    let expected = [
        "http.request.method=GET",
        "url.scheme=https",
        "url.full=https://api.example/v1/items?key=REDACTED",
        "server.address=api.example",
        "server.port=443",
        "network.protocol.version=1.1",
        "user_agent.original=node",
        "http.response.status_code=404",
    ];
    assert_eq!(lines(&exchange.attributes), expected);
    let dimensions = [
        "http.request.method=GET",
        "url.scheme=https",
        "http.response.status_code=404",
        "network.protocol.version=1.1",
        "server.address=api.example",
        "server.port=443",
    ];
    assert_eq!(lines(&exchange.dimensions), dimensions);
    assert_eq!(exchange.route, Route::None);
    assert_eq!(
        (exchange.status, exchange.error_type.as_deref()),
        (Status::Error, Some("404"))
    );
    assert_eq!(exchange.duration.name, "http.client.request.duration");
}

#[test]
fn a_server_above_tls() {
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    let of = |head| {
        let (_, exchange) = exchange(Direction::Received, true, head, answer);
        let mut lines = lines(&exchange.attributes);
        lines.retain(|line| line.starts_with("url.scheme") || line.starts_with("server."));
        assert!(lines.first().is_some_and(|scheme| {
            let in_dimensions = self::lines(&exchange.dimensions);
            in_dimensions.contains(scheme)
        }));
        lines
    };
    assert_eq!(
        of("GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n"),
        [
            "url.scheme=https",
            "server.address=shop.example",
            "server.port=443"
        ]
    );
    assert_eq!(
        of("GET / HTTP/1.1\r\nHost: shop.example:8443\r\n\r\n"),
        [
            "url.scheme=https",
            "server.address=shop.example",
            "server.port=8443"
        ]
    );
    // The proxy in front was asked in clear.
    assert_eq!(
        of("GET / HTTP/1.1\r\nHost: shop.example\r\nX-Forwarded-Proto: http\r\n\r\n"),
        [
            "url.scheme=http",
            "server.address=shop.example",
            "server.port=80"
        ]
    );
}

#[test]
fn an_unknown_method() {
    let head = "PURGE /a HTTP/1.0\r\n\r\n";
    let (_, exchange) = exchange(Direction::Received, false, head, "HTTP/1.0 503 No\r\n\r\n");
    let expected = [
        "http.request.method=_OTHER",
        "http.request.method_original=PURGE",
        "url.scheme=http",
        "url.path=/a",
        "network.protocol.version=1.0",
        "http.response.status_code=503",
    ];
    assert_eq!(lines(&exchange.attributes), expected);
    assert_eq!(exchange.verb, "HTTP");
    assert_eq!(
        (exchange.status, exchange.error_type.as_deref()),
        (Status::Error, Some("503"))
    );
}

#[test]
fn targets() {
    let cases: [(&str, &[&str], &[&str]); 4] = [
        (
            "GET http://me:pw@origin.example:81/a/b?c=d HTTP/1.1\r\nHost: proxy\r\n\r\n",
            &[
                "url.path=/a/b",
                "url.query=c=REDACTED",
                "server.address=origin.example",
                "server.port=81",
            ],
            &["proxy", "pw", "=d"],
        ),
        (
            "OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n",
            &["url.path=*"],
            &["url.query"],
        ),
        (
            "GET / HTTP/1.1\r\nHost: [2001:db8::1]:8080\r\nForwarded: for=\"[2001:db8::9]:1\";proto=https\r\n\r\n",
            &[
                "server.address=2001:db8::1",
                "server.port=8080",
                "client.address=2001:db8::9",
                "url.scheme=https",
            ],
            &[],
        ),
        (
            "GET / HTTP/1.1\r\nHost: a b\r\nX-Forwarded-For: evil\r\nX-Forwarded-Proto: gopher\r\n\r\n",
            &["url.scheme=http"],
            &["server.", "client.", "evil", "gopher"],
        ),
    ];
    for (head, present, absent) in cases {
        let attributes = served(head);
        for line in present {
            assert!(
                attributes.iter().any(|attribute| attribute == line),
                "{line} in {attributes:?}"
            );
        }
        for text in absent {
            assert!(
                !attributes.iter().any(|attribute| attribute.contains(text)),
                "{text} in {attributes:?}"
            );
        }
    }
    let head = "CONNECT db.example:5432 HTTP/1.1\r\nHost: db.example:5432\r\n\r\n";
    let (_, exchange) = exchange(
        Direction::Sent,
        false,
        head,
        "HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n",
    );
    let attributes = lines(&exchange.attributes);
    assert!(
        attributes.contains(&"server.address=db.example".into())
            && attributes.contains(&"server.port=5432".into())
    );
    assert!(
        !attributes
            .iter()
            .any(|attribute| attribute.starts_with("url.full"))
    );
    assert_eq!(exchange.path, "");
}

#[test]
fn strings_are_bounded_and_valid() {
    let long = "a".repeat(10_000);
    let mut head =
        format!("GET /{long}?{long}=1&b=2 HTTP/1.1\r\nHost: {long}\r\nUser-Agent: ").into_bytes();
    head.extend([0xff; 1000]);
    head.extend(b"\r\n\r\n");
    let steps = [
        request(head),
        response("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ];
    for direction in [Direction::Sent, Direction::Received] {
        let events = play(direction, FlowInfo::default(), &steps);
        let Some(Event::Finished(exchange)) = events.last() else {
            panic!("{events:?}")
        };
        assert!(
            lines(&exchange.attributes)
                .iter()
                .all(|line| line.len() < 2300),
            "{:?}",
            exchange.attributes
        );
        assert!(exchange.path.len() <= 1024);
    }
}

#[test]
fn trace_context_is_handed_on_as_it_was() {
    let get = |fields: &str| format!("GET / HTTP/1.1\r\nHost: h\r\n{fields}\r\n");
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    let context = |fields: &str| {
        let (started, _) = exchange(Direction::Received, false, &get(fields), answer);
        let text = |bytes: Option<_>| {
            bytes.map(|bytes: smallvec::SmallVec<[u8; 64]>| {
                String::from_utf8(bytes.to_vec()).unwrap()
            })
        };
        (text(started.traceparent), text(started.tracestate))
    };
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(context(""), (None, None));
    assert_eq!(
        context("TraceParent: 00-ab\r\ntracestate: a=1\r\nTracestate: b=2\r\n"),
        (some("00-ab"), some("a=1,b=2"))
    );
    // Two parents contradict each other.
    assert_eq!(
        context("traceparent: 00-ab\r\ntraceparent: 00-cd\r\n"),
        (None, None)
    );
    assert_eq!(
        context(&format!("tracestate: {}\r\n", "x".repeat(9000))),
        (None, None)
    );
}
