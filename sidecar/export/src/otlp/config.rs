//! `OTEL_EXPORTER_OTLP_*`: where and how one signal is sent. A signal's own variable wins over the general one.
//!
//! Specification: OpenTelemetry "OTLP exporter configuration" 1.5x. Names, protocols and compressions are those of
//! the `opentelemetry-otlp` crate.

use crate::config::{ConfigError, Flags, Variables, millis};
use hyper::Uri;
use hyper::header::{HeaderName, HeaderValue};
use opentelemetry_otlp::{Compression, OTEL_EXPORTER_OTLP_TIMEOUT_DEFAULT, Protocol};
use std::path::PathBuf;
use std::time::Duration;

/// Where collectors listen for gRPC.
pub(super) const GRPC_PORT: u16 = 4317;

/// Where collectors listen for HTTP.
pub(super) const HTTP_PORT: u16 = 4318;

/// A protocol as `OTEL_EXPORTER_OTLP_PROTOCOL` has it.
pub(super) const fn protocol_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Grpc => opentelemetry_otlp::OTEL_EXPORTER_OTLP_PROTOCOL_GRPC,
        Protocol::HttpJson => opentelemetry_otlp::OTEL_EXPORTER_OTLP_PROTOCOL_HTTP_JSON,
        _ => opentelemetry_otlp::OTEL_EXPORTER_OTLP_PROTOCOL_HTTP_PROTOBUF,
    }
}

/// How one signal reaches its collector.
#[derive(Clone, Debug, PartialEq)]
pub struct OtlpConfig {
    /// For HTTP the full URL; for gRPC scheme and authority.
    pub endpoint: Uri,
    /// Transport and encoding.
    pub protocol: Protocol,
    /// Sent with every request; values are secrets and are not logged.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Longest wait for one response.
    pub timeout: Duration,
    /// Whether bodies are compressed with gzip.
    pub gzip: bool,
    /// TLS material.
    pub tls: TlsFiles,
}

/// PEM files for TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificates to trust instead of the system's.
    pub authority: Option<PathBuf>,
    /// Client certificate chain and key for mutual TLS.
    pub client: Option<(PathBuf, PathBuf)>,
}

/// The variables of one signal.
struct Signal<'a> {
    /// `TRACES` or `METRICS`.
    name: &'static str,
    get: Variables<'a>,
}

