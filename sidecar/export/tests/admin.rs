//! The admin server over real sockets.

use pilotfish_export::admin::{Admin, AdminError, Pages, Readiness};
use pilotfish_export::prometheus::{Format, Row, render};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[derive(Default)]
struct Agent {
    ready: AtomicBool,
}

impl Pages for Agent {
    fn metrics(&self, format: Format) -> String {
        render(format, &[], vec![Row::counter("records", "Records.", 7)])
    }
    fn ready(&self) -> Readiness {
        let reasons = if self.ready.load(Ordering::Relaxed) {
            vec![]
        } else {
            vec!["no probe is attached".to_owned()]
        };
        Readiness {
            reasons,
            notes: vec!["it is a test".to_owned()],
        }
    }
    fn status(&self) -> serde_json::Value {
        serde_json::json!({"containers": []})
    }
}

async fn exchange(admin: std::net::SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(admin).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

async fn get(admin: std::net::SocketAddr, path: &str) -> String {
    exchange(
        admin,
        &format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"),
    )
    .await
}

async fn start() -> (std::net::SocketAddr, Arc<Agent>) {
    let admin = Admin::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = admin.address();
    let agent = Arc::new(Agent::default());
    tokio::spawn(admin.serve(Arc::clone(&agent)));
    (address, agent)
}

#[tokio::test]
async fn pages_answer_what_they_promise() {
    let (admin, agent) = start().await;
    assert!(
        get(admin, "/metrics")
            .await
            .contains("pilotfish_records_total 7\n")
    );
    assert!(get(admin, "/healthz").await.starts_with("HTTP/1.1 200 OK"));
    let not_ready = get(admin, "/readyz").await;
    assert!(
        not_ready.starts_with("HTTP/1.1 503") && not_ready.contains("no probe is attached"),
        "{not_ready}"
    );
    agent.ready.store(true, Ordering::Relaxed);
    let ready = get(admin, "/readyz?verbose").await;
    assert!(
        ready.starts_with("HTTP/1.1 200 OK") && ready.contains("it is a test"),
        "{ready}"
    );
    assert!(get(admin, "/status").await.contains("\"containers\": []"));
    assert!(get(admin, "/etc/passwd").await.starts_with("HTTP/1.1 404"));
    let open_metrics = "GET /metrics HTTP/1.0\r\naccept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5\r\n\r\n";
    assert!(exchange(admin, open_metrics).await.ends_with("# EOF\n"));
}

#[tokio::test]
async fn nonsense_is_refused_without_harm() {
    let (admin, _) = start().await;
    let post = "POST /status HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    assert!(exchange(admin, post).await.starts_with("HTTP/1.1 405"));
    assert!(
        exchange(admin, "\u{16}\u{3}\u{1} garbage\r\n\r\n")
            .await
            .starts_with("HTTP/1.1 400")
    );
    let long = format!("GET /{} HTTP/1.1\r\n", "a".repeat(64 * 1024));
    let mut stream = TcpStream::connect(admin).await.unwrap();
    // The server may close before it has read all of it.
    let _ = stream.write_all(long.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP/1.1 200"));
    assert!(get(admin, "/healthz").await.starts_with("HTTP/1.1 200 OK"));
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_for_a_place() {
    let (admin, _) = start().await;
    let mut idle = Vec::new();
    for _ in 0..64 {
        idle.push(TcpStream::connect(admin).await.unwrap());
    }
    let waiting = tokio::spawn(async move { get(admin, "/healthz").await });
    drop(idle);
    assert!(waiting.await.unwrap().starts_with("HTTP/1.1 200 OK"));
}

#[tokio::test]
async fn a_taken_port_is_named_with_the_way_out() {
    let (admin, _) = start().await;
    let error = Admin::bind(admin).await.unwrap_err();
    assert!(matches!(error, AdminError::Bind { .. }));
    let message = error.to_string();
    assert!(
        message.contains(&admin.to_string()) && message.contains("--listen"),
        "{message}"
    );
}
