//! What an agent is to do, and the settings of its parts that follow from it.

use crate::{
    announced::Ledger,
    cli::{AnnotationArgs, KernelArgs, Listen, OutputArgs, PipelineArgs, Print, Switch},
    discovery::{Naming, Options, OwnContainer, Target, is_pure_v2},
    instrument::LoadOptions,
    pages::FrontEnd,
    policy::Policy,
};
use anyhow::{Context, Result};
use pilotfish_export::{ExportConfig, Flags, PrintFormat};
use pilotfish_pipeline::{Config, Sampler, SlotConfig};
use rand::{TryRng, rngs::SysRng};
use std::{path::PathBuf, sync::Arc, time::Duration};

/// How long an announced container without processes keeps its slot when its runtime does not tell that it ended:
/// with a thousand containers a minute the slots last.
const ANNOUNCED_GRACE: Duration = Duration::from_secs(10);

/// What an agent is to do.
pub struct Plan {
    /// What to observe.
    pub target: Target,
    /// See [`Options::launching`].
    pub launching: Option<(i32, String)>,
    /// Kernel settings.
    pub kernel: KernelArgs,
    /// Pipeline settings.
    pub pipeline: PipelineArgs,
    /// What annotations may ask for.
    pub annotations: AnnotationArgs,
    /// Where the Downward API writes our pod's annotations.
    pub pod_file: Option<PathBuf>,
    /// Who remembers announced containers.
    pub ledger: Option<Box<dyn Ledger>>,
    /// Exporters.
    pub output: OutputArgs,
    /// Pages.
    pub listen: Listen,
    /// Who announces containers, for the pages.
    pub front_end: Option<Arc<dyn FrontEnd>>,
}

impl Plan {
    /// To observe this, with everything else at its default and no pages.
    pub fn new(target: Target, kernel: KernelArgs) -> Self {
        Self {
            target,
            launching: None,
            kernel,
            pipeline: PipelineArgs::default(),
            annotations: AnnotationArgs::default(),
            pod_file: None,
            ledger: None,
            output: OutputArgs::default(),
            listen: Listen::Off,
            front_end: None,
        }
    }
}

/// How the programs are loaded.
///
/// Announced containers are told apart by their cgroups. Where these are version 2 and seen from the host's cgroup
/// namespace, the kernel side recognises whatever enters one; elsewhere it has to report every program that the
/// machine executes, and discovery looks at its cgroup.
pub(crate) fn load_options(plan: &Plan) -> Result<LoadOptions> {
    let report_newcomers = match plan.target {
        Target::SharedNamespace => true,
        Target::Processes(_) => false,
        Target::Announced => !is_pure_v2() || !OwnContainer::detect()?.sees_host_cgroups(),
    };
    Ok(LoadOptions {
        ring_bytes: plan.kernel.ring_bytes,
        report_newcomers,
    })
}

/// How processes are found.
pub(crate) fn discovery_options(plan: &Plan) -> Options {
    let host_name = std::env::var("NODE_NAME")
        .ok()
        .filter(|name| !name.is_empty())
        .or_else(|| {
            let name = nix::unistd::gethostname().ok()?;
            name.into_string().ok()
        });
    let defaults = Options::default();
    Options {
        launching: plan.launching.clone(),
        naming: Naming {
            service_name: plan.pipeline.service_name.clone(),
            host_name,
        },
        grace: match plan.target {
            Target::Announced => ANNOUNCED_GRACE,
            _ => defaults.grace,
        },
        ..defaults
    }
}

/// What containers may ask for.
pub(crate) fn policy(plan: &Plan, pipeline: &Config) -> Policy {
    Policy {
        defaults: pipeline.defaults.clone(),
        capture: plan.kernel.capture_bytes,
        max_capture: plan.annotations.max_capture_bytes,
        max_sample_ratio: plan.annotations.max_sample_ratio,
        annotations: plan.annotations.annotations == Switch::On,
    }
}

/// Settings of the pipeline, with a seed from the system's randomness.
pub(crate) fn pipeline_config(args: &PipelineArgs) -> Result<Config> {
    let mut seed = [0; 32];
    SysRng
        .try_fill_bytes(&mut seed)
        .context("cannot get random bytes from the system for trace ids")?;
    Ok(Config {
        seed,
        defaults: SlotConfig {
            sampler: Sampler::from_env_values(
                args.sampler.as_deref(),
                args.sampler_arg.as_deref(),
            )?,
            routes: given(&args.routes),
            ignore_paths: given(&args.ignore_paths),
            protocols: (!args.protocols.is_empty()).then(|| args.protocols.clone()),
            ports: None,
        },
        ..Config::default()
    })
}

/// A list without the empty entry that a trailing separator leaves.
fn given(list: &[String]) -> Vec<String> {
    list.iter()
        .filter(|entry| !entry.is_empty())
        .cloned()
        .collect()
}

/// Settings of the exporters: flags and the standard variables.
pub(crate) fn export_config(args: &OutputArgs) -> Result<ExportConfig> {
    let print = match args.print {
        Some(Print::Text) => Some(PrintFormat::Text),
        Some(Print::Json) => Some(PrintFormat::Json),
        Some(Print::None) | None => None,
    };
    let flags = Flags {
        endpoint: args.otlp_endpoint.clone(),
        protocol: args.otlp_protocol.clone(),
        print,
        print_file: args.print_file.clone(),
    };
    let mut config = ExportConfig::from_env(&flags)?;
    if args.print == Some(Print::None) {
        config.print = None;
    }
    Ok(config)
}
