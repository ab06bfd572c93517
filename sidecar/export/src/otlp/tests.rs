//! The exporters against a receiver that speaks OTLP over real sockets.

use super::*;
use crate::config::{ExportConfig, Flags};
use crate::sample::{containers, measurement, span};
use crate::{Export, ExportSink};
use flate2::read::GzDecoder;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use pilotfish_pipeline::{Sink, Slot};
use prost::Message;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::io::Read;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use tokio::net::TcpListener;

/// What the receiver does with a request.
#[derive(Clone, Copy)]
enum Answer {
    Accept,
    /// Accepts all but this many.
    Partial(i64),
    /// HTTP status, or gRPC status when beyond gRPC's codes it makes no sense.
    Refuse(u16),
}

#[derive(Default)]
struct Received {
    spans: Vec<ExportTraceServiceRequest>,
    metrics: Vec<ExportMetricsServiceRequest>,
    headers: Vec<HeaderMap>,
    requests: usize,
    script: VecDeque<Answer>,
}

#[derive(Clone)]
struct Receiver {
    address: SocketAddr,
    state: Arc<Mutex<Received>>,
}

impl Receiver {
    /// Serves HTTP/1 and HTTP/2 on one port; answers by the script, then accepts.
    async fn start(http2: bool, script: &[Answer]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Received {
            script: script.iter().copied().collect(),
            ..Received::default()
        };
        let this = Self {
            address,
            state: Arc::new(Mutex::new(state)),
        };
        let server = this.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let server = server.clone();
                let service = service_fn(move |request| {
                    let server = server.clone();
                    async move { Ok::<_, Infallible>(server.answer(request).await) }
                });
                let stream = TokioIo::new(stream);
                if http2 {
                    let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                    tokio::spawn(server.serve_connection(stream, service));
                } else {
                    tokio::spawn(
                        hyper::server::conn::http1::Builder::new()
                            .serve_connection(stream, service),
                    );
                }
            }
        });
        this
    }

    async fn answer(
        &self,
        request: hyper::Request<Incoming>,
    ) -> hyper::Response<tonic::body::Body> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let mut state = self.state.lock().unwrap();
        state.requests += 1;
        state.headers.push(head.headers.clone());
        let kind = head.headers[CONTENT_TYPE].to_str().unwrap().to_owned();
        let answer = state.script.pop_front().unwrap_or(Answer::Accept);
        if !matches!(answer, Answer::Refuse(_)) {
            let body = decoded(&kind, &head.headers, &body);
            match (head.uri.path().contains("race"), kind.as_str()) {
                (true, "application/json") => {
                    state.spans.push(serde_json::from_slice(&body).unwrap());
                }
                (true, _) => state.spans.push(Message::decode(&body[..]).unwrap()),
                (false, "application/json") => {
                    state.metrics.push(serde_json::from_slice(&body).unwrap());
                }
                (false, _) => state.metrics.push(Message::decode(&body[..]).unwrap()),
            }
        }
        response(&kind, answer)
    }

    fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    fn span_names(&self) -> Vec<String> {
        let state = self.state.lock().unwrap();
        let groups = state
            .spans
            .iter()
            .flat_map(|request| &request.resource_spans);
        let spans = groups
            .flat_map(|group| &group.scope_spans)
            .flat_map(|scope| &scope.spans);
        spans.map(|span| span.name.clone()).collect()
    }
}

fn decoded(kind: &str, headers: &HeaderMap, body: &[u8]) -> Vec<u8> {
    let (compressed, body) = if kind == "application/grpc" {
        let length = u32::from_be_bytes(body[1..5].try_into().unwrap()) as usize;
        assert_eq!(body.len(), 5 + length, "one message");
        (body[0] == 1, &body[5..])
    } else {
        (
            headers
                .get(CONTENT_ENCODING)
                .is_some_and(|value| value == "gzip"),
            body,
        )
    };
    let mut plain = Vec::new();
    if compressed {
        GzDecoder::new(body).read_to_end(&mut plain).unwrap();
    } else {
        plain.extend_from_slice(body);
    }
    plain
}

