//! Is this TLS? Nothing can be read of it, but who reads the plaintext at the library has to know.
//!
//! It is no protocol of the table: it gives no exchanges, and is asked only about bytes that no protocol claims.
//!
//! | where | evidence | favours |
//! |---|---|---|
//! | a connection's first bytes | a handshake record that begins with a `ClientHello` or `ServerHello`, lengths consistent | certainty |
//! | the first bytes of any operation of a flow joined late | the header of a record, and of each that follows it within the operation | being told at all |
//!
//! The price of the second is that one in two million operations of random bytes is taken for TLS, and that an operation
//! which begins within a record shows nothing. An SSLv2-style hello is not recognised.

/// Bytes of a record's header: content type, version, length (RFC 8446, section 5.1).
const HEADER: usize = 5;

/// Most bytes of an unencrypted record after its header (RFC 8446, section 5.1).
const MAX_PLAINTEXT: usize = 1 << 14;

/// Most bytes of any record after its header (RFC 5246, section 6.2.3).
const MAX_CIPHERTEXT: usize = MAX_PLAINTEXT + 2048;

/// Content type `handshake`.
const HANDSHAKE: u8 = 22;

/// Bytes from the start of a record to the end of the version in the hello that it begins with.
const HELLO: usize = HEADER + 4 + 2;

/// Bytes of a handshake message before its content: type and length (RFC 8446, section 4).
const MESSAGE_HEADER: u32 = 4;

const CLIENT_HELLO: u8 = 1;
const SERVER_HELLO: u8 = 2;

/// Least content of a `ClientHello`: version, random, empty session id, one cipher suite, one compression method.
const MIN_CLIENT_HELLO: u32 = 41;

/// Least content of a `ServerHello`: version, random, empty session id, cipher suite, compression method.
const MIN_SERVER_HELLO: u32 = 38;

/// What some bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// TLS records.
    Tls,
    /// Something else, whatever follows.
    Other,
    /// A prefix of what would be TLS.
    NeedMore,
}

/// Looks at the first bytes of one direction of a connection.
pub(crate) fn opening(bytes: &[u8]) -> Verdict {
    if bytes.first().is_some_and(|&kind| kind != HANDSHAKE) {
        return Verdict::Other;
    }
    let length = match record(bytes) {
        Ok(length) => length,
        Err(verdict) => return verdict,
    };
    let shape = |position: usize, byte: u8| match position {
        5 => matches!(byte, CLIENT_HELLO | SERVER_HELLO),
        // No hello is longer than its fields can make it: less than three times 2^16.
        6 => byte <= 2,
        9 => byte == 3,
        10 => byte <= 4,
        _ => true,
    };
    if !(HELLO.saturating_sub(HEADER)..=MAX_PLAINTEXT).contains(&length) || !fits(bytes, shape) {
        return Verdict::Other;
    }
    let Some(&[_, _, _, _, _, message, high, middle, low, _, _]) = bytes.first_chunk::<HELLO>()
    else {
        return Verdict::NeedMore;
    };
    let content = u32::from_be_bytes([0, high, middle, low]);
    let whole = content.saturating_add(MESSAGE_HEADER) as usize;
    // A ClientHello has its records for itself; after a ServerHello others may follow.
    let is_hello = match message {
        CLIENT_HELLO => content >= MIN_CLIENT_HELLO && whole >= length,
        _ => content >= MIN_SERVER_HELLO,
    };
    if is_hello {
        Verdict::Tls
    } else {
        Verdict::Other
    }
}

/// Looks at the first bytes of one operation, on a connection whose beginning was not seen.
pub(crate) fn within(bytes: &[u8]) -> Verdict {
    let mut verdict = Verdict::NeedMore;
    let mut rest = bytes;
    while !rest.is_empty() {
        let length = match record(rest) {
            Ok(length) => length,
            Err(Verdict::NeedMore) => return verdict,
            Err(verdict) => return verdict,
        };
        verdict = Verdict::Tls;
        rest = rest
            .get(HEADER.saturating_add(length)..)
            .unwrap_or_default();
    }
    verdict
}

/// The length that a record's header tells; without a whole header, what its beginning is.
fn record(bytes: &[u8]) -> Result<usize, Verdict> {
    let shape = |position: usize, byte: u8| match position {
        // change_cipher_spec, alert, handshake, application_data, heartbeat (RFC 6520).
        0 => matches!(byte, 20..=24),
        1 => byte == 3,
        2 => byte <= 4,
        3 => usize::from(byte) << 8 <= MAX_CIPHERTEXT,
        _ => true,
    };
    if !fits(bytes.get(..HEADER).unwrap_or(bytes), shape) {
        return Err(Verdict::Other);
    }
    let Some(&[_, _, _, high, low]) = bytes.first_chunk::<HEADER>() else {
        return Err(Verdict::NeedMore);
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    if (1..=MAX_CIPHERTEXT).contains(&length) {
        Ok(length)
    } else {
        Err(Verdict::Other)
    }
}

/// True if no byte of a hello's beginning contradicts what its position allows.
fn fits(bytes: &[u8], shape: impl Fn(usize, u8) -> bool) -> bool {
    bytes
        .iter()
        .take(HELLO)
        .enumerate()
        .all(|(position, &byte)| shape(position, byte))
}

#[cfg(test)]
#[path = "tls_tests.rs"]
mod tests;
