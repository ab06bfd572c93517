//! The command line: one definition for flags, environment and help.

use crate::{
    health::HealthArgs,
    inject::InjectArgs,
    manual::{CompletionsArgs, ManArgs},
};
use clap::{Args, Parser, Subcommand, ValueEnum};
use pilotfish_abi::{DEFAULT_CAPTURE, MAX_CAPTURE};
use pilotfish_pipeline::SlotConfig;
use pilotfish_workload::announcement::DEFAULT_SOCKET;
use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

/// Port of the pages: the one that is registered for OpenTelemetry's Prometheus exporters.
const DEFAULT_PORT: u16 = 9464;

/// Values of `OTEL_TRACES_SAMPLER` that need no service.
const SAMPLERS: [&str; 6] = [
    "always_on",
    "always_off",
    "traceidratio",
    "parentbased_always_on",
    "parentbased_always_off",
    "parentbased_traceidratio",
];

/// Distributed traces and request metrics of one container, without touching it.
#[derive(Debug, Parser)]
#[command(name = "pilotfish", version, about, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Watch the containers that share our pid namespace, or the named processes.
    Sidecar(SidecarArgs),
    /// Serve the OCI hook on a host: watch every container that its annotations select.
    Node(NodeArgs),
    /// Start a command and trace it and its children.
    Run(RunArgs),
    /// Say what this host and these privileges allow, and what is missing. Exit code 0 only if tracing can work.
    Check(CheckArgs),
    /// Add the sidecar to Kubernetes manifests, or take it out again.
    Inject(InjectArgs),
    /// Ask a running agent how it is. Exit code 0 only if it is well.
    Health(HealthArgs),
    /// Save ring-buffer records to a file instead of making spans.
    Record(RecordArgs),
    /// Run the pipeline over a recorded file.
    Replay(ReplayArgs),
    /// Print a completion script for a shell.
    Completions(CompletionsArgs),
    /// Write man pages.
    Man(ManArgs),
}

/// Arguments of `pilotfish sidecar`.
#[derive(Debug, Args)]
pub struct SidecarArgs {
    /// Observe this process, its threads and its descendants, and nothing else (repeatable). Without it: every
    /// process in our pid namespace that is not in our own container.
    #[arg(
        long = "pid",
        value_name = "PID",
        env = "PILOTFISH_PID",
        value_delimiter = ','
    )]
    pub pids: Vec<i32>,
    /// File with the annotations of our pod, written by a Downward API volume (`metadata.annotations`). It is read
    /// again when it changes.
    #[arg(long, value_name = "PATH", env = "PILOTFISH_ANNOTATIONS_FILE")]
    pub annotations_file: Option<PathBuf>,
    /// The same with its labels (`metadata.labels`), of which those that Kubernetes recommends and those of its
    /// controllers name the service.
    #[arg(long, value_name = "PATH", env = "PILOTFISH_LABELS_FILE")]
    pub labels_file: Option<PathBuf>,
    /// Name of our pod, from the Downward API (`metadata.name`).
    #[arg(long, value_name = "NAME", env = "PILOTFISH_POD_NAME")]
    pub pod_name: Option<String>,
    /// Namespace of our pod (`metadata.namespace`).
    #[arg(long, value_name = "NAME", env = "PILOTFISH_POD_NAMESPACE")]
    pub pod_namespace: Option<String>,
    /// Unique id of our pod (`metadata.uid`).
    #[arg(long, value_name = "UID", env = "PILOTFISH_POD_UID")]
    pub pod_uid: Option<String>,
    /// When tracing cannot start, say why and go on without it: the pages are served, /readyz answers 200 and names the
    /// reason. Otherwise a pod whose start waits for this container would never start.
    #[arg(long, env = "PILOTFISH_FAIL_OPEN")]
    pub fail_open: bool,
    #[command(flatten)]
    #[expect(missing_docs, reason = "the help text is on the fields")]
    pub agent: AgentArgs,
    /// Address of /metrics, /healthz, /readyz and /status; `off` for none. Default: 0.0.0.0:9464; with --pid
    /// 127.0.0.1:9464.
    #[arg(long, value_name = "ADDRESS", env = "PILOTFISH_LISTEN", value_parser = parse_listen)]
    pub listen: Option<Listen>,
}

