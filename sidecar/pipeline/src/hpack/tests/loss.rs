//! Joining late and losing blocks: nothing is told wrongly, and everything that can be known is.

use super::encoder::{Encoded, Encoder, How, Planned, PlannedBlock, Sent, blocks, encode};
use super::{Decoder, Told, decode, decoder, hex, try_decode};
use proptest::prelude::*;

/// What a decoder can tell of a block for which only entries from number `known_from` on have a known place, and of
/// which those have a known name that `named` says.
fn can_be_told(block: &Encoded, known_from: usize, named: &[bool]) -> Vec<Told> {
    let fields = block.fields.iter().zip(&block.sent);
    fields
        .map(|(field, &sent)| {
            let Told::Known(_, value) = field else {
                panic!("what was sent is known");
            };
            let (number, else_told) = match sent {
                Sent::InFull => return field.clone(),
                Sent::Nothing(number) if number < known_from => (number, Told::Unknown),
                Sent::Value(number) | Sent::Nothing(number) => {
                    (number, Told::Unnamed(value.clone()))
                }
            };
            if number >= known_from && named[number] {
                field.clone()
            } else {
                else_told
            }
        })
        .collect()
}

/// Decodes the blocks that are not lost.
fn check(encoded: &[Encoded], lost: &[bool], decoder: &mut Decoder) {
    let mut named = Vec::new();
    let mut known_from = if decoder.is_whole() { 0 } else { usize::MAX };
    for (block, lost) in encoded.iter().zip(lost) {
        if *lost {
            decoder.lose();
            known_from = usize::MAX;
        } else {
            known_from = known_from.min(block.entries_before);
        }
        for &sent in &block.inserted {
            named.push(match sent {
                Sent::InFull => true,
                Sent::Value(number) => number >= known_from && named[number],
                Sent::Nothing(_) => unreachable!("nothing is inserted by an index"),
            });
        }
        if !lost {
            let told = decode(decoder, &block.octets);
            assert_eq!(told, can_be_told(block, known_from, &named));
        }
    }
}

proptest! {
    #[test]
    fn who_joins_late_knows_what_came_since(blocks in blocks(), first in 0_usize..12) {
        let encoded = encode(&blocks);
        let lost: Vec<_> = (0..encoded.len()).map(|block| block < first).collect();
        check(&encoded, &lost, &mut decoder(false));
    }

    #[test]
    fn who_loses_blocks_knows_what_came_since(
        blocks in blocks(),
        lost in prop::collection::vec(prop::bool::weighted(0.2), 12),
    ) {
        check(&encode(&blocks), &lost, &mut decoder(true));
    }

    #[test]
    fn a_maximum_makes_nothing_wrong(
        blocks in blocks(),
        lost in prop::collection::vec(prop::bool::weighted(0.2), 12),
    ) {
        let mut decoder = decoder(false);
        decoder.set_maximum(Some(65_536));
        check(&encode(&blocks), &lost, &mut decoder);
    }
}

#[test]
fn an_entry_of_before_is_unknown_and_one_of_since_is_not() {
    let mut decoder = decoder(false);
    // An index of before; a literal; the same by index, and the former one, which is now one further away.
    assert_eq!(decode(&mut decoder, &hex("be")), [Told::Unknown]);
    assert_eq!(
        decode(&mut decoder, &hex("40 0178 0179")),
        [Told::known("x", "y")]
    );
    assert_eq!(
        decode(&mut decoder, &hex("be bf 82")),
        [
            Told::known("x", "y"),
            Told::Unknown,
            Told::known(":method", "GET")
        ]
    );
}

#[test]
fn a_value_under_an_unknown_name_takes_its_place() {
    let mut decoder = decoder(false);
    // The name of the newest entry of before, with a new value; then a field of which all is known.
    assert_eq!(
        decode(&mut decoder, &hex("7e 0131 40 0178 0179")),
        [Told::unnamed("1"), Told::known("x", "y")]
    );
    // The two of them; the one of before; the name of the first with other values, inserted and not.
    assert_eq!(
        decode(&mut decoder, &hex("be bf c0 7f00 0132 0f31 0133")),
        [
            Told::known("x", "y"),
            Told::unnamed("1"),
            Told::Unknown,
            Told::unnamed("2"),
            Told::unnamed("3")
        ]
    );
    assert_eq!(
        decode(&mut decoder, &hex("be bf c0")),
        [
            Told::unnamed("2"),
            Told::known("x", "y"),
            Told::unnamed("1")
        ]
    );
}

