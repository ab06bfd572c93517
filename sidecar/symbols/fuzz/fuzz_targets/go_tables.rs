//! Files whose headers hold: build information, the table of functions, module data, relocations.
#![no_main]

#[path = "../../tests/image/mod.rs"]
#[allow(dead_code, reason = "the tests use more of it")]
mod image;

use image::questions;
use libfuzzer_sys::fuzz_target;
use pilotfish_symbols::Binary;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(binary) = Binary::open(bytes) {
        questions::ask_go(&binary, bytes);
    }
});
