//! The streams of a connection that have not ended.

use super::stream::Stream;
use std::collections::BTreeMap;

/// Most streams of one connection; servers usually allow a hundred or a few at a time.
pub(super) const MAX_STREAMS: usize = 1024;

/// Streams by their number, and what they hold.
#[derive(Debug, Default)]
pub(super) struct Streams {
    table: BTreeMap<u32, Stream>,
    held_bytes: usize,
}

impl Streams {
    /// Bytes allocated for them.
    pub(super) fn held_bytes(&self) -> usize {
        let entries = self.table.len().saturating_mul(size_of::<(u32, Stream)>());
        self.held_bytes.saturating_add(entries)
    }

    /// A stream; not to be given or denied its request through this.
    pub(super) fn get_mut(&mut self, number: u32) -> Option<&mut Stream> {
        self.table.get_mut(&number)
    }

    /// Enters a stream, and gives the oldest in return if there are too many.
    pub(super) fn insert(&mut self, number: u32, stream: Stream) -> Option<(u32, Stream)> {
        let evicted = if self.table.len() >= MAX_STREAMS {
            self.table.pop_first()
        } else {
            None
        };
        if let Some((_, evicted)) = &evicted {
            self.held_bytes = self.held_bytes.saturating_sub(evicted.held_bytes());
        }
        self.held_bytes = self.held_bytes.saturating_add(stream.held_bytes());
        self.table.insert(number, stream);
        evicted
    }

    /// Takes a stream out.
    pub(super) fn remove(&mut self, number: u32) -> Option<Stream> {
        let stream = self.table.remove(&number)?;
        self.held_bytes = self.held_bytes.saturating_sub(stream.held_bytes());
        Some(stream)
    }

    /// Takes out all streams of which this is true.
    pub(super) fn take(&mut self, is_over: impl Fn(&Stream) -> bool) -> Vec<(u32, Stream)> {
        let taken: Vec<_> = self
            .table
            .extract_if(.., |_, stream| is_over(stream))
            .collect();
        for (_, stream) in &taken {
            self.held_bytes = self.held_bytes.saturating_sub(stream.held_bytes());
        }
        taken
    }

    pub(super) fn each(&mut self) -> impl Iterator<Item = &mut Stream> {
        self.table.values_mut()
    }
}