impl SidecarArgs {
    /// Where the pages are served. Beside a container they are for a scraper elsewhere; whoever names processes sits
    /// at their host.
    pub fn listen(&self) -> Listen {
        let address = if self.pids.is_empty() {
            Ipv4Addr::UNSPECIFIED
        } else {
            Ipv4Addr::LOCALHOST
        };
        let default = Listen::On(SocketAddr::from((address, DEFAULT_PORT)));
        self.listen.unwrap_or(default)
    }
}

/// Arguments of `pilotfish node`.
#[derive(Debug, Args)]
pub struct NodeArgs {
    /// Unix socket that the hook announces containers on. Its directory is made for root only. A socket that the
    /// service manager passes takes its place.
    #[arg(long, value_name = "PATH", env = "PILOTFISH_SOCKET", default_value = DEFAULT_SOCKET)]
    pub socket: PathBuf,
    /// Where containers are remembered for a restart of the agent. Default: `containers` beside the socket.
    #[arg(long, value_name = "DIRECTORY", env = "PILOTFISH_STATE_DIR")]
    pub state_dir: Option<PathBuf>,
    /// End when there has been no container and no request for this many seconds.
    #[arg(long, value_name = "SECONDS", env = "PILOTFISH_EXIT_WHEN_IDLE")]
    pub exit_when_idle: Option<u64>,
    /// Also observe annotated containers that were started while no agent ran; they are found in the state
    /// directories of runc and crun.
    #[arg(long, value_name = "BOOL", env = "PILOTFISH_ADOPT", default_value_t = true, action = clap::ArgAction::Set)]
    pub adopt: bool,
    /// Also be a plug-in of containerd or CRI-O by the Node Resource Interface, which needs no hook.
    #[arg(long, value_name = "SOCKET", env = "PILOTFISH_NRI", num_args = 0..=1, require_equals = true,
          default_missing_value = pilotfish_nri::DEFAULT_SOCKET, conflicts_with = "exit_when_idle")]
    pub nri: Option<PathBuf>,
    #[command(flatten)]
    #[expect(missing_docs, reason = "the help text is on the fields")]
    pub agent: AgentArgs,
    /// Address of /metrics, /healthz, /readyz and /status; `off` for none.
    #[arg(long, value_name = "ADDRESS", env = "PILOTFISH_LISTEN", default_value = "0.0.0.0:9464", value_parser = parse_listen)]
    pub listen: Listen,
}

/// What every agent takes that serves until it is told to end.
#[derive(Debug, Args)]
pub struct AgentArgs {
    #[command(flatten)]
    #[expect(missing_docs, reason = "the help text is on the fields")]
    pub config: ConfigArgs,
    #[command(flatten)]
    #[expect(missing_docs, reason = "the help text is on the fields")]
    pub annotations: AnnotationArgs,
    #[command(flatten)]
    #[expect(missing_docs, reason = "the help text is on the fields")]
    pub kernel: KernelArgs,
    #[command(flatten)]
    #[expect(missing_docs, reason = "the help text is on the fields")]
    pub pipeline: PipelineArgs,
    #[command(flatten)]
    #[expect(missing_docs, reason = "the help text is on the fields")]
    pub output: OutputArgs,
}

/// The configuration file.
#[derive(Clone, Debug, Default, Args)]
pub struct ConfigArgs {
    /// YAML file with defaults for these flags, named as here without the dashes; flags and the environment win.
    /// Without it /etc/pilotfish/config.yaml is read if it exists.
    #[arg(long, value_name = "FILE", env = "PILOTFISH_CONFIG")]
    pub config: Option<PathBuf>,
}

/// Arguments of `pilotfish run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    #[command(flatten)]
    #[expect(missing_docs, reason = "the help text is on the fields")]
    pub kernel: KernelArgs,
    #[command(flatten)]
    #[expect(missing_docs, reason = "the help text is on the fields")]
    pub pipeline: PipelineArgs,
    #[command(flatten)]
    #[expect(missing_docs, reason = "the help text is on the fields")]
    pub output: OutputArgs,
    /// Address of /metrics, /healthz, /readyz and /status; `off` for none.
    #[arg(long, value_name = "ADDRESS", env = "PILOTFISH_LISTEN", default_value = "off", value_parser = parse_listen)]
    pub listen: Listen,
    /// The command and its arguments, after `--`.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