fn response(kind: &str, answer: Answer) -> hyper::Response<tonic::body::Body> {
    let partial = match answer {
        Answer::Partial(rejected) => Some(ExportTracePartialSuccess {
            rejected_spans: rejected,
            error_message: "too many".into(),
        }),
        _ => None,
    };
    let message = ExportTraceServiceResponse {
        partial_success: partial,
    };
    let mut response = hyper::Response::builder().header(CONTENT_TYPE, kind);
    if kind == "application/grpc" {
        if let Answer::Refuse(status) = answer {
            return response
                .header("grpc-status", status)
                .body(tonic::body::Body::empty())
                .unwrap();
        }
        let message = message.encode_to_vec();
        let mut frame = vec![0];
        frame.extend_from_slice(&(message.len() as u32).to_be_bytes());
        frame.extend_from_slice(&message);
        let trailers = HeaderMap::from_iter([(
            "grpc-status".parse().unwrap(),
            HeaderValue::from_static("0"),
        )]);
        let body = Full::new(Bytes::from(frame)).with_trailers(async move { Some(Ok(trailers)) });
        return response.body(tonic::body::Body::new(body)).unwrap();
    }
    if let Answer::Refuse(status) = answer {
        response = response.status(status).header("retry-after", "0");
    }
    let body = if kind == "application/json" {
        serde_json::to_vec(&message).unwrap()
    } else {
        message.encode_to_vec()
    };
    response
        .body(tonic::body::Body::new(Full::new(Bytes::from(body))))
        .unwrap()
}

fn start(endpoint: &str, protocol: &str, more: &[(&str, &str)]) -> (Export, ExportSink) {
    let flags = Flags {
        endpoint: Some(endpoint.into()),
        protocol: Some(protocol.into()),
        ..Flags::default()
    };
    let config = ExportConfig::from_variables(&flags, &|name| {
        more.iter()
            .find(|(key, _)| *key == name)
            .map(|(_, value)| (*value).to_owned())
    });
    Export::start(config.unwrap(), containers()).unwrap()
}

const LONG: Duration = Duration::from_mins(1);

/// Protocol, and whether it is HTTP/2.
const PROTOCOLS: [(&str, bool); 3] = [
    ("grpc", true),
    ("http/protobuf", false),
    ("http/json", false),
];

fn accounts(export: &crate::Stats, exporter: &str) -> [u64; 3] {
    let found = export
        .exporters()
        .into_iter()
        .find(|stats| stats.exporter == exporter)
        .unwrap();
    [found.exported, found.dropped, found.failed]
}

#[tokio::test]
async fn spans_and_metrics_of_two_containers_arrive_over_every_protocol() {
    for (protocol, http2) in PROTOCOLS {
        for compression in ["none", "gzip"] {
            let receiver = Receiver::start(http2, &[]).await;
            let variables = [
                ("OTEL_EXPORTER_OTLP_COMPRESSION", compression),
                ("OTEL_EXPORTER_OTLP_HEADERS", "tenant=blue"),
            ];
            let (export, mut sink) = start(&receiver.endpoint(), protocol, &variables);
            for slot in [1, 2, 1] {
                sink.span(span(slot, &format!("GET /{slot}")));
                sink.measurement(measurement(slot, "/", 0.5));
            }
            sink.flush();
            let stats = export.stats();
            export.shutdown(LONG).await;
            assert_eq!(
                receiver.span_names(),
                ["GET /1", "GET /1", "GET /2"],
                "{protocol} {compression}"
            );
            assert_eq!(accounts(&stats, "otlp_traces"), [3, 0, 0]);
            assert_eq!(
                accounts(&stats, "otlp_metrics"),
                [4, 0, 0],
                "two containers, two instruments"
            );
            let seen = receiver.state.lock().unwrap();
            let resources = &seen.metrics[0].resource_metrics;
            assert_eq!(resources.len(), 2);
            assert_eq!(resources[0].scope_metrics[0].metrics.len(), 2);
            assert!(
                seen.headers
                    .iter()
                    .all(|headers| headers["tenant"] == "blue"),
                "{protocol}"
            );
        }
    }
}

#[tokio::test]
async fn a_refusal_that_may_pass_is_retried() {
    for (protocol, http2) in PROTOCOLS {
        let busy = Answer::Refuse(if http2 {
            tonic::Code::Unavailable as u16
        } else {
            503
        });
        let receiver = Receiver::start(http2, &[busy, busy]).await;
        let (export, queue) = start_delivery(&receiver.endpoint(), protocol);
        queue.push(&[crate::sample::observed("GET /")]);
        queue.close();
        export.await.unwrap();
        assert_eq!(receiver.span_names(), ["GET /"], "{protocol}");
        assert_eq!(receiver.state.lock().unwrap().requests, 3);
        assert_eq!(queue.accounts.exported.load(Ordering::Relaxed), 1);
    }
}

