//! Is this HTTP/1.x? Strong: a whole request line, or a whole status line up to its code.
//!
//! Favoured is certainty: nothing is claimed before `HTTP/1.0` or `HTTP/1.1` has been read in its place, so RTSP,
//! SIP, ICAP, HTTP/2 (`PRI * HTTP/2.0`) and text protocols that open with a word are told apart. The price is that
//! a request whose line exceeds [`MAX_TARGET`] is not recognised.

use crate::protocol::http::method;
use crate::protocol::{Side, Verdict};

/// Longest method token that is taken for one; the longest registered (`UPDATEREDIRECTREF`) has 17 characters.
const MAX_METHOD: usize = 32;
/// Longest request target in a detected request line.
const MAX_TARGET: usize = 16 * 1024;

/// Looks at the first bytes of one direction, or of one operation.
pub(super) fn detect(bytes: &[u8]) -> Verdict {
    match status_line(bytes) {
        Verdict::No => request_line(bytes),
        verdict => verdict,
    }
}

/// Does this operation begin with a request, on a connection whose place is lost? Only known methods count here: what
/// comes before may have been the tail of a body, and `xGET` is a method too.
pub(super) fn entry(bytes: &[u8]) -> Verdict {
    let credible = match split_word(bytes) {
        Some((method, _)) => method::known(method).is_some(),
        None => method::is_beginning(bytes),
    };
    if credible {
        request_line(bytes)
    } else {
        Verdict::No
    }
}

/// `HTTP/1.x SP 3DIGIT` and the delimiter that follows (RFC 9112, section 4).
fn status_line(bytes: &[u8]) -> Verdict {
    const LENGTH: usize = 13;
    let shape = |position: usize, byte: u8| match position {
        0..7 => b"HTTP/1.".get(position) == Some(&byte),
        7 => matches!(byte, b'0' | b'1'),
        8 => byte == b' ',
        9 => matches!(byte, b'1'..=b'9'),
        10 | 11 => byte.is_ascii_digit(),
        _ => matches!(byte, b' ' | b'\r' | b'\n'),
    };
    if !bytes
        .iter()
        .take(LENGTH)
        .enumerate()
        .all(|(position, &byte)| shape(position, byte))
    {
        Verdict::No
    } else if bytes.len() < LENGTH {
        Verdict::NeedMore
    } else {
        Verdict::Yes(Side::Response)
    }
}

/// `method SP target SP HTTP/1.x` and the line's end (RFC 9112, section 3).
fn request_line(bytes: &[u8]) -> Verdict {
    let Some((method, rest)) = split_word(bytes) else {
        return need_more_if(bytes.len() <= MAX_METHOD && is_method(bytes));
    };
    if method.is_empty() || method.len() > MAX_METHOD || !is_method(method) {
        return Verdict::No;
    }
    let Some((target, rest)) = split_word(rest) else {
        return need_more_if(rest.len() <= MAX_TARGET && is_target(rest));
    };
    if target.is_empty() || target.len() > MAX_TARGET || !is_target(target) {
        return Verdict::No;
    }
    version(rest)
}

fn version(rest: &[u8]) -> Verdict {
    let shape = |position: usize, byte: u8| match position {
        0..7 => b"HTTP/1.".get(position) == Some(&byte),
        7 => matches!(byte, b'0' | b'1'),
        _ => matches!(byte, b'\r' | b'\n'),
    };
    if !rest
        .iter()
        .take(9)
        .enumerate()
        .all(|(position, &byte)| shape(position, byte))
    {
        Verdict::No
    } else if rest.len() < 9 {
        Verdict::NeedMore
    } else {
        Verdict::Yes(Side::Request)
    }
}

const fn need_more_if(possible: bool) -> Verdict {
    if possible {
        Verdict::NeedMore
    } else {
        Verdict::No
    }
}

fn split_word(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let space = bytes.iter().position(|&byte| byte == b' ')?;
    bytes
        .split_at_checked(space)
        .map(|(word, rest)| (word, rest.get(1..).unwrap_or_default()))
}

/// A token (RFC 9110, section 5.6.2) that begins with a letter, as every registered method does.
fn is_method(bytes: &[u8]) -> bool {
    bytes.first().is_none_or(u8::is_ascii_alphabetic)
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
}

/// Origin, asterisk, absolute or authority form, by its first character; no control characters.
fn is_target(bytes: &[u8]) -> bool {
    bytes
        .first()
        .is_none_or(|byte| byte.is_ascii_alphanumeric() || b"/*[".contains(byte))
        && bytes.iter().all(|&byte| byte > b' ' && byte != 0x7f)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts() {
        let long = [
            b"GET /".as_slice(),
            &vec![b'a'; MAX_TARGET],
            b" HTTP/1.1\r\n",
        ]
        .concat();
        let cases: &[(&[u8], Verdict)] = &[
            (b"", Verdict::NeedMore),
            (b"GET / HTTP/1.1\r\n", Verdict::Yes(Side::Request)),
            (b"GET / HTTP/1.0\n", Verdict::Yes(Side::Request)),
            (b"GET / HTTP/1.1", Verdict::NeedMore),
            (b"OPTIONS * HTTP/1.1\r\n", Verdict::Yes(Side::Request)),
            (
                b"CONNECT [::1]:443 HTTP/1.1\r\n",
                Verdict::Yes(Side::Request),
            ),
            (b"BREW /pot HTTP/1.1\r\n", Verdict::Yes(Side::Request)),
            (b"GET http://a/b HTTP/1.1\r\n", Verdict::Yes(Side::Request)),
            (b"HTTP/1.1 200 OK\r\n", Verdict::Yes(Side::Response)),
            (b"HTTP/1.0 404\r\n", Verdict::Yes(Side::Response)),
            (b"HTTP/1.1 20", Verdict::NeedMore),
            (b"HTTP/1.1 200", Verdict::NeedMore),
            (b"HTTP/1.1 2000", Verdict::No),
            (b"HTTP/2.0 200 ", Verdict::No),
            (b"HTTP/1.1 abc", Verdict::No),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Verdict::No),
            (b"PRI * HTTP/", Verdict::NeedMore),
            (b"GET / HTTP/1.2\r\n", Verdict::No),
            (b"DESCRIBE rtsp://x/y RTSP/1.0\r\n", Verdict::No),
            (b"get key\r\n", Verdict::No),
            (b"PING\r\n", Verdict::No),
            (b"*1\r\n$4\r\nPING\r\n", Verdict::No),
            (b"220 mail ESMTP\r\n", Verdict::No),
            (b"\x16\x03\x01\x02\x00", Verdict::No),
            (b"GET /\0 HTTP/1.1\r\n", Verdict::No),
            (b"GET  / HTTP/1.1\r\n", Verdict::No),
            (&long, Verdict::No),
        ];
        for (bytes, verdict) in cases {
            assert_eq!(
                detect(bytes),
                *verdict,
                "{:?}",
                String::from_utf8_lossy(bytes)
            );
        }
    }
}
