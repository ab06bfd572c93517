//! The agent: loads the programs, starts the reader, the observer, the exporters and the pages, and ends them in
//! an order that loses nothing.

use crate::{
    cli::{KernelArgs, Listen, OutputArgs, PipelineArgs, Print},
    consume::{FileConsumer, PipelineConsumer, SharedView},
    discovery::{Naming, Options, Target},
    instrument::{LoadOptions, Probes},
    observe::{LIFECYCLE_QUEUE, Observer, Registry},
    pages::AgentPages,
    source::{self, Channels, Consumer, Control, SourceStats},
    stream::{self, ContainerFrame},
};
use anyhow::{Context, Result};
use pilotfish_export::{Containers, Export, ExportConfig, Flags, PrintFormat, admin::Admin};
use pilotfish_pipeline::{Config, Pipeline, Sampler, Slot};
use rand::{TryRng, rngs::SysRng};
use std::{
    future::Future,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::Duration,
};
use tokio::sync::{mpsc as channel, oneshot};

/// Time for the exporters to send what they hold at the end; with the reader's last drain below two seconds.
const FLUSH: Duration = Duration::from_millis(1500);

/// The same at the end of a replay, which nobody waits for with a signal.
const REPLAY_FLUSH: Duration = Duration::from_mins(1);

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
    /// Exporters.
    pub output: OutputArgs,
    /// Pages.
    pub listen: Listen,
}

/// Runs until `until` completes. `ready` is called when everything found at the start is in scope.
pub async fn trace(
    plan: Plan,
    ready: impl FnOnce(),
    until: impl Future<Output = ()>,
) -> Result<()> {
    // Everything that can be refused is refused before the kernel is touched.
    let pipeline = Pipeline::new(pipeline_config(&plan.pipeline)?)?;
    let export_config = export_config(&plan.output)?;
    let prometheus = export_config.prometheus;
    let admin = match plan.listen {
        Listen::On(address) => Some(Admin::bind(address).await?),
        Listen::Off => None,
    };
    let containers = Containers::new();
    let (export, sink) = Export::start(export_config, containers.clone())?;
    let view = SharedView::default();
    let consumer = PipelineConsumer::new(pipeline, sink, Arc::clone(&view));
    let registry = ExportRegistry {
        containers: containers.clone(),
    };
    let kernel = Kernel::start(&plan, consumer, registry)?;

    let running = Arc::new(AtomicBool::new(true));
    if let Some(admin) = admin {
        let pages = AgentPages {
            probes: Arc::clone(&kernel.probes),
            discovery: kernel.observer.discovery(),
            containers,
            export: export.stats(),
            source: Arc::clone(&kernel.stats),
            pipeline: view,
            running: Arc::clone(&running),
            prometheus,
        };
        tracing::info!(address = %admin.address(), "serving /metrics, /healthz, /readyz, /status");
        tokio::spawn(admin.serve(Arc::new(pages)));
    }
    ready();
    let followed = kernel.run(until).await;
    running.store(false, Ordering::Release);
    // What was observed before a failure is sent all the same.
    export.shutdown(FLUSH).await;
    followed
}

/// Writes records to a file until `until` completes or writing fails.
pub async fn record(plan: Plan, file: &Path, until: impl Future<Output = ()>) -> Result<()> {
    let writer = Arc::new(Mutex::new(stream::Writer::create(file)?));
    let (failed, mut failure) = oneshot::channel();
    let consumer = FileConsumer::new(Arc::clone(&writer), failed);
    let kernel = Kernel::start(&plan, consumer, FileRegistry { writer })?;
    tracing::info!(file = %file.display(), "recording");
    let stats = Arc::clone(&kernel.stats);
    let mut error = None;
    let end = async {
        tokio::select! {
            () = until => {}
            Ok(failed) = &mut failure => error = Some(failed),
        }
    };
    kernel.run(end).await?;
    let delivered = stats.delivered.load(Ordering::Relaxed);
    tracing::info!(records = delivered, "recorded");
    // The last write may have failed too.
    match error.or_else(|| failure.try_recv().ok()) {
        Some(error) => Err(error.into()),
        None => Ok(()),
    }
}

/// Runs the pipeline over a recorded file.
pub async fn replay(file: &Path, pipeline: &PipelineArgs, output: &OutputArgs) -> Result<()> {
    let mut reader = stream::Reader::open(file)?;
    let pipeline = Pipeline::new(pipeline_config(pipeline)?)?;
    let containers = Containers::new();
    let (export, sink) = Export::start(export_config(output)?, containers.clone())?;
    let registry = ExportRegistry { containers };
    let consumer = PipelineConsumer::new(pipeline, sink, SharedView::default());
    // Blocking, and on its own thread as the ring reader is: the exporters need the runtime.
    let outcome =
        tokio::task::spawn_blocking(move || crate::replay::feed(&mut reader, consumer, registry))
            .await?;
    let stats = export.stats();
    export.shutdown(REPLAY_FLUSH).await;
    let summary = outcome?;
    tracing::info!(
        records = summary.records,
        malformed = summary.malformed,
        "replayed"
    );
    let lost: u64 = stats
        .exporters()
        .iter()
        .map(|of| of.dropped + of.failed)
        .sum();
    anyhow::ensure!(
        lost == 0,
        "{lost} spans of the recording were not exported; see the warnings above, or use --print-file"
    );
    Ok(())
}

