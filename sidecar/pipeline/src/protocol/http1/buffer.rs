//! A head that has not ended yet.

use super::head::end_of_head;
use crate::protocol::Moment;

/// Longest head that is read, in bytes. Servers accept 8 to 64 KiB.
const MAX_HEAD: usize = 64 * 1024;

/// The pieces of a head so far. Empty almost always: most heads arrive in one operation and are read in place.
#[derive(Debug, Default)]
pub(super) struct HeadBuffer {
    bytes: Vec<u8>,
    first: Moment,
}

/// The head is longer than any that is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooLong;

/// A complete head that came in pieces.
pub(super) struct Buffered<'a> {
    pub(super) bytes: Vec<u8>,
    /// When its first byte moved.
    pub(super) first: Moment,
    /// What follows the head in the latest piece.
    pub(super) rest: &'a [u8],
}

impl HeadBuffer {
    pub(super) const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Bytes allocated.
    pub(super) const fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    pub(super) fn clear(&mut self) {
        self.bytes = Vec::new();
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Takes everything, with the moment of the first byte.
    pub(super) fn take(&mut self) -> (Vec<u8>, Moment) {
        (std::mem::take(&mut self.bytes), self.first)
    }

    /// Appends a piece; the first one sets the moment.
    pub(super) fn push(&mut self, bytes: &[u8], at: Moment) -> Result<(), TooLong> {
        if self.bytes.len().saturating_add(bytes.len()) > MAX_HEAD {
            return Err(TooLong);
        }
        if self.bytes.is_empty() {
            self.first = at;
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    /// Appends a piece and takes the head out if that completed it. Each byte is searched once.
    pub(super) fn complete<'a>(
        &mut self,
        bytes: &'a [u8],
        at: Moment,
    ) -> Result<Option<Buffered<'a>>, TooLong> {
        let before = self.bytes.len();
        self.push(bytes, at)?;
        let Some(end) = end_of_head(&self.bytes, before.saturating_sub(3)) else {
            return Ok(None);
        };
        let (mut head, first) = self.take();
        head.truncate(end);
        let rest = bytes.get(end.saturating_sub(before)..).unwrap_or_default();
        Ok(Some(Buffered {
            bytes: head,
            first,
            rest,
        }))
    }
}
