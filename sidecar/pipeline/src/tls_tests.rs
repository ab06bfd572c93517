use super::{HEADER, HELLO, Verdict, opening, within};
use proptest::prelude::*;

/// What OpenSSL 3.0 sends first, offering TLS 1.3; followed by 246 bytes of padding.
const CLIENT_HELLO: &str = "1603010200010001fc030336bbee99a0e22a6979a710b4dceba905e1414f07dc6985fff8671a180a6508f9\
    2002ad377848e856c29046eea1eadcd8ab88d2e7e2d8f20b9357e068651a9a2b1a0024130213031301c02cc030c02bc02fcca9cca8c024c028\
    c023c027009f009e006b006700ff0100018f000b000403000102000a00160014001d0017001e00190018010001010102010301040023000000\
    16000000170000000d002a0028040305030603080708080809080a080b080408050806040105010601030303010302040205020602002b0005\
    0403040303002d00020101003300260024001d002045a3b7e39d3e65f0cf4ccf21a7588ea636305a1951de997749a9ec563d8eb90e001500f6";

/// What answers it: `ServerHello`, `change_cipher_spec`, and the beginning of a record of 791 bytes.
const SERVER_HELLO: &str = "160303007a020000760303e8c2394050da1bd13c648ec004032871d9ced040ae325af7467938c7a9d2e234\
    2002ad377848e856c29046eea1eadcd8ab88d2e7e2d8f20b9357e068651a9a2b1a130200002e002b0002030400330024001d0020d19d2bf127\
    250948bce00fa0cf0c098eb9f4e25525208e49326695fe5ccd381a1403030001011703030317132c";

/// A request of 18 bytes in TLS 1.3.
const APPLICATION_DATA: &str =
    "1703030023e826ac71d7002a30a384e37697603c5a8ae5d09666ee8121ac11dfdabb33906d8a485f";

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<_> = hex.bytes().filter(|byte| *byte != b' ').collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

fn client_hello() -> Vec<u8> {
    [bytes(CLIENT_HELLO), vec![0; 246]].concat()
}

fn verdicts(judge: fn(&[u8]) -> Verdict, bytes: &[u8]) -> Vec<Verdict> {
    (0..=bytes.len())
        .map(|length| judge(&bytes[..length]))
        .collect()
}

/// As many times `NeedMore` as there are bytes short of `enough`, then `Tls`.
fn decided_at(enough: usize, length: usize) -> Vec<Verdict> {
    let mut expected = vec![Verdict::NeedMore; enough];
    expected.resize(length + 1, Verdict::Tls);
    expected
}

#[test]
fn every_prefix_of_a_hello() {
    for hello in [client_hello(), bytes(SERVER_HELLO)] {
        assert_eq!(verdicts(opening, &hello), decided_at(HELLO, hello.len()));
        assert_eq!(verdicts(within, &hello), decided_at(HEADER, hello.len()));
    }
}

#[test]
fn every_prefix_of_application_data() {
    let data = bytes(APPLICATION_DATA);
    for records in [data.clone(), data.repeat(3)] {
        assert_eq!(
            verdicts(within, &records),
            decided_at(HEADER, records.len())
        );
        let mut expected = vec![Verdict::Other; records.len() + 1];
        expected[0] = Verdict::NeedMore;
        assert_eq!(verdicts(opening, &records), expected);
    }
}

/// A changed byte of a `ClientHello`.
#[test]
fn what_contradicts_a_hello() {
    for (position, value) in [
        (0, 0x15),
        (1, 2),
        (2, 5),
        // 0x4100 bytes are too many, 5 too few for a message, 0x201 more than the message has.
        (3, 0x41),
        (5, 0),
        (5, 11),
        (6, 3),
        (9, 2),
        (10, 5),
    ] {
        let mut hello = client_hello();
        hello[position] = value;
        assert_eq!(opening(&hello), Verdict::Other, "{position}");
    }
    let mut hello = client_hello();
    (hello[3], hello[4]) = (0, 5);
    assert_eq!(opening(&hello), Verdict::Other);
    (hello[3], hello[4]) = (2, 1);
    assert_eq!(opening(&hello), Verdict::Other);
    // In several records.
    (hello[3], hello[4]) = (0, 0x40);
    assert_eq!(opening(&hello), Verdict::Tls);
}

