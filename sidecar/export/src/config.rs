//! What is exported, and where to: flags over the standard `OTEL_*` variables over defaults.
//!
//! Values are checked here, before anything runs; every error names the variable, its value and what would do.
//! Specifications: OpenTelemetry "SDK environment variables" and "OTLP exporter configuration".

use crate::otlp::config::OtlpConfig;
use crate::print::PrintFormat;
use std::path::PathBuf;
use std::time::Duration;

/// Reads a variable; empty counts as unset, as the specification demands.
pub(crate) type Variables<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A value that cannot be understood.
    #[error("{name} is {value:?}: {expected}")]
    Value {
        /// Variable or flag.
        name: String,
        /// What was given.
        value: String,
        /// What would be accepted.
        expected: String,
    },
    /// A client certificate without its key, or the reverse.
    #[error("{given} is set but {missing} is not: TLS client authentication needs both")]
    HalfClientIdentity {
        /// The variable that is set.
        given: String,
        /// The one that is not.
        missing: String,
    },
}

impl ConfigError {
    pub(crate) fn value(name: &str, value: &str, expected: impl Into<String>) -> Self {
        Self::Value {
            name: name.to_owned(),
            value: value.to_owned(),
            expected: expected.into(),
        }
    }
}

/// What the command line says; it wins over the environment.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    /// `--otlp-endpoint`: base URL of the collector for both signals.
    pub endpoint: Option<String>,
    /// `--otlp-protocol`: `grpc`, `http/protobuf` or `http/json`.
    pub protocol: Option<String>,
    /// `--print`.
    pub print: Option<PrintFormat>,
    /// `--print-file`.
    pub print_file: Option<PathBuf>,
    /// Standard output is a terminal for the live view, and nothing else was asked of it on the command line.
    pub view: bool,
}

/// A checked configuration of all exporters.
#[derive(Clone, Debug)]
pub struct ExportConfig {
    /// Spans on standard output.
    pub print: Option<PrintFormat>,
    /// Spans in a live view of the terminal.
    pub live: bool,
    /// Spans as JSON lines appended to a file.
    pub print_file: Option<PathBuf>,
    /// Spans by OTLP.
    pub traces: Option<OtlpConfig>,
    /// Batching of spans for OTLP.
    pub batch: BatchConfig,
    /// Metrics by OTLP.
    pub metrics: Option<OtlpConfig>,
    /// Periodic export of metrics by OTLP.
    pub reader: ReaderConfig,
    /// Whether `/metrics` is to be served.
    pub prometheus: bool,
}

/// `OTEL_BSP_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchConfig {
    /// Longest time that a span waits for its batch to fill.
    pub delay: Duration,
    /// Spans that may wait; the newest beyond it are dropped and counted.
    pub queue: usize,
    /// Spans per request.
    pub batch: usize,
    /// Longest time spent on one batch, retries included.
    pub timeout: Duration,
}

impl Default for BatchConfig {
    /// The specification's values, but a queue of 8192 instead of 2048 spans: one agent carries many processes.
    fn default() -> Self {
        Self {
            delay: Duration::from_secs(5),
            queue: 8192,
            batch: 512,
            timeout: Duration::from_secs(30),
        }
    }
}

/// `OTEL_METRIC_EXPORT_*` and the temporality preference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReaderConfig {
    /// Time between two exports.
    pub interval: Duration,
    /// Longest time spent on one request, retries included.
    pub timeout: Duration,
    /// Whether histograms are sent as deltas.
    pub delta: bool,
}

impl Default for ReaderConfig {
    fn default() -> Self {
        Self {
            interval: Duration::from_mins(1),
            timeout: Duration::from_secs(30),
            delta: false,
        }
    }
}

impl ExportConfig {
    /// Reads and checks the process's environment under the flags.
    pub fn from_env(flags: &Flags) -> Result<Self, ConfigError> {
        Self::from_variables(flags, &|name| std::env::var(name).ok())
    }

