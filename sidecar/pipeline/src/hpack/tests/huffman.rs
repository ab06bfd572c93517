//! The Huffman code against an independent encoder and decoder.

use super::super::{Error, Scratch, huffman};
use httlib_huffman::encoder::table::ENCODE_TABLE;
use proptest::prelude::*;

fn decode(encoded: &[u8]) -> Result<Vec<u8>, Error> {
    let mut decoded = Scratch::new();
    huffman::decode(encoded, &mut decoded)?;
    Ok(decoded.to_vec())
}

fn encode(octets: &[u8]) -> Vec<u8> {
    let mut encoded = Vec::new();
    httlib_huffman::encode(octets, &mut encoded).unwrap();
    encoded
}

#[test]
fn every_octet_is_decoded() {
    for octet in 0..=255 {
        for repeated in 1..9 {
            let octets = vec![octet; repeated];
            assert_eq!(decode(&encode(&octets)), Ok(octets));
        }
    }
}

/// Zeros and ones as octets, the last one filled up with `padding`.
fn pack(bits: &str, padding: char) -> Vec<u8> {
    let mut bits = bits.to_owned();
    while !bits.len().is_multiple_of(8) {
        bits.push(padding);
    }
    bits.as_bytes()
        .chunks(8)
        .map(|octet| u8::from_str_radix(std::str::from_utf8(octet).unwrap(), 2).unwrap())
        .collect()
}

fn code(symbol: usize) -> String {
    let (length, code) = ENCODE_TABLE[symbol];
    format!("{code:0width$b}", width = usize::from(length))
}

#[test]
fn only_up_to_seven_ones_are_padding() {
    // "a" is 00011, which leaves three bits.
    assert_eq!(decode(&[0b0001_1111]), Ok(b"a".into()));
    for other in 0..7 {
        assert_eq!(
            decode(&[0b0001_1000 | other]),
            Err(Error::Huffman),
            "{other}"
        );
    }
    assert_eq!(decode(&[0b0001_1111, 0xff]), Err(Error::Huffman));
    assert_eq!(decode(&[0xff]), Err(Error::Huffman));
    // "&" is eight bits long: no padding is needed.
    assert_eq!(decode(&[0xf8]), Ok(b"&".into()));
    assert_eq!(decode(&[]), Ok(Vec::new()));
}

#[test]
fn the_end_symbol_is_an_error() {
    for before in ["", &code(usize::from(b'a')), &code(0)] {
        let bits = format!("{before}{}", code(256));
        assert_eq!(decode(&pack(&bits, '1')), Err(Error::Huffman));
        let followed = format!("{bits}{}", code(usize::from(b'a')));
        assert_eq!(decode(&pack(&followed, '1')), Err(Error::Huffman));
    }
}

#[test]
fn a_code_that_is_cut_short_is_an_error() {
    let mut cut = 0;
    for symbol in 0..256 {
        let code = code(symbol);
        for end in 1..code.len() {
            let (begun, rest) = code.split_at(end);
            // What only lacks ones reads as padding.
            if begun.len().is_multiple_of(8) && begun.contains('0') {
                let decoded = decode(&pack(begun, '1'));
                assert_eq!(decoded, Err(Error::Huffman), "{symbol} without {rest}");
                cut += 1;
            }
        }
    }
    assert!(cut > 50, "{cut}");
}

proptest! {
    #[test]
    fn what_was_encoded_is_decoded(octets in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert_eq!(decode(&encode(&octets)), Ok(octets));
    }

    #[test]
    fn any_octets_are_judged_as_by_another_decoder(
        octets in prop::collection::vec(prop_oneof![any::<u8>(), 0xf0_u8..], 0..40),
    ) {
        let mut oracle = loona_hpack::huffman::HuffmanDecoder::new();
        let decoded = decode(&octets);
        prop_assert_eq!(&decoded.clone().ok(), &oracle.decode(&octets).ok());
        prop_assert!(decoded.is_err() || decoded.unwrap().len() <= octets.len() * 8 / 5);
    }
}
