//! The record reader: any bytes are a record whose lengths hold, or an error.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pilotfish_abi::Header;
use pilotfish_pipeline::Record;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(record) = Record::parse(bytes) {
        assert_eq!(record.payload.len(), record.header.captured as usize);
        assert!(record.payload.len() <= bytes.len().saturating_sub(Header::SIZE));
        assert_eq!(record.kind as u8, record.header.kind);
    }
});
