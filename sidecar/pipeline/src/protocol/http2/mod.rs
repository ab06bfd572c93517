//! HTTP/2 (RFC 9113), both roles, and with it gRPC ([`super::grpc`]).

mod connection;
mod detect;
mod fields;
mod frame;
mod framing;
mod samples;
mod stream;
mod streams;
#[cfg(test)]
mod tests;

use super::Protocol;
pub(super) use connection::Http2;

/// The line of the protocol table.
pub(super) const PROTOCOL: Protocol = Protocol {
    name: "http2",
    summary: "HTTP/2: prior knowledge and above TLS, concurrent streams, header compression, trailers, resets; gRPC and gRPC-Web",
    detect: detect::detect,
    parser: |info, direction, side| Box::new(Http2::new(&info, direction, side)),
    samples: samples::SAMPLES,
};
