//! Two directional byte streams out of records that may be late, repeated or lost.
//!
//! A record whose offset is the expected one passes through without a copy, if everything that the opposite direction
//! had moved before it is there too. One that comes too early is held, with everything of its flow that follows it,
//! so that both directions keep their order. A hole that is not filled
//! within the bounds becomes a gap of known length.
//!
//! A flow whose very first record is missing has been joined at a later offset: what precedes the first record of
//! each direction is told as a gap, so that nothing pairs across it, but is not counted as one. It was lost with its
//! record, or belongs to a flow of the same socket that has ended or been evicted.

use crate::protocol::{Direction, Moment};
use crate::stats::Stats;

/// Most records that one flow holds back.
const MAX_HELD_RECORDS: usize = 16;

/// Most bytes that one flow holds back.
const MAX_HELD_BYTES: usize = 64 * 1024;

/// Most bytes that all flows together hold back.
const MAX_HELD_BYTES_TOTAL: usize = 16 * 1024 * 1024;

/// Nanoseconds by which one record may come after another that follows it; then a hole is a gap.
pub(crate) const PATIENCE: u64 = 100_000_000;

/// One record, reduced to what concerns the streams.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Operation<'a> {
    pub(crate) direction: Direction,
    /// Stream offset of the first byte.
    pub(crate) offset: u64,
    /// Bytes moved, of which `bytes` are the first.
    pub(crate) total: u64,
    pub(crate) bytes: &'a [u8],
    pub(crate) time: u64,
    pub(crate) tid: u32,
    /// No byte follows in this direction.
    pub(crate) end: bool,
    /// Offset that the opposite direction had reached before.
    pub(crate) opposite: u64,
}

/// What the streams consist of, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Piece<'a> {
    /// Captured bytes, at least one.
    Bytes(&'a [u8]),
    /// Bytes that moved but are not known, at least one.
    Gap(u64),
    /// The end of the direction.
    End,
}

/// Counters and the use of the memory budgets that all flows share.
#[derive(Debug, Default)]
pub(crate) struct Account {
    pub(crate) stats: Stats,
    /// In records that wait for others.
    held_bytes: usize,
    /// In detection and parsers.
    pub(crate) kept_bytes: usize,
}

/// Receives the pieces of one flow.
pub(crate) trait Pieces {
    fn piece(&mut self, direction: Direction, piece: Piece<'_>, at: Moment);
    fn account(&mut self) -> &mut Account;
}

/// State of one direction.
#[derive(Debug, Default)]
struct Cursor {
    /// Offset of the next byte.
    next: u64,
    /// The end was delivered.
    ended: bool,
}

impl Cursor {
    /// True while nothing of this direction was delivered.
    fn is_untouched(&self) -> bool {
        self.next == 0 && !self.ended
    }

    /// True if an operation at `offset` needs to wait for nothing; after the end there is nothing to wait for.
    fn accepts(&self, offset: u64) -> bool {
        self.ended || offset <= self.next
    }
}

/// A place in both directions of a flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Offsets {
    sent: u64,
    received: u64,
}

impl Offsets {
    /// The place at which an operation began.
    pub(crate) const fn before(operation: &Operation<'_>) -> Self {
        let (own, other) = (operation.offset, operation.opposite);
        let (sent, received) = match operation.direction {
            Direction::Sent => (own, other),
            Direction::Received => (other, own),
        };
        Self { sent, received }
    }
}

#[derive(Debug)]
struct Held {
    direction: Direction,
    offset: u64,
    total: u64,
    bytes: Box<[u8]>,
    time: u64,
    tid: u32,
    end: bool,
    opposite: u64,
}

impl Held {
    fn new(operation: Operation<'_>) -> Self {
        let Operation {
            direction,
            offset,
            total,
            bytes,
            time,
            tid,
            end,
            opposite,
        } = operation;
        Self {
            direction,
            offset,
            total,
            bytes: bytes.into(),
            time,
            tid,
            end,
            opposite,
        }
    }

    fn operation(&self) -> Operation<'_> {
        let &Self {
            direction,
            offset,
            total,
            ref bytes,
            time,
            tid,
            end,
            opposite,
        } = self;
        Operation {
            direction,
            offset,
            total,
            bytes,
            time,
            tid,
            end,
            opposite,
        }
    }
}

