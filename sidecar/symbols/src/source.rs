//! Bounded reading: whole pieces, fixed-size entries in chunks, and a window for reads that move forward.

use std::fs::File;
use std::io;
use std::ops::{ControlFlow, Range};
use std::os::unix::fs::FileExt;

use crate::SymbolError;
use crate::bounds::NAME;

/// Bytes that one read of a table brings into memory.
const CHUNK: u64 = 64 << 10;

/// Gets pieces of a file with their places.
type Visit<'a, T> = dyn FnMut(u64, &[u8]) -> Result<T, SymbolError> + 'a;

/// Where the bytes of a file come from.
pub trait Source {
    /// Length of the file in bytes.
    fn size(&self) -> io::Result<u64>;
    /// Fills `buffer` with the bytes at `offset`; an error if the file ends before.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
}

impl Source for File {
    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.read_exact_at(buffer, offset)
    }
}

impl Source for &[u8] {
    fn size(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let bytes = usize::try_from(offset)
            .ok()
            .and_then(|start| self.get(start..)?.get(..buffer.len()))
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(bytes);
        Ok(())
    }
}

/// A source and its length when it was opened.
pub(crate) struct Bytes<S> {
    source: S,
    size: u64,
}

impl<S: Source> Bytes<S> {
    pub(crate) fn open(source: S) -> Result<Self, SymbolError> {
        let size = source.size()?;
        Ok(Self { source, size })
    }

    /// The part of the file from `offset` on, if the file has all of it.
    pub(crate) fn range(&self, offset: u64, length: u64) -> Result<Range<u64>, SymbolError> {
        offset
            .checked_add(length)
            .filter(|end| *end <= self.size)
            .map(|end| offset..end)
            .ok_or(SymbolError::Malformed("a part reaches beyond the file"))
    }

    /// Reads `length` bytes, which the caller has compared with a bound.
    pub(crate) fn read(&self, offset: u64, length: u64) -> Result<Vec<u8>, SymbolError> {
        let range = self.range(offset, length)?;
        let mut buffer = vec![0; length as usize];
        self.source.read_at(range.start, &mut buffer)?;
        Ok(buffer)
    }

    /// Reads as much as there is of `length` bytes.
    fn read_up_to(&self, offset: u64, length: u64) -> Result<Vec<u8>, SymbolError> {
        let length = length.min(self.size.saturating_sub(offset));
        self.read(offset, length)
    }

    /// Shows `range` piece by piece, with the place of each in the file. A piece is a whole number of `unit`s, except
    /// the last one, and repeats the last `overlap` bytes of the one before.
    pub(crate) fn pieces(
        &self,
        range: Range<u64>,
        unit: u64,
        overlap: u64,
        visit: &mut Visit<'_, ControlFlow<()>>,
    ) -> Result<(), SymbolError> {
        let chunk = CHUNK.max(unit).max(overlap.saturating_mul(2));
        let chunk = chunk.saturating_sub(chunk.checked_rem(unit).unwrap_or(0));
        let mut at = range.start;
        while at < range.end {
            let length = chunk.min(range.end.saturating_sub(at));
            if visit(at, &self.read(at, length)?)?.is_break() {
                return Ok(());
            }
            let end = at.saturating_add(length);
            at = if end < range.end {
                end.saturating_sub(overlap)
            } else {
                end
            };
        }
        Ok(())
    }

    /// Shows the zero-terminated strings of a table with their offsets in it. A string longer than
    /// [`NAME`], and one that the end of the table cuts off, is passed over.
    pub(crate) fn strings(
        &self,
        table: Range<u64>,
        visit: &mut Visit<'_, ()>,
    ) -> Result<(), SymbolError> {
        let mut at = table.start;
        let mut passing_over = false;
        while at < table.end {
            let chunk = self.read(at, CHUNK.min(table.end.saturating_sub(at)))?;
            let mut rest = chunk.as_slice();
            while let Some(length) = memchr::memchr(0, rest) {
                let (string, after) = rest.split_at(length);
                if !passing_over && length <= NAME {
                    visit(at.saturating_sub(table.start), string)?;
                }
                passing_over = false;
                rest = after.get(1..).unwrap_or_default();
                at = at.saturating_add(length as u64).saturating_add(1);
            }
            // What is left is the start of a string that the next chunk shows whole, unless it is too long for that.
            let is_end = at.saturating_add(rest.len() as u64) >= table.end;
            if is_end || rest.len() > NAME {
                passing_over = true;
                at = at.saturating_add(rest.len() as u64);
            }
        }
        Ok(())
    }

