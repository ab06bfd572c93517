//! The checked-in fuzz corpus: every kind of file that the tests make, and code.
//!
//! `PILOTFISH_WRITE_SEEDS=1 cargo test -p pilotfish-symbols --test seeds` writes it anew.

#[allow(dead_code, reason = "each test uses a part of it")]
mod image;

use image::go::{BUILDS, executable};
use image::questions::{ask, ask_code};
use std::fs;
use std::path::PathBuf;

fn corpus() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus")
}

fn seeds() -> Vec<(String, Vec<u8>)> {
    let mut seeds = vec![("elf/library".to_owned(), image::library())];
    for (index, build) in BUILDS.into_iter().enumerate() {
        let (bytes, _) = executable(build);
        seeds.push((format!("go_tables/{index}"), bytes));
    }
    seeds.push(("elf/go".to_owned(), executable(BUILDS[4]).0));
    let codes: [(&str, &[u8]); 4] = [
        ("first", &image::FIRST),
        ("second", &image::SECOND),
        ("go", &image::go::CODE),
        // ldr x16, [x28, #16]; cmp sp, x16; b.ls +8; ret
        (
            "aarch64",
            &[
                0x90, 0x0b, 0x40, 0xf9, 0xff, 0x63, 0x30, 0xeb, 0x49, 0, 0, 0x54, 0xc0, 0x03, 0x5f,
                0xd6,
            ],
        ),
    ];
    for (name, code) in codes {
        let machine = u8::from(name == "aarch64");
        seeds.push((format!("instructions/{name}"), [&[machine], code].concat()));
    }
    seeds
}

#[test]
fn the_corpus_is_what_the_tests_make() {
    for (name, bytes) in seeds() {
        let path = corpus().join(&name);
        if std::env::var_os("PILOTFISH_WRITE_SEEDS").is_some() {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, &bytes).unwrap();
        }
        let stored = fs::read(&path).unwrap_or_default();
        assert!(stored == bytes, "{name} is not what the tests make");
    }
}

/// Inputs that once failed are kept in the corpus, too.
#[test]
fn the_corpus_is_answered() {
    let mut opened = 0;
    for directory in fs::read_dir(corpus()).unwrap() {
        let directory = directory.unwrap();
        let is_code = directory.file_name() == "instructions";
        for file in fs::read_dir(directory.path()).unwrap() {
            let bytes = fs::read(file.unwrap().path()).unwrap();
            let is_opened = if is_code {
                ask_code(&bytes)
            } else {
                ask(&bytes)
            };
            opened += usize::from(is_opened);
        }
    }
    assert!(opened >= seeds().len(), "{opened}");
}
