//! Code of one function: its entry, its returns. The first byte picks the machine.
#![no_main]

#[path = "../../tests/image/mod.rs"]
#[allow(dead_code, reason = "the tests use more of it")]
mod image;

use image::questions;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    questions::ask_code(bytes);
});
