//! Header compression: whatever the blocks are, decoding them is bounded; and of blocks that are valid, who joined late
//! and lost some tells nothing that is not true.
#![no_main]

#[path = "../../tests/header_blocks/mod.rs"]
#[allow(dead_code, reason = "the seeds are made with more of it")]
mod header_blocks;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    header_blocks::check(&header_blocks::decode(input));
});
