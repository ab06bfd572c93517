//! The Prometheus page: every container's histograms with its identity, `target_info`, and the agent's own rows.
//!
//! Written here rather than with a client library: those write one of the two formats, and from metric types that
//! own their values, while ours live in the containers. Names follow "Prometheus and `OpenMetrics` compatibility" of
//! the OpenTelemetry specification; the formats are the text format 0.0.4 and `OpenMetrics` 1.0.
//!
//! `job` and `instance` are not written: they name the scraped agent and are set by the scraper.

use crate::identity::{Container, Resource};
use crate::metrics::Histogram;
use pilotfish_pipeline::{Attribute, Instrument, Value};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::sync::Arc;

/// Which of the two formats the scraper prefers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus text format 0.0.4.
    Text,
    /// `OpenMetrics` 1.0.
    OpenMetrics,
}

impl Format {
    /// Chooses by the request's `Accept` header.
    pub fn accepted(accept: &str) -> Self {
        if accept.contains("application/openmetrics-text") {
            Self::OpenMetrics
        } else {
            Self::Text
        }
    }

    /// The `Content-Type` of the page.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Type of a row of the agent's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowKind {
    /// Only grows; `_total` is appended to the name.
    Counter,
    /// Goes up and down.
    Gauge,
}

/// One sample about the agent itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Name without the prefix `pilotfish_` and without `_total`. Rows of one name share kind and help.
    pub name: &'static str,
    /// One line.
    pub help: &'static str,
    /// Counter or gauge.
    pub kind: RowKind,
    /// Labels, names unique and valid.
    pub labels: Vec<(&'static str, String)>,
    /// The sample.
    pub value: f64,
}

impl Row {
    /// A counter without labels.
    pub fn counter(name: &'static str, help: &'static str, value: u64) -> Self {
        Self {
            name,
            help,
            kind: RowKind::Counter,
            labels: Vec::new(),
            value: value as f64,
        }
    }

    /// A gauge without labels.
    pub fn gauge(name: &'static str, help: &'static str, value: f64) -> Self {
        Self {
            name,
            help,
            kind: RowKind::Gauge,
            labels: Vec::new(),
            value,
        }
    }

    /// The row with one more label.
    #[must_use]
    pub fn label(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.labels.push((name, value.into()));
        self
    }
}

/// Resource attributes that stand on every series of a container, where present.
const IDENTITY: &[&str] = &[
    "container.id",
    "container.name",
    "k8s.container.name",
    "k8s.namespace.name",
    "k8s.pod.name",
    "service.name",
];

/// Renders the page.
pub fn render(format: Format, containers: &[Arc<Container>], rows: Vec<Row>) -> String {
    let mut page = Page {
        format,
        text: String::new(),
    };
    // Writing to a string cannot fail.
    let _ = page.write(containers, rows);
    page.text
}

struct Page {
    format: Format,
    text: String,
}

impl Page {
    fn write(&mut self, containers: &[Arc<Container>], rows: Vec<Row>) -> fmt::Result {
        let identities: Vec<_> = containers
            .iter()
            .map(|container| identity(&container.resource))
            .collect();
        self.targets(containers)?;
        // All samples of one metric have to stand together, so the instruments are the outer loop.
        let mut instruments: BTreeMap<&str, &'static Instrument> = BTreeMap::new();
        for instrument in containers
            .iter()
            .flat_map(|container| container.instruments())
        {
            instruments.insert(instrument.name, instrument);
        }
        for instrument in instruments.into_values() {
            let name = metric_name(instrument);
            self.family(&name, "histogram", instrument.description)?;
            for (container, identity) in containers.iter().zip(&identities) {
                for (_, attributes, histogram) in container.histograms(instrument) {
                    self.histogram(
                        &name,
                        &series_labels(identity, &attributes),
                        instrument,
                        &histogram,
                    )?;
                }
            }
        }
        self.rows(rows)?;
        if self.format == Format::OpenMetrics {
            self.text.push_str("# EOF\n");
        }
        Ok(())
    }

    /// `# HELP` and `# TYPE` of a metric family.
    fn family(&mut self, name: &str, kind: &str, help: &str) -> fmt::Result {
        writeln!(self.text, "# HELP {name} {}", escaped(help))?;
        writeln!(self.text, "# TYPE {name} {kind}")
    }

