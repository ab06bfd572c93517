//! What an agent is to do, and the settings of its parts that follow from it.

use crate::{
    announced::Ledger,
    cli::{AnnotationArgs, KernelArgs, Listen, OutputArgs, PipelineArgs, Print, Switch},
    discovery::{Naming, Options, OwnContainer, OwnPod, Target, is_pure_v2, operator_attributes},
    instrument::LoadOptions,
    pages::FrontEnd,
    policy::Policy,
    tls::Launching,
};
use anyhow::{Context, Result};
use pilotfish_export::{
    ExportConfig, Flags, PrintFormat,
    live::{self, Messages},
};
use pilotfish_pipeline::{Config, Sampler, SlotConfig};
use rand::{TryRng, rngs::SysRng};
use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

/// How long an announced container without processes keeps its slot when its runtime does not tell that it ended:
/// with a thousand containers a minute the slots last.
const ANNOUNCED_GRACE: Duration = Duration::from_secs(10);

/// What an agent is to do.
pub struct Plan {
    /// What to observe.
    pub target: Target,
    /// What waits to execute a program.
    pub launching: Option<Launching>,
    /// Kernel settings.
    pub kernel: KernelArgs,
    /// Pipeline settings.
    pub pipeline: PipelineArgs,
    /// What annotations may ask for.
    pub annotations: AnnotationArgs,
    /// The pod whose sidecar this is.
    pub pod: PodPlan,
    /// Who remembers announced containers.
    pub ledger: Option<Box<dyn Ledger>>,
    /// Exporters.
    pub output: OutputArgs,
    /// Takes the log while there is a live view; without it there is none, because the terminal is somebody else's.
    pub view: Option<Messages>,
    /// Pages.
    pub listen: Listen,
    /// Whether nobody is kept waiting: to do without the pages where their port is taken, and to be ready though there are
    /// processes that cannot be observed.
    pub fail_open: bool,
    /// Who announces containers, for the pages.
    pub front_end: Option<Arc<dyn FrontEnd>>,
}

/// What the Downward API tells of the pod that we are in.
#[derive(Clone, Debug, Default)]
pub struct PodPlan {
    /// Its names.
    pub own: OwnPod,
    /// Where its annotations are written.
    pub annotations: Option<PathBuf>,
    /// Where its labels are written.
    pub labels: Option<PathBuf>,
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
            pod: PodPlan::default(),
            ledger: None,
            output: OutputArgs::default(),
            view: None,
            listen: Listen::Off,
            fail_open: false,
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
        tls: plan.kernel.tls == Switch::On,
    })
}

/// How processes are found.
pub(crate) fn discovery_options(plan: &Plan) -> Options {
    let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let attributes =
        match variable("OTEL_RESOURCE_ATTRIBUTES").map(|text| operator_attributes(&text)) {
            Some(Ok(attributes)) => attributes,
            Some(Err(error)) => {
                tracing::warn!(%error, "OTEL_RESOURCE_ATTRIBUTES is ignored");
                BTreeMap::new()
            }
            None => BTreeMap::new(),
        };
    let defaults = Options::default();
    Options {
        launching: plan.launching.as_ref().map(launched),
        naming: naming(
            &plan.pipeline,
            variable("NODE_NAME"),
            attributes,
            System::read(),
        ),
        pod: plan.pod.own.clone(),
        grace: match plan.target {
            Target::Announced => ANNOUNCED_GRACE,
            _ => defaults.grace,
        },
        ..defaults
    }
}

/// See [`Options::launching`].
fn launched(launching: &Launching) -> (i32, String) {
    let program = &launching.program;
    let name = program.rsplit('/').next().unwrap_or(program);
    (launching.pid, name.to_owned())
}

/// What this system calls itself.
struct System {
    name: Option<String>,
    /// Inode number of our UTS namespace.
    namespace: Option<u64>,
}

impl System {
    /// Number of the first UTS namespace, which is the host's (`PROC_UTS_INIT_INO`, `include/linux/proc_ns.h`).
    const OF_THE_HOST: u64 = 0xEFFF_FFFE;

