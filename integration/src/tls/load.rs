//! A client that speaks TLS without any library that is probed, and knows the port of each of its connections.

use crate::finished::Finished;
use crate::load::{Ask, Plan, expected_status};
use crate::span::{Kind, Span};
use crate::tally::{Outcome, Tally};
use crate::wire::Wire;
use anyhow::{Context, Result, anyhow, ensure};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{self, CryptoProvider};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

/// Longest wait for bytes.
const READ_LIMIT: Duration = Duration::from_secs(20);

/// Differences that a failure message lists.
const LISTED: usize = 20;

/// A connection to a server of the trial.
#[derive(Debug)]
pub struct Connection {
    wire: Wire,
    /// What the server is called in requests.
    host: String,
    /// Our port.
    pub port: u16,
}

impl Connection {
    /// Connects to a port of 127.0.0.1; the handshake comes with the first bytes.
    pub fn open(port: u16) -> Result<Self> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))
            .with_context(|| format!("cannot connect to port {port}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(READ_LIMIT))?;
        let own = stream.local_addr()?.port();
        let client = ClientConnection::new(configuration()?, ServerName::try_from("localhost")?)?;
        Ok(Self {
            wire: Wire::over(StreamOwned::new(client, stream)),
            host: format!("127.0.0.1:{port}"),
            port: own,
        })
    }

    /// Makes a request and reads its response. Fails unless the answer is the one that the route has.
    pub fn ask(&mut self, ask: &Ask) -> Result<Outcome> {
        let (method, target, body) = match ask {
            Ask::Get(target) => ("GET", target, None),
            Ask::Head(target) => ("HEAD", target, None),
            Ask::Post(target, length) => ("POST", target, Some((*length, false))),
            Ask::PostChunked(target, length) => ("POST", target, Some((*length, true))),
        };
        let mut request = format!(
            "{method} {target} HTTP/1.1\r\nHost: {}\r\nUser-Agent: pilotfish-integration/1\r\n",
            self.host
        );
        match body {
            None => request.push_str("\r\n"),
            Some((length, true)) => {
                write!(request, "Transfer-Encoding: chunked\r\n\r\n{length:x}\r\n")?;
                request.extend(std::iter::repeat_n('y', length));
                request.push_str("\r\n0\r\n\r\n");
            }
            Some((length, false)) => {
                write!(request, "Content-Length: {length}\r\n\r\n")?;
                request.extend(std::iter::repeat_n('x', length));
            }
        }
        self.wire.send(request)?;
        let answer = if method == "HEAD" {
            self.wire.response_without_body()
        } else {
            self.wire.response().map(|response| response.status)
        };
        let status = answer.with_context(|| format!("{method} {target}"))?;
        let expected = expected_status(target);
        ensure!(
            status == expected,
            "the fixture answered {status} to {method} {target}, not {expected}"
        );
        Ok(Outcome::new(method, target, status))
    }

    /// GETs a target.
    pub fn get(&mut self, target: &str) -> Result<Outcome> {
        self.ask(&Ask::Get(target.to_owned()))
    }
}

/// How often each outcome was seen on each connection, told by the client's port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exchanges(BTreeMap<(u16, Outcome), u64>);

impl Exchanges {
    /// Counts one exchange.
    pub fn add(&mut self, port: u16, outcome: Outcome) {
        *self.0.entry((port, outcome)).or_default() += 1;
    }

    /// Adds others.
    pub fn merge(&mut self, others: Self) {
        for (exchange, count) in others.0 {
            *self.0.entry(exchange).or_default() += count;
        }
    }

    /// All of them.
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }

    /// Without the ports.
    pub fn tally(&self) -> Tally {
        let outcomes = self.0.iter().flat_map(|((_, outcome), count)| {
            std::iter::repeat_n(
                outcome.clone(),
                usize::try_from(*count).unwrap_or(usize::MAX),
            )
        });
        outcomes.collect()
    }

    /// Those that server spans tell; a span without its client's port counts as of port 0.
    fn of_spans(spans: &[Span]) -> Result<Self> {
        let mut seen = Self::default();
        for span in spans.iter().filter(|span| span.kind == Kind::Server) {
            if let Some(status) = span.status_code() {
                let method = span.text("http.request.method")?;
                let port = span.integer("client.port").unwrap_or_default();
                seen.add(
                    u16::try_from(port)?,
                    Outcome::new(method, span.path(), status),
                );
            }
        }
        Ok(seen)
    }

    /// Fails unless the server spans are exactly these exchanges, each on its own connection or without an address. Gives
    /// how many have one.
    pub fn must_be_all_if_told(&self, finished: &Finished) -> Result<u64> {
        finished.must_match(&self.tally(), Kind::Server)?;
        let mut told = Self::of_spans(&finished.spans)?;
        told.0.retain(|(port, _), _| *port != 0);
        for ((port, outcome), seen) in &told.0 {
            let made = self.0.get(&(*port, outcome.clone())).unwrap_or(&0);
            ensure!(
                seen <= made,
                "{seen} times {outcome} from port {port}, {made} made"
            );
        }
        Ok(told.total())
    }

    /// Fails unless the server spans are exactly these exchanges of HTTPS with the server at this port, each on its own
    /// connection.
    pub fn must_be_all(&self, finished: &Finished, port: u16) -> Result<()> {
        finished.must_match(&self.tally(), Kind::Server)?;
        let seen = Self::of_spans(&finished.spans)?;
        let keys = self.0.keys().chain(seen.0.keys());
        let wrong: Vec<String> = keys
            .filter(|key| self.0.get(key) != seen.0.get(key))
            .take(LISTED)
            .map(|(port, outcome)| format!("{outcome} from port {port}"))
            .collect();
        ensure!(
            wrong.is_empty(),
            "exchanges on another connection than their own: {wrong:#?}"
        );
        for span in finished
            .spans
            .iter()
            .filter(|span| span.kind == Kind::Server)
        {
            check(span, port).with_context(|| format!("{span:?}"))?;
        }
        Ok(())
    }
}

/// What holds for every server span of HTTPS with our client.
fn check(span: &Span, port: u16) -> Result<()> {
    ensure!(span.text("url.scheme")? == "https", "url.scheme");
    ensure!(
        span.text("client.address")? == "127.0.0.1",
        "client.address"
    );
    ensure!(
        span.integer("server.port") == Some(i64::from(port)),
        "server.port"
    );
    ensure!(
        span.text("network.transport")? == "tcp",
        "network.transport"
    );
    Ok(())
}

/// Runs a plan against a server on the loopback interface, one thread and one connection per list.
pub fn run(port: u16, plan: &Plan) -> Result<Exchanges> {
    let mut all = Exchanges::default();
    std::thread::scope(|scope| {
        let threads: Vec<_> = plan
            .iter()
            .map(|asks| scope.spawn(move || run_connection(port, asks)))
            .collect();
        for thread in threads {
            let exchanges = thread.join();
            all.merge(exchanges.map_err(|_| anyhow!("a client thread panicked"))??);
        }
        Ok(all)
    })
}

fn run_connection(port: u16, asks: &[Ask]) -> Result<Exchanges> {
    let mut connection = Connection::open(port)?;
    let mut exchanges = Exchanges::default();
    for ask in asks {
        let outcome = connection.ask(ask)?;
        exchanges.add(connection.port, outcome);
    }
    Ok(exchanges)
}

fn configuration() -> Result<Arc<ClientConfig>> {
    let provider = Arc::new(crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone(provider)))
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// Takes every certificate: who answers is no question of these tests.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
