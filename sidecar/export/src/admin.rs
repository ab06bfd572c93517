//! The admin pages: `/metrics`, `/healthz`, `/readyz`, `/status`.
//!
//! The server answers GET and HEAD, reads no bodies, and bounds what a client can hold: connections, head size,
//! time to send a head, life of a connection.

use crate::prometheus::Format;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// Connections served at a time; further ones wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 64;
/// Longest request head.
const MAX_HEAD: usize = 16 * 1024;
/// Longest time to send a request head, and to stay idle between two.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest life of a connection: a scraper that reads nothing gives its place up.
const MAX_LIFE: Duration = Duration::from_mins(2);

/// Why the pages cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The address is taken or not ours.
    #[error(
        "cannot serve the admin pages on {address}: {source}; choose another address with --listen"
    )]
    Bind {
        /// What was tried.
        address: SocketAddr,
        /// The cause.
        source: io::Error,
    },
}

/// Whether the agent does its work, and why not.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Readiness {
    /// What is missing, one sentence each; empty means ready.
    pub reasons: Vec<String>,
    /// What should be known though nobody has to wait for it, one sentence each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// What the pages show. Called on the runtime's thread, so it must not block.
pub trait Pages: Send + Sync + 'static {
    /// The body of `/metrics`; see [`crate::prometheus::render`].
    fn metrics(&self, format: Format) -> String;
    /// The state behind `/readyz`.
    fn ready(&self) -> Readiness;
    /// The body of `/status`.
    fn status(&self) -> serde_json::Value;
}

/// A bound, not yet serving admin server.
#[derive(Debug)]
pub struct Admin {
    listener: TcpListener,
    address: SocketAddr,
}

impl Admin {
    /// Binds the address. Needs a tokio runtime with I/O and time.
    pub async fn bind(address: SocketAddr) -> Result<Self, AdminError> {
        let bind_error = |source| AdminError::Bind { address, source };
        let listener = TcpListener::bind(address).await.map_err(bind_error)?;
        let address = listener.local_addr().map_err(bind_error)?;
        Ok(Self { listener, address })
    }

    /// The bound address, with the port that the kernel chose if 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until the future is dropped. Connections end with it.
    pub async fn serve(self, pages: Arc<impl Pages>) {
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut connections = tokio::task::JoinSet::new();
        loop {
            // The semaphore is never closed.
            let Ok(place) = Arc::clone(&places).acquire_owned().await else {
                return;
            };
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let pages = Arc::clone(&pages);
                    connections.spawn(async move {
                        serve_connection(stream, pages).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    // Out of file descriptors, most likely: accepting again at once would only spin.
                    tracing::debug!(%error, "an admin connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
            while connections.try_join_next().is_some() {}
        }
    }
}

async fn serve_connection(stream: TcpStream, pages: Arc<impl Pages>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let response = answer(&request, pages.as_ref());
        async move { Ok::<_, Infallible>(response) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    // A client that goes away or talks nonsense is its own problem.
    let _ = tokio::time::timeout(MAX_LIFE, connection).await;
}

fn answer<B>(request: &Request<B>, pages: &impl Pages) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
        response
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match request.uri().path() {
        "/metrics" => {
            let accept = request
                .headers()
                .get(ACCEPT)
                .and_then(|value| value.to_str().ok())
                .unwrap_or_default();
            let format = Format::accepted(accept);
            page(StatusCode::OK, format.content_type(), pages.metrics(format))
        }
        "/healthz" => json(StatusCode::OK, &serde_json::json!({"status": "ok"})),
        "/readyz" => {
            let Readiness { reasons, notes } = pages.ready();
            let ready = reasons.is_empty();
            let status = if ready {
                StatusCode::OK
            } else {
                StatusCode::SERVICE_UNAVAILABLE
            };
            json(
                status,
                &serde_json::json!({"ready": ready, "reasons": reasons, "notes": notes}),
            )
        }
        "/status" => json(StatusCode::OK, &pages.status()),
        "/" => text(
            StatusCode::OK,
            "pilotfish: /metrics /healthz /readyz /status\n",
        ),
        _ => text(
            StatusCode::NOT_FOUND,
            "pages: /metrics /healthz /readyz /status\n",
        ),
    }
}

fn json(status: StatusCode, value: &serde_json::Value) -> Response<Full<Bytes>> {
    page(status, "application/json", format!("{value:#}\n"))
}

fn text(status: StatusCode, body: &'static str) -> Response<Full<Bytes>> {
    page(status, "text/plain; charset=utf-8", body)
}

fn page(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
