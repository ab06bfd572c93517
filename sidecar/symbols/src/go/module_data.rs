//! Where Go's text starts: the functions' table of Go 1.18 and later counts from there.
//!
//! Neither the section `.text` nor the table's header tells: code of another linker can come first in `.text`, the
//! header's field is 0 in position-independent files and since Go 1.26. The runtime itself takes it from
//! `runtime.firstmoduledata`, whose first 24 words have been the same from Go 1.18 to 1.27.

use std::ops::ControlFlow;

use super::relocated::WORD;
use super::table::Table;
use crate::bounds;
use crate::error::within;
use crate::{Binary, Source, SymbolError};

/// Words of `runtime.moduledata` up to `etext`.
const WORDS: usize = 24;

impl<S: Source> Binary<S> {
    /// Address where the text of the module starts to which the table belongs.
    pub(super) fn text_start(&self, table: &Table) -> Result<u64, SymbolError> {
        let mut entries = self.bytes.window();
        let first = table.start_of(&mut entries, 0)?;
        let end = table.start_of(&mut entries, table.count)?;
        for candidate in self.module_candidates(table)? {
            let Some(words) = self.words::<WORDS>(candidate)? else {
                continue;
            };
            if let Some(text) = text_of(&words, table, (first, end))
                && self.code_offset(text.saturating_add(first), 1).is_some()
            {
                return Ok(text);
            }
        }
        Err(SymbolError::Unsupported(
            "a Go executable without module data of a known layout",
        ))
    }

    /// Where module data may be: its section since Go 1.26, or wherever an address of the table is in the data, since
    /// that is its first word.
    fn module_candidates(&self, table: &Table) -> Result<Vec<u64>, SymbolError> {
        if let Some(section) = self.section(".go.module") {
            return Ok(vec![section.address]);
        }
        let mut found = Vec::new();
        self.relative(&mut |place, value| note(&mut found, place, value == table.address))?;
        if found.is_empty() {
            self.pointers(table.address, &mut found)?;
        }
        Ok(found)
    }

    /// Adds the places in writable memory that hold `address`.
    fn pointers(&self, address: u64, found: &mut Vec<u64>) -> Result<(), SymbolError> {
        let mut scanned = 0u64;
        for segment in self.loaded().filter(|segment| segment.is_writable()) {
            scanned = scanned.saturating_add(segment.size);
            within("bytes searched for Go's module data", scanned, bounds::SCAN)?;
            let (range, first) = self.aligned_range(segment, WORD)?;
            let start = range.start;
            self.bytes.pieces(range, WORD, 0, &mut |at, piece| {
                for (index, word) in piece.as_chunks().0.iter().enumerate() {
                    let inside = at
                        .saturating_sub(start)
                        .saturating_add((index as u64).saturating_mul(WORD));
                    let place = first.saturating_add(inside);
                    if note(found, place, u64::from_le_bytes(*word) == address).is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                }
                Ok(ControlFlow::Continue(()))
            })?;
        }
        Ok(())
    }
}

fn note(found: &mut Vec<u64>, place: u64, is_candidate: bool) -> ControlFlow<()> {
    if is_candidate {
        if found.len() >= bounds::GO_CANDIDATES {
            return ControlFlow::Break(());
        }
        found.push(place);
    }
    ControlFlow::Continue(())
}

/// The start of the text, if these words are the module data of the table, whose functions go from `first` to `end`.
/// The runtime checks the same when it starts (`runtime.moduledataverify1`).
fn text_of(words: &[u64; WORDS], table: &Table, (first, end): (u64, u64)) -> Option<u64> {
    let [
        header,
        ..,
        functions,
        length,
        _,
        _,
        lowest,
        highest,
        text,
        text_end,
    ] = *words;
    let is_of_table = header == table.address
        && functions == table.functions_address
        && length == table.count.checked_add(1)?
        && lowest == text.checked_add(first)?
        && highest == text.checked_add(end)?
        && highest <= text_end;
    is_of_table.then_some(text)
}
