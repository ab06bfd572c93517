//! Whole files: headers, sections, segments, symbols, notes, the dynamic section, markers, and what follows from them.
#![no_main]

#[path = "../../tests/image/mod.rs"]
#[allow(dead_code, reason = "the tests use more of it")]
mod image;

use image::questions;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    questions::ask(bytes);
});
