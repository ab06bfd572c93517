//! gRPC: what an HTTP/2 exchange means if its content is `application/grpc` (gRPC over HTTP/2, "PROTOCOL-HTTP2.md"; gRPC-Web,
//! "PROTOCOL-WEB.md"), by the semantic conventions for RPC.

use super::http::target;
use super::{Exchange, ExchangeId, Route};
use crate::model::{Attribute, Instrument, Kind, Status, Value};
use crate::semconv;
use compact_str::CompactString;
use smallvec::SmallVec;

/// Longest exported method. Bytes.
const MAX_METHOD: usize = 256;

/// What a content type says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    Grpc,
    /// The status is part of the body, which is not read.
    GrpcWeb,
}

impl Content {
    /// Of a `content-type`; `None` for every other one.
    pub(super) fn of(value: &[u8]) -> Option<Self> {
        let rest = value.strip_prefix(b"application/grpc")?;
        let (content, rest) = match rest.strip_prefix(b"-web") {
            None => (Self::Grpc, rest),
            Some(rest) => (Self::GrpcWeb, rest.strip_prefix(b"-text").unwrap_or(rest)),
        };
        matches!(rest, [] | [b'+' | b';', ..]).then_some(content)
    }
}

/// A call that has finished.
pub(super) struct Call<'a> {
    pub(super) id: ExchangeId,
    pub(super) kind: Kind,
    /// `:path`, if it is known.
    pub(super) path: Option<&'a str>,
    /// `:authority`, if it is known.
    pub(super) authority: Option<&'a str>,
    pub(super) tls: bool,
    /// `:status`, if it is known.
    pub(super) http_status: Option<u16>,
    /// `grpc-status`, if it is known.
    pub(super) status: Option<u32>,
    /// Why it is not whole.
    pub(super) broken: Option<&'static str>,
    pub(super) end: u64,
    /// Part of its head is not known.
    pub(super) incomplete: bool,
}

/// Names of the status codes (gRPC, "statuscodes.md").
const STATUS: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// The codes that are a server's failure (semantic conventions for gRPC); every code but `OK` is a client's.
const SERVER_FAILURES: [u32; 6] = [2, 4, 12, 13, 14, 15];

impl Call<'_> {
    /// The exchange that it is.
    pub(super) fn finish(self) -> Exchange {
        let status = self.status.map(name_of_status);
        let error_type = self.error_type(status.as_ref());
        let mut attributes = Vec::with_capacity(10);
        let mut dimensions = SmallVec::new();
        let system = text(semconv::RPC_SYSTEM_NAME, CompactString::const_new("grpc"));
        attributes.push(system.clone());
        dimensions.push(system);
        if let Some(status) = status {
            let status = text(semconv::RPC_RESPONSE_STATUS_CODE, status);
            attributes.push(status.clone());
            dimensions.push(status);
        }
        if let Some((host, port)) = self.server() {
            for attribute in [
                text(semconv::SERVER_ADDRESS, host),
                number(semconv::SERVER_PORT, i64::from(port)),
            ] {
                attributes.push(attribute.clone());
                if self.kind == Kind::Client {
                    dimensions.push(attribute);
                }
            }
        }
        attributes.push(text(
            semconv::NETWORK_PROTOCOL_NAME,
            CompactString::const_new("http"),
        ));
        attributes.push(text(
            semconv::NETWORK_PROTOCOL_VERSION,
            CompactString::const_new("2"),
        ));
        if self.incomplete {
            attributes.push(Attribute {
                key: semconv::HEAD_INCOMPLETE,
                value: Value::Bool(true),
            });
        }
        Exchange {
            id: self.id,
            end: self.end,
            verb: CompactString::default(),
            path: target::bounded(self.path.unwrap_or_default(), MAX_METHOD).into(),
            route: Route::Name(semconv::RPC_METHOD, semconv::RPC_METHOD_ORIGINAL),
            attributes,
            dimensions,
            status: if error_type.is_some() {
                Status::Error
            } else {
                Status::Unset
            },
            error_type,
            duration: instrument(self.kind),
            values: SmallVec::new(),
        }
    }

    /// By the status; without one by what broke the call, or by a failure of HTTP itself.
    fn error_type(&self, status: Option<&CompactString>) -> Option<CompactString> {
        let failed = |code: &u32| match self.kind {
            Kind::Server => SERVER_FAILURES.contains(code),
            Kind::Client => *code != 0,
        };
        match (&self.status, status) {
            (Some(code), Some(status)) => failed(code).then(|| status.clone()),
            _ => self.broken.map(CompactString::const_new).or_else(|| {
                let failed = self.http_status.filter(|&status| status != 200)?;
                Some(compact_str::format_compact!("{failed}"))
            }),
        }
    }

    fn server(&self) -> Option<(CompactString, u16)> {
        let (host, port) = target::host_and_port(self.authority?)?;
        let default = if self.tls { 443 } else { 80 };
        Some((host.into(), port.unwrap_or(default)))
    }
}

