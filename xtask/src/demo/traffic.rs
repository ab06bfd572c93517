//! The demo's requests, and what each must leave in the traces.

use std::net::Ipv4Addr;
use std::thread;

use anyhow::{Context, Result, bail};

use super::container::random_hex;
use super::http::Connection;
use super::interrupt;
use super::pod::{NGINX, SHOP, STOCK};

const WORKERS: u32 = 4;
const REQUESTS_PER_WORKER: u32 = 50;

/// One request of the client.
#[derive(Clone, Debug)]
struct Request {
    method: &'static str,
    path: String,
    route: &'static str,
    json: Option<&'static str>,
    status: u16,
    /// Ports of the servers that it passes, the first one first.
    servers: &'static [u16],
    /// Path and route of the call that the application makes for it.
    inner: Option<(String, &'static str)>,
}

/// A server's side of a request, as a span must show it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Served {
    /// Port of the server.
    pub(super) port: u16,
    /// Method.
    pub(super) method: String,
    /// Path.
    pub(super) path: String,
    /// Route pattern.
    pub(super) route: String,
    /// Status code.
    pub(super) status: u16,
}

/// A trace that the client began, known to its servers by `traceparent`.
#[derive(Clone, Debug)]
pub(super) struct Begun {
    /// Trace id.
    pub(super) trace_id: String,
    /// The client's span, the parent of what the servers do.
    pub(super) span_id: String,
    /// Ports of the servers that the request reached.
    pub(super) servers: Vec<u16>,
}

/// What the client did.
#[derive(Default)]
pub(super) struct Tally {
    /// How many requests it sent.
    pub(super) requests: usize,
    /// Every server's side of them.
    pub(super) served: Vec<Served>,
    /// Requests that carried a `traceparent`, in order.
    pub(super) begun: Vec<Begun>,
}

/// Sends everything: first a tour, one request of each sort after the other, most with a `traceparent`; then several
/// keep-alive connections at once.
pub(super) fn send(pod: Ipv4Addr) -> Result<Tally> {
    let mut tally = Tally::default();
    let mut connection = Connection::open(pod, NGINX)?;
    for request in tour() {
        interrupt::check()?;
        let begun = Some(Begun {
            trace_id: random_hex()?,
            span_id: random_hex()?[..16].to_owned(),
            servers: request.all_servers(),
        });
        request.send(&mut connection, begun, &mut tally)?;
    }
    let workers: Vec<_> = (0..WORKERS)
        .map(|worker| thread::spawn(move || work(pod, worker)))
        .collect();
    for worker in workers {
        let Ok(result) = worker.join() else {
            bail!("a thread of the client panicked");
        };
        let part = result?;
        tally.requests += part.requests;
        tally.served.extend(part.served);
    }
    Ok(tally)
}

fn work(pod: Ipv4Addr, worker: u32) -> Result<Tally> {
    let mut tally = Tally::default();
    let mut connection = Connection::open(pod, NGINX)?;
    for turn in 0..REQUESTS_PER_WORKER {
        interrupt::check()?;
        mixed(worker, turn).send(&mut connection, None, &mut tally)?;
    }
    Ok(tally)
}

impl Request {
    fn all_servers(&self) -> Vec<u16> {
        let inner = self.inner.is_some().then_some(STOCK);
        self.servers.iter().copied().chain(inner).collect()
    }

    fn send(
        self,
        connection: &mut Connection,
        begun: Option<Begun>,
        tally: &mut Tally,
    ) -> Result<()> {
        let traceparent = begun
            .as_ref()
            .map(|begun| format!("00-{}-{}-01", begun.trace_id, begun.span_id));
        let response = connection
            .exchange(self.method, &self.path, traceparent.as_deref(), self.json)
            .context("the demo's client")?;
        if response.status != self.status {
            bail!(
                "{} {} was answered with {}, not {}",
                self.method,
                self.path,
                response.status,
                self.status
            );
        }
        tally.requests += 1;
        tally.served.extend(self.servers.iter().map(|&port| Served {
            port,
            method: self.method.to_owned(),
            path: self.path.clone(),
            route: self.route.to_owned(),
            status: response.status,
        }));
        tally.served.extend(self.inner.map(|(path, route)| Served {
            port: STOCK,
            method: "GET".to_owned(),
            path,
            route: route.to_owned(),
            status: 200,
        }));
        tally.begun.extend(begun);
        Ok(())
    }
}

fn tour() -> Vec<Request> {
    vec![
        order(7),
        user(42),
        report("sales"),
        user(4711),
        checkout_refused(),
        checkout(),
        health(),
    ]
}

/// The requests of the load: unlike numbers, so that routes have something to do; few slow ones.
fn mixed(worker: u32, turn: u32) -> Request {
    let number = worker * REQUESTS_PER_WORKER + turn;
    match turn % 10 {
        0..=3 => user(number),
        4 => user(1000 + number),
        5 | 6 => order(number),
        7 => checkout(),
        8 if turn == 8 => report("stock"),
        8 => health(),
        _ => checkout_refused(),
    }
}

fn through_nginx(method: &'static str, path: String, route: &'static str, status: u16) -> Request {
    Request {
        method,
        path,
        route,
        json: None,
        status,
        servers: &[NGINX, SHOP],
        inner: None,
    }
}

fn health() -> Request {
    Request {
        servers: &[NGINX],
        ..through_nginx("GET", "/health".to_owned(), "/health", 200)
    }
}

fn user(id: u32) -> Request {
    let status = if id < 1000 { 200 } else { 404 };
    through_nginx("GET", format!("/users/{id}"), "/users/{id}", status)
}

/// What `images/demo/shop.py` asks the stock service while it answers for this path.
pub(super) fn stock_path(path: &str) -> Option<String> {
    let order: u32 = path.strip_prefix("/orders/")?.parse().ok()?;
    Some(format!("/stock/{}", order % 10))
}

fn order(id: u32) -> Request {
    let path = format!("/orders/{id}");
    Request {
        inner: stock_path(&path).map(|stock| (stock, "/stock/{id}")),
        ..through_nginx("GET", path, "/orders/{id}", 200)
    }
}

fn report(name: &str) -> Request {
    through_nginx("GET", format!("/reports/{name}"), "/reports/{name}", 200)
}

fn checkout() -> Request {
    Request {
        json: Some(r#"{"total": 30}"#),
        ..through_nginx("POST", "/checkout".to_owned(), "/checkout", 201)
    }
}

fn checkout_refused() -> Request {
    Request {
        json: Some(r#"{"total": 300}"#),
        ..through_nginx("POST", "/checkout".to_owned(), "/checkout", 500)
    }
}
