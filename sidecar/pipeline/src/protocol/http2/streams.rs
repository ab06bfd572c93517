//! The streams of a connection that have not ended.

use super::stream::Stream;
use std::collections::BTreeMap;

/// Most streams of one connection; servers usually allow a hundred or a few at a time.
pub(super) const MAX_STREAMS: usize = 1024;
/// Most that the streams of one connection hold together. Bytes.
pub(super) const MAX_BYTES: usize = 1024 * 1024;
/// What an entry takes in the table, whose nodes are at least about half full. Bytes.
const ENTRY: usize = 2 * size_of::<(u32, Stream)>();

/// Streams by their number, and what they hold.
#[derive(Debug, Default)]
pub(super) struct Streams {
    table: BTreeMap<u32, Stream>,
    /// On the heap, beside the entries.
    content: usize,
}

impl Streams {
    /// Bytes allocated for them.
    pub(super) fn held_bytes(&self) -> usize {
        let entries = self.table.len().saturating_mul(ENTRY);
        self.content.saturating_add(entries)
    }

    /// A stream; not to be given or denied its request through this.
    pub(super) fn get_mut(&mut self, number: u32) -> Option<&mut Stream> {
        self.table.get_mut(&number)
    }

    /// Enters a stream whose number is free. There may be too many then.
    pub(super) fn insert(&mut self, number: u32, stream: Stream) {
        self.content = self.content.saturating_add(stream.held_bytes());
        self.table.insert(number, stream);
    }

    /// Takes out the oldest stream if there are too many.
    pub(super) fn take_excess(&mut self) -> Option<(u32, Stream)> {
        if self.table.len() <= MAX_STREAMS && self.held_bytes() <= MAX_BYTES {
            return None;
        }
        let (number, stream) = self.table.pop_first()?;
        self.content = self.content.saturating_sub(stream.held_bytes());
        Some((number, stream))
    }

    /// Takes a stream out.
    pub(super) fn remove(&mut self, number: u32) -> Option<Stream> {
        let stream = self.table.remove(&number)?;
        self.content = self.content.saturating_sub(stream.held_bytes());
        Some(stream)
    }

    /// Takes out all streams of which this is true.
    pub(super) fn take(&mut self, is_over: impl Fn(u32, &Stream) -> bool) -> Vec<(u32, Stream)> {
        let taken: Vec<_> = self
            .table
            .extract_if(.., |&number, stream| is_over(number, stream))
            .collect();
        for (_, stream) in &taken {
            self.content = self.content.saturating_sub(stream.held_bytes());
        }
        taken
    }

    pub(super) fn each(&mut self) -> impl Iterator<Item = &mut Stream> {
        self.table.values_mut()
    }
}
