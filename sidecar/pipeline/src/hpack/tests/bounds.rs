//! Memory and time stay bounded, whatever is sent.

use super::super::table::{Entry, MAX_KEPT};
use super::super::{Block, Field, MAX_LIST};
use super::{Decoder, Told, decoder, hex, try_decode};
use proptest::prelude::*;

/// What a decoder may hold: octets of the entries, and the ring that grows by doubling.
const MOST_HELD: usize = MAX_KEPT as usize + 2_048 * size_of::<Entry>();

/// `name: value`, inserted, with a value of that many octets.
fn inserted(name: u8, length: u32) -> Vec<u8> {
    let mut block = vec![0x40, 1, name, 0x7f];
    let mut rest = length - 0x7f;
    while rest >= 0x80 {
        block.push(0x80 | (rest & 0x7f) as u8);
        rest >>= 7;
    }
    block.push(rest as u8);
    block.resize(block.len() + length as usize, b'v');
    block
}

#[test]
fn an_entry_is_small() {
    assert!(size_of::<Entry>() <= 32);
}

/// A limit of 1 MiB, and entries of 1 KiB: what is beyond the bound is unknown, the rest is not.
#[test]
fn of_a_larger_table_the_newest_entries_are_kept() {
    let mut decoder = decoder(true);
    try_decode(&mut decoder, &hex("3fe1ff3f")).1.unwrap();
    let mut forgotten = 0;
    for number in 0..200 {
        let (_, block) = try_decode(&mut decoder, &inserted(number, 1024 - 33));
        forgotten += block.unwrap().forgotten;
    }
    assert_eq!((decoder.table.len(), forgotten), (64, 136));
    assert!(!decoder.is_whole() && decoder.held_bytes() <= MOST_HELD);
    // The oldest one that is kept, and its elder.
    let (fields, _) = try_decode(&mut decoder, &hex("fd fe"));
    assert!(matches!(&fields[..], [Told::Known(name, _), Told::Unknown] if name == &[136]));
    // A limit of 32 KiB, which is less than what is kept: then all of it is known.
    let (_, block) = try_decode(&mut decoder, &hex("3fe1ff01"));
    assert_eq!(block.unwrap().forgotten, 0);
    assert_eq!((decoder.table.len(), decoder.is_whole()), (32, true));
}

#[test]
fn of_a_long_list_the_first_fields_are_told() {
    let mut decoder = decoder(true);
    // 4 KiB, then the same sixty times by one octet each.
    let mut block = inserted(b'x', 4096 - 33);
    block.extend([0xbe; 60]);
    block.extend(hex("40 0178 0179"));
    let (fields, found) = try_decode(&mut decoder, &block);
    let told = MAX_LIST as usize / 4096;
    assert_eq!(fields.len(), told);
    assert_eq!(
        found,
        Ok(Block {
            fields: 62,
            dropped: 62 - told as u32,
            ..Block::default()
        })
    );
    // What was dropped has its place in the table all the same.
    assert_eq!(
        try_decode(&mut decoder, &hex("be")).0,
        [Told::known("x", "y")]
    );
}

#[test]
fn empty_fields_count_too() {
    let mut decoder = decoder(false);
    let (fields, found) = try_decode(&mut decoder, &[0xfe; 10_000]);
    assert_eq!(fields.len(), 2_048);
    assert_eq!(
        found,
        Ok(Block {
            fields: 10_000,
            unknown: 10_000,
            dropped: 7_952,
            forgotten: 0
        })
    );
}

#[test]
fn of_unwanted_fields_no_octets_are_held() {
    let mut decoder = Decoder::new(true, |_| false);
    let block = inserted(b'x', 1_000);
    let (fields, _) = try_decode(&mut decoder, &block);
    assert_eq!(fields, [Told::Unwanted]);
    assert_eq!(decoder.table.size(), 1_033);
    assert!(decoder.held_bytes() <= 4 * size_of::<Entry>());
}

/// Octets that are mostly parts of fields.
fn octets() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        any::<u8>().prop_map(|octet| vec![octet]),
        (any::<u8>(), 0_u8..20).prop_map(|(name, length)| {
            let mut field = vec![0x40, 1, name, length];
            field.resize(4 + usize::from(length), name);
            field
        }),
        (0x40_u8..0x80, 0_u32..3_000).prop_map(|(index, length)| {
            let mut field = vec![index];
            field.extend(&inserted(0, 127 + length)[3..]);
            field
        }),
        (0x80_u8..).prop_map(|index| vec![index; 20]),
        (any::<u32>()).prop_map(|limit| {
            let mut octets = vec![0x3f];
            octets.extend((0..5).map(|place| 0x80 | (limit >> (7 * place)) as u8));
            octets[5] &= 0x0f;
            octets
        }),
    ];
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn any_octets_leave_it_within_its_bounds(
        blocks in prop::collection::vec(octets(), 1..8),
        complete: bool,
        maximum in prop::option::of(any::<u32>()),
    ) {
        let mut decoder = decoder(complete);
        decoder.set_maximum(maximum);
        for block in blocks {
            let mut told = 0_u32;
            let mut size = 0;
            let result = decoder.decode(&block, |field| {
                told += 1;
                size += 32 + match field {
                    Field::Known { name, value } => name.len() + value.len(),
                    Field::Unnamed { value } => value.len(),
                    Field::Unknown | Field::Unwanted => 0,
                };
            });
            prop_assert!(size <= MAX_LIST as usize);
            if let Ok(found) = result {
                prop_assert_eq!(told, found.fields - found.dropped);
                prop_assert!(found.unknown <= found.fields);
            } else {
                prop_assert!(!decoder.is_whole());
                prop_assert_eq!(decoder.held_bytes(), 0);
            }
            prop_assert!(decoder.held_bytes() <= MOST_HELD);
        }
    }
}