/// The two streams of one flow.
#[derive(Debug, Default)]
pub(crate) struct Reassembly {
    sent: Cursor,
    received: Cursor,
    /// Records that wait for a hole to be filled, by time. Empty almost always.
    held: Vec<Held>,
    held_bytes: usize,
    /// Nothing is known of what precedes the first record of each direction.
    rejoined: bool,
}

impl Reassembly {
    /// Streams that go on at these offsets.
    pub(crate) fn at(offsets: Offsets) -> Self {
        let cursor = |next| Cursor { next, ended: false };
        Self {
            sent: cursor(offsets.sent),
            received: cursor(offsets.received),
            ..Self::default()
        }
    }

    /// Where the next bytes of both directions are expected.
    pub(crate) const fn offsets(&self) -> Offsets {
        Offsets {
            sent: self.sent.next,
            received: self.received.next,
        }
    }

    /// Takes one operation; what has become known goes to `out`.
    pub(crate) fn push(&mut self, operation: Operation<'_>, out: &mut impl Pieces) {
        let Operation {
            direction,
            offset,
            opposite,
            ..
        } = operation;
        let in_order = self.missing(direction, offset, opposite).is_none();
        if in_order && (self.held.is_empty() || self.is_blocked(direction)) {
            self.deliver(operation, out);
            self.drain(out);
        } else {
            self.hold(operation, out);
        }
    }

