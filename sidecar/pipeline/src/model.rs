//! What leaves the pipeline: spans and measurements, in the vocabulary of the OpenTelemetry specification.
//!
//! Exporters know these types and nothing of protocols: keys and values are already semantic conventions.

use compact_str::CompactString;
use smallvec::SmallVec;

/// A container under observation: the index that user space gave it in the kernel's scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(pub u32);

/// W3C trace id; never all zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TraceId(pub [u8; 16]);

/// W3C parent/span id; never all zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SpanId(pub [u8; 8]);

/// An attribute value. Short strings (up to 24 bytes) do not allocate.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// UTF-8 text.
    Str(CompactString),
    /// Signed integer.
    Int(i64),
    /// Double.
    Float(f64),
    /// Boolean.
    Bool(bool),
}

/// One semantic-convention attribute.
#[derive(Clone, Debug, PartialEq)]
pub struct Attribute {
    /// Semantic-convention key, such as `http.request.method`.
    pub key: &'static str,
    /// Its value.
    pub value: Value,
}

/// OpenTelemetry span kind, as far as traffic can show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The container answered.
    Server,
    /// The container asked.
    Client,
}

/// OpenTelemetry span status; `Ok` is never set by instrumentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// No opinion.
    Unset,
    /// The exchange failed by the rules of its semantic convention.
    Error,
}

/// A finished span.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    /// The container that it belongs to.
    pub slot: Slot,
    /// Trace.
    pub trace_id: TraceId,
    /// This span.
    pub span_id: SpanId,
    /// Parent span, local or remote; `None` for a root.
    pub parent_span_id: Option<SpanId>,
    /// True when the parent came from the wire.
    pub remote_parent: bool,
    /// W3C `tracestate` as received, kept for the exporter; empty when there was none.
    pub trace_state: CompactString,
    /// Low-cardinality name, such as `GET /users/{id}`.
    pub name: CompactString,
    /// Server or client.
    pub kind: Kind,
    /// Nanoseconds since the Unix epoch.
    pub start_unix_nano: u64,
    /// Nanoseconds since the Unix epoch, never before the start.
    pub end_unix_nano: u64,
    /// Attributes, keys unique.
    pub attributes: Vec<Attribute>,
    /// Status.
    pub status: Status,
}

/// A histogram of the semantic conventions.
#[derive(Debug, PartialEq)]
pub struct Instrument {
    /// Such as `http.server.request.duration`.
    pub name: &'static str,
    /// UCUM unit: `s`, `By`.
    pub unit: &'static str,
    /// One line.
    pub description: &'static str,
    /// Upper bounds of the explicit buckets, ascending; the overflow bucket is implied.
    pub boundaries: &'static [f64],
}

/// Values of one exchange that share one attribute set.
#[derive(Clone, Debug, PartialEq)]
pub struct Measurement {
    /// The container.
    pub slot: Slot,
    /// Attributes in a fixed order per protocol and role, so that equal sets are equal slices.
    pub attributes: SmallVec<[Attribute; 8]>,
    /// Instruments and the values to record in each.
    pub values: SmallVec<[(&'static Instrument, f64); 4]>,
}

/// A flow of which nothing can be read because it is encrypted, and who used it when that was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encrypted {
    /// The container.
    pub slot: Slot,
    /// The process as the agent's pid namespace sees it, or 0 when that is unknown.
    pub tgid: u32,
    /// A key for the thread, unique on the host at one time.
    pub tid: u32,
}

/// Where the pipeline's results go. Implementations must not block.
pub trait Sink {
    /// A span that was sampled and is complete.
    fn span(&mut self, span: Span);
    /// Measurements; every exchange gives one, sampled or not.
    fn measurement(&mut self, measurement: Measurement);
    /// A flow turned out to be encrypted; told once of each, also when its plaintext is seen as another flow. Of no
    /// interest to a sink that only exports.
    fn encrypted(&mut self, _flow: Encrypted) {}
}
