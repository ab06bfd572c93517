//! What the ring reader feeds: the pipeline, or a file.

use crate::{
    source::Consumer,
    stream::{self, StreamError},
};
use pilotfish_export::ExportSink;
use pilotfish_pipeline::{Pipeline, Record, Slot, SlotConfig, Stats};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::oneshot;

/// Pipeline counters and sizes, copied out once per tick for `/metrics` and `/status`.
#[derive(Clone, Debug, Default)]
pub struct PipelineView {
    /// Counters.
    pub stats: Stats,
    /// Flows in the table.
    pub flows: usize,
    /// Exchanges in progress.
    pub exchanges: usize,
}

/// Shared copy of the pipeline's counters.
pub type SharedView = Arc<Mutex<PipelineView>>;

/// Records to spans and measurements.
pub struct PipelineConsumer {
    pipeline: Pipeline,
    sink: ExportSink,
    view: SharedView,
}

impl PipelineConsumer {
    /// Joins a pipeline to the exporters.
    pub fn new(pipeline: Pipeline, sink: ExportSink, view: SharedView) -> Self {
        Self {
            pipeline,
            sink,
            view,
        }
    }

    fn publish(&self) {
        let mut view = self.view.lock().unwrap_or_else(PoisonError::into_inner);
        view.stats.clone_from(self.pipeline.stats());
        view.flows = self.pipeline.flows_open();
        view.exchanges = self.pipeline.exchanges_open();
    }
}

impl Consumer for PipelineConsumer {
    fn record(&mut self, record: &Record<'_>, _bytes: &[u8]) {
        self.pipeline.on_record(record, &mut self.sink);
    }

    fn drained(&mut self) {
        self.sink.flush();
        self.publish();
    }

    fn tick(&mut self, now: u64, unix_offset: i64) {
        self.pipeline.on_tick(now, unix_offset, &mut self.sink);
        self.sink.flush();
        self.publish();
    }

    fn configure(&mut self, slot: Slot, config: &SlotConfig) {
        if let Err(error) = self.pipeline.configure(slot, config) {
            tracing::error!(
                slot = slot.0,
                %error,
                "settings of a container were refused; its former ones stay in force"
            );
        }
    }

    fn forget(&mut self, slot: Slot) {
        self.pipeline.forget(slot, &mut self.sink);
        self.sink.flush();
    }

    fn is_behind(&self) -> bool {
        self.sink.is_behind()
    }

    fn finish(&mut self) {
        self.pipeline.finish(&mut self.sink);
        self.sink.flush();
        self.publish();
    }
}

/// Records to a file.
pub struct FileConsumer {
    writer: Arc<Mutex<stream::Writer>>,
    failure: Option<oneshot::Sender<StreamError>>,
}

impl FileConsumer {
    /// Writes through a writer that the agent shares to add containers. The first failure is told through `failure`,
    /// and nothing is written after it.
    pub fn new(writer: Arc<Mutex<stream::Writer>>, failure: oneshot::Sender<StreamError>) -> Self {
        Self {
            writer,
            failure: Some(failure),
        }
    }

    fn write(&mut self, write: impl FnOnce(&mut stream::Writer) -> Result<(), StreamError>) {
        if self.failure.is_none() {
            return;
        }
        let outcome = write(&mut self.writer.lock().unwrap_or_else(PoisonError::into_inner));
        if let Err(error) = outcome
            && let Some(failure) = self.failure.take()
        {
            // An agent that is ending already has nobody left to tell.
            let _ = failure.send(error);
        }
    }
}

impl Consumer for FileConsumer {
    fn record(&mut self, _record: &Record<'_>, bytes: &[u8]) {
        self.write(|writer| writer.record(bytes));
    }

    fn drained(&mut self) {}

    fn tick(&mut self, _now: u64, unix_offset: i64) {
        self.write(|writer| writer.clock(unix_offset));
    }

    /// Settings are not recorded: a replay has its own.
    fn configure(&mut self, _slot: Slot, _config: &SlotConfig) {}

    fn forget(&mut self, _slot: Slot) {}

    fn finish(&mut self) {
        self.write(stream::Writer::flush);
    }
}