/// Arguments of `pilotfish check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `pilotfish record`.
#[derive(Debug, Args)]
pub struct RecordArgs {
    /// The file to write; it holds bytes of the observed traffic and is made readable by its owner only.
    pub file: PathBuf,
    /// As in `pilotfish sidecar`.
    #[arg(
        long = "pid",
        value_name = "PID",
        env = "PILOTFISH_PID",
        value_delimiter = ','
    )]
    pub pids: Vec<i32>,
    /// Stop after this many seconds instead of at SIGINT or SIGTERM.
    #[arg(long, value_name = "SECONDS")]
    pub seconds: Option<u64>,
    #[command(flatten)]
    #[expect(missing_docs, reason = "the help text is on the fields")]
    pub kernel: KernelArgs,
}

/// Arguments of `pilotfish replay`.
#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// A file that `pilotfish record` wrote.
    pub file: PathBuf,
    #[command(flatten)]
    #[expect(missing_docs, reason = "the help text is on the fields")]
    pub pipeline: PipelineArgs,
    #[command(flatten)]
    #[expect(missing_docs, reason = "the help text is on the fields")]
    pub output: OutputArgs,
}

/// What the eBPF programs do.
#[derive(Clone, Debug, Args)]
pub struct KernelArgs {
    /// Bytes captured per socket operation; what is longer is skipped by its length.
    #[arg(long, value_name = "BYTES", env = "PILOTFISH_CAPTURE_BYTES", default_value_t = DEFAULT_CAPTURE,
          value_parser = clap::value_parser!(u32).range(64..=i64::from(MAX_CAPTURE)))]
    pub capture_bytes: u32,
    /// Size of the ring buffer between kernel and agent, rounded up to a power of two.
    #[arg(long, value_name = "BYTES", env = "PILOTFISH_RING_BYTES", default_value_t = crate::instrument::DEFAULT_RING_BYTES,
          value_parser = clap::value_parser!(u32).range(i64::from(crate::instrument::MIN_RING_BYTES)..=(1 << 30)))]
    pub ring_bytes: u32,
    /// Whether plaintext of TLS is seen, where programs hand it to their TLS library; needs Linux 6.6.
    #[arg(
        long,
        value_enum,
        value_name = "SWITCH",
        env = "PILOTFISH_TLS",
        default_value = "on"
    )]
    pub tls: Switch,
    /// Executables whose TLS is not looked into (comma list of file names without directories): programs that leave a
    /// call of their TLS library by switching stacks or by an exception, which probes at returns can end.
    #[arg(
        long,
        value_name = "NAMES",
        env = "PILOTFISH_TLS_EXCLUDE",
        value_delimiter = ',',
        value_parser = parse_executable
    )]
    pub tls_exclude: Vec<String>,
}

/// What annotations of pods and containers may ask for. They can only ask for less than the operator has, except
/// where a maximum is given here.
#[derive(Clone, Debug, Default, Args)]
pub struct AnnotationArgs {
    /// Whether annotations are obeyed.
    #[arg(
        long,
        value_enum,
        value_name = "SWITCH",
        env = "PILOTFISH_ANNOTATIONS",
        default_value = "on"
    )]
    pub annotations: Switch,
    /// Most bytes per socket operation that an annotation may ask for; otherwise --capture-bytes.
    #[arg(long, value_name = "BYTES", env = "PILOTFISH_MAX_CAPTURE_BYTES",
          value_parser = clap::value_parser!(u32).range(64..=i64::from(MAX_CAPTURE)))]
    pub max_capture_bytes: Option<u32>,
    /// Largest share of traces, 0 to 1, that an annotation may ask for; otherwise that of the sampler.
    #[arg(long, value_name = "RATIO", env = "PILOTFISH_MAX_SAMPLE_RATIO", value_parser = parse_ratio)]
    pub max_sample_ratio: Option<f64>,
}

/// On or off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    /// Yes.
    #[default]
    On,
    /// No.
    Off,
}

