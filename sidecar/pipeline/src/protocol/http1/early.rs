//! Response bytes that were seen before the request that they answer.
//!
//! A client's send is reported after its data moved; the answer may be read, and reported, by another thread before
//! that. Such bytes wait here for their request, and for no longer than such a race takes: what a server sends
//! unasked, like the 408 on an idle connection, must not answer the request that comes next.

use crate::protocol::Moment;

/// Most bytes that wait.
const MAX_BYTES: usize = 64 * 1024;
/// Most operations that wait.
const MAX_PIECES: usize = 128;
/// Nanoseconds by which the record of a response may precede that of its request; older bytes belong to no request.
pub(super) const PATIENCE: u64 = 10_000_000;

/// One thing that happened in the response direction.
#[derive(Clone, Copy, Debug)]
pub(super) enum Piece {
    /// The next so many of the waiting bytes.
    Bytes(usize),
    Gap(u64),
    Close,
}

/// What waits, in order.
#[derive(Debug, Default)]
pub(super) struct Early {
    bytes: Vec<u8>,
    pieces: Vec<(Piece, Moment)>,
}

/// There is no room for more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full;

impl Early {
    pub(super) const fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Bytes allocated.
    pub(super) fn capacity(&self) -> usize {
        let pieces = self
            .pieces
            .capacity()
            .saturating_mul(size_of::<(Piece, Moment)>());
        self.bytes.capacity().saturating_add(pieces)
    }

    pub(super) fn hold_bytes(&mut self, bytes: &[u8], at: Moment) -> Result<(), Full> {
        if self.bytes.len().saturating_add(bytes.len()) > MAX_BYTES {
            return Err(Full);
        }
        self.hold(Piece::Bytes(bytes.len()), at)?;
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    pub(super) fn hold(&mut self, piece: Piece, at: Moment) -> Result<(), Full> {
        if self.pieces.len() >= MAX_PIECES {
            return Err(Full);
        }
        self.pieces.push((piece, at));
        Ok(())
    }

    /// True if the oldest piece is too old at `now` to answer a request that shows up then.
    pub(super) fn is_stale(&self, now: u64) -> bool {
        self.pieces
            .first()
            .is_some_and(|(_, at)| now.saturating_sub(at.time) > PATIENCE)
    }

    /// Takes everything out, each piece with its bytes.
    pub(super) fn take(&mut self) -> impl Iterator<Item = (Piece, Vec<u8>, Moment)> + use<> {
        let Self { mut bytes, pieces } = std::mem::take(self);
        pieces.into_iter().map(move |(piece, at)| {
            let own = match piece {
                Piece::Bytes(length) => bytes.drain(..length.min(bytes.len())).collect(),
                Piece::Gap(_) | Piece::Close => Vec::new(),
            };
            (piece, own, at)
        })
    }
}