#[test]
fn what_contradicts_a_record() {
    let record = |header: [u8; 5], rest: &[u8]| within(&[&header, rest].concat());
    assert_eq!(record([23, 3, 3, 0, 1], b""), Verdict::Tls);
    assert_eq!(record([23, 3, 3, 0x48, 0], b""), Verdict::Tls);
    for header in [
        [19, 3, 3, 0, 1],
        [25, 3, 3, 0, 1],
        [23, 2, 3, 0, 1],
        [23, 3, 5, 0, 1],
        [23, 3, 3, 0, 0],
        [23, 3, 3, 0x48, 1],
    ] {
        assert_eq!(record(header, b""), Verdict::Other, "{header:?}");
    }
    assert_eq!(record([23, 3, 3, 0, 1], b"x\x17\x03"), Verdict::Tls);
    assert_eq!(record([23, 3, 3, 0, 1], b"xx"), Verdict::Other);
}

#[test]
fn other_protocols() {
    for other in [
        &b"GET / HTTP/1.1\r\n"[..],
        b"HTTP/1.1 200 OK\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        // SSLv2 ClientHello; a PostgreSQL SSLRequest; a MySQL greeting of 0x16 bytes, and one of 0x316.
        b"\x80\x2e\x01\x03\x01\x00\x15\x00\x00\x00\x10",
        b"\x00\x00\x00\x08\x04\xd2\x16\x2f",
        b"\x16\x00\x00\x00\x0a8.0.36\0",
        b"\x16\x03\x00\x00\x0a8.0.36\0",
    ] {
        assert_eq!(opening(other), Verdict::Other, "{other:?}");
        // Nothing but the sixth byte tells the last one apart.
        if !other.starts_with(b"\x16\x03") {
            assert_eq!(within(other), Verdict::Other, "{other:?}");
        }
    }
}

/// Bytes that often begin like TLS.
fn any_bytes() -> impl Strategy<Value = Vec<u8>> {
    let near = (
        prop_oneof![Just(22_u8), 18..26_u8],
        prop_oneof![Just(3_u8), any::<u8>()],
        0..6_u8,
        prop_oneof![Just(0_u8), any::<u8>()],
        any::<u8>(),
        0..4_u8,
    );
    let rest = prop::collection::vec(prop_oneof![0..4_u8, any::<u8>()], 0..100);
    (near, rest).prop_map(|((a, b, c, d, e, f), rest)| [vec![a, b, c, d, e, f], rest].concat())
}

proptest! {
    #[test]
    fn an_opening_is_judged_once(bytes in any_bytes()) {
        let verdicts = verdicts(opening, &bytes);
        let decided: Vec<_> = verdicts.iter().skip_while(|verdict| **verdict == Verdict::NeedMore).collect();
        prop_assert!(decided.windows(2).all(|pair| pair[0] == pair[1]), "{verdicts:?}");
        prop_assert!(bytes.len() < HELLO || !decided.is_empty());
    }

    #[test]
    fn random_openings_are_something_else(bytes in prop::collection::vec(any::<u8>(), HELLO..64)) {
        prop_assert_eq!(opening(&bytes), Verdict::Other);
    }

    #[test]
    fn records_in_a_row_are_recognised(
        lengths in prop::collection::vec((20..=24_u8, 0..=4_u8, 1..2000_usize), 1..6),
        end: usize,
    ) {
        let mut records = Vec::new();
        for (kind, minor, length) in lengths {
            records.extend([kind, 3, minor]);
            records.extend(u16::try_from(length).unwrap().to_be_bytes());
            records.resize(records.len() + length, 0xff);
        }
        let end = HEADER + end % (records.len() - HEADER);
        prop_assert_eq!(within(&records[..end]), Verdict::Tls);
    }
}
