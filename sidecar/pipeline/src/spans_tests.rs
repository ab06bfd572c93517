use super::Finisher;
use crate::config::SlotConfig;
use crate::endpoints::Endpoints;
use crate::exchanges::{Context, Ended, InProgress};
use crate::model::{
    Attribute, Kind, Measurement, Sink, Slot, Span, SpanId, Status, TraceId, Value,
};
use crate::protocol::{Exchange, ExchangeId, Moment, PROTOCOLS, Route};
use crate::routes::Routes;
use crate::semconv;
use crate::settings::{IgnoredPath, Settings, SettingsKey};
use crate::stats::Stats;
use compact_str::{CompactString, ToCompactString};
use pilotfish_abi::{Family, Header};
use std::net::Ipv4Addr;

#[derive(Default)]
struct Results {
    spans: Vec<Span>,
    measurements: Vec<Measurement>,
}

impl Sink for Results {
    fn span(&mut self, span: Span) {
        self.spans.push(span);
    }

    fn measurement(&mut self, measurement: Measurement) {
        self.measurements.push(measurement);
    }
}

/// One exchange and its surroundings: from 100 to 400 ns, `GET /users/7`, between IPv4-mapped addresses.
struct Case {
    kind: Kind,
    family: Family,
    unix_offset: i64,
    sampled: bool,
    exchange: Exchange,
}

impl Case {
    fn new(kind: Kind) -> Self {
        Self {
            kind,
            family: Family::V6,
            unix_offset: 0,
            sampled: true,
            exchange: Exchange {
                id: ExchangeId(0),
                end: 400,
                verb: "GET".into(),
                path: "/users/7".into(),
                route: match kind {
                    Kind::Server => Route::Path(semconv::HTTP_ROUTE),
                    Kind::Client => Route::None,
                },
                attributes: vec![attribute(semconv::URL_PATH, "/users/7")],
                dimensions: smallvec::smallvec![attribute(semconv::URL_SCHEME, "http")],
                error_type: None,
                status: Status::Unset,
                duration: &semconv::HTTP_SERVER_REQUEST_DURATION,
                values: smallvec::smallvec![(&semconv::HTTP_SERVER_REQUEST_BODY_SIZE, 5.0)],
            },
        }
    }

    fn endpoints(&self) -> Endpoints {
        let mapped = |last| Ipv4Addr::new(10, 0, 0, last).to_ipv6_mapped().octets();
        Endpoints::from_header(&Header {
            family: self.family as u16,
            local: mapped(1),
            local_port: 80,
            remote: mapped(9),
            remote_port: 5000,
            ..Header::default()
        })
        .unwrap()
    }

    fn finish(self) -> (Results, Stats) {
        let mut finisher = Finisher::new(Routes::new(10));
        finisher.unix_offset = self.unix_offset;
        let endpoints = self.endpoints();
        let started = InProgress {
            slot: Slot(3),
            settings: SettingsKey::default(),
            kind: self.kind,
            at: Moment {
                time: 100,
                ..Moment::default()
            },
            wire: None,
            place: None,
            context: None,
        };
        let context = Context {
            trace_id: TraceId([1; 16]),
            span_id: SpanId([2; 8]),
            parent: Some(SpanId([3; 8])),
            remote_parent: true,
            sampled: self.sampled,
            trace_state: "a=1".into(),
        };
        let (mut results, mut stats) = (Results::default(), Stats::default());
        let exchange = self.exchange;
        let settings = Settings::compile(SlotConfig::default(), PROTOCOLS).unwrap();
        let ended = Ended {
            started,
            context,
            settings: &settings,
        };
        finisher.finish(ended, &endpoints, exchange, &mut stats, &mut results);
        (results, stats)
    }

    fn span(self) -> Span {
        self.finish().0.spans.pop().unwrap()
    }
}

fn attribute(key: &'static str, text: &'static str) -> Attribute {
    Attribute {
        key,
        value: Value::Str(CompactString::const_new(text)),
    }
}

/// The attributes as `key=value`, in order.
fn shown<'a>(attributes: impl IntoIterator<Item = &'a Attribute>) -> Vec<String> {
    let text = |value: &Value| match value {
        Value::Str(text) => text.clone(),
        Value::Int(number) => number.to_compact_string(),
        Value::Float(number) => number.to_compact_string(),
        Value::Bool(flag) => flag.to_compact_string(),
    };
    attributes
        .into_iter()
        .map(|attribute| format!("{}={}", attribute.key, text(&attribute.value)))
        .collect()
}

#[test]
fn a_server_span_has_route_server_client_and_peer() {
    let span = Case::new(Kind::Server).span();
    assert_eq!(span.name, "GET /users/{id}");
    assert_eq!(
        shown(&span.attributes),
        [
            "url.path=/users/7",
            "http.route=/users/{id}",
            "network.transport=tcp",
            "network.type=ipv4",
            "server.address=10.0.0.1",
            "server.port=80",
            "client.address=10.0.0.9",
            "client.port=5000",
            "network.peer.address=10.0.0.9",
            "network.peer.port=5000",
        ]
    );
}

