//! From a finished exchange to its span and its measurement.

use crate::endpoints::{Endpoints, Transport};
use crate::exchanges::{Context, Ended, InProgress};
use crate::model::{Attribute, Kind, Measurement, Sink, Slot, Span, Value};
use crate::protocol::{Exchange, Route};
use crate::routes::{Patterns, Routes};
use crate::semconv;
use crate::stats::Stats;
use compact_str::CompactString;
use std::net::IpAddr;

/// Attributes that are added here, at most: four of the peer, two of the server, transport, type, name and its original,
/// error.
const ADDED_ATTRIBUTES: usize = 11;

/// What an exchange's path has become.
#[derive(Default)]
struct Named {
    route: Option<Attribute>,
    original: Option<Attribute>,
}

/// Makes spans and measurements.
pub(crate) struct Finisher {
    routes: Routes,
    /// Unix time minus `CLOCK_MONOTONIC`, nanoseconds.
    pub(crate) unix_offset: i64,
}

impl Finisher {
    pub(crate) fn new(routes: Routes) -> Self {
        Self {
            routes,
            unix_offset: 0,
        }
    }

    /// Forgets what was learned about a container.
    pub(crate) fn forget(&mut self, slot: Slot) {
        self.routes.forget(slot);
    }

    /// Hands the results of one exchange to the sink.
    pub(crate) fn finish(
        &mut self,
        ended: Ended<'_>,
        endpoints: &Endpoints,
        exchange: Exchange,
        stats: &mut Stats,
        sink: &mut dyn Sink,
    ) {
        let Ended {
            ref started,
            context,
            settings,
        } = ended;
        if settings.ignores(&exchange.path) {
            stats.exchanges_ignored = stats.exchanges_ignored.saturating_add(1);
            return;
        }
        let named = self.name(started.slot, &settings.patterns, &exchange, stats);
        stats.measurements = stats.measurements.saturating_add(1);
        sink.measurement(measurement(
            started,
            endpoints,
            &exchange,
            named.route.as_ref(),
        ));
        if context.sampled {
            stats.spans = stats.spans.saturating_add(1);
            sink.span(self.span(started, context, endpoints, exchange, named));
        } else {
            stats.spans_unsampled = stats.spans_unsampled.saturating_add(1);
        }
    }

    fn name(
        &mut self,
        slot: Slot,
        patterns: &Patterns,
        exchange: &Exchange,
        stats: &mut Stats,
    ) -> Named {
        let (key, found, original) = match exchange.route {
            Route::None => return Named::default(),
            Route::Path(key) => (key, self.routes.route(slot, patterns, &exchange.path), None),
            Route::Name(key, original) => {
                let path = &exchange.path;
                let name = path.strip_prefix('/').unwrap_or(path);
                let (known, overflowed) = self.routes.name(slot, name);
                let original = overflowed.then(|| text(original, name.into()));
                (key, Some((known, overflowed)), original)
            }
        };
        let Some((route, overflowed)) = found else {
            return Named::default();
        };
        if overflowed {
            stats.routes_overflowed = stats.routes_overflowed.saturating_add(1);
        }
        Named {
            route: Some(text(key, route)),
            original,
        }
    }

    fn span(
        &self,
        started: &InProgress,
        context: Context,
        endpoints: &Endpoints,
        exchange: Exchange,
        named: Named,
    ) -> Span {
        let start = started.at.time.saturating_add_signed(self.unix_offset);
        let end = exchange.end.saturating_add_signed(self.unix_offset);
        let name = name(exchange.verb, named.route.as_ref());
        let mut attributes = exchange.attributes;
        attributes.reserve(ADDED_ATTRIBUTES);
        attributes.extend(named.route);
        attributes.extend(named.original);
        attributes.extend(exchange.error_type.map(error_type));
        add_addresses(&mut attributes, started.kind, endpoints);
        Span {
            slot: started.slot,
            trace_id: context.trace_id,
            span_id: context.span_id,
            parent_span_id: context.parent,
            remote_parent: context.remote_parent,
            trace_state: context.trace_state,
            name,
            kind: started.kind,
            start_unix_nano: start,
            end_unix_nano: end.max(start),
            attributes,
            status: exchange.status,
        }
    }
}