impl Signal<'_> {
    /// The name of the variable that is set, and its value.
    fn find(&self, key: &str) -> Option<(String, String)> {
        let names = [
            format!("OTEL_EXPORTER_OTLP_{}_{key}", self.name),
            format!("OTEL_EXPORTER_OTLP_{key}"),
        ];
        names
            .into_iter()
            .find_map(|name| (self.get)(&name).map(|value| (name, value)))
    }

    fn endpoint(&self, flags: &Flags, protocol: Protocol) -> Result<Uri, ConfigError> {
        let path = format!("/v1/{}", self.name.to_ascii_lowercase());
        let own = format!("OTEL_EXPORTER_OTLP_{}_ENDPOINT", self.name);
        let (name, value, as_is) = if let Some(value) = &flags.endpoint {
            ("--otlp-endpoint".to_owned(), value.clone(), false)
        } else if let Some(value) = (self.get)(&own) {
            (own, value, true)
        } else if let Some((name, value)) = self.find("ENDPOINT") {
            (name, value, false)
        } else {
            let port = if protocol == Protocol::Grpc {
                GRPC_PORT
            } else {
                HTTP_PORT
            };
            (
                "the default endpoint".to_owned(),
                format!("http://localhost:{port}"),
                false,
            )
        };
        let text = if protocol == Protocol::Grpc && !value.contains("://") {
            format!(
                "{}://{value}",
                if self.insecure()? { "http" } else { "https" }
            )
        } else if protocol == Protocol::Grpc || as_is {
            value.clone()
        } else {
            format!("{}{path}", value.trim_end_matches('/'))
        };
        let parsed = text.parse::<Uri>().ok().filter(|uri| {
            matches!(uri.scheme_str(), Some("http" | "https"))
                && uri.host().is_some_and(|host| !host.is_empty())
        });
        parsed.ok_or_else(|| {
            ConfigError::value(&name, &value, "use a URL such as http://collector:4318")
        })
    }

    fn insecure(&self) -> Result<bool, ConfigError> {
        match self.find("INSECURE") {
            None => Ok(false),
            Some((_, value)) if value.eq_ignore_ascii_case("true") => Ok(true),
            Some((_, value)) if value.eq_ignore_ascii_case("false") => Ok(false),
            Some((name, value)) => Err(ConfigError::value(&name, &value, "use true or false")),
        }
    }

    fn protocol(&self, flags: &Flags) -> Result<Protocol, ConfigError> {
        let given = flags
            .protocol
            .clone()
            .map(|value| ("--otlp-protocol".to_owned(), value));
        let Some((name, value)) = given.or_else(|| self.find("PROTOCOL")) else {
            return Ok(Protocol::HttpBinary);
        };
        match value.as_str() {
            opentelemetry_otlp::OTEL_EXPORTER_OTLP_PROTOCOL_GRPC => Ok(Protocol::Grpc),
            opentelemetry_otlp::OTEL_EXPORTER_OTLP_PROTOCOL_HTTP_PROTOBUF => {
                Ok(Protocol::HttpBinary)
            }
            opentelemetry_otlp::OTEL_EXPORTER_OTLP_PROTOCOL_HTTP_JSON => Ok(Protocol::HttpJson),
            _ => Err(ConfigError::value(
                &name,
                &value,
                "use grpc, http/protobuf or http/json",
            )),
        }
    }

    fn gzip(&self) -> Result<bool, ConfigError> {
        let Some((name, value)) = self.find("COMPRESSION") else {
            return Ok(false);
        };
        match value.parse() {
            Ok(Compression::Gzip) => Ok(true),
            _ if value == "none" => Ok(false),
            _ => Err(ConfigError::value(&name, &value, "use gzip or none")),
        }
    }

    /// `key=value` pairs in the form of W3C baggage: comma-separated, values percent-encoded.
    fn headers(&self) -> Result<Vec<(HeaderName, HeaderValue)>, ConfigError> {
        let Some((name, value)) = self.find("HEADERS") else {
            return Ok(Vec::new());
        };
        let bad = || {
            ConfigError::value(
                &name,
                "(hidden)",
                "use key=value pairs, comma-separated and percent-encoded",
            )
        };
        let pairs = value.split(',').filter(|pair| !pair.trim().is_empty());
        pairs.map(|pair| header(pair).ok_or_else(bad)).collect()
    }

    fn tls(&self) -> Result<TlsFiles, ConfigError> {
        let client = match (self.find("CLIENT_CERTIFICATE"), self.find("CLIENT_KEY")) {
            (None, None) => None,
            (Some((_, certificate)), Some((_, key))) => Some((certificate.into(), key.into())),
            (Some((given, _)), None) => {
                let missing = given.replace("CLIENT_CERTIFICATE", "CLIENT_KEY");
                return Err(ConfigError::HalfClientIdentity { given, missing });
            }
            (None, Some((given, _))) => {
                let missing = given.replace("CLIENT_KEY", "CLIENT_CERTIFICATE");
                return Err(ConfigError::HalfClientIdentity { given, missing });
            }
        };
        Ok(TlsFiles {
            authority: self.find("CERTIFICATE").map(|(_, path)| path.into()),
            client,
        })
    }
}

fn header(pair: &str) -> Option<(HeaderName, HeaderValue)> {
    let (key, value) = pair.split_once('=')?;
    let value = percent_encoding::percent_decode_str(value.trim())
        .decode_utf8()
        .ok()?;
    let mut value = HeaderValue::from_str(&value).ok()?;
    value.set_sensitive(true);
    Some((HeaderName::from_bytes(key.trim().as_bytes()).ok()?, value))
}