#[test]
fn a_client_span_has_no_route_and_the_peer_is_the_server() {
    let span = Case::new(Kind::Client).span();
    assert_eq!(span.name, "GET");
    assert_eq!(
        shown(&span.attributes),
        [
            "url.path=/users/7",
            "network.transport=tcp",
            "network.type=ipv4",
            "server.address=10.0.0.9",
            "server.port=5000",
            "network.peer.address=10.0.0.9",
            "network.peer.port=5000",
        ]
    );
}

#[test]
fn a_unix_socket_has_no_addresses() {
    let case = Case {
        family: Family::Unix,
        ..Case::new(Kind::Client)
    };
    assert_eq!(
        shown(&case.span().attributes),
        ["url.path=/users/7", "network.transport=unix"]
    );
}

#[test]
fn what_the_protocol_said_is_not_said_again() {
    let mut case = Case::new(Kind::Client);
    let said = attribute(semconv::SERVER_ADDRESS, "shop.example");
    case.exchange.attributes.push(said.clone());
    case.exchange.dimensions.push(said);
    let (results, _) = case.finish();
    let span = shown(&results.spans[0].attributes);
    let of_server = |all: &[String]| -> Vec<String> {
        let of_server = all.iter().filter(|shown| shown.starts_with("server."));
        of_server.cloned().collect()
    };
    let expected = ["server.address=shop.example", "server.port=5000"];
    assert_eq!(of_server(&span), expected);
    assert_eq!(
        of_server(&shown(&results.measurements[0].attributes)),
        expected
    );
}

#[test]
fn an_error_has_its_type_on_span_and_measurement() {
    let mut case = Case::new(Kind::Server);
    case.exchange.error_type = Some("503".into());
    case.exchange.status = Status::Error;
    let (results, _) = case.finish();
    let span = &results.spans[0];
    assert_eq!(span.status, Status::Error);
    assert!(shown(&span.attributes).contains(&"error.type=503".to_owned()));
    assert_eq!(
        shown(&results.measurements[0].attributes),
        [
            "url.scheme=http",
            "http.route=/users/{id}",
            "error.type=503"
        ]
    );
    assert_eq!(Case::new(Kind::Server).span().status, Status::Unset);
}

#[test]
fn times_are_moved_to_the_unix_epoch_and_never_run_backwards() {
    let times = |unix_offset, end| {
        let mut case = Case {
            unix_offset,
            ..Case::new(Kind::Server)
        };
        case.exchange.end = end;
        let span = case.span();
        (span.start_unix_nano, span.end_unix_nano)
    };
    assert_eq!(times(1_000, 400), (1_100, 1_400));
    assert_eq!(times(1_000, 50), (1_100, 1_100));
    assert_eq!(times(i64::MIN, 400), (0, 0));
    assert_eq!(times(i64::MAX, u64::MAX), (100 + i64::MAX as u64, u64::MAX));
}

#[test]
fn the_context_is_handed_on() {
    let span = Case::new(Kind::Server).span();
    assert_eq!((span.slot, span.kind), (Slot(3), Kind::Server));
    assert_eq!(
        (span.trace_id, span.span_id, span.parent_span_id),
        (TraceId([1; 16]), SpanId([2; 8]), Some(SpanId([3; 8])))
    );
    assert!(span.remote_parent);
    assert_eq!(span.trace_state, "a=1");
}

#[test]
fn an_unsampled_exchange_gives_its_measurement_only() {
    let case = Case {
        sampled: false,
        ..Case::new(Kind::Server)
    };
    let (results, stats) = case.finish();
    assert!(results.spans.is_empty());
    assert_eq!(
        (stats.spans, stats.spans_unsampled, stats.measurements),
        (0, 1, 1)
    );
    let values: Vec<_> = results.measurements[0]
        .values
        .iter()
        .map(|(instrument, value)| (instrument.name, *value))
        .collect();
    assert_eq!(
        values,
        [
            ("http.server.request.duration", 300.0 / 1e9),
            ("http.server.request.body.size", 5.0)
        ]
    );
}

#[test]
fn ignored_paths_are_whole_unless_they_end_in_a_star() {
    for (pattern, path, expected) in [
        ("/healthz", "/healthz", true),
        ("/healthz", "/healthz/live", false),
        ("/internal/*", "/internal/x", true),
        ("/internal/*", "/internal", false),
        ("/*", "", false),
    ] {
        let ignored = IgnoredPath::parse(pattern).unwrap();
        assert_eq!(ignored.matches(path), expected, "{pattern} {path}");
    }
}
