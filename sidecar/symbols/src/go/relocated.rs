//! Words as the program sees them: with the relocations that the dynamic linker applies to position-independent files.
//! Go's own linker writes the values into the file as well, other linkers leave zeros there.

use std::ops::ControlFlow;

use object::LittleEndian;
use object::elf::{self, Rela64};

use crate::binary::{LE, entries};
use crate::{Binary, Machine, Source, SymbolError};

/// Bytes of a word.
pub(super) const WORD: u64 = 8;

impl<S: Source> Binary<S> {
    /// `N` words of memory at `address`; `None` if they are not in the file.
    pub(super) fn words<const N: usize>(
        &self,
        address: u64,
    ) -> Result<Option<[u64; N]>, SymbolError> {
        let length = WORD.saturating_mul(N as u64);
        let Some(offset) = self.file_offset(address, length) else {
            return Ok(None);
        };
        let mut words = [0; N];
        let bytes = self.bytes.read(offset, length)?;
        for (word, bytes) in words.iter_mut().zip(bytes.as_chunks().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        self.relative(&mut |place, value| {
            let inside = place.checked_sub(address).filter(|at| at % WORD == 0);
            if let Some(word) = inside.and_then(|at| words.get_mut((at / WORD) as usize)) {
                *word = value;
            }
            ControlFlow::Continue(())
        })?;
        Ok(Some(words))
    }

    /// Shows the relocations that make an address of this file: where they are written, and the address.
    pub(super) fn relative(
        &self,
        visit: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
    ) -> Result<(), SymbolError> {
        if !self.is_relocatable {
            return Ok(());
        }
        let Some(table) = self.relocations()? else {
            return Ok(());
        };
        let kind = match self.machine() {
            Machine::X86_64 => elf::R_X86_64_RELATIVE,
            Machine::Aarch64 => elf::R_AARCH64_RELATIVE,
        };
        let unit = size_of::<Rela64<LittleEndian>>() as u64;
        self.bytes.pieces(table, unit, 0, &mut |_, piece| {
            for relocation in entries::<Rela64<LittleEndian>>(piece) {
                if relocation.r_info.get(LE) == u64::from(kind) {
                    let value = relocation.r_addend.get(LE).cast_unsigned();
                    if visit(relocation.r_offset.get(LE), value).is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                }
            }
            Ok(ControlFlow::Continue(()))
        })
    }
}