    /// A window for reads at offsets that mostly grow.
    pub(crate) fn window(&self) -> Window<'_, S> {
        Window {
            bytes: self,
            start: 0,
            buffer: Vec::new(),
        }
    }
}

/// A buffered piece of a file.
pub(crate) struct Window<'a, S> {
    bytes: &'a Bytes<S>,
    start: u64,
    buffer: Vec<u8>,
}

impl<S: Source> Window<'_, S> {
    /// `N` bytes at `offset`.
    pub(crate) fn read<const N: usize>(&mut self, offset: u64) -> Result<[u8; N], SymbolError> {
        if let Some(found) = self.buffered(offset) {
            return Ok(found);
        }
        self.buffer = self.bytes.read_up_to(offset, CHUNK)?;
        self.start = offset;
        self.buffered(offset)
            .ok_or(SymbolError::Malformed("a part reaches beyond the file"))
    }

    fn buffered<const N: usize>(&self, offset: u64) -> Option<[u8; N]> {
        let start = usize::try_from(offset.checked_sub(self.start)?).ok()?;
        self.buffer.get(start..)?.first_chunk().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Offsets, lengths and first bytes.
    fn strings(table: &[u8]) -> Vec<(u64, usize, Option<u8>)> {
        let bytes = Bytes::open(table).unwrap();
        let mut found = Vec::new();
        bytes
            .strings(0..table.len() as u64, &mut |offset, string| {
                assert!(string.iter().all(|byte| Some(byte) == string.first()));
                found.push((offset, string.len(), string.first().copied()));
                Ok(())
            })
            .unwrap();
        found
    }

    #[test]
    fn strings_have_their_offsets() {
        let expected = [(0, 0, None), (1, 1, Some(b'a')), (3, 2, Some(b'b'))];
        assert_eq!(strings(b"\0a\0bb\0cc"), expected);
    }

    #[test]
    fn a_string_across_chunks_is_whole_and_one_too_long_is_passed_over() {
        let mut table = Vec::new();
        let mut expected = Vec::new();
        // Too long for a chunk, too long, as long as a name may be, and enough to meet an edge.
        let lengths = [3 * CHUNK as usize, NAME + 1, NAME];
        for length in lengths.into_iter().chain([3000; 100]) {
            if length <= NAME {
                expected.push((table.len() as u64, length, Some(b'a')));
            }
            table.resize(table.len() + length, b'a');
            table.push(0);
        }
        assert_eq!(strings(&table), expected);
    }

    #[test]
    fn pieces_are_whole_units_and_overlap() {
        let table: Vec<u8> = (0..200_000u32).map(|index| index as u8).collect();
        let bytes = Bytes::open(table.as_slice()).unwrap();
        let mut units = Vec::new();
        let mut next = 0;
        bytes
            .pieces(0..200_000, 24, 0, &mut |at, piece| {
                assert_eq!(at, next);
                next += piece.len() as u64;
                units.push(piece.len() % 24);
                Ok(ControlFlow::Continue(()))
            })
            .unwrap();
        assert_eq!((next, units), (200_000, vec![0, 0, 0, 200_000 % 24]));

        let mut end = 0;
        bytes
            .pieces(7..200_000, 1, 10, &mut |at, piece| {
                assert!(end == 0 || at == end - 10);
                assert_eq!(piece[0], at as u8);
                end = at + piece.len() as u64;
                Ok(ControlFlow::Continue(()))
            })
            .unwrap();
        assert_eq!(end, 200_000);
    }

    #[test]
    fn a_window_moves() {
        let table: Vec<u8> = (0..200_000u32).map(|index| index as u8).collect();
        let bytes = Bytes::open(table.as_slice()).unwrap();
        let mut window = bytes.window();
        for offset in [0, 1, 65_533, 65_536, 199_996, 3] {
            let expected: [u8; 4] = std::array::from_fn(|index| (offset + index as u64) as u8);
            assert_eq!(window.read::<4>(offset).unwrap(), expected);
        }
        assert!(window.read::<4>(199_997).is_err());
        assert!(window.read::<4>(u64::MAX).is_err());
    }
}
