//! Spans on standard output or in a file, one line each.
//!
//! A printer has a thread of its own: a terminal that nobody reads, or a slow disk, stops neither the ring reader
//! nor the other exporters. Text lines are for people and may change; JSON lines are an interface.

use crate::complaint::Complaint;
use crate::identity::{Resource, Typed};
use crate::queue::{InFlight, Observed, Queue};
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
    let code = span
        .attributes
        .iter()
        .find(|attribute| attribute.key.ends_with(".status_code"));
    let code = code.map_or_else(|| "-".to_owned(), |attribute| plain(&attribute.value));
    let error = if span.status == Status::Error {
        " error"
    } else {
        ""
    };
    let trace = hex(&span.trace_id.0[..4]);
    format!(
        "{} {:<20} {arrow} {:<40} {code:>4} {:>10}  trace {trace}{error}",
        clock(span.start_unix_nano),
        visible(who.unwrap_or("-")),
        visible(&span.name),
        duration(span.end_unix_nano.saturating_sub(span.start_unix_nano)),
    )
}

/// Names come from the workload: what could steer a terminal is replaced.
fn visible(text: &str) -> String {
    text.chars()
        .map(|char| {
            if char.is_control() {
                char::REPLACEMENT_CHARACTER
            } else {
                char
            }
        })
        .collect()
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
fn clock(unix_nano: u64) -> String {
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

fn hex(bytes: &[u8]) -> String {
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
mod tests {
    use super::*;
    use crate::sample::{container, observed, span};
    use pilotfish_pipeline::SpanId;
    use std::sync::Mutex;
    use std::sync::atomic::Ordering;

    fn line(format: PrintFormat, item: &Observed) -> String {
        let mut bytes = Vec::new();
        write_line(format, item, &mut bytes);
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn json_is_one_object_with_typed_values() {
        let mut child = span(1, "GET /users/{id}");
        child.parent_span_id = Some(SpanId([0xab; 8]));
        child.status = Status::Error;
        let json = line(
            PrintFormat::Json,
            &Observed {
                container: container(),
                span: child,
            },
        );
        assert_eq!(json.matches('\n').count(), 1);
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        let expected = serde_json::json!({
            "trace_id": "30313233343536373839616263646566",
            "span_id": "4142434445464748",
            "parent_span_id": "abababababababab",
            "name": "GET /users/{id}",
            "kind": "server",
            "start_time_unix_nano": 1_700_000_000_000_000_000_u64,
            "end_time_unix_nano": 1_700_000_000_001_500_000_u64,
            "attributes": {"http.request.method": "GET", "url.path": "/users/17", "http.response.status_code": 200},
            "resource": {
                "service.name": "web", "container.id": "aaaa", "container.name": "web",
                "k8s.pod.name": "shop-1", "host.name": "node-1",
            },
            "status": "error",
        });
        assert_eq!(value, expected);
        let root: serde_json::Value =
            serde_json::from_str(&line(PrintFormat::Json, &observed("x"))).unwrap();
        assert!(root["parent_span_id"].is_null());
    }

    #[test]
    fn text_shows_the_essentials_and_disarms_control_characters() {
        let text = line(PrintFormat::Text, &observed("GET /\u{1b}[31m\n"));
        assert_eq!(
            text.split_whitespace().collect::<Vec<_>>(),
            [
                "22:13:20.000",
                "web",
                "<-",
                "GET",
                "/\u{fffd}[31m\u{fffd}",
                "200",
                "1.50ms",
                "trace",
                "30313233"
            ]
        );
    }

    #[derive(Clone, Default)]
    struct Flaky(Arc<Mutex<(Vec<u8>, Vec<ErrorKind>)>>);

    impl Write for Flaky {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let mut inner = self.0.lock().unwrap();
            if let Some(kind) = inner.1.pop() {
                return Err(kind.into());
            }
            inner.0.extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_closed_output_ends_the_printer_and_everything_is_accounted_for() {
        let queue = Arc::new(Queue::new(16, 1, 2));
        let spans: Vec<_> = (0..8).map(|_| observed("GET /")).collect();
        queue.push(&spans);
        let output = Flaky::default();
        output.0.lock().unwrap().1 = vec![ErrorKind::BrokenPipe, ErrorKind::StorageFull];
        run(Arc::clone(&queue), PrintFormat::Json, Box::new(output)).await;
        queue.push(&spans[..1]);
        let accounts = &queue.accounts;
        assert_eq!(
            accounts.failed.load(Ordering::Relaxed),
            4,
            "a full disk and a closed pipe, two spans each"
        );
        assert_eq!(
            accounts.dropped.load(Ordering::Relaxed),
            5,
            "the rest, and what came later"
        );
    }

    #[test]
    fn a_print_file_is_private_and_appended_to() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("spans.jsonl");
        for line in ["one\n", "two\n"] {
            open_file(&path)
                .unwrap()
                .write_all(line.as_bytes())
                .unwrap();
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one\ntwo\n");
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert!(open_file(directory.path()).is_err());
    }
}
