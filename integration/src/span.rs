//! Spans as the agent prints them, one JSON object per line, and what must hold for each of them.

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::HashSet;
use std::path::Path;

/// Role of the observed process in an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// It answered.
    Server,
    /// It asked.
    Client,
}

/// One printed span.
#[derive(Clone, Debug, Deserialize)]
pub struct Span {
    /// 32 hexadecimal digits.
    pub trace_id: String,
    /// 16 hexadecimal digits.
    pub span_id: String,
    /// The parent's `span_id`; absent for a root.
    #[serde(default)]
    pub parent_span_id: Option<String>,
    /// Such as `GET /users/{id}`.
    pub name: String,
    /// Role.
    pub kind: Kind,
    /// Nanoseconds since the Unix epoch.
    pub start_time_unix_nano: u64,
    /// Nanoseconds since the Unix epoch.
    pub end_time_unix_nano: u64,
    /// Semantic-convention attributes.
    pub attributes: Map<String, Value>,
    /// Identity of the container or process.
    pub resource: Map<String, Value>,
    /// `unset` or `error`.
    pub status: String,
}

impl Span {
    /// A text attribute that has to be there.
    pub fn text(&self, key: &str) -> Result<&str> {
        self.attributes
            .get(key)
            .and_then(Value::as_str)
            .with_context(|| format!("no text attribute {key} in {self:?}"))
    }

    /// An integer attribute.
    pub fn integer(&self, key: &str) -> Option<i64> {
        self.attributes.get(key).and_then(Value::as_i64)
    }

    /// Status code of the response, if one was on the wire.
    pub fn status_code(&self) -> Option<u16> {
        self.integer("http.response.status_code")
            .and_then(|code| u16::try_from(code).ok())
    }

    /// Path of the request: servers have it as such, clients within the whole URL, CONNECT has none.
    pub fn path(&self) -> &str {
        let in_url = || {
            let (_, rest) = self.text("url.full").ok()?.split_once("://")?;
            let path = &rest[rest.find('/')?..];
            path.split('?').next()
        };
        self.text("url.path")
            .ok()
            .or_else(in_url)
            .unwrap_or_default()
    }

    /// True if this span's parent is `other`.
    pub fn is_child_of(&self, other: &Self) -> bool {
        self.trace_id == other.trace_id
            && self.parent_span_id.as_deref() == Some(other.span_id.as_str())
    }

    /// Full method of a gRPC call, such as `shop.Orders/Place`; `None` for a span of HTTP.
    pub fn rpc_method(&self) -> Option<&str> {
        self.text("rpc.system.name").ok()?;
        self.text("rpc.method_original")
            .or_else(|_| self.text("rpc.method"))
            .ok()
    }

    /// True if the agent says that part of the request's or response's head is not known.
    pub fn is_marked_incomplete(&self) -> bool {
        self.attributes
            .get("pilotfish.head_incomplete")
            .is_some_and(|value| value == true)
    }

    /// What holds for every span, whoever made it.
    fn check(&self) -> Result<()> {
        ensure!(is_id(&self.trace_id, 32), "trace id");
        ensure!(is_id(&self.span_id, 16), "span id");
        ensure!(
            self.parent_span_id.as_ref().is_none_or(|id| is_id(id, 16)),
            "parent span id"
        );
        ensure!(
            self.start_time_unix_nano <= self.end_time_unix_nano,
            "ends before it starts"
        );
        ensure!(self.start_time_unix_nano > 0, "start time");
        ensure!(
            self.resource
                .get("service.name")
                .is_some_and(|name| name.as_str().is_some_and(|name| !name.is_empty())),
            "service.name"
        );
        let failed = self.attributes.contains_key("error.type");
        ensure!(
            (self.status == "error") == failed,
            "status does not go with error.type"
        );
        if self.attributes.contains_key("rpc.system.name") {
            self.check_rpc()
        } else {
            self.check_http()
        }
    }

    /// What holds for every gRPC call.
    fn check_rpc(&self) -> Result<()> {
        ensure!(self.text("rpc.system.name")? == "grpc", "rpc.system.name");
        let method = self.text("rpc.method")?;
        ensure!(self.name == method, "name is not the method");
        ensure!(
            self.text("network.protocol.version")? == "2",
            "protocol version"
        );
        ensure!(
            !self.attributes.contains_key("http.request.method"),
            "gRPC and HTTP at once"
        );
        Ok(())
    }

