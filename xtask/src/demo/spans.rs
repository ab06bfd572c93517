//! Spans as the agent prints them: one JSON object per line.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde_json::{Map, Value};

use super::traffic::Served;

/// One span.
#[derive(Clone, Debug, Default)]
pub(super) struct Span {
    /// Trace id.
    pub(super) trace_id: String,
    /// Span id.
    pub(super) id: String,
    /// The parent's span id, unless it is a root.
    pub(super) parent: Option<String>,
    /// Name.
    pub(super) name: String,
    /// True for a server's span, false for a client's.
    pub(super) server: bool,
    /// Nanoseconds since the Unix epoch.
    pub(super) start: u64,
    /// Nanoseconds since the Unix epoch.
    pub(super) end: u64,
    /// Its attributes.
    pub(super) attributes: Map<String, Value>,
    /// The resource's attributes.
    pub(super) resource: Map<String, Value>,
}

impl Span {
    fn parse(line: &str) -> Result<Self> {
        let value: Value =
            serde_json::from_str(line).with_context(|| format!("not a JSON line: {line:?}"))?;
        let text = |key: &str| -> Result<String> {
            let text = value[key].as_str();
            Ok(text
                .with_context(|| format!("no {key} in {line}"))?
                .to_owned())
        };
        let time = |key: &str| {
            let number = &value[key];
            let parsed = number.as_u64().or_else(|| number.as_str()?.parse().ok());
            parsed.with_context(|| format!("no {key} in {line}"))
        };
        let map = |key: &str| value[key].as_object().cloned().unwrap_or_default();
        Ok(Self {
            trace_id: text("trace_id")?,
            id: text("span_id")?,
            parent: value["parent_span_id"]
                .as_str()
                .filter(|id| !id.is_empty())
                .map(str::to_owned),
            name: text("name")?,
            server: text("kind")?.eq_ignore_ascii_case("server"),
            start: time("start_time_unix_nano")?,
            end: time("end_time_unix_nano")?,
            attributes: map("attributes"),
            resource: map("resource"),
        })
    }

    /// A textual attribute, or nothing.
    pub(super) fn text(&self, key: &str) -> &str {
        self.attributes
            .get(key)
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    fn number(&self, key: &str) -> u16 {
        let number = self.attributes.get(key).and_then(Value::as_u64);
        number
            .and_then(|number| number.try_into().ok())
            .unwrap_or(0)
    }

    /// Port of the server of the exchange; 0 when the span does not say.
    pub(super) fn port(&self) -> u16 {
        self.number("server.port")
    }

    /// Status code of the response; 0 when the span does not say.
    pub(super) fn status(&self) -> u16 {
        self.number("http.response.status_code")
    }

    /// Nanoseconds from start to end.
    pub(super) fn duration(&self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    /// What the span says about a server's side of a request.
    pub(super) fn served(&self) -> Served {
        Served {
            port: self.port(),
            method: self.text("http.request.method").to_owned(),
            path: self.text("url.path").to_owned(),
            route: self.text("http.route").to_owned(),
            status: self.status(),
        }
    }
}

/// The agent's file, read as it grows.
pub(super) struct Log {
    path: PathBuf,
    offset: u64,
}

impl Log {
    /// From its beginning.
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, offset: 0 }
    }

    /// The spans of the lines that were completed since the last call.
    pub(super) fn read(&mut self) -> Result<Vec<Span>> {
        let mut text = String::new();
        let mut file = File::open(&self.path)
            .with_context(|| format!("cannot open {}", self.path.display()))?;
        file.seek(SeekFrom::Start(self.offset))?;
        file.read_to_string(&mut text)?;
        let Some(end) = text.rfind('\n') else {
            return Ok(Vec::new());
        };
        let complete = &text[..=end];
        self.offset += complete.len() as u64;
        complete.lines().map(Span::parse).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_with_numbers_in_either_form() {
        let line = r#"{"trace_id":"0a","span_id":"0b","parent_span_id":"","name":"GET /x","kind":"server",
            "start_time_unix_nano":10,"end_time_unix_nano":"25","attributes":{"server.port":8080,"url.path":"/x"},
            "resource":{},"status":"unset"}"#;
        let span = Span::parse(line).unwrap();
        assert_eq!(
            (span.duration(), span.port(), span.text("url.path")),
            (15, 8080, "/x")
        );
        assert!(span.server && span.parent.is_none());
    }

    #[test]
    fn a_missing_field_is_named() {
        let error = Span::parse(r#"{"trace_id":"0a"}"#).unwrap_err().to_string();
        assert!(error.starts_with("no span_id in"), "{error}");
    }
}
