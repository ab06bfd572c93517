//! Go's tables in every layout, in executables made in memory.

#[allow(dead_code, reason = "each test uses a part of it")]
mod image;

use image::go::{BUILDS, CODE, NAMES, executable};
use pilotfish_symbols::{Binary, Go, SymbolError};

#[test]
fn the_version_is_read_in_both_formats() {
    for build in BUILDS {
        let (bytes, _) = executable(build);
        let go = Binary::open(bytes.as_slice()).unwrap().go().unwrap();
        let version = build.version.to_owned();
        assert_eq!(go, Some(Go { version }));
    }
}

#[test]
fn functions_are_found_with_their_probes() {
    for build in BUILDS {
        let (bytes, text) = executable(build);
        let binary = Binary::open(bytes.as_slice()).unwrap();
        let functions = binary
            .go_functions(&[NAMES[3], NAMES[1], "main", "absent"])
            .unwrap();
        let found: Vec<_> = functions
            .iter()
            .map(|function| {
                (
                    function.name.as_str(),
                    function.address - text,
                    function.size,
                )
            })
            .collect();
        assert_eq!(
            found,
            [(NAMES[1], 16, 16), (NAMES[3], 48, 16)],
            "{}",
            build.version
        );
        for function in functions {
            let start = function.offset as usize;
            assert_eq!(bytes[start..start + CODE.len()], CODE);
            let probe = binary.go_entry(&function).unwrap();
            assert_eq!(
                (probe.offset, probe.is_emulated),
                (function.offset + 6, true)
            );
            assert_eq!(binary.entry(&function).unwrap().offset, function.offset);
            assert_eq!(binary.returns(&function).unwrap(), [function.offset + 7]);
        }
    }
}

/// The module data says where the text starts. Unless it agrees with the table, nothing is found.
#[test]
fn a_text_that_the_table_contradicts_is_refused() {
    let (bytes, text) = executable(BUILDS[1]);
    let module = bytes
        .windows(16)
        .rposition(|window| window == [text.to_le_bytes(), (text + 64).to_le_bytes()].concat())
        .unwrap()
        - 22 * 8;
    // Header, functions, their number, lowest and highest address, text, its end.
    for word in [0, 16, 17, 20, 21, 22, 23] {
        let mut other = bytes.clone();
        let field = &mut other[module + word * 8..][..8];
        let value = u64::from_le_bytes(field.try_into().unwrap());
        field.copy_from_slice(&value.wrapping_sub(16).to_le_bytes());
        let found = Binary::open(other.as_slice())
            .unwrap()
            .go_functions(&[NAMES[1]]);
        assert!(
            matches!(found, Err(SymbolError::Unsupported(_))),
            "{word}: {found:?}"
        );
    }
}

#[test]
fn a_table_of_an_unknown_version_is_refused() {
    let (mut bytes, _) = executable(BUILDS[1]);
    let magic = BUILDS[1].magic.to_le_bytes();
    let table = bytes.windows(4).position(|window| window == magic).unwrap();
    bytes[table] = 0xf7;
    let found = Binary::open(bytes.as_slice())
        .unwrap()
        .go_functions(&[NAMES[1]]);
    assert!(
        matches!(found, Err(SymbolError::Unsupported(_))),
        "{found:?}"
    );
}