fn measurement(
    started: &InProgress,
    endpoints: &Endpoints,
    exchange: &Exchange,
    route: Option<&Attribute>,
) -> Measurement {
    let mut attributes = exchange.dimensions.clone();
    // The conventions require the server of a client's measurement; without a name it is the peer's address.
    if started.kind == Kind::Client
        && let Some((_, server)) = &endpoints.ends
    {
        add(&mut attributes, semconv::SERVER_ADDRESS, || {
            Value::Str(server.text.clone())
        });
        add(&mut attributes, semconv::SERVER_PORT, || {
            Value::Int(server.port.into())
        });
    }
    attributes.extend(route.cloned());
    attributes.extend(exchange.error_type.clone().map(error_type));
    let seconds = exchange.end.saturating_sub(started.at.time) as f64 / 1e9;
    let mut values = smallvec::smallvec![(exchange.duration, seconds)];
    values.extend(exchange.values.iter().copied());
    Measurement {
        slot: started.slot,
        attributes,
        values,
    }
}

fn name(verb: CompactString, route: Option<&Attribute>) -> CompactString {
    let Some(Attribute {
        value: Value::Str(route),
        ..
    }) = route
    else {
        return verb;
    };
    let mut name = verb;
    if !name.is_empty() {
        name.push(' ');
    }
    name.push_str(route);
    name
}

fn error_type(error: CompactString) -> Attribute {
    text(semconv::ERROR_TYPE, error)
}

fn text(key: &'static str, text: CompactString) -> Attribute {
    Attribute {
        key,
        value: Value::Str(text),
    }
}

/// Adds what the socket knows and the protocol did not say.
fn add_addresses(attributes: &mut Vec<Attribute>, kind: Kind, endpoints: &Endpoints) {
    let transport = match endpoints.transport {
        Transport::Tcp => "tcp",
        Transport::Unix => "unix",
        Transport::Unknown => return,
    };
    add(attributes, semconv::NETWORK_TRANSPORT, || {
        Value::Str(CompactString::const_new(transport))
    });
    let Some((local, remote)) = &endpoints.ends else {
        return;
    };
    let family = match remote.address {
        IpAddr::V4(_) => "ipv4",
        IpAddr::V6(_) => "ipv6",
    };
    let server = match kind {
        Kind::Server => local,
        Kind::Client => remote,
    };
    add(attributes, semconv::NETWORK_TYPE, || {
        Value::Str(CompactString::const_new(family))
    });
    add(attributes, semconv::SERVER_ADDRESS, || {
        Value::Str(server.text.clone())
    });
    add(attributes, semconv::SERVER_PORT, || {
        Value::Int(server.port.into())
    });
    if kind == Kind::Server {
        add(attributes, semconv::CLIENT_ADDRESS, || {
            Value::Str(remote.text.clone())
        });
        add(attributes, "client.port", || Value::Int(remote.port.into()));
    }
    add(attributes, semconv::NETWORK_PEER_ADDRESS, || {
        Value::Str(remote.text.clone())
    });
    add(attributes, semconv::NETWORK_PEER_PORT, || {
        Value::Int(remote.port.into())
    });
}

/// Adds an attribute unless its key is there.
fn add<A: Extend<Attribute> + AsRef<[Attribute]>>(
    attributes: &mut A,
    key: &'static str,
    value: impl FnOnce() -> Value,
) {
    if !attributes
        .as_ref()
        .iter()
        .any(|attribute| attribute.key == key)
    {
        attributes.extend([Attribute {
            key,
            value: value(),
        }]);
    }
}

#[cfg(test)]
#[path = "spans_tests.rs"]
mod tests;