    fn read() -> Self {
        use std::os::unix::fs::MetadataExt;
        let name = nix::unistd::gethostname().ok();
        let namespace = std::fs::metadata("/proc/self/ns/uts").ok();
        Self {
            name: name.and_then(|name| name.into_string().ok()),
            namespace: namespace.map(|file| file.ino()),
        }
    }

    /// The host's name. In a container of its own name, which is most often its id, nobody knows it.
    fn host_name(&self) -> Option<&str> {
        let of_the_host = self.namespace == Some(Self::OF_THE_HOST);
        self.name.as_deref().filter(|_| of_the_host)
    }
}

/// Flags and variables of one name go before the operator's attributes, and these before what the system says.
fn naming(
    args: &PipelineArgs,
    node_name: Option<String>,
    mut attributes: BTreeMap<String, String>,
    system: System,
) -> Naming {
    let service_name = attributes.remove("service.name");
    let host_name = attributes.remove("host.name");
    Naming {
        service_name: args.service_name.clone().or(service_name),
        host_name: (node_name.clone().or(host_name))
            .or_else(|| system.host_name().map(str::to_owned)),
        node_name,
        system_name: system.name,
        attributes,
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
        tls: plan.kernel.tls == Switch::On,
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

/// Settings of the exporters: flags and the standard variables. `view` says whether the terminal is ours to show the
/// live view on.
pub(crate) fn export_config(args: &OutputArgs, view: bool) -> Result<ExportConfig> {
    anyhow::ensure!(
        view || args.print != Some(Print::Live),
        "--print live is for `pilotfish sidecar` and `pilotfish node`; use --print text"
    );
    let unsuited = if view { live::unsuited() } else { None };
    let suited = view && unsuited.is_none();
    let print = match args.print {
        Some(Print::Text) => Some(PrintFormat::Text),
        Some(Print::Json) => Some(PrintFormat::Json),
        Some(Print::Live) => {
            if let Some(reason) = unsuited {
                tracing::warn!(reason, "no live view; spans are printed as text");
            }
            (!suited).then_some(PrintFormat::Text)
        }
        Some(Print::None) | None => None,
    };
    let flags = Flags {
        endpoint: args.otlp_endpoint.clone(),
        protocol: args.otlp_protocol.clone(),
        print,
        print_file: args.print_file.clone(),
        view: suited && args.print.is_none(),
    };
    let mut config = ExportConfig::from_env(&flags)?;
    match args.print {
        Some(Print::None) => config.print = None,
        Some(Print::Live) if suited => {
            config.print = None;
            config.live = true;
        }
        _ => {}
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_the_operators_attributes_stand_behind_their_own_settings() {
        let attributes = || operator_attributes("service.name=shop,host.name=h,team=fish").unwrap();
        let system = || System {
            name: Some("system".to_owned()),
            namespace: Some(System::OF_THE_HOST),
        };
        let plain = naming(&PipelineArgs::default(), None, attributes(), system());
        assert_eq!(plain.service_name.as_deref(), Some("shop"));
        assert_eq!(plain.host_name.as_deref(), Some("h"));
        assert_eq!(plain.node_name, None);
        assert_eq!(plain.attributes, operator_attributes("team=fish").unwrap());

        let args = PipelineArgs {
            service_name: Some("web".to_owned()),
            ..PipelineArgs::default()
        };
        let named = naming(&args, Some("node-1".to_owned()), attributes(), system());
        assert_eq!(named.service_name.as_deref(), Some("web"));
        assert_eq!(named.host_name.as_deref(), Some("node-1"));
        assert_eq!(named.node_name.as_deref(), Some("node-1"));
    }

    #[test]
    fn a_containers_own_name_is_not_the_hosts() {
        let named = |namespace| {
            let system = System {
                name: Some("0c8bdf3e1d5a".to_owned()),
                namespace: Some(namespace),
            };
            naming(&PipelineArgs::default(), None, BTreeMap::new(), system)
        };
        assert_eq!(
            named(System::OF_THE_HOST).host_name.as_deref(),
            Some("0c8bdf3e1d5a")
        );
        let inside = named(4_026_532_000);
        assert_eq!(inside.host_name, None);
        assert_eq!(inside.system_name.as_deref(), Some("0c8bdf3e1d5a"));
    }
}