impl OtlpConfig {
    /// Reads the variables of a signal, `TRACES` or `METRICS`.
    pub(crate) fn read(
        name: &'static str,
        flags: &Flags,
        get: Variables<'_>,
    ) -> Result<Self, ConfigError> {
        let signal = Signal { name, get };
        let protocol = signal.protocol(flags)?;
        let own_timeout = millis(get, &format!("OTEL_EXPORTER_OTLP_{name}_TIMEOUT"))?;
        let timeout = own_timeout.or(millis(get, opentelemetry_otlp::OTEL_EXPORTER_OTLP_TIMEOUT)?);
        Ok(Self {
            endpoint: signal.endpoint(flags, protocol)?,
            protocol,
            headers: signal.headers()?,
            timeout: timeout.unwrap_or(OTEL_EXPORTER_OTLP_TIMEOUT_DEFAULT),
            gzip: signal.gzip()?,
            tls: signal.tls()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<OtlpConfig, ConfigError> {
        OtlpConfig::read("TRACES", &Flags::default(), &|name| {
            let own = |key: &str| format!("OTEL_EXPORTER_OTLP{key}") == name;
            variables
                .iter()
                .find(|(key, _)| own(key))
                .map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn a_protocol_is_called_what_the_variable_takes() {
        for name in ["grpc", "http/protobuf", "http/json"] {
            let flags = Flags {
                protocol: Some(name.to_owned()),
                ..Flags::default()
            };
            let config = OtlpConfig::read("TRACES", &flags, &|_| None).expect("a configuration");
            assert_eq!(protocol_name(config.protocol), name);
        }
    }

    #[test]
    fn endpoints_follow_the_specification() {
        for (variables, expected) in [
            (&[][..], "http://localhost:4318/v1/traces"),
            (&[("_PROTOCOL", "grpc")], "http://localhost:4317/"),
            (
                &[("_ENDPOINT", "http://c:1/base/")],
                "http://c:1/base/v1/traces",
            ),
            (
                &[("_TRACES_ENDPOINT", "https://c/as-is")],
                "https://c/as-is",
            ),
            (
                &[
                    ("_TRACES_ENDPOINT", "http://c:1"),
                    ("_ENDPOINT", "http://d"),
                ],
                "http://c:1/",
            ),
            (
                &[("_PROTOCOL", "grpc"), ("_ENDPOINT", "c:4317")],
                "https://c:4317/",
            ),
            (
                &[
                    ("_PROTOCOL", "grpc"),
                    ("_ENDPOINT", "c:4317"),
                    ("_INSECURE", "true"),
                ],
                "http://c:4317/",
            ),
            (
                &[
                    ("_TRACES_PROTOCOL", "grpc"),
                    ("_PROTOCOL", "http/json"),
                    ("_ENDPOINT", "http://[::1]:1"),
                ],
                "http://[::1]:1/",
            ),
        ] {
            assert_eq!(
                read(variables).unwrap().endpoint.to_string(),
                expected,
                "{variables:?}"
            );
        }
    }

    #[test]
    fn the_signals_own_variable_wins() {
        let config = read(&[
            ("_TIMEOUT", "1000"),
            ("_TRACES_TIMEOUT", "2500"),
            ("_COMPRESSION", "gzip"),
            ("_TRACES_COMPRESSION", "none"),
            ("_HEADERS", "a=general"),
            (
                "_TRACES_HEADERS",
                "Authorization=Bearer%20x%3D, tenant = 7 ,",
            ),
        ])
        .unwrap();
        assert_eq!(config.timeout, Duration::from_millis(2500));
        assert!(!config.gzip);
        let headers: Vec<_> = config
            .headers
            .iter()
            .map(|(key, value)| (key.as_str(), value.to_str().unwrap()))
            .collect();
        assert_eq!(headers, [("authorization", "Bearer x="), ("tenant", "7")]);
        assert!(
            !format!("{config:?}").contains("Bearer"),
            "headers are secrets"
        );
    }

    #[test]
    fn bad_values_are_errors_that_name_the_variable() {
        for (name, value) in [
            ("_ENDPOINT", "collector:4318"),
            ("_TRACES_ENDPOINT", "ftp://x"),
            ("_PROTOCOL", "thrift"),
            ("_COMPRESSION", "zstd"),
            ("_TIMEOUT", "soon"),
            ("_HEADERS", "secret"),
            ("_CLIENT_KEY", "/key.pem"),
        ] {
            let error = read(&[(name, value)]).unwrap_err().to_string();
            assert!(
                error.contains(&format!("OTEL_EXPORTER_OTLP{name}")),
                "{error}"
            );
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
