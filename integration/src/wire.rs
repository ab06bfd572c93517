//! A connection whose bytes the trial decides, for what no well-behaved client sends.

use anyhow::{Context, Result, bail, ensure};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// Longest wait for bytes.
const READ_LIMIT: Duration = Duration::from_secs(10);
/// Headers that a response of our fixtures can have.
const MOST_HEADERS: usize = 32;

/// A stream that can be read and written.
pub trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// One connection.
pub struct Wire {
    stream: Box<dyn Stream>,
    received: Vec<u8>,
}

impl std::fmt::Debug for Wire {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            formatter,
            "Wire with {} bytes not taken",
            self.received.len()
        )
    }
}

/// A response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Body without its chunk framing.
    pub body: Vec<u8>,
}

impl Wire {
    /// Connects to a port of 127.0.0.1.
    pub fn connect(port: u16) -> Result<Self> {
        Self::connect_to((Ipv4Addr::LOCALHOST, port).into())
    }

    /// Connects to any address.
    pub fn connect_to(address: SocketAddr) -> Result<Self> {
        let stream =
            TcpStream::connect(address).with_context(|| format!("cannot connect to {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(READ_LIMIT))?;
        Ok(Self {
            stream: Box::new(stream),
            received: Vec::new(),
        })
    }

    /// Speaks through a stream that is connected already and does not wait forever.
    pub fn over(stream: impl Stream + 'static) -> Self {
        Self {
            stream: Box::new(stream),
            received: Vec::new(),
        }
    }

    /// Connects to a unix stream socket.
    pub fn connect_unix(path: &Path) -> Result<Self> {
        let stream = UnixStream::connect(path)
            .with_context(|| format!("cannot connect to {}", path.display()))?;
        stream.set_read_timeout(Some(READ_LIMIT))?;
        Ok(Self {
            stream: Box::new(stream),
            received: Vec::new(),
        })
    }

    /// Sends bytes as they are, in one write.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> Result<()> {
        self.stream.write_all(bytes.as_ref()).context("cannot send")
    }

    /// Sends a GET of `target`.
    pub fn get(&mut self, target: &str) -> Result<()> {
        self.send(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"))
    }

    /// Sends a GET and reads its response.
    pub fn ask(&mut self, target: &str) -> Result<Response> {
        self.get(target)?;
        self.response()
    }

    /// Reads one response; an interim one (1xx) counts as a response without a body.
    pub fn response(&mut self) -> Result<Response> {
        loop {
            if let Some((response, length)) = parse(&self.received)? {
                self.received.drain(..length);
                return Ok(response);
            }
            self.fill()?;
        }
    }

    /// Reads one response whose head says how long a body would be, without one: to HEAD, or 304.
    pub fn response_without_body(&mut self) -> Result<u16> {
        loop {
            let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
            let mut head = httparse::Response::new(&mut headers);
            if let httparse::Status::Complete(length) =
                head.parse(&self.received).context("not a response")?
            {
                let status = head.code.context("a complete head has a status")?;
                self.received.drain(..length);
                return Ok(status);
            }
            self.fill()?;
        }
    }

    /// Reads until the peer closes and gives back all that has come.
    pub fn until_close(mut self) -> Result<Vec<u8>> {
        self.stream
            .read_to_end(&mut self.received)
            .context("no end in time")?;
        Ok(self.received)
    }

    /// Reads until at least one byte came and gives back all that has come.
    pub fn take(&mut self) -> Result<Vec<u8>> {
        if self.received.is_empty() {
            self.fill()?;
        }
        Ok(std::mem::take(&mut self.received))
    }

    fn fill(&mut self) -> Result<()> {
        let mut buffer = [0; 16 * 1024];
        let count = self
            .stream
            .read(&mut buffer)
            .context("no response in time")?;
        ensure!(count > 0, "the peer closed the connection");
        self.received.extend_from_slice(&buffer[..count]);
        Ok(())
    }
}

/// A complete response at the start of `bytes`, and its length there.
fn parse(bytes: &[u8]) -> Result<Option<(Response, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut head = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(start) = head.parse(bytes).context("not a response")? else {
        return Ok(None);
    };
    let status = head.code.context("a complete head has a status")?;
    let header = |name: &str| {
        head.headers
            .iter()
            .find(|header| header.name.eq_ignore_ascii_case(name))
            .map(|header| String::from_utf8_lossy(header.value))
    };
    let body = if header("transfer-encoding").is_some() {
        dechunk(&bytes[start..])?
    } else {
        let length: usize = header("content-length").map_or(Ok(0), |value| value.trim().parse())?;
        bytes[start..]
            .get(..length)
            .map(|body| (body.to_vec(), length))
    };
    Ok(body.map(|(body, length)| (Response { status, body }, start + length)))
}

/// The decoded body and the number of bytes it takes, or nothing while it is incomplete.
fn dechunk(bytes: &[u8]) -> Result<Option<(Vec<u8>, usize)>> {
    let mut body = Vec::new();
    let mut position = 0;
    loop {
        match httparse::parse_chunk_size(&bytes[position..]) {
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(_) => bail!("not a chunk size"),
            Ok(httparse::Status::Complete((prefix, size))) => {
                let start = position + prefix;
                let end = start + usize::try_from(size)?;
                if bytes.len() < end + 2 {
                    return Ok(None);
                }
                body.extend_from_slice(&bytes[start..end]);
                position = end + 2;
                if size == 0 {
                    return Ok(Some((body, position)));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn responses_are_cut_out_of_the_stream_only_when_complete() {
        let stream = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nde\r\n1\r\nf\r\n0\r\n\r\n";
        let (first, length) = parse(stream).expect("valid").expect("complete");
        assert_eq!(
            first,
            Response {
                status: 200,
                body: b"abc".to_vec()
            }
        );
        let rest = &stream[length..];
        for end in 0..rest.len() {
            assert_eq!(parse(&rest[..end]).expect("a prefix"), None, "{end}");
        }
        let (second, _) = parse(rest).expect("valid").expect("complete");
        assert_eq!(second.body, b"def");
    }
}