    fn targets(&mut self, containers: &[Arc<Container>]) -> fmt::Result {
        if containers.is_empty() {
            return Ok(());
        }
        let (family, kind) = match self.format {
            Format::Text => ("target_info", "gauge"),
            Format::OpenMetrics => ("target", "info"),
        };
        self.family(
            family,
            kind,
            "Resource attributes of an observed container.",
        )?;
        for container in containers {
            let labels = label_set(container.resource.iter());
            writeln!(self.text, "target_info{{{labels}}} 1")?;
        }
        Ok(())
    }

    fn histogram(
        &mut self,
        name: &str,
        labels: &str,
        instrument: &Instrument,
        histogram: &Histogram,
    ) -> fmt::Result {
        let comma = if labels.is_empty() { "" } else { "," };
        let mut cumulative = 0;
        for (bound, count) in instrument.boundaries.iter().zip(&histogram.buckets) {
            cumulative += count;
            writeln!(
                self.text,
                "{name}_bucket{{{labels}{comma}le=\"{bound:?}\"}} {cumulative}"
            )?;
        }
        let count = histogram.count();
        writeln!(
            self.text,
            "{name}_bucket{{{labels}{comma}le=\"+Inf\"}} {count}"
        )?;
        writeln!(self.text, "{name}_sum{{{labels}}} {:?}", histogram.sum)?;
        writeln!(self.text, "{name}_count{{{labels}}} {count}")
    }

    fn rows(&mut self, mut rows: Vec<Row>) -> fmt::Result {
        rows.sort_by_key(|row| row.name);
        for family in rows.chunk_by(|left, right| left.name == right.name) {
            let Some(Row {
                name, help, kind, ..
            }) = family.first()
            else {
                continue;
            };
            let (kind, suffix) = match kind {
                RowKind::Counter => ("counter", "_total"),
                RowKind::Gauge => ("gauge", ""),
            };
            // In OpenMetrics the family of a counter is named without `_total`.
            let family_suffix = if self.format == Format::OpenMetrics {
                ""
            } else {
                suffix
            };
            self.family(&format!("pilotfish_{name}{family_suffix}"), kind, help)?;
            for row in family {
                write!(self.text, "pilotfish_{name}{suffix}")?;
                if !row.labels.is_empty() {
                    let labels = label_set(
                        row.labels
                            .iter()
                            .map(|(name, value)| (*name, value.as_str())),
                    );
                    write!(self.text, "{{{labels}}}")?;
                }
                writeln!(self.text, " {}", row.value)?;
            }
        }
        Ok(())
    }
}

/// Labels that tell containers apart. One without a container id is told apart by its instance id.
fn identity(resource: &Resource) -> Vec<(&'static str, String)> {
    let instance = resource
        .get("container.id")
        .is_none()
        .then_some("service.instance.id");
    let keys = IDENTITY.iter().copied().chain(instance);
    keys.filter_map(|key| resource.get(key).map(|value| (key, value.to_owned())))
        .collect()
}

fn series_labels(identity: &[(&'static str, String)], attributes: &[Attribute]) -> String {
    let text: Vec<_> = attributes
        .iter()
        .map(|attribute| (attribute.key, value_text(&attribute.value)))
        .collect();
    let own = text.iter().map(|(key, value)| (*key, value.as_ref()));
    label_set(
        identity
            .iter()
            .map(|(key, value)| (*key, value.as_str()))
            .chain(own),
    )
}

fn value_text(value: &Value) -> Cow<'_, str> {
    match value {
        Value::Str(text) => Cow::Borrowed(text),
        Value::Int(number) => Cow::Owned(number.to_string()),
        Value::Float(number) => Cow::Owned(number.to_string()),
        Value::Bool(truth) => Cow::Borrowed(if *truth { "true" } else { "false" }),
    }
}

/// Labels in the order of their names. Keys that become one label are joined by `;`, as the specification says.
fn label_set<'a>(attributes: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let mut labels: BTreeMap<String, String> = BTreeMap::new();
    for (key, value) in attributes {
        let joined = labels.entry(label_name(key)).or_default();
        if !joined.is_empty() {
            joined.push(';');
        }
        joined.push_str(value);
    }
    let parts = labels
        .iter()
        .map(|(name, value)| format!("{name}=\"{}\"", escaped(value)));
    parts.collect::<Vec<_>>().join(",")
}

