//! Spans on standard output or in a file, one line each.
//!
//! A printer has a thread of its own: a terminal that nobody reads, or a slow disk, stops neither the ring reader
//! nor the other exporters. Text lines are for people and may change; JSON lines are an interface.

use crate::complaint::Complaint;
use crate::identity::{Resource, Typed};
use crate::queue::{InFlight, Observed, Queue};
use crate::visible::visible;
use pilotfish_pipeline::{Attribute, Kind, Span, Status, Value};
use serde::ser::{Serialize, SerializeMap, Serializer};
use std::fmt::Write as _;
use std::io::{ErrorKind, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How spans are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrintFormat {
    /// One aligned line per span, for people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Spans that may wait for a slow reader of standard output.
pub(crate) const QUEUE: usize = 4096;
/// Spans formatted and written at a time.
pub(crate) const BATCH: usize = 256;

/// Width of the column that says what was asked.
const WHAT: usize = 40;

/// Where lines go.
pub(crate) type Output = Box<dyn Write + Send>;

/// Opens a file for appending; a new one is readable by its owner alone, for URLs may be private.
pub(crate) fn open_file(path: &Path) -> std::io::Result<Output> {
    use std::os::unix::fs::OpenOptionsExt;
    let file = std::fs::OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)?;
    Ok(Box::new(file))
}

/// Prints until the queue is closed and empty, or until nobody reads the output any more.
pub(crate) async fn run(queue: Arc<Queue>, format: PrintFormat, mut output: Output) {
    let mut lines = Vec::new();
    let mut complaint = Complaint::default();
    let mut torn = false;
    while let Some(batch) = queue.next(Duration::from_secs(1)).await {
        let in_flight = InFlight::new(&queue.accounts, batch.len());
        lines.clear();
        if torn {
            lines.push(b'\n');
        }
        for item in &batch {
            write_line(format, item, &mut lines);
        }
        match output.write_all(&lines).and_then(|()| output.flush()) {
            Ok(()) => {
                torn = false;
                in_flight.settle(0, "");
                complaint.recovered();
            }
            Err(error) => {
                torn = true;
                in_flight.fail(&error.to_string());
                if complaint.due() {
                    tracing::warn!(%error, "spans cannot be printed; they are counted as failed");
                }
                if error.kind() == ErrorKind::BrokenPipe {
                    queue.abandon();
                }
            }
        }
    }
}

fn write_line(format: PrintFormat, item: &Observed, lines: &mut Vec<u8>) {
    match format {
        PrintFormat::Text => lines.extend_from_slice(text(item).as_bytes()),
        // Writing to memory cannot fail, and every map key is a string.
        PrintFormat::Json => {
            let _ = serde_json::to_writer(&mut *lines, &JsonSpan(item));
        }
    }
    lines.push(b'\n');
}

fn text(Observed { container, span }: &Observed) -> String {
    let resource = &container.resource;
    let who = ["container.name", "service.name", "container.id"]
        .into_iter()
        .find_map(|key| resource.get(key));
    let arrow = match span.kind {
        Kind::Server => "<-",
        Kind::Client => "->",
    };
    let code = status_code(span);
    let error = if span.status == Status::Error {
        " error"
    } else {
        ""
    };
    let trace = hex(&span.trace_id.0[..4]);
    format!(
        "{} {:<20} {arrow} {:<WHAT$} {code:>4} {:>10}  trace {trace}{error}",
        clock(span.start_unix_nano),
        visible(who.unwrap_or("-")),
        column(span),
        duration(span.end_unix_nano.saturating_sub(span.start_unix_nano)),
    )
}

/// The status that the protocol names, or a dash.
pub(crate) fn status_code(span: &Span) -> String {
    let code = span
        .attributes
        .iter()
        .find(|attribute| attribute.key.ends_with(".status_code"));
    code.map_or_else(|| "-".to_owned(), |attribute| plain(&attribute.value))
}

/// What was asked; of a client also where, which its name does not tell.
pub(crate) fn what(span: &Span) -> String {
    let name = visible(&span.name);
    let place = match span.kind {
        Kind::Server => return name,
        Kind::Client => place(span),
    };
    if place.is_empty() {
        return name;
    }
    format!("{name} {place}")
}

/// The same; the URL of a client is cut at the column's end.
fn column(span: &Span) -> String {
    let what = what(span);
    if span.kind == Kind::Server {
        return what;
    }
    match what.char_indices().nth(WHAT - 1) {
        Some((cut, last)) if cut + last.len_utf8() < what.len() => format!("{}…", &what[..cut]),
        _ => what,
    }
}

/// Address, port and path of the server, as far as they are known.
fn place(span: &Span) -> String {
    let attribute = |key| {
        let known = span.attributes.iter().find(|known| known.key == key)?;
        Some(plain(&known.value))
    };
    let mut place = match attribute("server.address") {
        Some(address) if address.contains(':') => format!("[{address}]"),
        address => address.unwrap_or_default(),
    };
    if let Some(port) = attribute("server.port") {
        let _ = write!(place, ":{port}");
    }
    let path = match attribute("url.full") {
        Some(url) => path_of(&url).map(str::to_owned),
        None => attribute("url.path"),
    };
    place + &path.unwrap_or_default()
}

/// From the first slash behind the authority to the query.
fn path_of(url: &str) -> Option<&str> {
    let (_, rest) = url.split_once("://")?;
    let rest = rest.split(['?', '#']).next()?;
    rest.get(rest.find('/')?..)
}

fn plain(value: &Value) -> String {
    match value {
        Value::Str(text) => visible(text),
        Value::Int(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Bool(truth) => truth.to_string(),
    }
}

/// Time of day in UTC, to the millisecond.
pub(crate) fn clock(unix_nano: u64) -> String {
    let millis = unix_nano / 1_000_000 % 86_400_000;
    let seconds = millis / 1000;
    format!(
        "{:02}:{:02}:{:02}.{:03}",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60,
        millis % 1000
    )
}

fn duration(nanos: u64) -> String {
    match nanos {
        0..1_000_000 => format!("{:.1}us", nanos as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.2}ms", nanos as f64 / 1e6),
        _ => format!("{:.3}s", nanos as f64 / 1e9),
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

/// The documented JSON form of a span.
struct JsonSpan<'a>(&'a Observed);

impl Serialize for JsonSpan<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Observed { container, span } = self.0;
        let mut map = serializer.serialize_map(Some(10))?;
        map.serialize_entry("trace_id", &hex(&span.trace_id.0))?;
        map.serialize_entry("span_id", &hex(&span.span_id.0))?;
        map.serialize_entry("parent_span_id", &span.parent_span_id.map(|id| hex(&id.0)))?;
        map.serialize_entry("name", span.name.as_str())?;
        map.serialize_entry("kind", kind(span))?;
        map.serialize_entry("start_time_unix_nano", &span.start_unix_nano)?;
        map.serialize_entry("end_time_unix_nano", &span.end_unix_nano)?;
        map.serialize_entry("attributes", &JsonAttributes(&span.attributes))?;
        map.serialize_entry("resource", &JsonResource(&container.resource))?;
        map.serialize_entry(
            "status",
            if span.status == Status::Error {
                "error"
            } else {
                "unset"
            },
        )?;
        map.end()
    }
}

fn kind(span: &Span) -> &'static str {
    match span.kind {
        Kind::Server => "server",
        Kind::Client => "client",
    }
}

struct JsonAttributes<'a>(&'a [Attribute]);

impl Serialize for JsonAttributes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for Attribute { key, value } in self.0 {
            match value {
                Value::Str(text) => map.serialize_entry(key, text.as_str())?,
                Value::Int(number) => map.serialize_entry(key, number)?,
                Value::Float(number) => map.serialize_entry(key, number)?,
                Value::Bool(truth) => map.serialize_entry(key, truth)?,
            }
        }
        map.end()
    }
}

struct JsonResource<'a>(&'a Resource);

impl Serialize for JsonResource<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (key, text) in self.0.iter() {
            match Resource::typed(key, text) {
                Typed::Text(text) => map.serialize_entry(key, text)?,
                Typed::Integer(number) => map.serialize_entry(key, &number)?,
                Typed::List(texts) => map.serialize_entry(key, &texts)?,
            }
        }
        map.end()
    }
}

#[cfg(test)]
mod tests;
