//! `pilotfish replay`: a recorded stream through the same consumer as a live one.
//!
//! A recording says who the containers were, not what was set for each: the settings of the replay's own flags hold
//! for all of them.

use crate::{
    observe::Registry,
    source::Consumer,
    stream::{Frame, Reader, StreamError},
};
use pilotfish_pipeline::Record;
use std::{io::Read, thread, time::Duration};

/// Record time between two ticks, nanoseconds.
const TICK: u64 = 100_000_000;

/// How long a replay waits for exporters at a time.
const PAUSE: Duration = Duration::from_millis(1);

/// What a replay came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Records given to the consumer.
    pub records: u64,
    /// Records that could not be understood.
    pub malformed: u64,
    /// Bytes of a frame that the recording breaks off in.
    pub left_over: u64,
}

/// Feeds every frame; time is the records' own.
pub fn feed(
    reader: &mut Reader<impl Read>,
    mut consumer: impl Consumer,
    mut registry: impl Registry,
) -> Result<Summary, StreamError> {
    let mut summary = Summary::default();
    let (mut offset, mut next_tick) = (0, 0);
    while let Some(frame) = reader.next_frame()? {
        match frame {
            Frame::Clock(unix_offset) => offset = unix_offset,
            Frame::Container(container) => registry.set(container.slot, container.resource),
            Frame::Record(bytes) => match Record::parse(&bytes) {
                Ok(record) => {
                    if record.header.time >= next_tick {
                        next_tick = record.header.time.saturating_add(TICK);
                        consumer.tick(record.header.time, offset);
                    }
                    summary.records += 1;
                    consumer.record(&record, &bytes);
                    consumer.drained();
                    while consumer.is_behind() {
                        thread::sleep(PAUSE);
                    }
                }
                Err(_) => summary.malformed += 1,
            },
        }
    }
    summary.left_over = reader.left_over();
    consumer.finish();
    Ok(summary)
}
