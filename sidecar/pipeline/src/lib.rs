//! The pure core of pilotfish: ring-buffer records in, spans and measurements out.
//!
//! No I/O, clocks, tasks or locks: time arrives as data, results leave through a [`Sink`]. Every byte it reads is
//! hostile; it cannot panic, and it allocates in proportion to what was captured.
//!
//! ```text
//! Record -> flow (reassembly, gaps) -> detection -> protocol parser -> Exchange
//!        -> trace context, parent, route -> Span, Measurement -> Sink
//! ```
//!
//! The plaintext of a TLS connection is a flow like any other. It has a name of its own beside the socket that carries
//! its ciphertext, whose addresses it may get to know later.
#![forbid(unsafe_code)]
#![warn(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]
#![cfg_attr(
    test,
    allow(
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic
    )
)]

pub mod config;
mod context;
mod detection;
mod endpoints;
mod exchanges;
mod flow;
pub mod hpack;
mod idle;
mod ids;
pub mod model;
mod parents;
mod pipeline;
pub mod protocol;
mod reassembly;
pub mod record;
mod routes;
pub mod sampling;
pub mod semconv;
mod settings;
mod spans;
pub mod stats;
mod tls;

pub use config::{Config, ConfigError, SlotConfig};
pub use model::{
    Attribute, Encrypted, Instrument, Kind, Measurement, Sink, Slot, Span, SpanId, Status, TraceId,
    Value,
};
pub use pipeline::Pipeline;
pub use record::{Record, RecordError};
pub use sampling::{Sampler, SamplerError};
pub use stats::Stats;
