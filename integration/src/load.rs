//! A client with a tally: a known list of requests over keep-alive connections.
//!
//! Every fixture server answers these routes, whatever follows them in the path:
//!
//! | route | answer |
//! |---|---|
//! | `/small`, `/items/N` | 200, a few bytes |
//! | `/missing/...` | 404 |
//! | `/error/...` | 500 |
//! | `/empty` | 204 |
//! | `/large` | 200, 1 MiB with a Content-Length |
//! | `/chunked` | 200, several chunks |
//! | `POST /echo/...` | 200 once the whole body was read |
//! | `/slow` | 200 after a third of a second |

use crate::tally::{Outcome, Tally};
use anyhow::{Context, Result, anyhow, bail, ensure};
use std::io::{Cursor, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};
use ureq::{Agent, SendBody};

/// Longest time for one request: a hang is a failure, not a wait.
const REQUEST_LIMIT: Duration = Duration::from_secs(20);

/// Largest response that is read.
const RESPONSE_LIMIT: u64 = 8 << 20;

/// A request to make.
#[derive(Clone, Debug)]
pub enum Ask {
    /// GET of a target.
    Get(String),
    /// HEAD of a target.
    Head(String),
    /// POST to a target with a body of this many bytes and a Content-Length.
    Post(String, usize),
    /// The same with a chunked body.
    PostChunked(String, usize),
}

/// Requests of each connection, in order.
pub type Plan = Vec<Vec<Ask>>;

/// The mix of methods, statuses and body forms that each server has to handle: `connections` times `rounds`.
pub fn mix(connections: usize, rounds: usize) -> Plan {
    (0..connections)
        .map(|connection| {
            (0..rounds)
                .flat_map(|round| round_of(connection, round))
                .collect()
        })
        .collect()
}

fn round_of(connection: usize, round: usize) -> Vec<Ask> {
    let number = connection * 1000 + round;
    let mut asks = vec![
        Ask::Get("/small".to_owned()),
        Ask::Get(format!("/items/{number}?token=secret-{number}")),
        Ask::Get(format!("/missing/{number}")),
        Ask::Get(format!("/error/{number}")),
        Ask::Head("/small".to_owned()),
        Ask::Get("/empty".to_owned()),
        Ask::Post(format!("/echo/{number}"), 5),
        Ask::Get("/chunked".to_owned()),
        Ask::Post(format!("/echo/more/{number}"), 30_000),
    ];
    if round.is_multiple_of(5) {
        asks.extend([
            Ask::Get("/large".to_owned()),
            Ask::Post(format!("/echo/most/{number}"), 1 << 20),
            Ask::PostChunked(format!("/echo/chunked/{number}"), 10_000),
        ]);
    }
    asks
}

/// `count` distinct small GET requests on each connection; a third of them fail with 404 and a third with 500.
pub fn numbered(connections: usize, count: usize) -> Plan {
    let target = |number: usize| match number % 3 {
        0 => format!("/items/{number}"),
        1 => format!("/missing/{number}"),
        _ => format!("/error/{number}"),
    };
    (0..connections)
        .map(|c| {
            (0..count)
                .map(|i| Ask::Get(target(c * count + i)))
                .collect()
        })
        .collect()
}

/// Runs a plan against a server on the loopback interface, one thread and one connection per list.
pub fn run(port: u16, plan: &Plan) -> Result<Tally> {
    let mut tally = Tally::default();
    std::thread::scope(|scope| {
        let threads: Vec<_> = plan
            .iter()
            .map(|asks| scope.spawn(move || run_connection(port, asks)))
            .collect();
        for thread in threads {
            tally.merge(
                thread
                    .join()
                    .map_err(|_| anyhow!("a client thread panicked"))??,
            );
        }
        Ok(tally)
    })
}

fn run_connection(port: u16, asks: &[Ask]) -> Result<Tally> {
    let agent = client();
    asks.iter().map(|ask| perform(&agent, port, ask)).collect()
}

