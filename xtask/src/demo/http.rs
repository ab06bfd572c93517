//! A keep-alive HTTP/1.1 client, just enough for the demo's own traffic and for the agent's pages.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};

const PATIENCE: Duration = Duration::from_secs(10);

/// One connection.
pub(super) struct Connection {
    address: SocketAddr,
    stream: BufReader<TcpStream>,
}

/// A response.
pub(super) struct Response {
    /// Status code.
    pub(super) status: u16,
    /// Body, decoded.
    pub(super) body: String,
}

impl Connection {
    /// Connects.
    pub(super) fn open(host: Ipv4Addr, port: u16) -> Result<Self> {
        let address = SocketAddr::from((host, port));
        let stream = TcpStream::connect_timeout(&address, PATIENCE)
            .with_context(|| format!("cannot connect to {address}"))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Self {
            address,
            stream: BufReader::new(stream),
        })
    }

    /// One request and its response; the connection stays open.
    pub(super) fn exchange(
        &mut self,
        method: &str,
        path: &str,
        traceparent: Option<&str>,
        json: Option<&str>,
    ) -> Result<Response> {
        let trace =
            traceparent.map_or_else(String::new, |value| format!("traceparent: {value}\r\n"));
        let body = json.unwrap_or_default();
        let content = match body.len() {
            0 => String::new(),
            length => format!("Content-Type: application/json\r\nContent-Length: {length}\r\n"),
        };
        let host = self.address;
        let request =
            format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n{trace}{content}\r\n{body}");
        self.stream.get_mut().write_all(request.as_bytes())?;
        self.response()
            .with_context(|| format!("no valid response to {method} {path} from {}", self.address))
    }

    fn response(&mut self) -> Result<Response> {
        let status_line = self.line()?;
        let status = status_line
            .split(' ')
            .nth(1)
            .and_then(|code| code.parse().ok())
            .with_context(|| format!("bad status line {status_line:?}"))?;
        let (mut length, mut chunked) = (0, false);
        loop {
            let header = self.line()?.to_ascii_lowercase();
            match header.split_once(':') {
                None => break,
                Some(("content-length", value)) => length = value.trim().parse()?,
                Some(("transfer-encoding", value)) => chunked = value.trim() == "chunked",
                Some(_) => {}
            }
        }
        let body = if chunked {
            self.chunks()?
        } else {
            self.bytes(length)?
        };
        Ok(Response {
            status,
            body: String::from_utf8(body)?,
        })
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            bail!("the connection was closed");
        }
        Ok(line.trim_end().to_owned())
    }

    fn bytes(&mut self, length: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.stream.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn chunks(&mut self) -> Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let length = usize::from_str_radix(&self.line()?, 16)?;
            body.extend(self.bytes(length)?);
            self.line()?;
            if length == 0 {
                return Ok(body);
            }
        }
    }
}

/// One `GET` on a connection of its own.
pub(super) fn get(host: Ipv4Addr, port: u16, path: &str) -> Result<Response> {
    Connection::open(host, port)?.exchange("GET", path, None, None)
}
