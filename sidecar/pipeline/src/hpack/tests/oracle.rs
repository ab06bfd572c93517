//! Complete connections: another decoder and this one have to agree, and both with what was sent.

use super::encoder::{Encoded, blocks, encode};
use super::{Decoder, Error, Told, decode, decoder, try_decode};
use proptest::prelude::*;

fn is_wanted(name: &[u8]) -> bool {
    matches!(name, b":path" | b"grpc-status" | b"x")
}

/// The first octets of a block, fewer than all.
fn check_prefix(before: &[Encoded], block: &Encoded, end: usize) {
    let mut decoder = decoder(true);
    for block in before {
        decode(&mut decoder, &block.octets);
    }
    let (told, result) = try_decode(&mut decoder, &block.octets[..end]);
    assert_eq!(&told, &block.fields[..told.len()]);
    assert!(told.len() < block.fields.len());
    assert!(matches!(result, Ok(_) | Err(Error::Truncated)));
    assert_eq!(result.is_ok(), decoder.is_whole());
}

proptest! {
    #[test]
    fn it_agrees_with_another_decoder(blocks in blocks()) {
        let mut oracle = loona_hpack::Decoder::new();
        let mut decoder = decoder(true);
        for block in encode(&blocks) {
            let told = decode(&mut decoder, &block.octets);
            let oracle: Vec<_> = oracle
                .decode(&block.octets)
                .unwrap()
                .into_iter()
                .map(|(name, value)| Told::Known(name, value))
                .collect();
            prop_assert_eq!(&told, &oracle);
            prop_assert_eq!(&told, &block.fields);
            prop_assert_eq!(decoder.table.size() as usize, block.size);
            prop_assert!(decoder.is_whole());
        }
    }

    #[test]
    fn what_is_not_wanted_changes_nothing_else(blocks in blocks()) {
        let mut decoder = Decoder::new(true, is_wanted);
        for block in encode(&blocks) {
            let expected: Vec<_> = block
                .fields
                .iter()
                .map(|field| match field {
                    Told::Known(name, _) if !is_wanted(name) => Told::Unwanted,
                    known => known.clone(),
                })
                .collect();
            prop_assert_eq!(decode(&mut decoder, &block.octets), expected);
            prop_assert_eq!(decoder.table.size() as usize, block.size);
        }
    }

    #[test]
    fn of_any_prefix_the_fields_are_true(
        blocks in blocks(),
        ends in prop::collection::vec(any::<prop::sample::Index>(), 3),
    ) {
        let encoded = encode(&blocks);
        let (last, before) = encoded.split_last().unwrap();
        for end in ends {
            check_prefix(before, last, end.index(last.octets.len()));
        }
    }
}

#[test]
fn it_agrees_with_another_encoder() {
    let mut encoder = loona_hpack::Encoder::new();
    let mut decoder = decoder(true);
    for call in 0..500 {
        let path = format!("/shop.Cart/Call{}", call % 40);
        let trace = format!("00-{call:032x}-{call:016x}-01");
        let key = format!("x-key-{}", call % 200);
        let fields: [(&[u8], &[u8]); 8] = [
            (b":method", b"POST"),
            (b":scheme", b"http"),
            (b":path", path.as_bytes()),
            (b":authority", b"cart:8080"),
            (b"content-type", b"application/grpc"),
            (b"te", b"trailers"),
            (b"traceparent", trace.as_bytes()),
            (key.as_bytes(), b"1"),
        ];
        let expected: Vec<_> = fields
            .iter()
            .map(|(name, value)| Told::Known(name.to_vec(), value.to_vec()))
            .collect();
        assert_eq!(decode(&mut decoder, &encoder.encode(fields)), expected);
    }
    // Some entries have been evicted by now.
    assert!(decoder.table.size() > 3_900 && decoder.is_whole());
}
