//! What the ring reader feeds: the pipeline, or a file.

use crate::{
    source::Consumer,
    stream::{self, ContainerFrame, StreamError},
    tls,
};
use pilotfish_export::ExportSink;
use pilotfish_pipeline::{
    Encrypted, Measurement, Pipeline, Record, Sink, Slot, SlotConfig, Span, Stats,
};
use std::{
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
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
    sink: Outlets,
    view: SharedView,
}

/// Where the pipeline's results go: to the exporters, and the news of encrypted flows to whoever looks for the libraries.
struct Outlets {
    export: ExportSink,
    tls: Option<tls::Sender>,
}

impl Sink for Outlets {
    fn span(&mut self, span: Span) {
        self.export.span(span);
    }

    fn measurement(&mut self, measurement: Measurement) {
        self.export.measurement(measurement);
    }

    fn encrypted(&mut self, flow: Encrypted) {
        if let (Some(tls), Ok(pid)) = (&self.tls, i32::try_from(flow.tgid)) {
            let slot = flow.slot.0;
            tls.send(tls::Event::Encrypted { pid, slot });
        }
    }
}

impl PipelineConsumer {
    /// Joins a pipeline to the exporters.
    pub fn new(
        pipeline: Pipeline,
        export: ExportSink,
        view: SharedView,
        tls: Option<tls::Sender>,
    ) -> Self {
        Self {
            pipeline,
            sink: Outlets { export, tls },
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
        self.sink.export.flush();
        self.publish();
    }

    fn tick(&mut self, now: u64, unix_offset: i64) {
        self.pipeline.on_tick(now, unix_offset, &mut self.sink);
        self.sink.export.flush();
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
        self.sink.export.flush();
    }

    fn is_behind(&self) -> bool {
        self.sink.export.is_behind()
    }

    fn finish(&mut self) {
        self.pipeline.finish(&mut self.sink);
        self.sink.export.flush();
        self.publish();
    }
}

/// The file of a recorder, which is made only when there is something to record from.
#[derive(Default)]
pub struct Recording {
    writer: Option<stream::Writer>,
    /// Containers that were found before the file was made; as many as have slots.
    found: Vec<ContainerFrame>,
}

/// Shared by what records containers and what records their traffic.
pub type SharedRecording = Arc<Mutex<Recording>>;

/// Locks it; a panic elsewhere leaves the file as it is.
pub fn lock(recording: &SharedRecording) -> MutexGuard<'_, Recording> {
    recording.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Recording {
    /// Makes the file, and writes the containers that were found until now.
    pub fn begin(&mut self, file: &Path) -> Result<(), StreamError> {
        let mut writer = stream::Writer::create(file)?;
        self.found
            .drain(..)
            .try_for_each(|container| writer.container(&container))?;
        self.writer = Some(writer);
        Ok(())
    }

    /// Adds a container's identity.
    pub fn container(&mut self, container: ContainerFrame) -> Result<(), StreamError> {
        if let Some(writer) = &mut self.writer {
            return writer.container(&container);
        }
        self.found.push(container);
        Ok(())
    }
}

/// Records to a file.
pub struct FileConsumer {
    recording: SharedRecording,
    failure: Option<oneshot::Sender<StreamError>>,
}

impl FileConsumer {
    /// Writes to a recording that has begun, to which the agent adds containers. The first failure is told through
    /// `failure`, and nothing is written after it.
    pub fn new(recording: SharedRecording, failure: oneshot::Sender<StreamError>) -> Self {
        Self {
            recording,
            failure: Some(failure),
        }
    }

    fn write(&mut self, write: impl FnOnce(&mut stream::Writer) -> Result<(), StreamError>) {
        if self.failure.is_none() {
            return;
        }
        let outcome = lock(&self.recording).writer.as_mut().map_or(Ok(()), write);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::{Frame, Reader};

    #[test]
    fn a_recording_has_no_file_before_it_begins_and_loses_no_container() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("recording");
        let container = |slot| ContainerFrame {
            slot,
            resource: vec![("service.name".into(), slot.to_string())],
        };
        let recording = SharedRecording::default();
        lock(&recording).container(container(1)).unwrap();
        assert!(!path.exists());
        lock(&recording).begin(&path).unwrap();
        lock(&recording).container(container(2)).unwrap();
        let (failed, mut failure) = oneshot::channel();
        let mut consumer = FileConsumer::new(recording, failed);
        consumer.tick(0, -5);
        consumer.finish();
        assert!(failure.try_recv().is_err(), "nothing failed");

        let mut reader = Reader::open(&path).unwrap();
        let frames: Vec<_> = std::iter::from_fn(|| reader.next_frame().unwrap()).collect();
        let expected = [
            Frame::Container(container(1)),
            Frame::Container(container(2)),
            Frame::Clock(-5),
        ];
        assert_eq!(frames, expected);
    }
}
