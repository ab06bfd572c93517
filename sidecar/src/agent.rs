//! The agent: loads the programs, starts the reader, the observer, the exporters and the pages, and ends them in
//! an order that loses nothing.

use crate::{
    announced::{COMMAND_QUEUE, Command, Commands},
    check::refusal::Refused,
    cli::{Listen, OutputArgs, PipelineArgs},
    consume::{self, FileConsumer, PipelineConsumer, SharedRecording, SharedView},
    fail_open,
    instrument::{InstrumentError, Probes},
    observe::{LIFECYCLE_QUEUE, Observer, Pod, PodFiles, Registry, Task},
    pages::AgentPages,
    plan,
    source::{self, Channels, Consumer, Control, ControlSender, Mailbox, SourceStats},
    stream::{self, ContainerFrame},
    tls::{self, Tls},
    view::AgentFacts,
};
use anyhow::{Context, Result};
use pilotfish_export::{Containers, Export, admin::Admin, live};
use pilotfish_pipeline::{Pipeline, Slot, SlotConfig};
use std::{
    future::Future,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};
use tokio::sync::{mpsc as channel, oneshot};

pub use crate::plan::Plan;

/// Time for the exporters to send what they hold at the end; with the reader's last drain below two seconds.
const FLUSH: Duration = Duration::from_millis(1500);

/// The same at the end of a replay, which nobody waits for with a signal.
const REPLAY_FLUSH: Duration = Duration::from_mins(1);

/// A running agent.
pub struct Handle {
    /// The way to the observer, of use for [`crate::discovery::Target::Announced`].
    pub commands: Commands,
}

/// Runs until `until` completes. `ready` is called when everything found at the start is in scope; commands are
/// answered from then on.
pub async fn trace(
    plan: Plan,
    ready: impl FnOnce(Handle),
    until: impl Future<Output = ()>,
) -> Result<()> {
    let (agent, handle) = Agent::start(plan).await?;
    ready(handle);
    agent.run(until).await
}

/// An agent that observes what it found at its start.
pub struct Agent {
    kernel: Kernel<ExportRegistry>,
    queue: channel::Receiver<Command>,
    export: Export,
    running: Arc<AtomicBool>,
}

impl Agent {
    /// Starts it. Everything that can be refused is refused before the kernel is touched.
    pub async fn start(mut plan: Plan) -> Result<(Self, Handle)> {
        let config = plan::pipeline_config(&plan.pipeline)?;
        let policy = plan::policy(&plan, &config);
        let pipeline = Pipeline::new(config)?;
        let export_config = plan::export_config(&plan.output, plan.view.is_some())?;
        let pod = PodFiles::open(plan.pod.annotations.as_deref(), plan.pod.labels.as_deref())?;
        let prometheus = export_config.prometheus;
        let admin = bind(&plan).await?;
        let containers = Containers::new();
        let (mut export, sink) = Export::start(export_config, containers.clone())?;
        let view = SharedView::default();
        let of_pipeline = Arc::clone(&view);
        let consumer = |tls| Ok(PipelineConsumer::new(pipeline, sink, of_pipeline, tls));
        let (control, mailbox) = source::control();
        let registry = ExportRegistry {
            containers: containers.clone(),
            reader: control.clone(),
        };
        let task = Task {
            target: plan.target.clone(),
            options: plan::discovery_options(&plan),
            policy,
            pod,
            ledger: plan.ledger.take(),
            tls: None,
        };
        let started = Kernel::start(&plan, task, consumer, registry, (control, mailbox));
        let kernel = match started {
            Ok(kernel) => kernel,
            Err(error) => {
                // There is nothing to send.
                export.shutdown(Duration::ZERO).await;
                return Err(error);
            }
        };

        let running = Arc::new(AtomicBool::new(true));
        if let Some(admin) = admin {
            let pages = AgentPages {
                probes: Arc::clone(&kernel.probes),
                observed: kernel.observer.observed(),
                containers,
                export: export.stats(),
                source: Arc::clone(&kernel.stats),
                pipeline: view,
                tls: kernel.tls.as_ref().map(Tls::pages),
                running: Arc::clone(&running),
                prometheus,
                fail_open: plan.fail_open,
                front_end: plan.front_end.take(),
            };
            tracing::info!(address = %admin.address(), "serving /metrics, /healthz, /readyz, /status");
            tokio::spawn(admin.serve(Arc::new(pages)));
        }
        if let Some(messages) = plan.view {
            let facts = AgentFacts {
                probes: Arc::clone(&kernel.probes),
                observed: kernel.observer.observed(),
                export: export.stats(),
                source: Arc::clone(&kernel.stats),
            };
            export.begin_view(live::Source {
                facts: Box::new(move || facts.read()),
                messages,
            })?;
        }
        let (commands, queue) = channel::channel(COMMAND_QUEUE);
        let agent = Self {
            kernel,
            queue,
            export,
            running,
        };
        Ok((agent, Handle { commands }))
    }

