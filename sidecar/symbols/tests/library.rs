//! Headers, symbols, needed libraries and markers of a library made in memory.

#[allow(dead_code, reason = "each test uses a part of it")]
mod image;

use image::{FIRST, Image, SECOND, X86_64, library};
use pilotfish_symbols::{Binary, Machine, SymbolError};

fn found(bytes: &[u8], wanted: &[&str]) -> Vec<(String, u64)> {
    let binary = Binary::open(bytes).unwrap();
    let functions = binary.functions(wanted).unwrap();
    functions
        .into_iter()
        .map(|function| (function.name, function.size))
        .collect()
}

fn position(bytes: &[u8], part: &[u8]) -> u64 {
    bytes
        .windows(part.len())
        .position(|window| window == part)
        .unwrap() as u64
}

#[test]
fn functions_are_found_once_without_their_version() {
    let bytes = library();
    let expected = [
        ("tls_write".to_owned(), FIRST.len() as u64),
        ("tls_read".to_owned(), SECOND.len() as u64),
    ];
    assert_eq!(found(&bytes, &["tls_read", "tls_write"]), expected);
    assert_eq!(
        Binary::open(bytes.as_slice()).unwrap().machine(),
        Machine::X86_64
    );
}

#[test]
fn a_name_may_be_the_end_of_another() {
    assert_eq!(found(&library(), &["read"]), [("read".to_owned(), 8)]);
}

#[test]
fn functions_of_one_name_are_all_given() {
    let local = ("local".to_owned(), 2);
    assert_eq!(
        found(&library(), &["local"]),
        [local, ("local".to_owned(), 1)]
    );
}

#[test]
fn what_is_no_function_of_the_file_is_not_given() {
    let absent = [
        "used_elsewhere",
        "data",
        "chosen",
        "tls",
        "tls_read@TLS_0.9",
        "",
    ];
    assert_eq!(found(&library(), &absent), []);
}

#[test]
fn names_can_be_matched() {
    let bytes = library();
    let binary = Binary::open(bytes.as_slice()).unwrap();
    let functions = binary
        .functions_matching(&mut |name| name.starts_with("tls_"))
        .unwrap();
    let names: Vec<_> = functions
        .iter()
        .map(|function| function.name.as_str())
        .collect();
    assert_eq!(names, ["tls_write", "tls_read"]);
}

#[test]
fn probes_go_to_the_entry_and_the_returns() {
    let bytes = library();
    let binary = Binary::open(bytes.as_slice()).unwrap();
    let functions = binary.functions(&["tls_write", "tls_read"]).unwrap();
    let [write, read] = functions.as_slice() else {
        panic!("{functions:?}");
    };
    assert_eq!(write.offset, position(&bytes, &FIRST));
    assert_eq!(read.offset, position(&bytes, &SECOND));
    let probe = binary.entry(write).unwrap();
    assert_eq!((probe.offset, probe.is_emulated), (write.offset + 4, true));
    let probe = binary.entry(read).unwrap();
    assert_eq!((probe.offset, probe.is_emulated), (read.offset, false));
    assert_eq!(binary.returns(write).unwrap(), [write.offset + 5]);
    assert_eq!(
        binary.returns(read).unwrap(),
        [read.offset + 6, read.offset + 7]
    );
}

#[test]
fn needed_libraries_and_markers() {
    let bytes = library();
    let binary = Binary::open(bytes.as_slice()).unwrap();
    assert_eq!(binary.needed().unwrap(), ["libone.so.1", "libtwo.so"]);
    let markers: [&[u8]; 4] = [b"OpenSSL 3.", b"OpenSSL 1.1.1", b"", b"no date"];
    assert_eq!(
        binary.contains(&markers).unwrap(),
        [true, false, false, true]
    );
    assert_eq!(binary.go().unwrap(), None);
    assert_eq!(binary.go_functions(&["main.main"]).unwrap(), []);
}

#[test]
fn other_files_are_refused() {
    let bytes = library();
    for not_elf in [&b""[..], b"#!/bin/sh\n", &bytes[..63]] {
        assert!(matches!(Binary::open(not_elf), Err(SymbolError::NotElf)));
    }
    // 32-bit; big-endian; a relocatable object; RISC-V
    for (place, value) in [(4, 1), (5, 2), (16, 1), (18, 243)] {
        let mut other = bytes.clone();
        other[place] = value;
        let opened = Binary::open(other.as_slice());
        assert!(
            matches!(opened, Err(SymbolError::Unsupported(_))),
            "{place}"
        );
    }
}