    /// True while [`Self::on_tick`] has something to decide.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.held.is_empty()
    }

    /// True once both directions have ended: no further record can add anything.
    pub(crate) fn is_over(&self) -> bool {
        self.sent.ended && self.received.ended && self.held.is_empty()
    }

    /// True if the first records of the flow were missing.
    pub(crate) const fn is_rejoined(&self) -> bool {
        self.rejoined
    }

    /// Gives up on what has been awaited for [`PATIENCE`].
    pub(crate) fn on_tick(&mut self, now: u64, out: &mut impl Pieces) {
        while self
            .held
            .first()
            .is_some_and(|held| now.saturating_sub(held.time) >= PATIENCE)
        {
            self.give_up(out);
        }
    }

    /// Delivers everything that is still held: nothing more will come.
    pub(crate) fn flush(&mut self, out: &mut impl Pieces) {
        while !self.held.is_empty() {
            self.give_up(out);
        }
    }

    fn cursor(&mut self, direction: Direction) -> &mut Cursor {
        match direction {
            Direction::Sent => &mut self.sent,
            Direction::Received => &mut self.received,
        }
    }

    /// The direction in which bytes are missing before an operation; its own first.
    fn missing(&self, direction: Direction, offset: u64, opposite: u64) -> Option<Direction> {
        let (own, other) = match direction {
            Direction::Sent => (&self.sent, &self.received),
            Direction::Received => (&self.received, &self.sent),
        };
        if !own.accepts(offset) {
            Some(direction)
        } else if !other.accepts(opposite) {
            Some(direction.opposite())
        } else {
            None
        }
    }

    fn missing_before(&self, held: &Held) -> Option<Direction> {
        self.missing(held.direction, held.offset, held.opposite)
    }

    /// True if the hole that everything waits for is in this direction.
    fn is_blocked(&self, direction: Direction) -> bool {
        self.held
            .first()
            .is_some_and(|first| self.missing_before(first) == Some(direction))
    }

    fn hold(&mut self, operation: Operation<'_>, out: &mut impl Pieces) {
        let length = operation.bytes.len();
        let account = out.account();
        account.stats.records_held = account.stats.records_held.saturating_add(1);
        account.held_bytes = account.held_bytes.saturating_add(length);
        self.held_bytes = self.held_bytes.saturating_add(length);
        let place = self
            .held
            .partition_point(|held| held.time <= operation.time);
        self.held.insert(place, Held::new(operation));
        // By its time it may come before what everything waits for.
        self.drain(out);
        while !self.held.is_empty() && self.is_over_bounds(out.account()) {
            self.give_up(out);
        }
    }

    fn is_over_bounds(&self, account: &Account) -> bool {
        self.held.len() > MAX_HELD_RECORDS
            || self.held_bytes > MAX_HELD_BYTES
            || account.held_bytes > MAX_HELD_BYTES_TOTAL
    }

    /// Declares the hole before the first held record a gap and goes on from there.
    fn give_up(&mut self, out: &mut impl Pieces) {
        let Some(first) = self.held.first() else {
            return;
        };
        if let Some(direction) = self.missing_before(first) {
            let hole = Moment {
                time: first.time,
                tid: first.tid,
                unwitnessed: true,
                ..Moment::default()
            };
            let next = self.cursor(direction).next;
            // What each held record shows of this direction; the nearest place that is known again.
            let known = self.held.iter().map(|held| {
                if held.direction == direction {
                    held.offset
                } else {
                    held.opposite
                }
            });
            let target = known.filter(|&known| known > next).min().unwrap_or(next);
            if !self.is_beginning(direction, out) {
                let stats = &mut out.account().stats;
                stats.holes = stats.holes.saturating_add(1);
                count_gap(self.cursor(direction), target, stats);
            }
            self.skip_to(direction, target, hole, out);
        }
        self.drain(out);
    }

    /// True if what precedes the first held record is not a hole in this flow, but before all that is known of it.
    fn is_beginning(&mut self, direction: Direction, out: &mut impl Pieces) -> bool {
        if self.sent.is_untouched() && self.received.is_untouched() {
            self.rejoined = true;
            let stats = &mut out.account().stats;
            stats.flows_rejoined = stats.flows_rejoined.saturating_add(1);
        }
        self.rejoined && self.cursor(direction).is_untouched()
    }

    /// Delivers held records for as long as there is no hole.
    fn drain(&mut self, out: &mut impl Pieces) {
        while let Some(index) = self.next_deliverable() {
            let held = self.held.remove(index);
            self.held_bytes = self.held_bytes.saturating_sub(held.bytes.len());
            let account = out.account();
            account.held_bytes = account.held_bytes.saturating_sub(held.bytes.len());
            self.deliver(held.operation(), out);
        }
    }

    /// The first held record if nothing is missing before it, else the earliest one of the direction that it waits for
    /// and that can be delivered.
    fn next_deliverable(&self) -> Option<usize> {
        let Some(missing) = self.missing_before(self.held.first()?) else {
            return Some(0);
        };
        self.held
            .iter()
            .position(|held| held.direction == missing && self.missing_before(held).is_none())
    }

    fn deliver(&mut self, operation: Operation<'_>, out: &mut impl Pieces) {
        let Operation {
            direction,
            offset,
            total,
            bytes,
            time,
            tid,
            end,
            opposite: _,
        } = operation;
        let cursor = self.cursor(direction);
        if cursor.ended {
            let stats = &mut out.account().stats;
            stats.bytes_after_end = stats.bytes_after_end.saturating_add(total);
            return;
        }
        let next = cursor.next;
        let behind = next.saturating_sub(offset).min(total);
        if behind > 0 {
            let stats = &mut out.account().stats;
            stats.bytes_duplicate = stats.bytes_duplicate.saturating_add(behind);
        }
        let fresh = usize::try_from(behind)
            .ok()
            .and_then(|behind| bytes.get(behind..))
            .unwrap_or_default();
        if !fresh.is_empty() {
            cursor.next = next.saturating_add(fresh.len() as u64);
            out.piece(
                direction,
                Piece::Bytes(fresh),
                Moment {
                    time,
                    tid,
                    offset: next,
                    unwitnessed: false,
                },
            );
        }
        let after = offset.saturating_add(total);
        count_gap(self.cursor(direction), after, &mut out.account().stats);
        let moved = Moment {
            time,
            tid,
            // An end moves nothing: what precedes it moved earlier.
            unwitnessed: end,
            ..Moment::default()
        };
        self.skip_to(direction, after, moved, out);
        if end {
            self.cursor(direction).ended = true;
            let offset = self.cursor(direction).next;
            let at = Moment {
                offset,
                unwitnessed: false,
                ..moved
            };
            out.piece(direction, Piece::End, at);
        }
    }

    /// Tells of the bytes up to `offset` as a gap, if there are any.
    fn skip_to(&mut self, direction: Direction, offset: u64, at: Moment, out: &mut impl Pieces) {
        let cursor = self.cursor(direction);
        let next = cursor.next;
        let length = offset.saturating_sub(next);
        if length == 0 || cursor.ended {
            return;
        }
        cursor.next = offset;
        let at = Moment { offset: next, ..at };
        out.piece(direction, Piece::Gap(length), at);
    }
}

/// Counts the bytes up to `offset` as a gap, if there are any.
fn count_gap(cursor: &Cursor, offset: u64, stats: &mut Stats) {
    let length = offset.saturating_sub(cursor.next);
    stats.gaps = stats.gaps.saturating_add(u64::from(length > 0));
    stats.gap_bytes = stats.gap_bytes.saturating_add(length);
}

#[cfg(test)]
#[path = "reassembly_tests.rs"]
mod tests;
