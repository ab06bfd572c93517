//! `pilotfish health`: asks a running agent how it is; an image without a shell needs it for its health check.
//!
//! One GET of HTTP/1.1 (RFC 9112) on a connection of its own, which the answer's end closes. Status and a bounded body
//! are all that is read of it.

use crate::cli::{Listen, parse_listen};
use clap::Args;
use std::{
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    time::{Duration, Instant},
};

/// Time for the whole question, from the first packet to the last. Health checks are commonly given 3 s and more.
const DEADLINE: Duration = Duration::from_secs(2);

/// Longest answer that is read, bytes; what the pages say is a few hundred.
const MAX_ANSWER: u64 = 64 * 1024;

/// Arguments of `pilotfish health`.
#[derive(Debug, Args)]
pub struct HealthArgs {
    /// Where the agent serves its pages. An address that means all interfaces means this machine's own here.
    #[arg(long, value_name = "ADDRESS", env = "PILOTFISH_LISTEN", value_parser = parse_listen,
          default_value = "127.0.0.1:9464")]
    pub listen: Listen,
    /// Ask whether it is ready (/readyz), not only whether it lives (/healthz).
    #[arg(long)]
    pub ready: bool,
}

/// Why the agent is not well, or not known to be.
#[derive(Debug, thiserror::Error)]
pub enum HealthError {
    /// It serves no pages.
    #[error(
        "the agent serves no pages (--listen off), so nobody can ask it; give --listen an address, and \
         the agent the same one"
    )]
    Off,
    /// Nobody accepts connections there.
    #[error(
        "no agent answers on {address}: {source}; does it run, and is that its --listen address?"
    )]
    Connect {
        /// Who was asked.
        address: SocketAddr,
        /// The cause.
        source: io::Error,
    },
    /// The answer did not come whole and in time.
    #[error(
        "the agent on {address} did not answer within {} s: {source}; it hangs or the machine is overloaded",
        DEADLINE.as_secs()
    )]
    Silent {
        /// Who was asked.
        address: SocketAddr,
        /// The cause.
        source: io::Error,
    },
    /// Somebody else listens there.
    #[error("what answers on {0} does not speak HTTP: another program has the agent's address")]
    Foreign(SocketAddr),
    /// It says that it is not well.
    #[error("the agent on {address} answers {path} with status {status}: {body}")]
    Unwell {
        /// Who was asked.
        address: SocketAddr,
        /// The page.
        path: &'static str,
        /// The HTTP status.
        status: u16,
        /// The page's text, which names the reasons.
        body: String,
    },
}

/// Runs the command; the result is the exit code. It says nothing when all is well.
pub fn run(args: &HealthArgs) -> anyhow::Result<u8> {
    ask(args, DEADLINE)?;
    Ok(0)
}

fn ask(args: &HealthArgs, limit: Duration) -> Result<(), HealthError> {
    let Listen::On(address) = args.listen else {
        return Err(HealthError::Off);
    };
    let address = reachable(address);
    let path = if args.ready { "/readyz" } else { "/healthz" };
    let answer = fetch(address, path, Instant::now() + limit)?;
    let (status, body) = read_answer(&answer).ok_or(HealthError::Foreign(address))?;
    if status == 200 {
        return Ok(());
    }
    Err(HealthError::Unwell {
        address,
        path,
        status,
        body: body.trim().to_owned(),
    })
}

/// Where a server that listens on this address is met from its own machine.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}

fn fetch(
    address: SocketAddr,
    path: &'static str,
    deadline: Instant,
) -> Result<Vec<u8>, HealthError> {
    let connect_error = |source| HealthError::Connect { address, source };
    let left = remaining(deadline).map_err(connect_error)?;
    let stream = TcpStream::connect_timeout(&address, left).map_err(connect_error)?;
    exchange(stream, address, path, deadline)
        .map_err(|source| HealthError::Silent { address, source })
}

fn exchange(
    mut stream: TcpStream,
    address: SocketAddr,
    path: &str,
    deadline: Instant,
) -> io::Result<Vec<u8>> {
    stream.set_write_timeout(Some(remaining(deadline)?))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    let mut stream = stream.take(MAX_ANSWER);
    let mut chunk = [0; 4096];
    loop {
        // A limit per read alone would let an answer of single bytes take for ever.
        stream
            .get_ref()
            .set_read_timeout(Some(remaining(deadline)?))?;
        match stream.read(&mut chunk) {
            Ok(0) => return Ok(answer),
            Ok(read) => answer.extend_from_slice(&chunk[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(timed_out()),
            Err(error) => return Err(error),
        }
    }
}

/// Time until the deadline, more than none: zero means "for ever" to a socket.
fn remaining(deadline: Instant) -> io::Result<Duration> {
    deadline
        .checked_duration_since(Instant::now())
        .filter(|left| !left.is_zero())
        .ok_or_else(timed_out)
}

fn timed_out() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the time is over")
}

/// Status code and body of an answer.
fn read_answer(answer: &[u8]) -> Option<(u16, String)> {
    let text = String::from_utf8_lossy(answer);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.")?.get(1..)?;
    let code = status.strip_prefix(' ')?.get(..3)?.parse().ok()?;
    Some((code, body.to_owned()))
}

#[cfg(test)]
mod tests;
