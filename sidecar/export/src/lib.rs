//! Exporters: what leaves the agent, and how. They know spans and measurements, never protocols.
//!
//! ```text
//! ring reader's thread:  ExportSink -> per container: Metrics  <- /metrics, OTLP metrics task
//!                                   -> per exporter: bounded Queue -> OTLP traces task, printer threads
//! ```
#![forbid(unsafe_code)]

pub mod admin;
mod complaint;
pub mod config;
pub mod identity;
pub mod live;
pub mod metrics;
mod otlp;
mod print;
pub mod prometheus;
mod queue;
#[cfg(test)]
mod sample;
mod stats;
mod visible;

pub use config::{ConfigError, ExportConfig, Flags};
pub use identity::{Container, Containers, Resource};
pub use otlp::config::{OtlpConfig, TlsFiles};
pub use otlp::tls::TlsError;
pub use print::PrintFormat;
pub use stats::{ExporterStats, Stats};

use otlp::transport::{Signal, Transport};
use otlp::{Delivery, MetricsExport};
use pilotfish_pipeline::{Measurement, Sink, Span};
use print::Output;
use queue::{Observed, Queue};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

/// Why the exporters cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The print file cannot be opened for appending.
    #[error("cannot append spans to {path}: {source}; name a writable file with --print-file")]
    PrintFile {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A thread could not be started.
    #[error(
        "cannot start a printing thread: {0}; raise the limit of threads (ulimit -u, pids.max)"
    )]
    Thread(#[source] std::io::Error),
    /// TLS material for OTLP is unusable.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// The running exporters.
#[derive(Debug)]
pub struct Export {
    queues: Vec<Arc<Queue>>,
    tasks: Vec<JoinHandle<()>>,
    printers: Vec<oneshot::Receiver<()>>,
    /// Spans for a live view that has not begun.
    unseen: Option<Arc<Queue>>,
    closing: watch::Sender<bool>,
    stats: Stats,
}

impl Export {
    /// Starts what is configured on the current tokio runtime. Containers may come and go through `containers`
    /// before and after.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start(
        config: ExportConfig,
        containers: Containers,
    ) -> Result<(Self, ExportSink), ExportError> {
        let stats = Stats::new(containers.clone());
        let (closing, _) = watch::channel(false);
        let mut export = Self {
            queues: Vec::new(),
            tasks: Vec::new(),
            printers: Vec::new(),
            unseen: None,
            closing,
            stats,
        };
        if let Some(format) = config.print {
            export.print("print", format, Box::new(std::io::stdout()))?;
        }
        if config.live {
            let queue = Queue::new(live::QUEUE, live::BATCH, live::BATCH);
            export.unseen = Some(export.queue("live", queue));
        }
        if let Some(path) = config.print_file {
            let file = print::open_file(&path)
                .map_err(|source| ExportError::PrintFile { path, source })?;
            export.print("print_file", PrintFormat::Json, file)?;
        }
        let mut shared = None;
        if let Some(otlp) = config.traces {
            let transport = Transport::new(otlp, Signal::Traces, None)?;
            shared = Some(transport.clone());
            let queue = export.queue(
                "otlp_traces",
                Queue::new(config.batch.queue, config.batch.batch, config.batch.batch),
            );
            let delivery =
                Delivery::new(transport, config.batch.timeout, export.closing.subscribe());
            export.tasks.push(tokio::spawn(otlp::export_spans(
                queue,
                delivery,
                config.batch,
            )));
        }
        if let Some(otlp) = config.metrics {
            let transport = Transport::new(otlp, Signal::Metrics, shared.as_ref())?;
            let delivery =
                Delivery::new(transport, config.reader.timeout, export.closing.subscribe());
            let accounts = export.stats.exporter("otlp_metrics");
            let metrics = MetricsExport::new(containers.clone(), accounts, delivery, config.reader);
            export.tasks.push(tokio::spawn(metrics.run()));
        }
        let sink = ExportSink {
            containers,
            queues: export.queues.clone(),
            buffer: Vec::new(),
            stats: export.stats(),
        };
        Ok((export, sink))
    }

    /// What became of the data so far; stays readable after the shutdown.
    pub fn stats(&self) -> Stats {
        self.stats.clone()
    }

    /// Sends what is queued, and the metrics a last time. Returns when all is sent or `deadline` has passed; what
    /// is left then is counted as dropped, and what was being sent as failed. Flush the sink before.
    ///
    /// A printer that is stuck in a write cannot be ended; its thread ends with the process.
    pub async fn shutdown(self, deadline: Duration) {
        self.closing.send_replace(true);
        for queue in &self.queues {
            queue.close();
        }
        let deadline = tokio::time::Instant::now() + deadline;
        for mut task in self.tasks {
            if tokio::time::timeout_at(deadline, &mut task).await.is_err() {
                task.abort();
                // Aborted or ended by itself: either way its batch is accounted for once it is joined.
                let _ = task.await;
            }
        }
        for printer in self.printers {
            let _ = tokio::time::timeout_at(deadline, printer).await;
        }
        live::set_modes_back();
        for queue in &self.queues {
            queue.abandon();
        }
    }

    /// Begins the live view, if it is configured: from here on the terminal is its own, until the shutdown.
    pub fn begin_view(&mut self, source: live::Source) -> Result<(), ExportError> {
        match self.unseen.take() {
            Some(queue) => self.thread("live", live::run(queue, source)),
            None => Ok(()),
        }
    }

    fn queue(&mut self, exporter: &'static str, queue: Queue) -> Arc<Queue> {
        let queue = Arc::new(queue);
        self.stats.add(exporter, Arc::clone(&queue.accounts));
        self.queues.push(Arc::clone(&queue));
        queue
    }

    fn print(
        &mut self,
        exporter: &'static str,
        format: PrintFormat,
        output: Output,
    ) -> Result<(), ExportError> {
        let queue = self.queue(exporter, Queue::new(print::QUEUE, 1, print::BATCH));
        self.thread(exporter, print::run(queue, format, output))
    }

    /// A printer has its own thread, and on it a runtime for the queue's timer and what it hears of the terminal.
    fn thread(
        &mut self,
        exporter: &'static str,
        printer: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), ExportError> {
        let (ended, end) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(ExportError::Thread)?;
        let work = move || {
            runtime.block_on(printer);
            // Nobody listens after a shutdown that ran out of time.
            let _ = ended.send(());
        };
        std::thread::Builder::new()
            .name(exporter.to_owned())
            .spawn(work)
            .map_err(ExportError::Thread)?;
        self.printers.push(end);
        Ok(())
    }
}

