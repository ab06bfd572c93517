//! ELF files made in memory, for the tests and the fuzz targets.

use pilotfish_symbols::Function;

pub(crate) mod go;
pub(crate) mod questions;

const HEADER: usize = 64;
const PROGRAM_HEADER: usize = 56;
const SEGMENTS: usize = 6;

pub(crate) const X86_64: u16 = 62;
pub(crate) const AARCH64: u16 = 183;
pub(crate) const EXECUTABLE: u16 = 2;
pub(crate) const SHARED: u16 = 3;

pub(crate) const LOAD: u32 = 1;
pub(crate) const DYNAMIC: u32 = 2;
pub(crate) const NOTE: u32 = 4;

pub(crate) const READ: u32 = 4;
pub(crate) const WRITE: u32 = 2;
pub(crate) const EXECUTE: u32 = 1;

pub(crate) const PROGRAM_BITS: u32 = 1;
pub(crate) const SYMBOLS: u32 = 2;
pub(crate) const STRINGS: u32 = 3;
pub(crate) const DYNAMIC_SYMBOLS: u32 = 11;

/// A file under construction. Addresses are places in the file plus a base.
pub(crate) struct Image {
    machine: u16,
    kind: u16,
    pub(crate) base: u64,
    pub(crate) bytes: Vec<u8>,
    segments: Vec<Vec<u8>>,
    sections: Vec<(String, [u64; 5])>,
}

impl Image {
    pub(crate) fn new(machine: u16, kind: u16) -> Self {
        Self {
            machine,
            kind,
            base: if kind == EXECUTABLE { 0x40_0000 } else { 0 },
            bytes: vec![0; HEADER + SEGMENTS * PROGRAM_HEADER],
            segments: Vec::new(),
            sections: vec![(String::new(), [0; 5])],
        }
    }

    /// Appends a section; its address.
    pub(crate) fn section(&mut self, name: &str, kind: u32, bytes: &[u8]) -> u64 {
        self.linked_section(name, kind, bytes, 0)
    }

    /// Appends a section that refers to another one by number.
    pub(crate) fn linked_section(
        &mut self,
        name: &str,
        kind: u32,
        bytes: &[u8],
        link: usize,
    ) -> u64 {
        self.bytes.resize(self.bytes.len().next_multiple_of(32), 0);
        let offset = self.bytes.len() as u64;
        self.bytes.extend(bytes);
        let fields = [
            u64::from(kind),
            self.base + offset,
            offset,
            bytes.len() as u64,
            link as u64,
        ];
        self.sections.push((name.to_owned(), fields));
        self.base + offset
    }

    /// Number of the next section.
    pub(crate) fn next_section(&self) -> usize {
        self.sections.len()
    }

    /// Address of the next byte.
    pub(crate) fn end(&self) -> u64 {
        self.base + self.bytes.len() as u64
    }

    /// Adds a program header for `start..end`, addresses.
    pub(crate) fn segment(&mut self, kind: u32, flags: u32, start: u64, end: u64) {
        let mut header = Vec::new();
        header.extend(kind.to_le_bytes());
        header.extend(flags.to_le_bytes());
        let alignment = if kind == NOTE { 4 } else { 8 };
        let size = end - start;
        for field in [start - self.base, start, start, size, size, alignment] {
            header.extend(field.to_le_bytes());
        }
        self.segments.push(header);
        assert!(self.segments.len() <= SEGMENTS);
    }

    /// Overwrites what was appended before.
    pub(crate) fn write(&mut self, address: u64, bytes: &[u8]) {
        let start = (address - self.base) as usize;
        self.bytes[start..start + bytes.len()].copy_from_slice(bytes);
    }

    /// The file, with or without section headers.
    pub(crate) fn finish(mut self, has_sections: bool) -> Vec<u8> {
        let mut sections = Vec::new();
        if has_sections {
            let mut names = Vec::new();
            self.sections.push((".shstrtab".to_owned(), [0; 5]));
            for (name, _) in &self.sections {
                names.extend(name.bytes().chain([0]));
            }
            let offset = self.bytes.len() as u64;
            let last = self.sections.last_mut().unwrap();
            last.1 = [u64::from(STRINGS), 0, offset, names.len() as u64, 0];
            let mut place = 0u32;
            for (name, [kind, address, offset, size, link]) in &self.sections {
                sections.extend(place.to_le_bytes());
                sections.extend((*kind as u32).to_le_bytes());
                for field in [0, *address, *offset, *size] {
                    sections.extend(field.to_le_bytes());
                }
                sections.extend((*link as u32).to_le_bytes());
                sections.extend([0; 20]);
                place += name.len() as u32 + 1;
            }
            self.bytes.extend(names);
        }
        let start_of_sections = self.bytes.len() as u64;
        self.bytes.extend(&sections);
        let count = if has_sections {
            self.sections.len() as u16
        } else {
            0
        };

        let mut header = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
        header.extend(self.kind.to_le_bytes());
        header.extend(self.machine.to_le_bytes());
        header.extend(1u32.to_le_bytes());
        let start_of_sections = if has_sections { start_of_sections } else { 0 };
        for field in [0, HEADER as u64, start_of_sections] {
            header.extend(field.to_le_bytes());
        }
        header.extend(0u32.to_le_bytes());
        let segments = self.segments.len() as u16;
        for field in [
            64,
            PROGRAM_HEADER as u16,
            segments,
            64,
            count,
            count.saturating_sub(1),
        ] {
            header.extend(field.to_le_bytes());
        }
        for segment in self.segments {
            header.extend(segment);
        }
        self.bytes[..header.len()].copy_from_slice(&header);
        self.bytes
    }
}