    /// Runs until `until` completes.
    pub async fn run(self, until: impl Future<Output = ()>) -> Result<()> {
        let followed = self.kernel.run(self.queue, until).await;
        self.running.store(false, Ordering::Release);
        // What was observed before a failure is sent all the same.
        self.export.shutdown(FLUSH).await;
        followed
    }
}

/// The pages' server. An agent that fails open does without it where the port is taken.
async fn bind(plan: &Plan) -> Result<Option<Admin>> {
    match plan.listen {
        listen if plan.fail_open => Ok(fail_open::bind_if_free(listen).await),
        Listen::On(address) => Ok(Some(Admin::bind(address).await?)),
        Listen::Off => Ok(None),
    }
}

/// Writes records to a file until `until` completes or writing fails. Without something to record from no file is made.
pub async fn record(plan: Plan, file: &Path, until: impl Future<Output = ()>) -> Result<()> {
    let recording = SharedRecording::default();
    let (failed, mut failure) = oneshot::channel();
    let config = plan::pipeline_config(&plan.pipeline)?;
    let task = Task {
        target: plan.target.clone(),
        options: plan::discovery_options(&plan),
        policy: plan::policy(&plan, &config),
        pod: (PodFiles::default(), Pod::default()),
        ledger: None,
        tls: None,
    };
    let registry = FileRegistry {
        recording: Arc::clone(&recording),
    };
    // Plaintext is recorded as it is seen; that more of it could be seen is for an agent to find out.
    let consumer = |_| {
        consume::lock(&recording).begin(file)?;
        Ok(FileConsumer::new(Arc::clone(&recording), failed))
    };
    let kernel = Kernel::start(&plan, task, consumer, registry, source::control())?;
    tracing::info!(file = %file.display(), "recording");
    let stats = Arc::clone(&kernel.stats);
    let mut error = None;
    let end = async {
        tokio::select! {
            () = until => {}
            Ok(failed) = &mut failure => error = Some(failed),
        }
    };
    // Nobody sends commands to a recorder.
    let (_, queue) = channel::channel(1);
    kernel.run(queue, end).await?;
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
    let pipeline = Pipeline::new(plan::pipeline_config(pipeline)?)?;
    let containers = Containers::new();
    let (export, sink) = Export::start(plan::export_config(output, false)?, containers.clone())?;
    // A replay feeds the pipeline itself.
    let (reader_to_be, _) = source::control();
    let registry = ExportRegistry {
        containers,
        reader: reader_to_be,
    };
    let consumer = PipelineConsumer::new(pipeline, sink, SharedView::default(), None);
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
    if summary.left_over > 0 {
        tracing::warn!(
            bytes = summary.left_over,
            "the recording ends within a record, which is left out: its recorder was killed or the file was cut"
        );
    }
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
    control: ControlSender,
    stats: Arc<SourceStats>,
    tls: Option<Tls>,
}

