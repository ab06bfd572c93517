//! The headers of an ELF file: what kind it is, where its sections are, which part of it becomes which addresses.

use std::ops::Range;

use object::LittleEndian;
use object::elf::{self, FileHeader64, ProgramHeader64, SectionHeader64};
use object::pod::{Pod, from_bytes};

use crate::bounds;
use crate::error::within;
use crate::source::Bytes;
use crate::{Source, SymbolError};

/// Byte order of every file that is covered.
pub(crate) const LE: LittleEndian = LittleEndian;

/// Instruction set of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Machine {
    /// `EM_X86_64`
    X86_64,
    /// `EM_AARCH64`
    Aarch64,
}

/// A 64-bit little-endian ELF program or shared library (System V gABI 4.1), opened.
pub struct Binary<S> {
    pub(crate) bytes: Bytes<S>,
    machine: Machine,
    pub(crate) is_relocatable: bool,
    pub(crate) segments: Vec<Segment>,
    pub(crate) sections: Vec<Section>,
    section_names: Vec<u8>,
}

/// A program header.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment {
    pub(crate) kind: u32,
    flags: u32,
    pub(crate) offset: u64,
    pub(crate) address: u64,
    pub(crate) size: u64,
}

impl Segment {
    /// Is part of the program's memory.
    pub(crate) fn is_loaded(&self) -> bool {
        self.kind == elf::PT_LOAD
    }

    pub(crate) fn is_executable(&self) -> bool {
        self.flags & elf::PF_X != 0
    }

    pub(crate) fn is_writable(&self) -> bool {
        self.flags & elf::PF_W != 0
    }

    /// Where `length` bytes at `address` are in the file.
    fn file_offset(&self, address: u64, length: u64) -> Option<u64> {
        let inside = address.checked_sub(self.address)?;
        if inside.checked_add(length)? > self.size {
            return None;
        }
        self.offset.checked_add(inside)
    }
}

/// A section header.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Section {
    name: u32,
    pub(crate) kind: u32,
    pub(crate) address: u64,
    pub(crate) offset: u64,
    pub(crate) size: u64,
    pub(crate) link: u32,
}

impl<S: Source> Binary<S> {
    /// Reads the headers. `ET_EXEC` and `ET_DYN` for x86-64 and aarch64 are covered.
    pub fn open(source: S) -> Result<Self, SymbolError> {
        let bytes = Bytes::open(source)?;
        let header = bytes
            .read(0, size_of::<FileHeader64<LittleEndian>>() as u64)
            .map_err(|error| match error {
                SymbolError::Malformed(_) => SymbolError::NotElf,
                other => other,
            })?;
        let header: &FileHeader64<LittleEndian> = entry(&header)?;
        let machine = covered(header)?;
        let mut binary = Self {
            machine,
            is_relocatable: header.e_type.get(LE) == elf::ET_DYN,
            segments: segments(&bytes, header)?,
            sections: sections(&bytes, header)?,
            section_names: Vec::new(),
            bytes,
        };
        let names = usize::from(header.e_shstrndx.get(LE));
        if let Some(names) = binary.sections.get(names) {
            let length = within("bytes of section names", names.size, bounds::SECTION_NAMES)?;
            binary.section_names = binary.bytes.read(names.offset, length)?;
        }
        Ok(binary)
    }

    /// The instruction set.
    pub fn machine(&self) -> Machine {
        self.machine
    }

    /// The first section of that name.
    pub(crate) fn section(&self, name: &str) -> Option<&Section> {
        self.sections.iter().find(|section| {
            self.section_names
                .get(section.name as usize..)
                .and_then(|names| names.strip_prefix(name.as_bytes()))
                .is_some_and(|rest| rest.first() == Some(&0))
        })
    }

    /// The file's part of a section.
    pub(crate) fn section_range(&self, section: &Section) -> Result<Range<u64>, SymbolError> {
        self.bytes.range(section.offset, section.size)
    }

    /// The part of the file that a loaded segment comes from.
    pub(crate) fn segment_range(&self, segment: &Segment) -> Result<Range<u64>, SymbolError> {
        self.bytes.range(segment.offset, segment.size)
    }

    /// The part of the file that a loaded segment comes from, from its first address that is a multiple of `alignment`
    /// on, and that address.
    pub(crate) fn aligned_range(
        &self,
        segment: &Segment,
        alignment: u64,
    ) -> Result<(Range<u64>, u64), SymbolError> {
        let range = self.segment_range(segment)?;
        let address = segment
            .address
            .checked_next_multiple_of(alignment)
            .ok_or(SymbolError::Malformed("the address of a segment"))?;
        let skipped = address.saturating_sub(segment.address);
        let start = range.start.saturating_add(skipped).min(range.end);
        Ok((start..range.end, address))
    }

