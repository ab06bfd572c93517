//! OpenTelemetry semantic conventions: attribute keys and instruments (stable HTTP conventions, version 1.4x).
//!
//! Keys come from the published crate, so that a misspelt or outdated one does not compile.

use crate::model::Instrument;
pub use opentelemetry_semantic_conventions::attribute::{
    CLIENT_ADDRESS, ERROR_TYPE, HTTP_REQUEST_BODY_SIZE, HTTP_REQUEST_METHOD,
    HTTP_REQUEST_METHOD_ORIGINAL, HTTP_RESPONSE_BODY_SIZE, HTTP_RESPONSE_STATUS_CODE, HTTP_ROUTE,
    NETWORK_LOCAL_ADDRESS, NETWORK_LOCAL_PORT, NETWORK_PEER_ADDRESS, NETWORK_PEER_PORT,
    NETWORK_PROTOCOL_NAME, NETWORK_PROTOCOL_VERSION, NETWORK_TRANSPORT, NETWORK_TYPE, RPC_METHOD,
    RPC_METHOD_ORIGINAL, RPC_RESPONSE_STATUS_CODE, RPC_SYSTEM_NAME, SERVER_ADDRESS, SERVER_PORT,
    URL_FULL, URL_PATH, URL_QUERY, URL_SCHEME, USER_AGENT_ORIGINAL,
};
use opentelemetry_semantic_conventions::metric;

/// Stands for a method that is none of the known ones, or of too many.
pub const OTHER: &str = "_OTHER";

/// True of a span whose request head was not seen completely: header compression referred to what was sent before the
/// connection was observed. Ours; no convention has a key for it.
pub const HEAD_INCOMPLETE: &str = "pilotfish.head_incomplete";

/// Seconds; the boundaries that the HTTP, RPC and database conventions advise.
pub const DURATION_BOUNDARIES: &[f64] = &[
    0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
];

/// Bytes. The conventions advise none for sizes: zero (no body) apart, then powers of four from 64 B to 64 MiB, so
/// that one empty, small, page-sized and bulk body each land in a bucket of their own.
pub const SIZE_BOUNDARIES: &[f64] = &[
    0.0,
    64.0,
    256.0,
    1024.0,
    4096.0,
    16_384.0,
    65_536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
];

/// Duration of requests that the container answered.
pub static HTTP_SERVER_REQUEST_DURATION: Instrument = Instrument {
    name: metric::HTTP_SERVER_REQUEST_DURATION,
    unit: "s",
    description: "Duration of HTTP server requests.",
    boundaries: DURATION_BOUNDARIES,
};

/// Duration of requests that the container made.
pub static HTTP_CLIENT_REQUEST_DURATION: Instrument = Instrument {
    name: metric::HTTP_CLIENT_REQUEST_DURATION,
    unit: "s",
    description: "Duration of HTTP client requests.",
    boundaries: DURATION_BOUNDARIES,
};

/// Size of request bodies that the container received.
pub static HTTP_SERVER_REQUEST_BODY_SIZE: Instrument = Instrument {
    name: metric::HTTP_SERVER_REQUEST_BODY_SIZE,
    unit: "By",
    description: "Size of HTTP server request bodies.",
    boundaries: SIZE_BOUNDARIES,
};

/// Size of response bodies that the container sent.
pub static HTTP_SERVER_RESPONSE_BODY_SIZE: Instrument = Instrument {
    name: metric::HTTP_SERVER_RESPONSE_BODY_SIZE,
    unit: "By",
    description: "Size of HTTP server response bodies.",
    boundaries: SIZE_BOUNDARIES,
};

/// Size of request bodies that the container sent.
pub static HTTP_CLIENT_REQUEST_BODY_SIZE: Instrument = Instrument {
    name: metric::HTTP_CLIENT_REQUEST_BODY_SIZE,
    unit: "By",
    description: "Size of HTTP client request bodies.",
    boundaries: SIZE_BOUNDARIES,
};

/// Size of response bodies that the container received.
pub static HTTP_CLIENT_RESPONSE_BODY_SIZE: Instrument = Instrument {
    name: metric::HTTP_CLIENT_RESPONSE_BODY_SIZE,
    unit: "By",
    description: "Size of HTTP client response bodies.",
    boundaries: SIZE_BOUNDARIES,
};

/// Duration of calls that the container answered.
pub static RPC_SERVER_CALL_DURATION: Instrument = Instrument {
    name: metric::RPC_SERVER_CALL_DURATION,
    unit: "s",
    description: "Measures the duration of an incoming Remote Procedure Call (RPC).",
    boundaries: DURATION_BOUNDARIES,
};

/// Duration of calls that the container made.
pub static RPC_CLIENT_CALL_DURATION: Instrument = Instrument {
    name: metric::RPC_CLIENT_CALL_DURATION,
    unit: "s",
    description: "Measures the duration of an outgoing Remote Procedure Call (RPC).",
    boundaries: DURATION_BOUNDARIES,
};
