//! From a request and its outcome to attributes, by the stable HTTP semantic conventions.
//!
//! `network.protocol.version` is the request's; `network.protocol.name` is left out, being `http`.

use super::method;
use super::target::{self, Target};
use crate::model::{Attribute, Instrument, Kind, Status, Value};
use crate::protocol::{Exchange, ExchangeId, Route};
use crate::semconv;
use compact_str::CompactString;
use smallvec::SmallVec;

/// `error.type` of a client's request that was never answered: the connection closed first.
pub(in crate::protocol) const NO_RESPONSE: &str = "no_response";
/// `error.type` of a response that the close of its connection cut short.
pub(in crate::protocol) const INCOMPLETE_RESPONSE: &str = "incomplete_response";
/// Longest exported `user_agent.original`, in bytes.
const MAX_USER_AGENT: usize = 256;
/// Longest exported unknown method, in bytes.
const MAX_METHOD: usize = 32;
/// `http.request.method` of every other one.
const OTHER_METHOD: &str = semconv::OTHER;

/// A request, of whatever version of HTTP.
#[derive(Clone, Copy, Debug)]
pub(in crate::protocol) struct Request<'a> {
    pub(in crate::protocol) method: &'a str,
    pub(in crate::protocol) target: Target<'a>,
    /// `Host`, where the target has no authority.
    pub(in crate::protocol) host: Option<&'a [u8]>,
    /// `network.protocol.version`.
    pub(in crate::protocol) version: &'static str,
    pub(in crate::protocol) user_agent: Option<&'a [u8]>,
    pub(in crate::protocol) forwarded: Option<&'a [u8]>,
    pub(in crate::protocol) x_forwarded_for: Option<&'a [u8]>,
    pub(in crate::protocol) x_forwarded_proto: Option<&'a [u8]>,
    /// Some of this may have been sent and is not known.
    pub(in crate::protocol) incomplete: bool,
}

/// A request whose exchange has not finished.
#[derive(Debug)]
pub(in crate::protocol) struct Open {
    pub(in crate::protocol) id: ExchangeId,
    kind: Kind,
    /// `http.request.method`.
    method: &'static str,
    version: &'static str,
    scheme: &'static str,
    server: Option<(CompactString, u16)>,
    path: CompactString,
    attributes: Vec<Attribute>,
    /// Known once the request's body is complete.
    pub(in crate::protocol) request_size: Option<u64>,
}

/// How an exchange ended.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::protocol) struct Outcome {
    /// When its last byte moved.
    pub(in crate::protocol) end: u64,
    /// What was on the wire.
    pub(in crate::protocol) status: Option<u16>,
    /// Known when the response's body is complete.
    pub(in crate::protocol) response_size: Option<u64>,
    /// Why it is not whole.
    pub(in crate::protocol) broken: Option<&'static str>,
}

impl Open {
    pub(in crate::protocol) fn new(
        id: ExchangeId,
        kind: Kind,
        request: &Request<'_>,
        tls: bool,
    ) -> Self {
        let method = method::known(request.method.as_bytes());
        let target = &request.target;
        let authority = target
            .authority
            .or_else(|| std::str::from_utf8(request.host?).ok())
            .map(str::trim);
        let scheme = scheme(kind, request, tls);
        let default_port = if scheme == "https" { 443 } else { 80 };
        let server = authority
            .and_then(target::host_and_port)
            .map(|(host, port)| (CompactString::from(host), port.unwrap_or(default_port)));
        let mut open = Self {
            id,
            kind,
            method: method.unwrap_or(OTHER_METHOD),
            version: request.version,
            scheme,
            server,
            path: if target.path == "*" {
                CompactString::default()
            } else {
                bounded_path(target)
            },
            attributes: Vec::with_capacity(12),
            request_size: None,
        };
        open.describe(request, authority);
        open
    }

    /// The protocol was negotiated once the request was there.
    pub(in crate::protocol) fn switch_to(&mut self, version: &'static str) {
        self.version = version;
        for attribute in &mut self.attributes {
            if attribute.key == semconv::NETWORK_PROTOCOL_VERSION {
                attribute.value = Value::Str(CompactString::const_new(version));
            }
        }
    }

    pub(in crate::protocol) fn is_connect(&self) -> bool {
        self.method == "CONNECT"
    }

    /// A response to this method has no body, whatever its head says.
    pub(in crate::protocol) fn is_head(&self) -> bool {
        self.method == "HEAD"
    }

    fn describe(&mut self, request: &Request<'_>, authority: Option<&str>) {
        let target = &request.target;
        self.text(
            semconv::HTTP_REQUEST_METHOD,
            CompactString::const_new(self.method),
        );
        if request.incomplete {
            self.attributes.push(Attribute {
                key: semconv::HEAD_INCOMPLETE,
                value: Value::Bool(true),
            });
        }
        if self.method == OTHER_METHOD && !request.method.is_empty() {
            self.text(
                semconv::HTTP_REQUEST_METHOD_ORIGINAL,
                target::bounded(request.method, MAX_METHOD).into(),
            );
        }
        self.text(semconv::URL_SCHEME, CompactString::const_new(self.scheme));
        match self.kind {
            Kind::Server => self.describe_served(request),
            Kind::Client => {
                // The full URL of a tunnel does not exist, and without a host there is none to build.
                if let Some(authority) =
                    authority.filter(|_| !self.is_connect() && self.server.is_some())
                {
                    let url = target::full_url(self.scheme, authority, target.path, target.query);
                    self.text(semconv::URL_FULL, url);
                }
            }
        }
        if let Some((host, port)) = self.server.clone() {
            self.text(semconv::SERVER_ADDRESS, host);
            self.number(semconv::SERVER_PORT, i64::from(port));
        }
        self.text(
            semconv::NETWORK_PROTOCOL_VERSION,
            CompactString::const_new(self.version),
        );
        if let Some(user_agent) = request.user_agent {
            let text = target::bounded_lossy(user_agent, MAX_USER_AGENT);
            self.text(semconv::USER_AGENT_ORIGINAL, CompactString::from(text));
        }
    }