    /// The loaded segments.
    pub(crate) fn loaded(&self) -> impl Iterator<Item = &Segment> {
        self.segments.iter().filter(|segment| segment.is_loaded())
    }

    /// Where in the file the bytes of `address..address + length` are, if one loaded segment has all of them.
    pub(crate) fn file_offset(&self, address: u64, length: u64) -> Option<u64> {
        self.loaded()
            .find_map(|segment| segment.file_offset(address, length))
    }

    /// As [`file_offset`](Self::file_offset), for code.
    pub(crate) fn code_offset(&self, address: u64, length: u64) -> Option<u64> {
        self.loaded()
            .filter(|segment| segment.is_executable())
            .find_map(|segment| segment.file_offset(address, length))
    }
}

/// The first entry of a table.
pub(crate) fn entry<T: Pod>(bytes: &[u8]) -> Result<&T, SymbolError> {
    from_bytes(bytes)
        .map(|(entry, _)| entry)
        .map_err(|()| SymbolError::Malformed("a table ends within an entry"))
}

/// The entries of a table; bytes after the last whole one are left out.
pub(crate) fn entries<T: Pod>(bytes: &[u8]) -> impl Iterator<Item = &T> {
    bytes
        .chunks_exact(size_of::<T>().max(1))
        .filter_map(|bytes| from_bytes(bytes).ok())
        .map(|(entry, _)| entry)
}

fn covered(header: &FileHeader64<LittleEndian>) -> Result<Machine, SymbolError> {
    let ident = &header.e_ident;
    if ident.magic != elf::ELFMAG {
        return Err(SymbolError::NotElf);
    }
    if ident.class != elf::ELFCLASS64 || ident.data != elf::ELFDATA2LSB {
        return Err(SymbolError::Unsupported(
            "a file that is not 64-bit little-endian",
        ));
    }
    if !matches!(header.e_type.get(LE), elf::ET_EXEC | elf::ET_DYN) {
        return Err(SymbolError::Unsupported(
            "a file that is neither a program nor a shared library",
        ));
    }
    match header.e_machine.get(LE) {
        elf::EM_X86_64 => Ok(Machine::X86_64),
        elf::EM_AARCH64 => Ok(Machine::Aarch64),
        _ => Err(SymbolError::Unsupported(
            "an instruction set other than x86-64 and aarch64",
        )),
    }
}

fn segments<S: Source>(
    bytes: &Bytes<S>,
    header: &FileHeader64<LittleEndian>,
) -> Result<Vec<Segment>, SymbolError> {
    let table = table::<S, ProgramHeader64<LittleEndian>>(
        bytes,
        header.e_phoff.get(LE),
        (header.e_phnum.get(LE), header.e_phentsize.get(LE)),
        ("program headers", bounds::SEGMENTS),
    )?;
    Ok(entries::<ProgramHeader64<LittleEndian>>(&table)
        .map(|segment| Segment {
            kind: segment.p_type.get(LE),
            flags: segment.p_flags.get(LE),
            offset: segment.p_offset.get(LE),
            address: segment.p_vaddr.get(LE),
            // A segment whose memory is smaller than its part of the file is refused by the kernel.
            size: segment.p_filesz.get(LE).min(segment.p_memsz.get(LE)),
        })
        .collect())
}

fn sections<S: Source>(
    bytes: &Bytes<S>,
    header: &FileHeader64<LittleEndian>,
) -> Result<Vec<Section>, SymbolError> {
    let table = table::<S, SectionHeader64<LittleEndian>>(
        bytes,
        header.e_shoff.get(LE),
        (header.e_shnum.get(LE), header.e_shentsize.get(LE)),
        ("section headers", bounds::SECTIONS),
    )?;
    Ok(entries::<SectionHeader64<LittleEndian>>(&table)
        .map(|section| {
            let kind = section.sh_type.get(LE);
            Section {
                name: section.sh_name.get(LE),
                kind,
                address: section.sh_addr.get(LE),
                offset: section.sh_offset.get(LE),
                // What a separate debug file took away has a size but no bytes.
                size: if kind == elf::SHT_NOBITS {
                    0
                } else {
                    section.sh_size.get(LE)
                },
                link: section.sh_link.get(LE),
            }
        })
        .collect())
}

/// The bytes of a header table with so many entries of such a size; none if it has no entries.
fn table<S: Source, T>(
    bytes: &Bytes<S>,
    offset: u64,
    (count, entry_size): (u16, u16),
    (what, bound): (&'static str, u64),
) -> Result<Vec<u8>, SymbolError> {
    if count == 0 {
        return Ok(Vec::new());
    }
    if usize::from(entry_size) != size_of::<T>() {
        return Err(SymbolError::Malformed("a header table's entry size"));
    }
    let count = within(what, u64::from(count), bound)?;
    bytes.read(offset, count.saturating_mul(u64::from(entry_size)))
}
