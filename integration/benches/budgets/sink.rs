//! A collector that reads what it is sent over HTTP/1.1, counts it, and agrees.

use crate::machine::Cores;
use anyhow::{Context, Result};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

/// Listens until this program ends.
pub(crate) struct Sink {
    address: SocketAddr,
    bytes: Arc<AtomicU64>,
}

impl Sink {
    /// A sink on a port of its own, on the client's processor: a collector is not the server's business.
    pub(crate) fn start(cores: Cores) -> Result<Self> {
        let mut processors = CpuSet::new();
        processors.set(cores.client)?;
        let listener =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("cannot bind a loopback port")?;
        let address = listener.local_addr()?;
        let bytes = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&bytes);
        thread::spawn(move || {
            // Inherited by the threads below; it cannot fail for a processor that this program may use.
            let _ = sched_setaffinity(Pid::from_raw(0), &processors);
            for stream in listener.incoming().flatten() {
                let counter = Arc::clone(&counter);
                // A broken connection is the agent's loss, and the agent counts it.
                thread::spawn(move || serve(stream, &counter).ok());
            }
        });
        Ok(Self { address, bytes })
    }

    /// Its endpoint for OTLP.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Bytes of all request bodies so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

/// Answers requests with a Content-Length, which is what OTLP exporters send, until the peer closes.
fn serve(stream: TcpStream, counter: &AtomicU64) -> std::io::Result<()> {
    let mut stream = BufReader::with_capacity(256 << 10, stream);
    loop {
        let (mut line, mut length) = (String::new(), 0);
        while stream.read_line(&mut line)? > 2 {
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().unwrap_or(0);
            }
            line.clear();
        }
        if line.is_empty() {
            return Ok(());
        }
        let read = std::io::copy(
            &mut Read::by_ref(&mut stream).take(length),
            &mut std::io::sink(),
        )?;
        counter.fetch_add(read, Ordering::Relaxed);
        let answer =
            "HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n";
        stream.get_mut().write_all(answer.as_bytes())?;
    }
}
