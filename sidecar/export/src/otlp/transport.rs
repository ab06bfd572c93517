//! One request to the collector, by gRPC or HTTP, and what its answer means.
//!
//! Both go through one hyper client. For gRPC, tonic frames the message over it; tonic's own channel (balancer,
//! buffer, discovery) is not needed for a single endpoint.

use crate::otlp::config::OtlpConfig;
use crate::otlp::tls::{self, TlsError};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http_body_util::{BodyExt, Collected, Full, Limited};
use hyper::header::{
    ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER,
    USER_AGENT,
};
use hyper::http::uri::PathAndQuery;
use hyper::{Method, Request, StatusCode, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use opentelemetry_otlp::Protocol;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message;
use std::io::Write;
use std::time::{Duration, SystemTime};
use tonic::codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::MetadataMap;
use tonic::{Code, Extensions, Status};
use tonic_types::StatusExt;

/// Longest response that is read.
const MAX_RESPONSE: usize = 64 * 1024;
const USER_AGENT_VALUE: &str = concat!("pilotfish/", env!("CARGO_PKG_VERSION"));

/// What is sent; names the gRPC method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    Traces,
    Metrics,
}

impl Signal {
    fn grpc_method(self) -> PathAndQuery {
        PathAndQuery::from_static(match self {
            Self::Traces => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
            Self::Metrics => "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
        })
    }
}

/// The collector took the request, perhaps not all of it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Accepted {
    pub(crate) rejected: u64,
    pub(crate) message: String,
}

/// The collector did not take the request.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct SendError {
    pub(crate) message: String,
    pub(crate) retryable: bool,
    /// The collector asks for this much patience.
    pub(crate) after: Option<Duration>,
}

impl SendError {
    fn retryable(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            retryable: true,
            after: None,
        }
    }
}

type HttpClient = Client<HttpsConnector<HttpConnector>, tonic::body::Body>;

/// A connection to the collector of one signal, kept open between requests.
#[derive(Clone, Debug)]
pub(crate) struct Transport {
    client: HttpClient,
    config: OtlpConfig,
    signal: Signal,
}

impl Transport {
    /// Loads the TLS material; connects on first use. With `shared`, the connections of another signal are used
    /// where both speak alike.
    pub(crate) fn new(
        config: OtlpConfig,
        signal: Signal,
        shared: Option<&Self>,
    ) -> Result<Self, TlsError> {
        let grpc = config.protocol == Protocol::Grpc;
        let alike = |other: &&Self| {
            other.config.tls == config.tls
                && other.config.endpoint.scheme() == config.endpoint.scheme()
                && (other.config.protocol == Protocol::Grpc) == grpc
        };
        if let Some(other) = shared.filter(alike) {
            return Ok(Self {
                client: other.client.clone(),
                config,
                signal,
            });
        }
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_connect_timeout(Some(config.timeout));
        let secure = config.endpoint.scheme_str() == Some("https");
        let https = HttpsConnectorBuilder::new()
            .with_tls_config(tls::client(&config.tls, secure)?)
            .https_or_http();
        let connector = if grpc {
            https.enable_http2().wrap_connector(http)
        } else {
            https.enable_http1().wrap_connector(http)
        };
        let client = Client::builder(TokioExecutor::new())
            .http2_only(grpc)
            .pool_timer(TokioTimer::new())
            .pool_max_idle_per_host(1)
            .build(connector);
        Ok(Self {
            client,
            config,
            signal,
        })
    }

    pub(crate) fn protocol(&self) -> Protocol {
        self.config.protocol
    }

    pub(crate) fn endpoint(&self) -> &Uri {
        &self.config.endpoint
    }

    /// Sends one encoded request and waits for the answer, no longer than the configured timeout.
    pub(crate) async fn send(&self, body: Bytes) -> Result<Accepted, SendError> {
        let answer = async {
            if self.config.protocol == Protocol::Grpc {
                self.send_grpc(body).await
            } else {
                self.send_http(body).await
            }
        };
        let timeout = self.config.timeout;
        let late = |_| SendError::retryable(format!("no answer within {} ms", timeout.as_millis()));
        tokio::time::timeout(timeout, answer).await.map_err(late)?
    }

    fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(USER_AGENT, HeaderValue::from_static(USER_AGENT_VALUE));
        headers.extend(self.config.headers.iter().cloned());
        headers
    }

    async fn send_grpc(&self, body: Bytes) -> Result<Accepted, SendError> {
        let mut client =
            tonic::client::Grpc::with_origin(self.client.clone(), self.config.endpoint.clone())
                .accept_compressed(CompressionEncoding::Gzip)
                .max_decoding_message_size(MAX_RESPONSE);
        if self.config.gzip {
            client = client.send_compressed(CompressionEncoding::Gzip);
        }
        client
            .ready()
            .await
            .map_err(|error| SendError::retryable(chain(&error)))?;
        let request = tonic::Request::from_parts(
            MetadataMap::from_headers(self.headers()),
            Extensions::default(),
            body,
        );
        let answer = client
            .unary(request, self.signal.grpc_method(), BytesCodec)
            .await;
        answer
            .map(|response| accepted(response.into_inner()))
            .map_err(|status| grpc_error(&status))
    }

    async fn send_http(&self, body: Bytes) -> Result<Accepted, SendError> {
        let json = self.config.protocol == Protocol::HttpJson;
        let body = if self.config.gzip { gzip(&body)? } else { body };
        let mut request = Request::new(tonic::body::Body::new(Full::new(body)));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.config.endpoint.clone();
        *request.headers_mut() = self.headers();
        let kind = if json {
            "application/json"
        } else {
            "application/x-protobuf"
        };
        request
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        request
            .headers_mut()
            .insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if self.config.gzip {
            request
                .headers_mut()
                .insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        let answer = self
            .client
            .request(request)
            .await
            .map_err(|error| SendError::retryable(chain(&error)))?;
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, MAX_RESPONSE).collect().await;
        if !head.status.is_success() {
            return Err(http_error(head.status, &head.headers));
        }
        // The request was taken; an answer that cannot be read does not change that.
        let body = body.map(Collected::to_bytes).unwrap_or_default();
        Ok(if json {
            accepted_json(&body)
        } else {
            accepted(ExportTraceServiceResponse::decode(body).unwrap_or_default())
        })
    }
}