/// The kernel's half of an agent with what follows it.
struct Kernel<R> {
    probes: Arc<Mutex<Probes>>,
    observer: Observer<R>,
    events: channel::Receiver<crate::discovery::Event>,
    reader: JoinHandle<()>,
    control: mpsc::Sender<Control>,
    stats: Arc<SourceStats>,
}

impl<R: Registry> Kernel<R> {
    /// Programs, then scope, then the reader: nothing is lost in between, the ring buffer holds it.
    fn start(plan: &Plan, consumer: impl Consumer + 'static, registry: R) -> Result<Self> {
        let options = LoadOptions {
            ring_bytes: plan.kernel.ring_bytes,
            report_newcomers: plan.target == Target::SharedNamespace,
        };
        let mut probes = Probes::load(options)?;
        let ring = probes.take_ring()?;
        let scope = probes.take_scope()?;
        let (control, commands) = mpsc::channel();
        let (lifecycle, events) = channel::channel(LIFECYCLE_QUEUE);
        let stats = Arc::new(SourceStats::default());
        let observer = Observer::start(
            plan.target.clone(),
            discovery_options(plan),
            scope,
            registry,
            control.clone(),
            Arc::clone(&stats),
        )?;
        let channels = Channels {
            lifecycle,
            control: commands,
        };
        let reader = source::spawn(ring, consumer, channels, Arc::clone(&stats))
            .context("cannot start the reader's thread")?;
        let probes = Arc::new(Mutex::new(probes));
        Ok(Self {
            probes,
            observer,
            events,
            reader,
            control,
            stats,
        })
    }

    /// Follows until told to stop, then takes the last records out of the ring.
    async fn run(self, until: impl Future<Output = ()>) -> Result<()> {
        let followed = tokio::select! {
            result = self.observer.run(self.events) => result,
            () = until => Ok(()),
        };
        // The reader is gone only if it panicked, which joining it shows.
        let _ = self.control.send(Control::Stop);
        let reader = self.reader;
        let joined = tokio::task::spawn_blocking(move || reader.join()).await?;
        anyhow::ensure!(
            joined.is_ok(),
            "the reader's thread panicked; this is a bug, please report it with the message above"
        );
        followed.map_err(Into::into)
    }
}

fn discovery_options(plan: &Plan) -> Options {
    let host_name = std::env::var("NODE_NAME")
        .ok()
        .filter(|name| !name.is_empty())
        .or_else(|| {
            let name = nix::unistd::gethostname().ok()?;
            name.into_string().ok()
        });
    Options {
        capture: plan.kernel.capture_bytes,
        launching: plan.launching.clone(),
        naming: Naming {
            service_name: plan.pipeline.service_name.clone(),
            host_name,
        },
        ..Options::default()
    }
}

fn pipeline_config(args: &PipelineArgs) -> Result<Config> {
    let mut seed = [0; 32];
    SysRng
        .try_fill_bytes(&mut seed)
        .context("cannot get random bytes from the system for trace ids")?;
    Ok(Config {
        seed,
        sampler: Sampler::from_env_values(args.sampler.as_deref(), args.sampler_arg.as_deref())?,
        routes: given(&args.routes),
        ignore_paths: given(&args.ignore_paths),
        protocols: (!args.protocols.is_empty()).then(|| args.protocols.clone()),
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

fn export_config(args: &OutputArgs) -> Result<ExportConfig> {
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

/// Containers for the exporters.
pub(crate) struct ExportRegistry {
    containers: Containers,
}

impl Registry for ExportRegistry {
    fn set(&mut self, slot: u32, resource: Vec<(String, String)>) {
        self.containers
            .insert(Slot(slot), resource.into_iter().collect());
    }

    fn remove(&mut self, slot: u32) {
        self.containers.remove(Slot(slot));
    }
}

/// Containers for a recorded file.
struct FileRegistry {
    writer: Arc<Mutex<stream::Writer>>,
}

impl Registry for FileRegistry {
    fn set(&mut self, slot: u32, resource: Vec<(String, String)>) {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = writer.container(&ContainerFrame { slot, resource }) {
            tracing::error!(%error, "a container's identity was not recorded");
        }
    }

    fn remove(&mut self, _slot: u32) {}
}
