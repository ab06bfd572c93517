//! Header of Go's table of functions (`runtime.pcHeader`).
//!
//! ```text
//! magic u32, 0, 0, instruction alignment u8, pointer size u8
//! words:  1.16, 1.17: functions, files,             names, units, files, lines, functions' table
//!         1.18 on:    functions, files, text start, names, units, files, lines, functions' table
//! functions' table:   1.16, 1.17: (address u64, place u64) each, and the end address u64
//!                     1.18 on:    (address - text u32, place u32) each, and the end u32
//! ```
//! A place is that of the function's description from the start of the functions' table; it begins with the function's
//! address, as in the table, and the place of its name from the start of the names, `i32`.

use std::ops::{ControlFlow, Range};

use super::relocated::WORD;
use crate::bounds;
use crate::error::within;
use crate::source::Window;
use crate::{Binary, Machine, Source, SymbolError};

/// Names that the linker gives the table's section: usual, and in position-independent files before Go 1.26.
const SECTIONS: [&str; 2] = [".gopclntab", ".data.rel.ro.gopclntab"];

/// How addresses are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// Go 1.16 and 1.17: addresses, 8 bytes.
    Addresses,
    /// Go 1.18 and later: offsets from the start of the text, 4 bytes.
    Offsets,
}

impl Layout {
    fn of_magic(magic: u32) -> Option<Self> {
        match magic {
            0xffff_fffa => Some(Self::Addresses),
            // 1.18 and 1.19; 1.20 and later.
            0xffff_fff0 | 0xffff_fff1 => Some(Self::Offsets),
            _ => None,
        }
    }

    /// Bytes of an address or offset.
    pub(super) fn size(self) -> u64 {
        match self {
            Self::Addresses => 8,
            Self::Offsets => 4,
        }
    }
}

/// Where the parts of the table are in the file.
pub(super) struct Table {
    pub(super) layout: Layout,
    /// Address of the header.
    pub(super) address: u64,
    /// Functions, without the entry for the end.
    pub(super) count: u64,
    /// Zero-terminated names.
    pub(super) names: Range<u64>,
    /// From the functions' table to the end of what may belong to it.
    pub(super) functions: Range<u64>,
    /// Address of the functions' table.
    pub(super) functions_address: u64,
}

impl<S: Source> Binary<S> {
    /// The table, by its section's name or, without section headers, by its magic.
    pub(super) fn go_table(&self) -> Result<Option<Table>, SymbolError> {
        let section = SECTIONS.iter().find_map(|name| self.section(name));
        if let Some(section) = section {
            let range = self.section_range(section)?;
            let address = section.address;
            let header = self.header(range.start)?;
            return self
                .parse(&header, range, address)?
                .map(Some)
                .ok_or(SymbolError::Unsupported(
                    "the version of Go's table of functions",
                ));
        }
        for (range, address) in self.table_candidates()? {
            let parsed = self
                .header(range.start)
                .and_then(|header| self.parse(&header, range, address));
            if let Ok(Some(table)) = parsed {
                return Ok(Some(table));
            }
        }
        Ok(None)
    }

    /// The fixed part, as far as the file has it.
    fn header(&self, start: u64) -> Result<Vec<u8>, SymbolError> {
        self.bytes.read(start, 72)
    }

    /// Places in loaded segments that start as a table does, up to their segment's end, with their addresses.
    fn table_candidates(&self) -> Result<Vec<(Range<u64>, u64)>, SymbolError> {
        let mut found = Vec::new();
        let mut scanned = 0u64;
        for segment in self.loaded() {
            scanned = scanned.saturating_add(segment.size);
            within("bytes searched for Go's table", scanned, bounds::SCAN)?;
            let (range, address) = self.aligned_range(segment, WORD)?;
            let (start, end) = (range.start, range.end);
            self.bytes.pieces(range, WORD, 0, &mut |at, piece| {
                for (index, word) in piece.as_chunks().0.iter().enumerate() {
                    if self.layout(u64::from_le_bytes(*word)).is_some() {
                        let at = at.saturating_add((index as u64).saturating_mul(WORD));
                        let inside = at.saturating_sub(start);
                        if found.len() >= bounds::GO_CANDIDATES {
                            return Ok(ControlFlow::Break(()));
                        }
                        found.push((at..end, address.saturating_add(inside)));
                    }
                }
                Ok(ControlFlow::Continue(()))
            })?;
        }
        Ok(found)
    }

    /// The layout that the first word of a table for this machine says.
    fn layout(&self, word: u64) -> Option<Layout> {
        let alignment = match self.machine() {
            Machine::X86_64 => 1,
            Machine::Aarch64 => 4,
        };
        let [.., 0, 0, found, 8] = word.to_le_bytes() else {
            return None;
        };
        Layout::of_magic(word as u32).filter(|_| found == alignment)
    }

    /// `None` if the header is not one of a covered version.
    fn parse(
        &self,
        header: &[u8],
        table: Range<u64>,
        address: u64,
    ) -> Result<Option<Table>, SymbolError> {
        let mut words = header
            .as_chunks()
            .0
            .iter()
            .map(|word| u64::from_le_bytes(*word));
        let Some(layout) = words.next().and_then(|word| self.layout(word)) else {
            return Ok(None);
        };
        let count = words.next().unwrap_or(0);
        let skipped = match layout {
            Layout::Addresses => 1,
            // The start of the text is 0 since Go 1.26 and, linked by another linker, in position-independent files.
            Layout::Offsets => 2,
        };
        let mut places = words.skip(skipped);
        let names = places.next().zip(places.next());
        let functions = places.nth(2);
        let malformed = SymbolError::Malformed("Go's table of functions");
        let (Some((names, names_end)), Some(functions)) = (names, functions) else {
            return Err(malformed);
        };
        within("functions in Go's table", count, bounds::GO_FUNCTIONS)?;
        let place = |offset: u64| {
            let place = table.start.checked_add(offset)?;
            (place <= table.end).then_some(place)
        };
        let (Some(names), Some(names_end), Some(start), Some(functions_address)) = (
            place(names),
            place(names_end),
            place(functions),
            address.checked_add(functions),
        ) else {
            return Err(malformed);
        };
        if names > names_end || count == 0 {
            return Err(malformed);
        }
        let length = names_end.saturating_sub(names);
        within("bytes of Go's names", length, bounds::STRING_TABLE)?;
        Ok(Some(Table {
            layout,
            address,
            count,
            names: names..names_end,
            functions: start..table.end,
            functions_address,
        }))
    }
}

/// Reads one address or offset.
pub(super) fn value<S: Source>(
    window: &mut Window<'_, S>,
    layout: Layout,
    place: u64,
) -> Result<u64, SymbolError> {
    Ok(match layout {
        Layout::Addresses => u64::from_le_bytes(window.read(place)?),
        Layout::Offsets => u64::from(u32::from_le_bytes(window.read(place)?)),
    })
}
