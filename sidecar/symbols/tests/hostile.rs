//! Damaged files: any answer but a panic, and none that points outside of the file.

#[allow(dead_code, reason = "each test uses a part of it")]
mod image;

use image::go::{BUILDS, executable};
use image::library;
use image::questions::ask;
use proptest::prelude::*;

fn files() -> Vec<Vec<u8>> {
    let executables = BUILDS.map(|build| executable(build).0);
    executables.into_iter().chain([library()]).collect()
}

#[test]
fn cut_anywhere() {
    for file in files() {
        assert!(ask(&file));
        for length in 0..file.len() {
            ask(&file[..length]);
        }
    }
}

#[test]
fn with_any_bit_flipped() {
    for file in files() {
        for bit in 0..file.len() * 8 {
            let mut file = file.clone();
            file[bit / 8] ^= 1 << (bit % 8);
            ask(&file);
        }
    }
}

proptest! {
    #[test]
    fn with_words_replaced(
        file in proptest::sample::select(files()),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), word(), 1..=8usize), 1..6),
    ) {
        let mut file = file;
        for (place, word, length) in changes {
            let place = place.index(file.len());
            let end = file.len().min(place + length);
            let bytes = word.to_le_bytes();
            file[place..end].copy_from_slice(&bytes[..end - place]);
        }
        ask(&file);
    }
}

/// Numbers at which sums overflow, and others.
fn word() -> impl Strategy<Value = u64> {
    prop_oneof![
        Just(0),
        Just(u64::MAX),
        Just(i64::MAX as u64),
        Just(u64::from(u32::MAX)),
        Just(1 << 63),
        0..8192u64,
        any::<u64>(),
    ]
}