impl<R: Registry> Kernel<R> {
    /// Programs, then scope, then the reader: nothing is lost in between, the ring buffer holds it. `consumer` is called
    /// when all that can be refused has been granted.
    fn start<C: Consumer + 'static>(
        plan: &Plan,
        mut task: Task,
        consumer: impl FnOnce(Option<tls::Sender>) -> Result<C>,
        registry: R,
        (control, mailbox): (ControlSender, Mailbox),
    ) -> Result<Self> {
        let mut probes = Probes::load(plan::load_options(plan)?).map_err(with_remedy)?;
        let ring = probes.take_ring()?;
        let scope = probes.take_scope()?;
        let tls = start_tls(&mut probes, plan)?;
        let sender = tls.as_ref().map(|tls| tls.sender.clone());
        task.tls.clone_from(&sender);
        let (lifecycle, events) = channel::channel(LIFECYCLE_QUEUE);
        let stats = Arc::new(SourceStats::default());
        let observer = Observer::start(task, scope, registry, Arc::clone(&stats))?;
        let channels = Channels {
            lifecycle,
            control: mailbox,
        };
        let reader = source::spawn(ring, consumer(sender)?, channels, Arc::clone(&stats))
            .context("cannot start the reader's thread")?;
        let probes = Arc::new(Mutex::new(probes));
        Ok(Self {
            probes,
            observer,
            events,
            reader,
            control,
            stats,
            tls,
        })
    }

    /// Follows until told to stop, then takes the last records out of the ring.
    async fn run(
        self,
        commands: channel::Receiver<Command>,
        until: impl Future<Output = ()>,
    ) -> Result<()> {
        let followed = tokio::select! {
            result = self.observer.run(self.events, commands) => result,
            () = until => Ok(()),
        };
        // The reader is gone only if it panicked, which joining it shows.
        let _ = self.control.send(Control::Stop);
        let reader = self.reader;
        let joined = tokio::task::spawn_blocking(move || reader.join()).await?;
        // Observer and reader are gone, and with this the last who could tell it anything.
        if let Some(tls) = self.tls {
            tokio::task::spawn_blocking(move || tls.end()).await?;
        }
        anyhow::ensure!(
            joined.is_ok(),
            "the reader's thread panicked; this is a bug, please report it with the message above"
        );
        followed.map_err(Into::into)
    }
}

/// Says what this process lacks, where that may be the reason.
fn with_remedy(error: InstrumentError) -> anyhow::Error {
    if error.is_refusal() {
        Refused::from(error).into()
    } else {
        error.into()
    }
}

/// Starts the search for TLS libraries, where the kernel can do what it takes.
fn start_tls(probes: &mut Probes, plan: &Plan) -> Result<Option<Tls>> {
    match probes.take_tls() {
        None => Ok(None),
        Some(Ok(programs)) => {
            let tls = tls::start(programs, plan.launching.as_ref(), &plan.kernel.tls_exclude)
                .context("cannot start the thread that looks for TLS")?;
            Ok(Some(tls))
        }
        Some(Err(error)) => {
            tracing::warn!(%error, "plaintext of TLS is not seen; everything else is");
            Ok(None)
        }
    }
}

/// Containers for the exporters, and their settings for the pipeline.
pub(crate) struct ExportRegistry {
    containers: Containers,
    reader: ControlSender,
}

impl Registry for ExportRegistry {
    fn set(&mut self, slot: u32, resource: Vec<(String, String)>) {
        self.containers
            .insert(Slot(slot), resource.into_iter().collect());
    }

    fn configure(&mut self, slot: u32, config: &SlotConfig) {
        // A reader that is gone has nothing left to read.
        let _ = self
            .reader
            .send(Control::Configure(Slot(slot), Box::new(config.clone())));
    }

    fn remove(&mut self, slot: u32) {
        self.containers.remove(Slot(slot));
        // Nor to forget.
        let _ = self.reader.send(Control::Forget(Slot(slot)));
    }
}

/// Containers for a recorded file.
struct FileRegistry {
    recording: SharedRecording,
}

impl Registry for FileRegistry {
    fn set(&mut self, slot: u32, resource: Vec<(String, String)>) {
        let container = ContainerFrame { slot, resource };
        if let Err(error) = consume::lock(&self.recording).container(container) {
            tracing::error!(%error, "a container's identity was not recorded");
        }
    }

    fn configure(&mut self, _slot: u32, _config: &SlotConfig) {}

    fn remove(&mut self, _slot: u32) {}
}
