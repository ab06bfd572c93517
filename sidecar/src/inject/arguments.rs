//! The command line of `pilotfish inject`.

use clap::{Args, ValueEnum};
use std::{num::NonZeroU16, path::PathBuf};

/// Arguments of `pilotfish inject`.
#[derive(Clone, Debug, Args)]
pub struct InjectArgs {
    /// Manifest to read: a file, a directory (its .yaml, .yml and .json files by name), or `-` for standard input
    /// (repeatable).
    #[arg(short, long = "filename", value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,
    /// Write there instead of to standard output, all or nothing; it may be the file that is read.
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Take the sidecar out again, and what was added for it.
    #[arg(long)]
    pub uninject: bool,
    /// Leave objects that are refused as they are, instead of writing nothing.
    #[arg(long)]
    pub skip_refused: bool,
    #[command(flatten)]
    #[expect(missing_docs, reason = "the help text is on the fields")]
    pub sidecar: SidecarOptions,
}

/// What the sidecar is to be.
#[derive(Clone, Debug, Default, Args)]
pub struct SidecarOptions {
    /// Image of the sidecar. Default: `pilotfish` of this version, for nodes that have it imported.
    #[arg(long, value_name = "IMAGE", value_parser = parse_image, conflicts_with = "uninject")]
    pub image: Option<String>,
    /// OpenTelemetry collector that it sends traces and metrics to (`OTEL_EXPORTER_OTLP_ENDPOINT`).
    #[arg(long, value_name = "URL", value_parser = parse_url, conflicts_with = "uninject")]
    pub otlp_endpoint: Option<String>,
    /// Port of its pages, /metrics among them. Default: 9464.
    #[arg(long, value_name = "PORT", conflicts_with = "uninject")]
    pub listen_port: Option<NonZeroU16>,
    /// User that it runs as.
    #[arg(
        long,
        value_enum,
        value_name = "USER",
        default_value = "nonroot",
        conflicts_with = "uninject"
    )]
    pub run_as: RunAs,
    /// Another variable of its environment (repeatable).
    #[arg(long = "env", value_name = "NAME=VALUE", value_parser = parse_variable, conflicts_with = "uninject")]
    pub variables: Vec<(String, String)>,
}

/// `--run-as`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum RunAs {
    /// User 65532, whose capabilities come with the image's file; for that it may gain privileges by executing.
    #[default]
    Nonroot,
    /// User 0 with the same three capabilities, and no way to gain more.
    Root,
}

/// Longest value of an option, bytes.
const MAX_VALUE: usize = 4096;

fn checked(text: &str, allowed: impl Fn(char) -> bool) -> Result<String, String> {
    if text.is_empty() || text.len() > MAX_VALUE || !text.chars().all(allowed) {
        Err(format!(
            "expected 1 to {MAX_VALUE} printable characters without spaces"
        ))
    } else {
        Ok(text.to_owned())
    }
}

fn parse_image(text: &str) -> Result<String, String> {
    checked(text, |char| char.is_ascii_graphic())
}

fn parse_url(text: &str) -> Result<String, String> {
    if text.starts_with("http://") || text.starts_with("https://") {
        checked(text, |char| char.is_ascii_graphic())
    } else {
        Err("expected a URL such as http://collector:4318".to_owned())
    }
}

fn parse_variable(text: &str) -> Result<(String, String), String> {
    let (name, value) = text
        .split_once('=')
        .ok_or("expected NAME=VALUE, such as OTEL_TRACES_SAMPLER=always_on")?;
    let is_name = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && name
            .chars()
            .all(|char| char.is_ascii_alphanumeric() || char == '_');
    if !is_name || value.len() > MAX_VALUE || value.chars().any(char::is_control) {
        return Err(
            "expected a name of letters, digits and `_`, and a value of one line".to_owned(),
        );
    }
    Ok((name.to_owned(), value.to_owned()))
}