    /// The same with the environment given, for tests and tools.
    pub fn from_variables(
        flags: &Flags,
        variables: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        let get: Variables<'_> = &|name| {
            variables(name)
                .map(|value| value.trim().to_owned())
                .filter(|v| !v.is_empty())
        };
        let configured = |signal: &str| {
            flags.endpoint.is_some()
                || get("OTEL_EXPORTER_OTLP_ENDPOINT").is_some()
                || get(&format!("OTEL_EXPORTER_OTLP_{signal}_ENDPOINT")).is_some()
        };
        let traces = selection(get, "OTEL_TRACES_EXPORTER", &["otlp", "console", "none"])?;
        let metrics = selection(
            get,
            "OTEL_METRICS_EXPORTER",
            &["otlp", "prometheus", "none"],
        )?;
        let chosen = |list: &Option<Vec<String>>, name: &str, default: bool| {
            list.as_ref()
                .map_or(default, |list| list.iter().any(|entry| entry == name))
        };
        let otlp_traces = chosen(&traces, "otlp", configured("TRACES"));
        let otlp_metrics = chosen(&metrics, "otlp", configured("METRICS"));
        let otherwise = chosen(&traces, "console", false) || chosen(&traces, "none", false);
        let live = flags.view && !otherwise;
        let by_default = !live && !otlp_traces && flags.print_file.is_none();
        let console = chosen(&traces, "console", by_default);
        Ok(Self {
            print: flags.print.or(console.then_some(PrintFormat::Text)),
            live,
            print_file: flags.print_file.clone(),
            traces: otlp_traces
                .then(|| OtlpConfig::read("TRACES", flags, get))
                .transpose()?,
            batch: batch(get)?,
            metrics: otlp_metrics
                .then(|| OtlpConfig::read("METRICS", flags, get))
                .transpose()?,
            reader: reader(get)?,
            prometheus: chosen(&metrics, "prometheus", true),
        })
    }
}

/// A comma list of exporters; `None` when unset. `none` next to others is a contradiction.
fn selection(
    get: Variables<'_>,
    name: &str,
    known: &[&str],
) -> Result<Option<Vec<String>>, ConfigError> {
    let Some(value) = get(name) else {
        return Ok(None);
    };
    let list: Vec<String> = value
        .split(',')
        .map(|entry| entry.trim().to_owned())
        .collect();
    let contradiction = list.len() > 1 && list.iter().any(|entry| entry == "none");
    if contradiction || list.iter().any(|entry| !known.contains(&entry.as_str())) {
        return Err(ConfigError::value(
            name,
            &value,
            format!("use a comma list out of {}", known.join(", ")),
        ));
    }
    Ok(Some(list))
}

fn batch(get: Variables<'_>) -> Result<BatchConfig, ConfigError> {
    let default = BatchConfig::default();
    let queue = number(get, "OTEL_BSP_MAX_QUEUE_SIZE", 1..=1 << 20)?
        .map_or(default.queue, |size| size as usize);
    Ok(BatchConfig {
        delay: millis(get, "OTEL_BSP_SCHEDULE_DELAY")?.unwrap_or(default.delay),
        queue,
        batch: number(get, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 1..=1 << 16)?
            .map_or(default.batch, |size| size as usize)
            .min(queue),
        timeout: millis(get, "OTEL_BSP_EXPORT_TIMEOUT")?.unwrap_or(default.timeout),
    })
}

fn reader(get: Variables<'_>) -> Result<ReaderConfig, ConfigError> {
    let name = opentelemetry_otlp::OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE;
    let default = ReaderConfig::default();
    let delta = match get(name).map(|value| value.to_ascii_lowercase()).as_deref() {
        None | Some("cumulative") => false,
        // `lowmemory` differs from `delta` only for instruments that we do not have.
        Some("delta" | "lowmemory") => true,
        Some(other) => {
            return Err(ConfigError::value(
                name,
                other,
                "use cumulative, delta or lowmemory",
            ));
        }
    };
    Ok(ReaderConfig {
        interval: millis(get, "OTEL_METRIC_EXPORT_INTERVAL")?.unwrap_or(default.interval),
        timeout: millis(get, "OTEL_METRIC_EXPORT_TIMEOUT")?.unwrap_or(default.timeout),
        delta,
    })
}