/// Takes the pipeline's results on the ring reader's thread. It waits for no I/O, only for the copying of one
/// container's metrics.
#[derive(Debug)]
pub struct ExportSink {
    containers: Containers,
    queues: Vec<Arc<Queue>>,
    buffer: Vec<Arc<Observed>>,
    stats: Stats,
}

/// Spans gathered before a flush that nobody asked for.
const BUFFER: usize = 256;

impl ExportSink {
    /// Hands the gathered spans to the exporters. To be called after each drain of the ring buffer.
    pub fn flush(&mut self) {
        if self.buffer.is_empty() {
            return;
        }
        for queue in &self.queues {
            queue.push(&self.buffer);
        }
        self.buffer.clear();
    }

    /// True while an exporter has more than half of its queue to do: a producer that can wait should.
    pub fn is_behind(&self) -> bool {
        self.queues.iter().any(|queue| queue.is_behind())
    }
}

impl Sink for ExportSink {
    fn span(&mut self, span: Span) {
        let Some(container) = self.containers.get(span.slot) else {
            self.stats.unowned.fetch_add(1, Ordering::Relaxed);
            return;
        };
        if self.queues.is_empty() {
            return;
        }
        self.buffer.push(Arc::new(Observed { container, span }));
        if self.buffer.len() >= BUFFER {
            self.flush();
        }
    }

    fn measurement(&mut self, measurement: Measurement) {
        match self.containers.get(measurement.slot) {
            Some(container) => container.record(&measurement),
            None => {
                self.stats.unowned.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}