fn gzip(body: &[u8]) -> Result<Bytes, SendError> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    let written = encoder.write_all(body).and_then(|()| encoder.finish());
    written.map(Bytes::from).map_err(|error| SendError {
        message: error.to_string(),
        retryable: false,
        after: None,
    })
}

fn accepted(response: ExportTraceServiceResponse) -> Accepted {
    response
        .partial_success
        .map_or_else(Accepted::default, |partial| Accepted {
            rejected: u64::try_from(partial.rejected_spans).unwrap_or(0),
            message: partial.error_message,
        })
}

/// Protobuf's JSON mapping writes 64-bit integers as strings, and some collectors as numbers.
fn accepted_json(body: &[u8]) -> Accepted {
    let value: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let partial = &value["partialSuccess"];
    let rejected = [&partial["rejectedSpans"], &partial["rejectedDataPoints"]]
        .into_iter()
        .find_map(|count| {
            count
                .as_u64()
                .or_else(|| count.as_str().and_then(|text| text.parse().ok()))
        });
    let message = partial["errorMessage"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    Accepted {
        rejected: rejected.unwrap_or(0),
        message,
    }
}

/// OTLP specification, "OTLP/HTTP response": 429, 502, 503 and 504 may be retried, nothing else.
fn http_error(status: StatusCode, headers: &HeaderMap) -> SendError {
    let retryable = matches!(status.as_u16(), 429 | 502 | 503 | 504);
    let after = headers
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok())
        .and_then(retry_after);
    SendError {
        message: format!("the collector answered {status}"),
        retryable,
        after: after.filter(|_| retryable),
    }
}

fn retry_after(value: &str) -> Option<Duration> {
    if let Ok(seconds) = value.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    httpdate::parse_http_date(value)
        .ok()?
        .duration_since(SystemTime::now())
        .ok()
}

/// OTLP specification, "OTLP/gRPC response": `RESOURCE_EXHAUSTED` may be retried only when the collector says when.
fn grpc_error(status: &Status) -> SendError {
    let after = status
        .get_details_retry_info()
        .and_then(|info| info.retry_delay);
    let retryable = match status.code() {
        Code::Cancelled
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unavailable
        | Code::DataLoss => true,
        Code::ResourceExhausted => after.is_some(),
        // A connection that breaks has no status of its own; tonic reports what hyper said.
        _ => std::error::Error::source(status).is_some(),
    };
    SendError {
        message: format!("{}: {}", status.code(), chain(status)),
        retryable,
        after,
    }
}

/// An error with its causes, for the outermost often says only "client error".
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// Messages are encoded once, before the first attempt. The responses of both signals have the same fields on the
/// wire (rejected count, message), so one type reads both.
#[derive(Clone, Copy)]
struct BytesCodec;

impl Codec for BytesCodec {
    type Encode = Bytes;
    type Decode = ExportTraceServiceResponse;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for BytesCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        bytes::BufMut::put(buffer, item);
        Ok(())
    }
}

impl Decoder for BytesCodec {
    type Item = ExportTraceServiceResponse;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Self::Item>, Status> {
        ExportTraceServiceResponse::decode(buffer)
            .map(Some)
            .map_err(|error| Status::internal(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_specified_statuses_are_retried() {
        let headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static("7"))]);
        for status in 300..600 {
            let error = http_error(StatusCode::from_u16(status).unwrap(), &headers);
            let expected = matches!(status, 429 | 502 | 503 | 504);
            assert_eq!(
                (error.retryable, error.after.is_some()),
                (expected, expected),
                "{status}"
            );
        }
        for code in 1..17 {
            let error = grpc_error(&Status::new(Code::from(code), ""));
            assert_eq!(
                error.retryable,
                matches!(code, 1 | 4 | 10 | 11 | 14 | 15),
                "{code}"
            );
        }
    }

    #[test]
    fn patience_may_be_given_in_seconds_or_as_a_date() {
        assert_eq!(retry_after(" 12 "), Some(Duration::from_secs(12)));
        let date = httpdate::fmt_http_date(SystemTime::now() + Duration::from_hours(1));
        assert!(retry_after(&date).unwrap() > Duration::from_mins(50));
        assert_eq!(retry_after("Fri, 31 Dec 1999 23:59:59 GMT"), None);
        assert_eq!(retry_after("later"), None);
    }

    #[test]
    fn partial_success_is_read_in_both_json_forms() {
        for count in ["\"3\"", "3"] {
            let body = format!(
                r#"{{"partialSuccess":{{"rejectedDataPoints":{count},"errorMessage":"no"}}}}"#
            );
            assert_eq!(
                accepted_json(body.as_bytes()),
                Accepted {
                    rejected: 3,
                    message: "no".into()
                }
            );
        }
        assert_eq!(accepted_json(b"<html>"), Accepted::default());
    }
}