    /// What holds for every HTTP exchange.
    fn check_http(&self) -> Result<()> {
        let method = self.text("http.request.method")?;
        ensure!(
            self.name.starts_with(method) || method == "_OTHER" && self.name.starts_with("HTTP"),
            "name without its method"
        );
        let path = self.path();
        ensure!(
            path.starts_with('/')
                || matches!(method, "OPTIONS" | "CONNECT")
                || self.is_marked_incomplete(),
            "path"
        );
        let scheme = self.text("url.scheme")?;
        ensure!(matches!(scheme, "http" | "https"), "scheme");
        ensure!(
            matches!(self.text("network.protocol.version")?, "1.0" | "1.1" | "2"),
            "protocol version"
        );
        let error = self.attributes.get("error.type").and_then(Value::as_str);
        if let Some(status) = self.status_code() {
            let must_fail = status >= if self.kind == Kind::Server { 500 } else { 400 };
            // A response with a good status can still break off; then the type says so in a word.
            let by_status = error.is_some_and(|error| error == status.to_string());
            ensure!(
                by_status == must_fail,
                "error.type does not go with status {status}"
            );
        }
        Ok(())
    }
}

fn is_id(text: &str, digits: usize) -> bool {
    let hexadecimal = text
        .bytes()
        .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    text.len() == digits && hexadecimal && text.bytes().any(|byte| byte != b'0')
}

/// Reads a file of spans and checks each one.
pub fn read(path: &Path) -> Result<Vec<Span>> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    parse(&text)
}

/// Reads printed spans and checks each one.
pub fn parse(text: &str) -> Result<Vec<Span>> {
    let mut spans = Vec::new();
    let mut ids = HashSet::new();
    for line in text.lines() {
        let span: Span =
            serde_json::from_str(line).with_context(|| format!("not a span: {line}"))?;
        if let Err(reason) = span.check() {
            bail!("a span is wrong ({reason:#}): {line}");
        }
        if !ids.insert(span.span_id.clone()) {
            bail!("a span id is used twice: {line}");
        }
        spans.push(span);
    }
    Ok(spans)
}

/// The spans of one role whose path starts with `prefix`.
pub fn with_path<'a>(spans: &'a [Span], kind: Kind, prefix: &str) -> Vec<&'a Span> {
    spans
        .iter()
        .filter(|span| span.kind == kind && span.path().starts_with(prefix))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = r#"{"trace_id":"0123456789abcdef0123456789abcdef","span_id":"0123456789abcdef","parent_span_id":null,"name":"GET /a","kind":"server","start_time_unix_nano":5,"end_time_unix_nano":6,"attributes":{"http.request.method":"GET","url.path":"/a","url.scheme":"http","network.protocol.version":"1.1","http.response.status_code":200},"resource":{"service.name":"app"},"status":"unset"}"#;

    #[test]
    fn a_call_is_told_by_its_full_method() {
        let line = LINE
            .replace(r#""name":"GET /a""#, r#""name":"_OTHER""#)
            .replace(
                r#""http.request.method":"GET","url.path":"/a","url.scheme":"http","network.protocol.version":"1.1","http.response.status_code":200"#,
                r#""rpc.system.name":"grpc","rpc.method":"_OTHER","rpc.method_original":"shop.Orders/Place","network.protocol.version":"2""#,
            );
        let spans = parse(&line).expect("a good span");
        assert_eq!(spans[0].rpc_method(), Some("shop.Orders/Place"));
        assert!(parse(&line.replace(r#"version":"2""#, r#"version":"1.1""#)).is_err());
        assert!(parse(&line.replace(r#""name":"_OTHER""#, r#""name":"a""#)).is_err());
        assert_eq!(parse(LINE).expect("a good span")[0].rpc_method(), None);
    }

    #[test]
    fn a_good_span_passes_and_each_fault_is_found() {
        assert_eq!(parse(LINE).expect("a good span").len(), 1);
        for (good, bad) in [
            (r#""end_time_unix_nano":6"#, r#""end_time_unix_nano":4"#),
            (
                r#""span_id":"0123456789abcdef""#,
                r#""span_id":"0000000000000000""#,
            ),
            (
                r#""http.response.status_code":200"#,
                r#""http.response.status_code":500"#,
            ),
            (r#""status":"unset""#, r#""status":"error""#),
            (r#""service.name":"app""#, r#""service.name":"""#),
        ] {
            let line = LINE.replace(good, bad);
            assert_ne!(line, LINE);
            assert!(parse(&line).is_err(), "{line}");
        }
        assert!(
            parse(&format!("{LINE}\n{LINE}")).is_err(),
            "an id used twice"
        );
    }
}
