//! OTLP over TLS: a private authority, a client certificate, and refusal of what cannot be verified.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use pilotfish_export::{Containers, Export, ExportConfig, Flags, Resource};
use pilotfish_pipeline::{Kind, Sink, Slot, Span, SpanId, Status, TraceId};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::server::WebPkiClientVerifier;
use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// Writes `ca.pem`, `client.pem` and `client.key`; gives a server that demands a certificate of this authority.
fn authority(directory: &Path, alpn: &[u8]) -> TlsAcceptor {
    let mut params = CertificateParams::new([]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    std::fs::write(directory.join("ca.pem"), issuer.pem()).unwrap();
    let signed = |name: &str| {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        (params.signed_by(&key, &issuer).unwrap(), key)
    };
    let (certificate, key) = signed("agent");
    std::fs::write(directory.join("client.pem"), certificate.pem()).unwrap();
    std::fs::write(directory.join("client.key"), key.serialize_pem()).unwrap();

    let (certificate, key) = signed("localhost");
    let mut roots = rustls::RootCertStore::empty();
    roots.add(issuer.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build();
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.unwrap())
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::Pkcs8(key.serialize_der().into()),
        )
        .unwrap();
    config.alpn_protocols = vec![alpn.to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

/// An empty response is a success in both protocols; gRPC wants a frame and trailers around it.
async fn accept(request: Request<Incoming>) -> Result<Response<tonic::body::Body>, Infallible> {
    let grpc = request.headers()[CONTENT_TYPE] == "application/grpc";
    let _ = request.into_body().collect().await;
    let frame = if grpc {
        Bytes::from_static(&[0; 5])
    } else {
        Bytes::new()
    };
    let trailers = HeaderMap::from_iter([(
        "grpc-status".parse().unwrap(),
        HeaderValue::from_static("0"),
    )]);
    let body = Full::new(frame).with_trailers(async move { grpc.then_some(Ok(trailers)) });
    let kind = if grpc {
        "application/grpc"
    } else {
        "application/x-protobuf"
    };
    Ok(Response::builder()
        .header(CONTENT_TYPE, kind)
        .body(tonic::body::Body::new(body))
        .unwrap())
}

async fn serve(acceptor: TlsAcceptor, http2: bool) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(stream) = acceptor.accept(stream).await else {
                continue;
            };
            let stream = TokioIo::new(stream);
            if http2 {
                let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                tokio::spawn(server.serve_connection(stream, service_fn(accept)));
            } else {
                let server = hyper::server::conn::http1::Builder::new();
                tokio::spawn(server.serve_connection(stream, service_fn(accept)));
            }
        }
    });
    port
}

fn span() -> Span {
    Span {
        slot: Slot(1),
        trace_id: TraceId([1; 16]),
        span_id: SpanId([2; 8]),
        parent_span_id: None,
        remote_parent: false,
        trace_state: "".into(),
        name: "GET /".into(),
        kind: Kind::Server,
        start_unix_nano: 1,
        end_unix_nano: 2,
        attributes: Vec::new(),
        status: Status::Unset,
    }
}

/// Exports one span; true if the receiver took it.
async fn export(port: u16, protocol: &str, files: &[(&str, &Path)]) -> bool {
    let flags = Flags {
        endpoint: Some(format!("https://localhost:{port}")),
        protocol: Some(protocol.to_owned()),
        ..Flags::default()
    };
    let config = ExportConfig::from_variables(&flags, &|name| {
        let key = name.strip_prefix("OTEL_EXPORTER_OTLP_")?;
        files
            .iter()
            .find(|(known, _)| *known == key)
            .map(|(_, path)| path.display().to_string())
    });
    let containers = Containers::new();
    assert!(containers.insert(Slot(1), Resource::default()));
    let (export, mut sink) = Export::start(config.unwrap(), containers).unwrap();
    sink.span(span());
    sink.flush();
    let stats = export.stats();
    export.shutdown(Duration::from_secs(30)).await;
    let traces = stats
        .exporters()
        .into_iter()
        .find(|stats| stats.exporter == "otlp_traces")
        .unwrap();
    assert_eq!(traces.exported + traces.failed, 1, "{traces:?}");
    traces.exported == 1
}

#[tokio::test]
async fn both_sides_prove_who_they_are() {
    for (protocol, http2) in [("grpc", true), ("http/protobuf", false)] {
        let directory = tempfile::tempdir().unwrap();
        let alpn: &[u8] = if http2 { b"h2" } else { b"http/1.1" };
        let port = serve(authority(directory.path(), alpn), http2).await;
        let file = |name: &str| directory.path().join(name);
        let (ca, certificate, key) = (file("ca.pem"), file("client.pem"), file("client.key"));
        let identity = [
            ("CLIENT_CERTIFICATE", certificate.as_path()),
            ("CLIENT_KEY", key.as_path()),
        ];
        let all = [("CERTIFICATE", ca.as_path()), identity[0], identity[1]];
        assert!(export(port, protocol, &all).await, "{protocol}");
        assert!(
            !export(port, protocol, &identity).await,
            "{protocol}: a server that the system does not trust"
        );
        assert!(
            !export(port, protocol, &all[..1]).await,
            "{protocol}: no client certificate"
        );
    }
}