fn name_of_status(code: u32) -> CompactString {
    STATUS.get(code as usize).map_or_else(
        || compact_str::format_compact!("{code}"),
        |name| CompactString::const_new(name),
    )
}

const fn instrument(kind: Kind) -> &'static Instrument {
    match kind {
        Kind::Server => &semconv::RPC_SERVER_CALL_DURATION,
        Kind::Client => &semconv::RPC_CLIENT_CALL_DURATION,
    }
}

fn text(key: &'static str, text: CompactString) -> Attribute {
    Attribute {
        key,
        value: Value::Str(text),
    }
}

fn number(key: &'static str, number: i64) -> Attribute {
    Attribute {
        key,
        value: Value::Int(number),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_types() {
        for (value, expected) in [
            ("application/grpc", Some(Content::Grpc)),
            ("application/grpc+proto", Some(Content::Grpc)),
            ("application/grpc;charset=x", Some(Content::Grpc)),
            ("application/grpc-web", Some(Content::GrpcWeb)),
            ("application/grpc-web+proto", Some(Content::GrpcWeb)),
            ("application/grpc-web-text+proto", Some(Content::GrpcWeb)),
            ("application/grpcfoo", None),
            ("application/grpc-weird", None),
            ("application/json", None),
        ] {
            assert_eq!(Content::of(value.as_bytes()), expected, "{value}");
        }
    }

    fn call(kind: Kind, status: Option<u32>) -> Call<'static> {
        Call {
            id: ExchangeId(1),
            kind,
            path: Some("/shop.Orders/Place"),
            authority: Some("shop:8080"),
            tls: false,
            http_status: Some(200),
            status,
            broken: None,
            end: 7,
            incomplete: false,
        }
    }

    #[test]
    fn a_code_is_a_failure_by_role() {
        for (kind, status, expected) in [
            (Kind::Server, Some(0), None),
            (Kind::Client, Some(0), None),
            (Kind::Server, Some(5), None),
            (Kind::Client, Some(5), Some("NOT_FOUND")),
            (Kind::Server, Some(13), Some("INTERNAL")),
            (Kind::Server, Some(99), None),
            (Kind::Client, Some(99), Some("99")),
            (Kind::Client, None, None),
        ] {
            let exchange = call(kind, status).finish();
            assert_eq!(
                exchange.error_type.as_deref(),
                expected,
                "{kind:?} {status:?}"
            );
            assert_eq!(exchange.status == Status::Error, expected.is_some());
        }
        let broken = Call {
            broken: Some("CANCEL"),
            ..call(Kind::Client, None)
        };
        assert_eq!(broken.finish().error_type.as_deref(), Some("CANCEL"));
        let refused = Call {
            http_status: Some(503),
            ..call(Kind::Client, None)
        };
        assert_eq!(refused.finish().error_type.as_deref(), Some("503"));
    }
}