#[test]
fn a_loss_takes_every_entry() {
    let mut decoder = decoder(true);
    decode(&mut decoder, &hex("40 0178 0179"));
    decoder.lose();
    assert!(!decoder.is_whole());
    assert_eq!(decode(&mut decoder, &hex("be")), [Told::Unknown]);
    assert_eq!(decoder.held_bytes(), 0);
}

#[test]
fn an_error_is_a_loss() {
    let mut decoder = decoder(true);
    decode(&mut decoder, &hex("40 0178 0179"));
    let (fields, result) = try_decode(&mut decoder, &hex("be 80"));
    assert_eq!(fields, [Told::known("x", "y")]);
    assert!(result.is_err());
    assert_eq!(decode(&mut decoder, &hex("be")), [Told::Unknown]);
}

#[test]
fn an_emptied_table_is_known() {
    let mut decoder = decoder(false);
    // Limits of 33, which leaves room for one entry of before, and of 31, which does not.
    decode(&mut decoder, &hex("3f02"));
    assert!(!decoder.is_whole());
    decode(&mut decoder, &hex("3f00"));
    assert!(decoder.is_whole());
    decode(&mut decoder, &hex("3fe11f 40 0178 0179"));
    assert!(decoder.is_whole() && try_decode(&mut decoder, &hex("bf")).1.is_err());
}

/// The limit is told after the loss, and then the table is filled with entries of 34 octets.
#[test]
fn a_filled_table_is_known() {
    let mut decoder = decoder(false);
    decode(&mut decoder, &hex("3f81 01"));
    // A limit of 160: four entries leave 24 octets, and that is less than any entry takes.
    for is_whole in [false, false, false, true] {
        decode(&mut decoder, &hex("40 0178 0179"));
        assert_eq!(decoder.is_whole(), is_whole);
    }
    assert!(try_decode(&mut decoder, &hex("c2")).1.is_err());
}

#[test]
fn without_a_limit_the_table_is_never_taken_for_known() {
    let mut decoder = decoder(false);
    decoder.set_maximum(Some(4096));
    for _ in 0..1_000 {
        decode(&mut decoder, &hex("40 0178 0179"));
    }
    assert!(!decoder.is_whole());
    assert_eq!(decode(&mut decoder, &hex("ff ff7f")), [Told::Unknown]);
    // It keeps no more than the encoder may.
    assert_eq!(decoder.table.len(), 4096 / 34);
}

/// The connection of a gRPC client, which sends everything but the path by index.
#[test]
fn a_client_becomes_known_by_what_it_sends_again() {
    let field = |name: &str, value: &str, how| Planned {
        name: name.into(),
        value: value.into(),
        how,
        literal_name: false,
        huffman_name: true,
        huffman_value: true,
        oldest: false,
    };
    let call = |path: &str| PlannedBlock {
        limits: Vec::new(),
        fields: vec![
            field(":method", "POST", How::Indexed),
            field(":path", path, How::Indexed),
            field("content-type", "application/grpc", How::Indexed),
            field("te", "trailers", How::Indexed),
        ],
    };
    let mut encoder = Encoder::default();
    encoder.encode(&call("/a.B/Old"));
    let mut decoder = decoder(false);
    for (path, known) in [("/a.B/New", true), ("/a.B/Old", false), ("/a.B/New", true)] {
        let told = decode(&mut decoder, &encoder.encode(&call(path)).octets);
        let path = if known {
            Told::known(":path", path)
        } else {
            Told::Unknown
        };
        assert_eq!(
            told,
            [
                Told::known(":method", "POST"),
                path,
                Told::Unknown,
                Told::Unknown
            ]
        );
    }
}
