//! Spans and measurements for the tests of this crate.

use crate::identity::{Container, Containers, Resource};
use crate::queue::Observed;
use pilotfish_pipeline::{
    Attribute, Instrument, Kind, Measurement, Slot, Span, SpanId, Status, TraceId, Value,
};
use smallvec::smallvec;
use std::sync::Arc;

pub(crate) static DURATION: Instrument = Instrument {
    name: "http.server.request.duration",
    unit: "s",
    description: "Duration of HTTP server requests.",
    boundaries: &[0.005, 0.01, 0.1, 1.0, 10.0],
};

pub(crate) static BODY: Instrument = Instrument {
    name: "http.server.response.body.size",
    unit: "By",
    description: "Size of HTTP server response bodies.",
    boundaries: &[100.0, 1000.0],
};

pub(crate) fn span(slot: u32, name: &str) -> Span {
    Span {
        slot: Slot(slot),
        trace_id: TraceId(*b"0123456789abcdef"),
        span_id: SpanId(*b"ABCDEFGH"),
        parent_span_id: None,
        remote_parent: false,
        trace_state: "".into(),
        name: name.into(),
        kind: Kind::Server,
        start_unix_nano: 1_700_000_000_000_000_000,
        end_unix_nano: 1_700_000_000_001_500_000,
        attributes: vec![
            Attribute {
                key: "http.request.method",
                value: Value::Str("GET".into()),
            },
            Attribute {
                key: "url.path",
                value: Value::Str("/users/17".into()),
            },
            Attribute {
                key: "http.response.status_code",
                value: Value::Int(200),
            },
        ],
        status: Status::Unset,
    }
}

pub(crate) fn measurement(slot: u32, route: &str, seconds: f64) -> Measurement {
    Measurement {
        slot: Slot(slot),
        attributes: smallvec![
            Attribute {
                key: "http.request.method",
                value: Value::Str("GET".into())
            },
            Attribute {
                key: "http.route",
                value: Value::Str(route.into())
            },
            Attribute {
                key: "http.response.status_code",
                value: Value::Int(200)
            },
        ],
        values: smallvec![(&DURATION, seconds), (&BODY, 512.0)],
    }
}

/// Slots 1 and 2: two containers of one pod.
pub(crate) fn containers() -> Containers {
    let containers = Containers::new();
    for (slot, name) in [(1, "web"), (2, "db \"main\"\n")] {
        let resource = Resource::from_iter([
            ("service.name", name),
            ("container.id", if slot == 1 { "aaaa" } else { "bbbb" }),
            ("container.name", name),
            ("k8s.pod.name", "shop-1"),
            ("host.name", "node-1"),
        ]);
        assert!(containers.insert(Slot(slot), resource));
    }
    containers
}

pub(crate) fn container() -> Arc<Container> {
    containers().get(Slot(1)).unwrap()
}

pub(crate) fn observed(name: &str) -> Arc<Observed> {
    Arc::new(Observed {
        container: container(),
        span: span(1, name),
    })
}
