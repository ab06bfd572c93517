//! The examples of RFC 7541, appendix C: fields, entries and the size of the table after each block.

use super::super::octets::Reader;
use super::{Error, Told, decode, decoder, hex, try_decode};

/// A block; its fields; entries of the table afterwards, and its size.
type Example<'a> = (&'a str, &'a [(&'a str, &'a str)], usize, u32);

fn check(limit: Option<u32>, examples: &[Example<'_>]) {
    let mut decoder = decoder(true);
    if let Some(limit) = limit {
        decoder.table.set_limit(limit);
    }
    for &(block, fields, entries, size) in examples {
        let block = hex(block);
        let fields: Vec<_> = fields
            .iter()
            .map(|(name, value)| Told::known(name, value))
            .collect();
        assert_eq!(decode(&mut decoder, &block), fields);
        assert_eq!((decoder.table.len(), decoder.table.size()), (entries, size));
        assert!(decoder.is_whole());
        for end in 0..block.len() {
            check_prefix(&block[..end], &fields);
        }
    }
}

/// Of the first octets of a block, to a decoder that has seen none before: what is told is true.
fn check_prefix(octets: &[u8], fields: &[Told]) {
    let (told, result) = try_decode(&mut decoder(false), octets);
    assert!(matches!(result, Ok(_) | Err(Error::Truncated)));
    assert!(told.len() < fields.len());
    for (told, field) in told.iter().zip(fields) {
        assert!(told == field || *told == Told::Unknown, "{told:?}");
    }
}

#[test]
fn c1_integers() {
    for (octets, prefix, value) in [("0a", 0x1f, 10), ("1f9a0a", 0x1f, 1337), ("2a", 0xff, 42)] {
        let octets = hex(octets);
        let mut reader = Reader::new(&octets);
        let first = reader.octet().unwrap();
        assert_eq!(reader.integer(first, prefix), Ok(value));
        assert_eq!(reader.octet(), None);
    }
}

#[test]
fn c2_representations() {
    check(
        None,
        &[(
            "400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572",
            &[("custom-key", "custom-header")],
            1,
            55,
        )],
    );
    check(
        None,
        &[(
            "040c 2f73 616d 706c 652f 7061 7468",
            &[(":path", "/sample/path")],
            0,
            0,
        )],
    );
    check(
        None,
        &[(
            "1008 7061 7373 776f 7264 0673 6563 7265 74",
            &[("password", "secret")],
            0,
            0,
        )],
    );
    check(None, &[("82", &[(":method", "GET")], 0, 0)]);
}

const FIRST_REQUEST: &[(&str, &str)] = &[
    (":method", "GET"),
    (":scheme", "http"),
    (":path", "/"),
    (":authority", "www.example.com"),
];
const SECOND_REQUEST: &[(&str, &str)] = &[
    (":method", "GET"),
    (":scheme", "http"),
    (":path", "/"),
    (":authority", "www.example.com"),
    ("cache-control", "no-cache"),
];
const THIRD_REQUEST: &[(&str, &str)] = &[
    (":method", "GET"),
    (":scheme", "https"),
    (":path", "/index.html"),
    (":authority", "www.example.com"),
    ("custom-key", "custom-value"),
];

#[test]
fn c3_requests_without_huffman() {
    check(
        None,
        &[
            (
                "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
                FIRST_REQUEST,
                1,
                57,
            ),
            ("8286 84be 5808 6e6f 2d63 6163 6865", SECOND_REQUEST, 2, 110),
            (
                "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
                THIRD_REQUEST,
                3,
                164,
            ),
        ],
    );
}

#[test]
fn c4_requests_with_huffman() {
    check(
        None,
        &[
            (
                "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
                FIRST_REQUEST,
                1,
                57,
            ),
            ("8286 84be 5886 a8eb 1064 9cbf", SECOND_REQUEST, 2, 110),
            (
                "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
                THIRD_REQUEST,
                3,
                164,
            ),
        ],
    );
}

const FIRST_RESPONSE: &[(&str, &str)] = &[
    (":status", "302"),
    ("cache-control", "private"),
    ("date", "Mon, 21 Oct 2013 20:13:21 GMT"),
    ("location", "https://www.example.com"),
];
const SECOND_RESPONSE: &[(&str, &str)] = &[
    (":status", "307"),
    ("cache-control", "private"),
    ("date", "Mon, 21 Oct 2013 20:13:21 GMT"),
    ("location", "https://www.example.com"),
];
const THIRD_RESPONSE: &[(&str, &str)] = &[
    (":status", "200"),
    ("cache-control", "private"),
    ("date", "Mon, 21 Oct 2013 20:13:22 GMT"),
    ("location", "https://www.example.com"),
    ("content-encoding", "gzip"),
    (
        "set-cookie",
        "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1",
    ),
];

#[test]
fn c5_responses_without_huffman() {
    check(
        Some(256),
        &[
            (
                "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a \
                 3133 3a32 3120 474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
                FIRST_RESPONSE,
                4,
                222,
            ),
            ("4803 3330 37c1 c0bf", SECOND_RESPONSE, 4, 222),
            (
                "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d 54c0 5a04 \
                 677a 6970 7738 666f 6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049 5541 5851 5745 4f49 \
                 553b 206d 6178 2d61 6765 3d33 3630 303b 2076 6572 7369 6f6e 3d31",
                THIRD_RESPONSE,
                3,
                215,
            ),
        ],
    );
}

#[test]
fn c6_responses_with_huffman() {
    check(
        Some(256),
        &[
            (
                "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e \
                 919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
                FIRST_RESPONSE,
                4,
                222,
            ),
            ("4883 640e ffc1 c0bf", SECOND_RESPONSE, 4, 222),
            (
                "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7 \
                 821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed \
                 4ee5 b106 3d50 07",
                THIRD_RESPONSE,
                3,
                215,
            ),
        ],
    );
}