/// An HTTP client that takes every status as an answer and keeps its connection.
pub fn client() -> Agent {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .proxy(None)
        .timeout_global(Some(REQUEST_LIMIT))
        .user_agent("pilotfish-integration/1")
        .build();
    config.into()
}

fn perform(agent: &Agent, port: u16, ask: &Ask) -> Result<Outcome> {
    let base = format!("http://127.0.0.1:{port}");
    let (method, target, response) = match ask {
        Ask::Get(target) => (
            "GET",
            target.as_str(),
            agent.get(format!("{base}{target}")).call(),
        ),
        Ask::Head(target) => (
            "HEAD",
            target.as_str(),
            agent.head(format!("{base}{target}")).call(),
        ),
        Ask::Post(target, length) => {
            let response = agent
                .post(format!("{base}{target}"))
                .send(&vec![b'x'; *length]);
            ("POST", target.as_str(), response)
        }
        Ask::PostChunked(target, length) => {
            let mut body = Cursor::new(vec![b'y'; *length]);
            let response = agent
                .post(format!("{base}{target}"))
                .send(SendBody::from_reader(&mut body));
            ("POST", target.as_str(), response)
        }
    };
    let mut response = response.with_context(|| format!("{method} {target} failed"))?;
    response
        .body_mut()
        .with_config()
        .limit(RESPONSE_LIMIT)
        .read_to_vec()
        .with_context(|| format!("body of {method} {target}"))?;
    let status = response.status().as_u16();
    let expected = expected_status(target);
    if status != expected {
        bail!("the fixture answered {status} to {method} {target}, not {expected}");
    }
    Ok(Outcome::new(method, target, status))
}

pub(crate) fn expected_status(target: &str) -> u16 {
    match target.split(['/', '?']).nth(1) {
        Some("missing") => 404,
        Some("error") => 500,
        Some("empty") => 204,
        _ => 200,
    }
}

/// Asks a server that does not run yet: connects again and again until one listens, and sends the request in the same
/// moment. Fails unless the answer is 200.
pub fn ask_first(port: u16, path: &str) -> Result<()> {
    let deadline = Instant::now() + REQUEST_LIMIT;
    let mut stream = loop {
        match TcpStream::connect((Ipv4Addr::LOCALHOST, port)) {
            Ok(stream) => break stream,
            Err(error) if Instant::now() > deadline => {
                return Err(error).with_context(|| format!("nobody listens on port {port}"));
            }
            // Short, so that the request comes in the server's first millisecond.
            Err(_) => std::thread::sleep(Duration::from_micros(200)),
        }
    };
    stream.set_read_timeout(Some(REQUEST_LIMIT))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: trial\r\n\r\n")?;
    let mut answer = [0; 4096];
    let length = stream
        .read(&mut answer)
        .with_context(|| format!("no answer to the first request, {path}"))?;
    let answer = String::from_utf8_lossy(&answer[..length]);
    ensure!(answer.starts_with("HTTP/1.1 200 "), "{path}: {answer:?}");
    Ok(())
}

/// Starts a server while a client is asking for it already, see [`ask_first`].
pub fn first_request<T>(port: u16, path: &str, start: impl FnOnce() -> Result<T>) -> Result<T> {
    std::thread::scope(|scope| {
        let client = scope.spawn(|| ask_first(port, path));
        let started = start();
        let asked = client
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        started.and_then(|started| asked.map(|()| started))
    })
}

/// GETs a URL and gives back status and text.
pub fn fetch(url: &str) -> Result<(u16, String)> {
    let mut response = client()
        .get(url)
        .call()
        .with_context(|| format!("GET {url} failed"))?;
    let text = response
        .body_mut()
        .with_config()
        .limit(RESPONSE_LIMIT)
        .read_to_string()?;
    Ok((response.status().as_u16(), text))
}
