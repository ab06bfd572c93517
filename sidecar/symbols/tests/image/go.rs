//! Go executables with nothing but the tables that are read.

use super::{
    DYNAMIC, EXECUTABLE, EXECUTE, Image, LOAD, PROGRAM_BITS, READ, SHARED, WRITE, X86_64, words,
};

/// How the executable was built.
#[derive(Clone, Copy)]
pub(crate) struct Build {
    pub(crate) magic: u32,
    pub(crate) version: &'static str,
    pub(crate) is_position_independent: bool,
    /// Values stand in relocations only, as linkers other than Go's leave them.
    pub(crate) is_linked_elsewhere: bool,
    pub(crate) has_sections: bool,
}

/// The versions whose tables differ.
pub(crate) const BUILDS: [Build; 6] = [
    build(0xffff_fffa, "go1.17.13"),
    build(0xffff_fff0, "go1.19.8"),
    build(0xffff_fff1, "go1.24.4"),
    Build {
        is_position_independent: true,
        ..build(0xffff_fff1, "go1.21.0")
    },
    Build {
        is_position_independent: true,
        is_linked_elsewhere: true,
        ..build(0xffff_fff1, "go1.26.3")
    },
    Build {
        has_sections: false,
        ..build(0xffff_fff1, "go1.27.0 X:something")
    },
];

const fn build(magic: u32, version: &'static str) -> Build {
    Build {
        magic,
        version,
        is_position_independent: false,
        is_linked_elsewhere: false,
        has_sections: true,
    }
}

impl Build {
    pub(crate) fn has_addresses(self) -> bool {
        self.magic == 0xffff_fffa
    }
}

pub(crate) const NAMES: [&str; 4] = [
    "runtime.text",
    "crypto/tls.(*Conn).Read",
    "main.main",
    "crypto/tls.(*Conn).Write",
];

/// `cmp rsp, [r14+16]; jbe +2; push rbp; ret; jmp -10; int3...`: 16 bytes each.
pub(crate) const CODE: [u8; 16] = [
    0x49, 0x3b, 0x66, 0x10, 0x76, 0x02, 0x55, 0xc3, 0xeb, 0xf6, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc,
];

/// Bytes of other code before Go's text.
pub(crate) const OTHER_CODE: u64 = 32;

/// The executable, and the address of the first function.
pub(crate) fn executable(build: Build) -> (Vec<u8>, u64) {
    let kind = if build.is_position_independent {
        SHARED
    } else {
        EXECUTABLE
    };
    let mut image = Image::new(X86_64, kind);
    let code = [vec![0x90; OTHER_CODE as usize], CODE.repeat(NAMES.len())].concat();
    let text = image.section(".text", PROGRAM_BITS, &code) + OTHER_CODE;
    let table_bytes = table(build, text);
    let table = image.section(".gopclntab", PROGRAM_BITS, &table_bytes);
    let end = image.end();
    image.segment(LOAD, READ | EXECUTE, image.base, end);

    // A segment need not start at a multiple of anything.
    image.bytes.push(0);
    let start_of_data = image.end();
    assert_ne!(start_of_data % 8, 0);
    let data = image.section(".go.buildinfo", PROGRAM_BITS, &[0; 64]);
    let info = build_info(build, data);
    image.write(data, &info);
    let functions = table + start_of_functions(build);
    let module = module_data(table, functions, text);
    let place = image.section(".data", PROGRAM_BITS, &[0; 24 * 8]);
    let mut relocations = Vec::new();
    for (index, word) in module.iter().enumerate() {
        let at = place + index as u64 * 8;
        let is_address = *word >= image.base.max(64) && index != 17;
        if build.is_position_independent && is_address {
            relocations.extend(words(&[at, 8, *word]));
        }
        if !(build.is_linked_elsewhere && is_address) {
            image.write(at, &word.to_le_bytes());
        }
    }
    let end = image.end();
    image.segment(LOAD, READ | WRITE, start_of_data, end);
    if build.is_position_independent {
        let size = relocations.len() as u64;
        let start = image.section(".rela.dyn", PROGRAM_BITS, &relocations);
        let dynamic = words(&[7, start, 8, size, 0, 0]);
        let dynamic = image.section(".dynamic", PROGRAM_BITS, &dynamic);
        let end = image.end();
        image.segment(LOAD, READ, start, end);
        image.segment(DYNAMIC, READ, dynamic, end);
    }
    (image.finish(build.has_sections), text)
}

/// The words of `runtime.moduledata` that are compared.
fn module_data(table: u64, functions: u64, text: u64) -> [u64; 24] {
    let count = NAMES.len() as u64;
    let end = text + count * CODE.len() as u64;
    let mut words = [0; 24];
    words[0] = table;
    words[16..19].copy_from_slice(&[functions, count + 1, count + 1]);
    words[20..24].copy_from_slice(&[text, end, text, end]);
    words
}

/// With the version inline, or behind pointers as before Go 1.18.
fn build_info(build: Build, address: u64) -> Vec<u8> {
    let mut info = b"\xff Go buildinf:\x08".to_vec();
    if build.has_addresses() {
        info.push(0);
        info.extend(words(&[
            address + 32,
            0,
            address + 48,
            build.version.len() as u64,
        ]));
    } else {
        info.push(2);
        info.resize(32, 0);
        info.push(build.version.len() as u8);
    }
    info.extend(build.version.bytes());
    info
}

fn start_of_functions(build: Build) -> u64 {
    let header = if build.has_addresses() { 64 } else { 72 };
    let names: usize = NAMES.iter().map(|name| name.len() + 1).sum();
    (header + names as u64).next_multiple_of(8)
}

fn table(build: Build, text: u64) -> Vec<u8> {
    let count = NAMES.len() as u64;
    let names: Vec<u8> = NAMES
        .iter()
        .flat_map(|name| name.bytes().chain([0]))
        .collect();
    let functions = start_of_functions(build);
    let header = if build.has_addresses() { 64 } else { 72 };
    let after = header + names.len() as u64;
    let mut table = build.magic.to_le_bytes().to_vec();
    table.extend([0, 0, 1, 8]);
    table.extend(words(&[count, 1]));
    if !build.has_addresses() {
        table.extend(words(&[0]));
    }
    table.extend(words(&[header, after, after, after, functions]));
    table.extend(names);
    table.resize(functions as usize, 0);

    let address = |value: u64| {
        if build.has_addresses() {
            (text + value).to_le_bytes().to_vec()
        } else {
            (value as u32).to_le_bytes().to_vec()
        }
    };
    let place = |value: u64| {
        if build.has_addresses() {
            value.to_le_bytes().to_vec()
        } else {
            (value as u32).to_le_bytes().to_vec()
        }
    };
    let size = address(0).len() as u64;
    let descriptions = size * (2 * count + 1);
    for index in 0..count {
        table.extend(address(index * CODE.len() as u64));
        table.extend(place(descriptions + index * (size + 4)));
    }
    table.extend(address(count * CODE.len() as u64));
    let mut name = 0;
    for (index, text) in NAMES.iter().enumerate() {
        table.extend(address(index as u64 * CODE.len() as u64));
        table.extend((name as u32).to_le_bytes());
        name += text.len() + 1;
    }
    table
}
