//! HTTP/1.0 and HTTP/1.1 (RFC 9110, RFC 9112), both roles.

mod body;
mod buffer;
mod detect;
mod early;
mod head;
mod parser;
mod pending;
mod samples;
#[cfg(test)]
mod tests;

use super::Protocol;

/// The line of the protocol table.
pub(super) const PROTOCOL: Protocol = Protocol {
    name: "http1",
    summary: "HTTP/1.0 and HTTP/1.1: keep-alive, pipelining, chunked and close-delimited bodies, CONNECT, Upgrade (to HTTP/2 it is followed)",
    detect: |bytes, _| detect::detect(bytes),
    parser: |info, direction, side| Box::new(parser::Http1::new(&info, direction, side)),
    samples: samples::SAMPLES,
};