/// What is made of the bytes.
#[derive(Clone, Debug, Default, Args)]
pub struct PipelineArgs {
    /// Route pattern such as `/users/{id}` (repeatable); other paths go through a bounded heuristic.
    #[arg(
        long = "route",
        value_name = "PATTERN",
        env = "PILOTFISH_ROUTES",
        value_delimiter = ';'
    )]
    pub routes: Vec<String>,
    /// Path without spans and metrics, `/healthz` or `/internal/*` (repeatable).
    #[arg(
        long = "ignore-path",
        value_name = "PATH",
        env = "PILOTFISH_IGNORE_PATHS",
        value_delimiter = ';'
    )]
    pub ignore_paths: Vec<String>,
    /// Protocols to recognise (comma list); all by default.
    #[arg(
        long,
        value_name = "NAMES",
        env = "PILOTFISH_PROTOCOLS",
        value_delimiter = ',',
        value_parser = parse_protocol
    )]
    pub protocols: Vec<String>,
    /// `service.name` of what is observed; otherwise the container's or the program's name.
    #[arg(long, value_name = "NAME", env = "OTEL_SERVICE_NAME")]
    pub service_name: Option<String>,
    /// Sampler of traces by the OpenTelemetry specification; metrics always count everything.
    #[arg(long, value_name = "SAMPLER", env = "OTEL_TRACES_SAMPLER", value_parser = SAMPLERS)]
    pub sampler: Option<String>,
    /// Argument of the sampler: the share of traces, 0 to 1, that `traceidratio` keeps.
    #[arg(long, value_name = "ARG", env = "OTEL_TRACES_SAMPLER_ARG", value_parser = parse_sampler_arg)]
    pub sampler_arg: Option<String>,
}

/// Where results go. OTLP is configured by the standard `OTEL_EXPORTER_OTLP_*` variables.
#[derive(Clone, Debug, Default, Args)]
pub struct OutputArgs {
    /// Show spans on standard output. Default: `live` for `sidecar` and `node` on a terminal, else `text` if nothing else
    /// is configured.
    #[arg(long, value_enum, value_name = "FORMAT", env = "PILOTFISH_PRINT")]
    pub print: Option<Print>,
    /// Append spans to this file as JSON lines.
    #[arg(long, value_name = "FILE", env = "PILOTFISH_PRINT_FILE")]
    pub print_file: Option<PathBuf>,
    /// Send traces and metrics to this OpenTelemetry collector; overrules `OTEL_EXPORTER_OTLP_ENDPOINT`.
    #[arg(long, value_name = "URL")]
    pub otlp_endpoint: Option<String>,
    /// `grpc`, `http/protobuf` or `http/json`; overrules `OTEL_EXPORTER_OTLP_PROTOCOL`.
    #[arg(long, value_name = "PROTOCOL")]
    pub otlp_protocol: Option<String>,
}

/// `--print`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Print {
    /// A view of the terminal: routes and the newest traces. Lines as of `text` where there is no terminal.
    Live,
    /// One readable line per span.
    Text,
    /// One JSON object per span.
    Json,
    /// Nothing.
    None,
}

/// `--listen`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listen {
    /// No server.
    Off,
    /// Serve here.
    On(SocketAddr),
}

pub(crate) fn parse_listen(text: &str) -> Result<Listen, String> {
    if text == "off" {
        return Ok(Listen::Off);
    }
    text.parse().map(Listen::On).map_err(|_| {
        "expected ADDRESS:PORT, such as 0.0.0.0:9464 or [::1]:9464, or `off`".to_owned()
    })
}

fn parse_ratio(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|ratio| (0.0..=1.0).contains(ratio))
        .ok_or_else(|| "expected a number from 0 to 1, such as 0.25".to_owned())
}

fn parse_sampler_arg(text: &str) -> Result<String, String> {
    parse_ratio(text.trim()).map(|_| text.to_owned())
}

fn parse_protocol(name: &str) -> Result<String, String> {
    let only = SlotConfig {
        protocols: Some(vec![name.to_owned()]),
        ..SlotConfig::default()
    };
    only.check()
        .map(|()| name.to_owned())
        .map_err(|error| error.to_string())
}

fn parse_executable(name: &str) -> Result<String, String> {
    if name.contains('/') {
        return Err("expected a file name without directories, such as `server`".to_owned());
    }
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests;