/// A string table and where its strings start.
pub(crate) fn strings(names: &[&str]) -> (Vec<u8>, Vec<u32>) {
    let mut table = vec![0];
    let mut places = Vec::new();
    for name in names {
        places.push(table.len() as u32);
        table.extend(name.bytes().chain([0]));
    }
    (table, places)
}

/// A symbol: place of its name, type, section, address, size.
pub(crate) fn symbol(name: u32, kind: u8, section: u16, address: u64, size: u64) -> Vec<u8> {
    let mut bytes = name.to_le_bytes().to_vec();
    bytes.extend([0x10 | kind, 0]);
    bytes.extend(section.to_le_bytes());
    bytes.extend(address.to_le_bytes());
    bytes.extend(size.to_le_bytes());
    bytes
}

/// Words, little-endian.
pub(crate) fn words(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// A note with padding to four bytes.
pub(crate) fn note(kind: u32, name: &[u8], descriptor: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for field in [name.len() as u32, descriptor.len() as u32, kind] {
        bytes.extend(field.to_le_bytes());
    }
    for part in [name, descriptor] {
        bytes.extend(part);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    bytes
}

/// An executable with one function, and the function.
pub(crate) fn function_of(machine: u16, code: &[u8]) -> (Vec<u8>, Function) {
    let mut image = Image::new(machine, EXECUTABLE);
    let address = image.section(".text", PROGRAM_BITS, code);
    let end = image.end();
    image.segment(LOAD, READ | EXECUTE, address, end);
    let function = Function {
        name: String::new(),
        address,
        offset: address - image.base,
        size: code.len() as u64,
    };
    (image.finish(false), function)
}

/// Code of the library below: `endbr64; push rbp; ret`, then `sub rsp, 8; je +1; ret; ret`.
pub(crate) const FIRST: [u8; 6] = [0xf3, 0x0f, 0x1e, 0xfa, 0x55, 0xc3];
pub(crate) const SECOND: [u8; 8] = [0x48, 0x83, 0xec, 0x08, 0x74, 0x01, 0xc3, 0xc3];

/// A shared library with symbols in both tables, a build id, two needed libraries and a marker.
pub(crate) fn library() -> Vec<u8> {
    let mut image = Image::new(X86_64, SHARED);
    let first = image.section(".text", PROGRAM_BITS, &[&FIRST[..], &SECOND].concat());
    let second = first + FIRST.len() as u64;
    let id: Vec<u8> = (1..=20).collect();
    let notes = [note(5, b"GNU\0", &[0; 12]), note(3, b"GNU\0", &id)].concat();
    let start = image.section(".note.gnu.build-id", PROGRAM_BITS, &notes);
    let end = image.end();
    image.segment(NOTE, READ, start, end);
    image.section(".rodata", PROGRAM_BITS, b"OpenSSL 3.0.99 of no date");

    let (table, names) = strings(&[
        "tls_write",
        "tls_read",
        "used_elsewhere",
        "libone.so.1",
        "libtwo.so",
    ]);
    let number = image.next_section();
    let dynamic_strings = image.section(".dynstr", STRINGS, &table);
    let symbols = [
        symbol(0, 0, 0, 0, 0),
        symbol(names[0], 2, 1, first, FIRST.len() as u64),
        symbol(names[1], 2, 1, second, SECOND.len() as u64),
        symbol(names[2], 2, 0, 0, 0),
    ];
    image.linked_section(".dynsym", DYNAMIC_SYMBOLS, &symbols.concat(), number);
    let dynamic = [
        words(&[1, u64::from(names[3]), 1, u64::from(names[4])]),
        words(&[5, dynamic_strings, 0, 0, 1, 0]),
    ];
    let start = image.section(".dynamic", PROGRAM_BITS, &dynamic.concat());
    let end = image.end();
    image.segment(DYNAMIC, READ, start, end);
    let loaded = image.end();
    image.segment(LOAD, READ | EXECUTE, 0, loaded);

    // "read" has its name in the end of "tls_read"; "local" is there twice; "data" and "chosen" are no functions.
    let (table, names) = strings(&[
        "tls_write@@TLS_1.0",
        "tls_read@TLS_0.9",
        "local",
        "data",
        "chosen",
    ]);
    let number = image.next_section();
    image.section(".strtab", STRINGS, &table);
    let symbols = [
        symbol(0, 0, 0, 0, 0),
        symbol(names[0], 2, 1, first, FIRST.len() as u64),
        symbol(names[1], 2, 1, second, SECOND.len() as u64),
        symbol(names[1] + 4, 2, 1, second, SECOND.len() as u64),
        symbol(names[2], 2, 1, first + 4, 2),
        symbol(names[2], 2, 1, second + 7, 1),
        symbol(names[3], 1, 1, first, 1),
        symbol(names[4], 10, 1, first, 1),
    ];
    image.linked_section(".symtab", SYMBOLS, &symbols.concat(), number);
    image.finish(true)
}