    fn describe_served(&mut self, request: &Request<'_>) {
        let target = &request.target;
        if !target.path.is_empty() {
            self.text(semconv::URL_PATH, bounded_path(target));
        }
        if let Some(query) = target.query {
            self.text(semconv::URL_QUERY, target::redacted_query(query));
        }
        if let Some(client) = target::first_hop(request.forwarded, request.x_forwarded_for) {
            self.text(semconv::CLIENT_ADDRESS, client);
        }
    }

    /// The exchange, finished.
    pub(in crate::protocol) fn finish(mut self, outcome: &Outcome) -> Exchange {
        let error_type = self.error_type(outcome);
        if let Some(status) = outcome.status {
            self.number(semconv::HTTP_RESPONSE_STATUS_CODE, i64::from(status));
        }
        let instruments = Instruments::of(self.kind);
        let mut values = SmallVec::new();
        let sizes = [
            (
                semconv::HTTP_REQUEST_BODY_SIZE,
                instruments.request_size,
                self.request_size,
            ),
            (
                semconv::HTTP_RESPONSE_BODY_SIZE,
                instruments.response_size,
                outcome.response_size,
            ),
        ];
        for (key, instrument, size) in sizes {
            let Some(size) = size else { continue };
            values.push((instrument, size as f64));
            // A message without a body is a zero in the histogram, and no attribute.
            if size > 0 {
                self.number(key, i64::try_from(size).unwrap_or(i64::MAX));
            }
        }
        let verb = if self.method == OTHER_METHOD {
            "HTTP"
        } else {
            self.method
        };
        Exchange {
            id: self.id,
            end: outcome.end,
            verb: CompactString::const_new(verb),
            route: match self.kind {
                Kind::Server => Route::Path(semconv::HTTP_ROUTE),
                Kind::Client => Route::None,
            },
            dimensions: self.dimensions(outcome.status),
            path: self.path,
            attributes: self.attributes,
            status: if error_type.is_some() {
                Status::Error
            } else {
                Status::Unset
            },
            error_type,
            duration: instruments.duration,
            values,
        }
    }

    /// A 4xx is the client's failure, not the server's.
    fn error_type(&self, outcome: &Outcome) -> Option<CompactString> {
        let least = if matches!(self.kind, Kind::Server) {
            500
        } else {
            400
        };
        match outcome.status {
            Some(status) if status >= least => Some(compact_str::format_compact!("{status}")),
            _ => outcome.broken.map(CompactString::const_new),
        }
    }

    fn dimensions(&self, status: Option<u16>) -> SmallVec<[Attribute; 8]> {
        let text = |key, text| Attribute {
            key,
            value: Value::Str(text),
        };
        let number = |key, number| Attribute {
            key,
            value: Value::Int(number),
        };
        let mut dimensions = SmallVec::new();
        dimensions.push(text(
            semconv::HTTP_REQUEST_METHOD,
            CompactString::const_new(self.method),
        ));
        dimensions.push(text(
            semconv::URL_SCHEME,
            CompactString::const_new(self.scheme),
        ));
        if let Some(status) = status {
            dimensions.push(number(
                semconv::HTTP_RESPONSE_STATUS_CODE,
                i64::from(status),
            ));
        }
        dimensions.push(text(
            semconv::NETWORK_PROTOCOL_VERSION,
            CompactString::const_new(self.version),
        ));
        if let (Kind::Client, Some((host, port))) = (self.kind, &self.server) {
            dimensions.push(text(semconv::SERVER_ADDRESS, host.clone()));
            dimensions.push(number(semconv::SERVER_PORT, i64::from(*port)));
        }
        dimensions
    }

    fn text(&mut self, key: &'static str, text: CompactString) {
        self.attributes.push(Attribute {
            key,
            value: Value::Str(text),
        });
    }

    fn number(&mut self, key: &'static str, number: i64) {
        self.attributes.push(Attribute {
            key,
            value: Value::Int(number),
        });
    }
}

struct Instruments {
    duration: &'static Instrument,
    request_size: &'static Instrument,
    response_size: &'static Instrument,
}

impl Instruments {
    fn of(kind: Kind) -> Self {
        match kind {
            Kind::Server => Self {
                duration: &semconv::HTTP_SERVER_REQUEST_DURATION,
                request_size: &semconv::HTTP_SERVER_REQUEST_BODY_SIZE,
                response_size: &semconv::HTTP_SERVER_RESPONSE_BODY_SIZE,
            },
            Kind::Client => Self {
                duration: &semconv::HTTP_CLIENT_REQUEST_DURATION,
                request_size: &semconv::HTTP_CLIENT_REQUEST_BODY_SIZE,
                response_size: &semconv::HTTP_CLIENT_RESPONSE_BODY_SIZE,
            },
        }
    }
}

/// The original client's scheme where a proxy in front tells it, else the connection's own.
fn scheme(kind: Kind, request: &Request<'_>, tls: bool) -> &'static str {
    let told = match kind {
        Kind::Client => None,
        Kind::Server => match request.forwarded {
            Some(forwarded) => target::forwarded_parameter(forwarded, b"proto"),
            None => request.x_forwarded_proto,
        },
    };
    let own = if tls { "https" } else { "http" };
    told.and_then(target::known_scheme)
        .or(request.target.scheme)
        .unwrap_or(own)
}

fn bounded_path(target: &Target<'_>) -> CompactString {
    target::bounded(target.path, target::MAX_PATH).into()
}