/// The span exporter alone, with a first wait that suits a test.
fn start_delivery(endpoint: &str, protocol: &str) -> (tokio::task::JoinHandle<()>, Arc<Queue>) {
    let flags = Flags {
        endpoint: Some(endpoint.into()),
        protocol: Some(protocol.into()),
        ..Flags::default()
    };
    let config = config::OtlpConfig::read("TRACES", &flags, &|_| None).unwrap();
    let transport = Transport::new(config, transport::Signal::Traces, None).unwrap();
    let (closing, receiver) = watch::channel(false);
    let mut delivery = Delivery::new(transport, LONG, receiver);
    delivery.first_retry = Duration::from_millis(1);
    let queue = Arc::new(Queue::new(16, 16, 16));
    let export = export_spans(Arc::clone(&queue), delivery, BatchConfig::default());
    let task = async move {
        export.await;
        drop(closing);
    };
    (tokio::spawn(task), queue)
}

#[tokio::test]
async fn a_refusal_that_will_stay_is_not_retried_and_a_part_refused_is_counted() {
    for (protocol, http2) in PROTOCOLS {
        let bad = Answer::Refuse(if http2 {
            tonic::Code::InvalidArgument as u16
        } else {
            400
        });
        let receiver = Receiver::start(http2, &[bad, Answer::Partial(2)]).await;
        let variables = [
            ("OTEL_METRICS_EXPORTER", "none"),
            ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "3"),
        ];
        let (export, mut sink) = start(&receiver.endpoint(), protocol, &variables);
        for _ in 0..7 {
            sink.span(span(1, "GET /"));
        }
        sink.flush();
        let stats = export.stats();
        export.shutdown(LONG).await;
        assert_eq!(
            accounts(&stats, "otlp_traces"),
            [2, 0, 5],
            "{protocol}: 3 refused, 2 of 3 rejected, 1 accepted"
        );
        assert_eq!(receiver.state.lock().unwrap().requests, 3);
    }
}

#[tokio::test]
async fn without_a_collector_every_span_is_accounted_for() {
    for (protocol, _) in PROTOCOLS {
        // A port that was just free, and a listener that never answers.
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let gone = TcpListener::bind("127.0.0.1:0")
            .await
            .unwrap()
            .local_addr()
            .unwrap();
        for address in [gone, silent.local_addr().unwrap()] {
            let variables = [
                ("OTEL_BSP_MAX_QUEUE_SIZE", "10"),
                ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4"),
            ];
            let (export, mut sink) = start(&format!("http://{address}"), protocol, &variables);
            for _ in 0..25 {
                sink.span(span(1, "GET /"));
            }
            sink.flush();
            tokio::task::yield_now().await;
            let stats = export.stats();
            export.shutdown(Duration::from_millis(50)).await;
            sink.span(span(1, "GET /too-late"));
            sink.flush();
            let [exported, dropped, failed] = accounts(&stats, "otlp_traces");
            assert_eq!(
                (exported, dropped + failed),
                (0, 26),
                "{protocol} {address}: {dropped} and {failed}"
            );
            assert!(
                dropped >= 16,
                "15 found the queue full, one found it closed"
            );
        }
    }
}

#[tokio::test]
async fn the_last_metrics_of_a_removed_container_are_sent_once() {
    let receiver = Receiver::start(false, &[]).await;
    let flags = Flags {
        endpoint: Some(receiver.endpoint()),
        ..Flags::default()
    };
    let config = ExportConfig::from_variables(&flags, &|name| {
        (name == "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE").then(|| "delta".to_owned())
    });
    let containers = containers();
    let (export, mut sink) = Export::start(config.unwrap(), containers.clone()).unwrap();
    sink.measurement(measurement(2, "/", 0.5));
    containers.remove(Slot(2));
    sink.measurement(measurement(2, "/", 0.5));
    let stats = export.stats();
    export.shutdown(LONG).await;
    assert_eq!(accounts(&stats, "otlp_metrics"), [2, 0, 0]);
    assert_eq!(
        stats.unowned(),
        1,
        "a measurement after the removal belongs to nobody"
    );
    let seen = receiver.state.lock().unwrap();
    assert_eq!(seen.metrics.len(), 1);
    assert_eq!(seen.metrics[0].resource_metrics.len(), 1);
}

#[test]
fn a_port_of_the_other_transport_is_pointed_out() {
    let said = |port: &str, protocol| {
        let endpoint: Uri = format!("http://collector{port}/v1/traces").parse().unwrap();
        hint(&endpoint, protocol).unwrap_or_default()
    };
    for http in [Protocol::HttpBinary, Protocol::HttpJson] {
        assert!(said(":4317", http).contains("OTEL_EXPORTER_OTLP_PROTOCOL=grpc"));
        assert_eq!(said(":4318", http), "");
    }
    assert!(said(":4318", Protocol::Grpc).contains("OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf"));
    assert_eq!(said(":4317", Protocol::Grpc), "");
    assert_eq!(said("", Protocol::HttpBinary), "");
}
