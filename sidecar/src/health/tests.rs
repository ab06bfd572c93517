use super::*;
use pilotfish_export::{
    admin::{Admin, Pages, Readiness},
    prometheus::Format,
};
use std::{net::TcpListener, sync::Arc, thread};

fn args(address: SocketAddr, ready: bool) -> HealthArgs {
    HealthArgs {
        listen: Listen::On(address),
        ready,
    }
}

/// The agent's own pages, which say that it waits for something.
struct Unready;

impl Pages for Unready {
    fn metrics(&self, _: Format) -> String {
        String::new()
    }

    fn ready(&self) -> Readiness {
        Readiness {
            reasons: vec!["3 processes are not observed".to_owned()],
            ..Readiness::default()
        }
    }

    fn status(&self) -> serde_json::Value {
        serde_json::Value::Null
    }
}

/// Asks the real server, which listens on all interfaces.
async fn ask_the_pages(ready: bool) -> Result<(), HealthError> {
    let admin = Admin::bind((Ipv4Addr::UNSPECIFIED, 0).into())
        .await
        .unwrap();
    let address = admin.address();
    let server = tokio::spawn(admin.serve(Arc::new(Unready)));
    let result = tokio::task::spawn_blocking(move || ask(&args(address, ready), DEADLINE))
        .await
        .unwrap();
    server.abort();
    result
}

#[tokio::test]
async fn a_living_agent_is_well() {
    ask_the_pages(false).await.unwrap();
}

#[tokio::test]
async fn an_agent_that_is_not_ready_says_why() {
    let error = ask_the_pages(true).await.unwrap_err();
    assert!(
        matches!(error, HealthError::Unwell { status: 503, .. }),
        "{error}"
    );
    let said = error.to_string();
    assert!(said.contains("3 processes are not observed"), "{said}");
}

/// Accepts one connection and hands it over; the second value is where it listens.
fn peer(serve: impl FnOnce(TcpStream) + Send + 'static) -> (thread::JoinHandle<()>, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let thread = thread::spawn(move || serve(listener.accept().unwrap().0));
    (thread, address)
}

#[test]
fn nobody_there_is_told_from_somebody_silent() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let error = ask(&args(address, false), DEADLINE).unwrap_err();
    assert!(matches!(error, HealthError::Connect { .. }), "{error}");

    let (ended, end) = std::sync::mpsc::channel::<()>();
    let (thread, address) = peer(move |stream| {
        let _ = end.recv();
        drop(stream);
    });
    let error = ask(&args(address, false), Duration::from_millis(50)).unwrap_err();
    assert!(matches!(error, HealthError::Silent { .. }), "{error}");
    drop(ended);
    thread.join().unwrap();
}

#[test]
fn an_answer_that_never_ends_is_given_up() {
    let (thread, address) = peer(
        |mut stream| {
            while stream.write_all(b"HTTP/1.1 200 OK\r\n").is_ok() {}
        },
    );
    let error = ask(&args(address, false), DEADLINE).unwrap_err();
    assert!(matches!(error, HealthError::Foreign(_)), "{error}");
    thread.join().unwrap();
}

#[test]
fn only_http_is_an_answer() {
    assert_eq!(
        read_answer(b"HTTP/1.1 503 Service Unavailable\r\na: b\r\n\r\nwhy"),
        Some((503, "why".to_owned()))
    );
    let answers: [&[u8]; 6] = [
        b"",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.\r\n\r\n",
        b"HTTP/1.1 2\xc3\xa9\r\n\r\n",
        b"HTTP/1.1-200\r\n\r\n",
        b"+PONG\r\n\r\n",
    ];
    for answer in answers {
        assert_eq!(read_answer(answer), None, "{answer:?}");
    }
}

#[test]
fn all_interfaces_are_met_on_the_loopback() {
    for (listens, met) in [
        ("0.0.0.0:9464", "127.0.0.1:9464"),
        ("[::]:80", "[::1]:80"),
        ("192.0.2.7:80", "192.0.2.7:80"),
    ] {
        assert_eq!(
            reachable(listens.parse().unwrap()),
            met.parse().unwrap(),
            "{listens}"
        );
    }
}

#[test]
fn pages_that_are_off_cannot_be_asked() {
    let off = HealthArgs {
        listen: Listen::Off,
        ready: false,
    };
    assert!(matches!(ask(&off, DEADLINE), Err(HealthError::Off)));
}
