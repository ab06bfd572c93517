//! What is refused, and what looks odd and is not.

use super::{Decoder, Error, Told, decode, decoder, hex, try_decode};

fn error(decoder: &mut Decoder, block: &str) -> Error {
    try_decode(decoder, &hex(block)).1.unwrap_err()
}

#[test]
fn malformed_blocks_are_refused() {
    for (block, expected) in [
        ("80", Error::IndexZero),
        ("be", Error::IndexBeyondTable(62)),
        ("7e 0179", Error::IndexBeyondTable(62)),
        ("0f2f 0179", Error::IndexBeyondTable(62)),
        // Integers without an end, of six further octets, and of 33 bits.
        ("ff", Error::Truncated),
        ("ff80", Error::Truncated),
        ("ff8080808080", Error::IntegerTooLarge),
        ("ff808080808000", Error::IntegerTooLarge),
        ("ffffffffff7f", Error::IntegerTooLarge),
        ("ff818080 8010", Error::IntegerTooLarge),
        // Strings that go on behind the end.
        ("40", Error::Truncated),
        ("40 01", Error::Truncated),
        ("40 0178", Error::Truncated),
        ("40 0178 0261", Error::Truncated),
        ("40 0178 7fffffffff07", Error::Truncated),
        // A padding of zeros.
        ("40 0178 8118", Error::Huffman),
        ("82 20", Error::MisplacedSizeUpdate),
    ] {
        let mut decoder = decoder(true);
        assert_eq!(error(&mut decoder, block), expected, "{block}");
        assert!(!decoder.is_whole(), "{block}");
    }
}

#[test]
fn indices_are_read_up_to_32_bits() {
    // 2^32 - 1 is 127 + 0xffffff80; the same in more octets than it needs.
    let mut complete = decoder(true);
    let beyond = Error::IndexBeyondTable(u32::MAX);
    assert_eq!(error(&mut complete, "ff80ffffff0f"), beyond);
    let mut complete = decoder(true);
    assert_eq!(
        error(&mut complete, "ff80808000"),
        Error::IndexBeyondTable(127)
    );
    let mut late = decoder(false);
    assert_eq!(decode(&mut late, &hex("ff80ffffff0f")), [Told::Unknown]);
}

#[test]
fn limits_are_refused_beyond_the_maximum_only() {
    let mut decoder = decoder(true);
    decode(&mut decoder, &hex("3fe1ff03"));
    decoder.set_maximum(Some(4096));
    decode(&mut decoder, &hex("3fe11f"));
    assert_eq!(
        error(&mut decoder, "3fe21f"),
        Error::SizeBeyondMaximum(4097)
    );
    decoder.set_maximum(None);
    decode(&mut decoder, &hex("3fe0ffffff0f"));
}

#[test]
fn a_block_changes_the_limit_only_so_often() {
    let mut decoder = decoder(true);
    decode(&mut decoder, &[0x20; 16]);
    let (_, result) = try_decode(&mut decoder, &[0x20; 17]);
    assert_eq!(result, Err(Error::TooManySizeUpdates));
}

#[test]
fn the_smallest_limit_counts() {
    let mut decoder = decoder(true);
    decode(&mut decoder, &hex("40 0178 0179"));
    // To nothing and back.
    assert_eq!(
        error(&mut decoder, "20 3fe11f be"),
        Error::IndexBeyondTable(62)
    );
}

#[test]
fn an_evicted_entry_gives_its_name() {
    let mut decoder = decoder(true);
    // A limit of 64: the second entry takes its name from the first, which has to go for it (section 4.4).
    decode(&mut decoder, &hex("3f21 40 0178 0179"));
    assert_eq!(
        decode(&mut decoder, &hex("7e 017a be")),
        [Told::known("x", "z"), Told::known("x", "z")]
    );
    assert_eq!(decoder.table.len(), 1);
}

#[test]
fn an_entry_larger_than_the_table_empties_it() {
    let mut decoder = decoder(true);
    decode(&mut decoder, &hex("3f21 40 0178 0179"));
    let large = [&hex("40 0178 28")[..], &[b'y'; 40]].concat();
    decode(&mut decoder, &large);
    assert_eq!((decoder.table.len(), decoder.table.size()), (0, 0));
    assert_eq!(error(&mut decoder, "be"), Error::IndexBeyondTable(62));
}

#[test]
fn an_empty_block_has_no_fields() {
    assert_eq!(decode(&mut decoder(true), &[]), []);
}
