use std::fmt;

use object::LittleEndian;
use object::elf::{self, NoteHeader32};

use crate::binary::{LE, entry};
use crate::bounds;
use crate::error::within;
use crate::{Binary, Source, SymbolError};

/// The build id that the linker wrote (`NT_GNU_BUILD_ID`).
///
/// Anybody can write any build id into a file: what was found in one container's file must not be used for another
/// container's file because of an equal build id.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BuildId(Vec<u8>);

impl BuildId {
    /// Its bytes, at most [`BUILD_ID`](bounds::BUILD_ID).
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// In hexadecimal, as `readelf -n` shows it.
impl fmt::Display for BuildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl<S: Source> Binary<S> {
    /// The build id, from the note segments or the section of its name; `None` if the file has none.
    pub fn build_id(&self) -> Result<Option<BuildId>, SymbolError> {
        let segments = self
            .segments
            .iter()
            .filter(|segment| segment.kind == elf::PT_NOTE)
            .map(|segment| (segment.offset, segment.size, segment.alignment));
        let section = self
            .section(".note.gnu.build-id")
            .map(|section| (section.offset, section.size, 4));
        let mut failed = None;
        for (offset, size, alignment) in segments.chain(section) {
            let size = within("bytes of notes", size, bounds::NOTES)?;
            let notes = self.bytes.read(offset, size)?;
            // Notes are padded to 4 bytes, in segments aligned to 8 bytes to these.
            match find(&notes, if alignment == 8 { 8 } else { 4 }) {
                Ok(Some(id)) => {
                    let size = id.len() as u64;
                    within("bytes of the build id", size, bounds::BUILD_ID)?;
                    return Ok(Some(BuildId(id.to_vec())));
                }
                Ok(None) => {}
                // Not every linker keeps to that, and another place may have it.
                Err(error) => failed = Some(error),
            }
        }
        failed.map_or(Ok(None), Err)
    }
}

/// The build id among notes.
fn find(mut notes: &[u8], alignment: usize) -> Result<Option<&[u8]>, SymbolError> {
    while !notes.is_empty() {
        let header: &NoteHeader32<LittleEndian> = entry(notes)?;
        let Some((name, descriptor, rest)) = split(
            notes.get(size_of_val(header)..).unwrap_or_default(),
            header.n_namesz.get(LE) as usize,
            header.n_descsz.get(LE) as usize,
            alignment,
        ) else {
            return Err(SymbolError::Malformed("a note reaches beyond its segment"));
        };
        if header.n_type.get(LE) == elf::NT_GNU_BUILD_ID && name == b"GNU\0" {
            return Ok(Some(descriptor));
        }
        notes = rest;
    }
    Ok(None)
}

/// Name and descriptor after a note's header, and what follows them.
fn split(
    body: &[u8],
    name: usize,
    descriptor: usize,
    alignment: usize,
) -> Option<(&[u8], &[u8], &[u8])> {
    // The header's 12 bytes count for the place of the descriptor.
    let start = name
        .checked_add(12)?
        .checked_next_multiple_of(alignment)?
        .checked_sub(12)?;
    let end = start.checked_add(descriptor)?;
    let next = end
        .checked_add(12)?
        .checked_next_multiple_of(alignment)?
        .checked_sub(12)?;
    Some((
        body.get(..name)?,
        body.get(start..end)?,
        body.get(next..).unwrap_or_default(),
    ))
}
