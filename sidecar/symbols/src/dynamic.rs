//! The dynamic section: needed libraries, and where relocations are.

use std::ops::Range;

use object::LittleEndian;
use object::elf::{self, Dyn64};

use crate::binary::{LE, entries};
use crate::bounds;
use crate::error::within;
use crate::{Binary, Source, SymbolError};

impl<S: Source> Binary<S> {
    /// Names of the libraries that the dynamic linker loads for this file (`DT_NEEDED`), in the file's order; none for
    /// a static program.
    pub fn needed(&self) -> Result<Vec<String>, SymbolError> {
        let entries = self.dynamic()?;
        let Some(strings) = value(&entries, elf::DT_STRTAB) else {
            return Ok(Vec::new());
        };
        let mut names = Vec::new();
        for (_, offset) in entries.iter().filter(|(tag, _)| *tag == elf::DT_NEEDED) {
            within(
                "needed libraries",
                (names.len() as u64).saturating_add(1),
                bounds::NEEDED,
            )?;
            let address = strings.checked_add(*offset);
            names.push(self.needed_name(address.unwrap_or(u64::MAX))?);
        }
        Ok(names)
    }

    fn needed_name(&self, address: u64) -> Result<String, SymbolError> {
        let (start, left) = self
            .loaded()
            .find_map(|segment| {
                let inside = address.checked_sub(segment.address)?;
                let left = segment.size.checked_sub(inside)?;
                Some((segment.offset.checked_add(inside)?, left))
            })
            .ok_or(SymbolError::Malformed(
                "a needed library's name is not in memory",
            ))?;
        let most = bounds::NEEDED_NAME.saturating_add(1);
        let bytes = self.bytes.read(start, left.min(most))?;
        let Some(length) = memchr::memchr(0, &bytes) else {
            within(
                "bytes of a needed library's name",
                bytes.len() as u64,
                bounds::NEEDED_NAME,
            )?;
            return Err(SymbolError::Malformed("a needed library's name has no end"));
        };
        let name = bytes.get(..length).unwrap_or_default();
        Ok(String::from_utf8_lossy(name).into_owned())
    }

    /// The file's part of the table of relocations with addends, if it has one.
    pub(crate) fn relocations(&self) -> Result<Option<Range<u64>>, SymbolError> {
        let entries = self.dynamic()?;
        let (Some(address), Some(size)) = (
            value(&entries, elf::DT_RELA),
            value(&entries, elf::DT_RELASZ),
        ) else {
            return Ok(None);
        };
        within("bytes of relocations", size, bounds::RELOCATIONS)?;
        let offset = self
            .file_offset(address, size)
            .ok_or(SymbolError::Malformed("relocations are not in memory"))?;
        Ok(Some(self.bytes.range(offset, size)?))
    }

    /// Tags and values up to the first `DT_NULL`.
    fn dynamic(&self) -> Result<Vec<(i64, u64)>, SymbolError> {
        let Some(segment) = self
            .segments
            .iter()
            .find(|segment| segment.kind == elf::PT_DYNAMIC)
        else {
            return Ok(Vec::new());
        };
        let size = within(
            "bytes of the dynamic section",
            segment.size,
            bounds::DYNAMIC,
        )?;
        let bytes = self.bytes.read(segment.offset, size)?;
        Ok(entries::<Dyn64<LittleEndian>>(&bytes)
            .map(|entry| (entry.d_tag.get(LE), entry.d_val.get(LE)))
            .take_while(|(tag, _)| *tag != elf::DT_NULL)
            .collect())
    }
}

fn value(entries: &[(i64, u64)], tag: i64) -> Option<u64> {
    entries
        .iter()
        .find_map(|(found, value)| (*found == tag).then_some(*value))
}