/// Milliseconds, from 1 ms to one day.
pub(crate) fn millis(get: Variables<'_>, name: &str) -> Result<Option<Duration>, ConfigError> {
    Ok(number(get, name, 1..=86_400_000)?.map(Duration::from_millis))
}

fn number(
    get: Variables<'_>,
    name: &str,
    range: std::ops::RangeInclusive<u64>,
) -> Result<Option<u64>, ConfigError> {
    let Some(value) = get(name) else {
        return Ok(None);
    };
    let parsed = value.parse().ok().filter(|number| range.contains(number));
    let expected = || {
        format!(
            "use a whole number from {} to {}",
            range.start(),
            range.end()
        )
    };
    parsed
        .map(Some)
        .ok_or_else(|| ConfigError::value(name, &value, expected()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(flags: &Flags, variables: &[(&str, &str)]) -> Result<ExportConfig, ConfigError> {
        ExportConfig::from_variables(flags, &|name| {
            variables
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn nothing_configured_prints_and_serves_prometheus() {
        let config = config(&Flags::default(), &[("OTEL_TRACES_EXPORTER", "")]).unwrap();
        assert_eq!(config.print, Some(PrintFormat::Text));
        assert!(config.prometheus && config.traces.is_none() && config.metrics.is_none());
        assert_eq!(config.batch, BatchConfig::default());
    }

    #[test]
    fn an_endpoint_turns_otlp_on_and_printing_off() {
        let general = config(
            &Flags::default(),
            &[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318")],
        )
        .unwrap();
        assert!(general.traces.is_some() && general.metrics.is_some() && general.print.is_none());
        let only = config(
            &Flags::default(),
            &[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://c:4318/x")],
        )
        .unwrap();
        assert!(only.traces.is_some() && only.metrics.is_none());
        let flags = Flags {
            endpoint: Some("http://c".into()),
            print: Some(PrintFormat::Json),
            ..Flags::default()
        };
        let flagged = config(&flags, &[]).unwrap();
        assert!(flagged.traces.is_some() && flagged.metrics.is_some());
        assert_eq!(flagged.print, Some(PrintFormat::Json));
    }

    #[test]
    fn a_terminal_shows_the_view_unless_the_environment_chose() {
        let flags = Flags {
            view: true,
            ..Flags::default()
        };
        for (exporter, live, print) in [
            ("", true, None),
            ("otlp", true, None),
            ("console", false, Some(PrintFormat::Text)),
            ("none", false, None),
        ] {
            let config = config(&flags, &[("OTEL_TRACES_EXPORTER", exporter)]).unwrap();
            assert_eq!((config.live, config.print), (live, print), "{exporter}");
        }
        assert!(!config(&Flags::default(), &[]).unwrap().live);
    }

    #[test]
    fn explicit_selection_is_obeyed() {
        let off = config(
            &Flags::default(),
            &[
                ("OTEL_TRACES_EXPORTER", "none"),
                ("OTEL_METRICS_EXPORTER", "none"),
                ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c"),
            ],
        )
        .unwrap();
        assert!(
            off.print.is_none() && off.traces.is_none() && off.metrics.is_none() && !off.prometheus
        );
        let both = config(
            &Flags::default(),
            &[("OTEL_TRACES_EXPORTER", "otlp, console")],
        )
        .unwrap();
        assert!(both.print.is_some() && both.traces.is_some());
    }

    #[test]
    fn bad_values_name_the_variable_and_what_would_do() {
        for (name, value) in [
            ("OTEL_TRACES_EXPORTER", "jaeger"),
            ("OTEL_TRACES_EXPORTER", "otlp,none"),
            ("OTEL_METRICS_EXPORTER", "console"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "0"),
            ("OTEL_BSP_SCHEDULE_DELAY", "5s"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "-1"),
            ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "both"),
        ] {
            let error = config(&Flags::default(), &[(name, value)])
                .unwrap_err()
                .to_string();
            assert!(error.contains(name) && error.contains("use "), "{error}");
        }
    }

    #[test]
    fn batches_fit_the_queue() {
        let variables = [
            ("OTEL_BSP_MAX_QUEUE_SIZE", "100"),
            ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "512"),
        ];
        assert_eq!(
            config(&Flags::default(), &variables).unwrap().batch.batch,
            100
        );
    }
}