#[test]
fn bounds_are_named() {
    let refused = |bytes: &[u8]| exceeded(Binary::open(bytes).map(|_| ()));
    let mut many = library();
    many[56..58].copy_from_slice(&257u16.to_le_bytes());
    assert_eq!(refused(&many), "program headers");
    let mut many = library();
    many[60..62].copy_from_slice(&4097u16.to_le_bytes());
    assert_eq!(refused(&many), "section headers");
}

#[test]
fn a_table_beyond_the_file_is_an_error() {
    let mut image = Image::new(X86_64, image::SHARED);
    image.section(".strtab", image::STRINGS, b"\0tls_read\0");
    image.linked_section(
        ".symtab",
        image::SYMBOLS,
        &image::symbol(1, 2, 1, 0x10_0000, 4),
        1,
    );
    let bytes = image.finish(true);
    let binary = Binary::open(bytes.as_slice()).unwrap();
    // The symbol's address is in no segment.
    assert!(matches!(
        binary.functions(&["tls_read"]),
        Err(SymbolError::Malformed(_))
    ));
    assert_eq!(binary.functions(&["tls_write"]).unwrap(), []);
    for length in 0..bytes.len() {
        let cut = Binary::open(&bytes[..length]);
        assert!(cut.is_err(), "{length}");
    }
}

/// Which bound an answer names.
fn exceeded<T: std::fmt::Debug>(answer: Result<T, SymbolError>) -> &'static str {
    match answer {
        Err(SymbolError::TooLarge { what, found, bound }) if found > bound => what,
        other => panic!("{other:?}"),
    }
}

/// One function under so many names, and so many symbols for each.
fn repeated(names: usize, symbols: usize) -> Vec<u8> {
    let mut image = Image::new(X86_64, image::SHARED);
    let address = image.section(".text", image::PROGRAM_BITS, &SECOND);
    let end = image.end();
    image.segment(image::LOAD, image::READ | image::EXECUTE, address, end);
    let (table, places) = image::strings(&vec!["many"; names]);
    image.section(".strtab", image::STRINGS, &table);
    let symbol = image::symbol(places[0], 2, 1, address, 8);
    image.linked_section(".symtab", image::SYMBOLS, &symbol.repeat(symbols), 2);
    image.finish(true)
}

#[test]
fn repetitions_are_bounded() {
    let functions = |bytes: &[u8]| Binary::open(bytes).unwrap().functions(&["many"]);
    assert_eq!(functions(&repeated(8192, 4096)).unwrap().len(), 1);
    let what = exceeded(functions(&repeated(8193, 1)));
    assert_eq!(what, "places of wanted names in a string table");
    let what = exceeded(functions(&repeated(1, 4097)));
    assert_eq!(what, "functions of the wanted names");
}

#[test]
fn needed_libraries_are_bounded() {
    let needed = |count: usize, length: usize| {
        let mut image = Image::new(X86_64, image::SHARED);
        let name = "n".repeat(length);
        let (table, places) = image::strings(&[name.as_str()]);
        let strings = image.section(".dynstr", image::STRINGS, &table);
        let entry = image::words(&[1, u64::from(places[0])]);
        let last = image::words(&[5, strings, 0, 0]);
        let entries = [entry.repeat(count), last].concat();
        let start = image.section(".dynamic", image::PROGRAM_BITS, &entries);
        let end = image.end();
        image.segment(image::DYNAMIC, image::READ, start, end);
        image.segment(image::LOAD, image::READ, 0, end);
        let bytes = image.finish(true);
        Binary::open(bytes.as_slice()).unwrap().needed()
    };
    assert_eq!(needed(1024, 10).unwrap(), vec!["n".repeat(10); 1024]);
    assert_eq!(needed(1, 4096).unwrap(), ["n".repeat(4096)]);
    assert_eq!(exceeded(needed(1025, 10)), "needed libraries");
    let what = exceeded(needed(1, 4097));
    assert_eq!(what, "bytes of a needed library's name");
}

#[test]
fn a_function_of_unknown_length_or_too_long_has_no_returns() {
    let bytes = library();
    let binary = Binary::open(bytes.as_slice()).unwrap();
    let mut function = binary.functions(&["tls_read"]).unwrap().remove(0);
    function.size = (1 << 20) + 1;
    assert_eq!(exceeded(binary.returns(&function)), "bytes of a function");
    function.size = 0;
    let unknown = binary.returns(&function);
    assert!(matches!(unknown, Err(SymbolError::Unsupported(_))));
}