/// Letters, digits and single underscores, not beginning with a digit.
fn label_name(key: &str) -> String {
    let mut name = String::with_capacity(key.len());
    for char in key.chars() {
        if char.is_ascii_alphanumeric() {
            name.push(char);
        } else if !name.ends_with('_') {
            name.push('_');
        }
    }
    if name.starts_with(|first: char| first.is_ascii_digit()) {
        name.insert_str(0, "key_");
    }
    name
}

fn metric_name(instrument: &Instrument) -> String {
    let mut name = label_name(instrument.name);
    let unit = match instrument.unit {
        "s" => "seconds",
        "ms" => "milliseconds",
        "By" => "bytes",
        // Dimensionless, or an annotation such as `{request}`.
        "" | "1" => "",
        unit if unit.starts_with('{') => "",
        unit => unit,
    };
    let unit = label_name(unit);
    if !unit.is_empty() && !name.ends_with(&unit) {
        name.push('_');
        name.push_str(&unit);
    }
    name
}

/// In help texts a quote may be escaped, in label values it must be.
fn escaped(text: &str) -> Cow<'_, str> {
    if text.contains(['\\', '"', '\n']) {
        Cow::Owned(
            text.replace('\\', "\\\\")
                .replace('"', "\\\"")
                .replace('\n', "\\n"),
        )
    } else {
        Cow::Borrowed(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{containers, measurement};
    use pilotfish_pipeline::Slot;

    fn page(format: Format) -> String {
        let containers = containers();
        for slot in [1, 2] {
            for seconds in [0.004, 0.02, 50.0] {
                containers.get(Slot(slot)).unwrap().record(&measurement(
                    slot,
                    "/users/{id}",
                    seconds,
                ));
            }
        }
        let rows = vec![
            Row::counter("records_lost", "Records lost.", 3).label("container_id", "aaaa"),
            Row::gauge("flows", "Flows.", 2.5),
            Row::counter("records_lost", "Records lost.", 4).label("container_id", "bbbb"),
        ];
        render(format, &containers.all(), rows)
    }

    #[test]
    fn histograms_are_cumulative_and_carry_the_identity() {
        let page = page(Format::Text);
        let series = r#"container_id="aaaa",container_name="web",http_request_method="GET",http_response_status_code="200",http_route="/users/{id}",k8s_pod_name="shop-1",service_name="web""#;
        for line in [
            format!(r#"http_server_request_duration_seconds_bucket{{{series},le="0.005"}} 1"#),
            format!(r#"http_server_request_duration_seconds_bucket{{{series},le="0.1"}} 2"#),
            format!(r#"http_server_request_duration_seconds_bucket{{{series},le="+Inf"}} 3"#),
            format!("http_server_request_duration_seconds_sum{{{series}}} 50.024"),
            format!("http_server_request_duration_seconds_count{{{series}}} 3"),
            format!("http_server_response_body_size_bytes_sum{{{series}}} 1536.0"),
            r#"target_info{container_id="bbbb",container_name="db \"main\"\n",host_name="node-1",k8s_pod_name="shop-1",service_name="db \"main\"\n"} 1"#.to_owned(),
            r#"pilotfish_records_lost_total{container_id="bbbb"} 4"#.to_owned(),
            "pilotfish_flows 2.5".to_owned(),
        ] {
            assert!(page.lines().any(|found| found == line), "{line}\nis not in\n{page}");
        }
        assert_eq!(
            page.matches("# TYPE http_server_request_duration_seconds histogram")
                .count(),
            1
        );
        assert_eq!(
            page.matches("# TYPE pilotfish_records_lost_total counter")
                .count(),
            1
        );
    }

    #[test]
    fn openmetrics_names_families_its_own_way() {
        let page = page(Format::OpenMetrics);
        assert!(
            page.contains("# TYPE target info\n")
                && page.contains("# TYPE pilotfish_records_lost counter\n")
        );
        assert!(page.ends_with("# EOF\n"));
        assert_eq!(
            Format::accepted("application/openmetrics-text;version=1.0.0,text/plain;q=0.5"),
            Format::OpenMetrics
        );
        assert_eq!(Format::accepted("*/*"), Format::Text);
    }

    #[test]
    fn keys_that_collide_share_a_label() {
        assert_eq!(
            label_set([("a.b", "1"), ("a_b", "2"), ("7up", "x")].into_iter()),
            r#"a_b="1;2",key_7up="x""#
        );
    }
}
