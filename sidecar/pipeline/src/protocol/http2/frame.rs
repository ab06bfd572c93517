//! Frame headers (RFC 9113, section 4.1) and what may stand in them.

/// Bytes of a frame header.
pub(super) const HEADER: usize = 9;
/// Largest frame unless the receiver allows more (RFC 9113, section 6.5.2). Bytes of payload.
const DEFAULT_MAX_FRAME: u32 = 16_384;
/// What a client sends first (RFC 9113, section 3.4).
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Frame types (RFC 9113, section 6).
pub(super) mod kind {
    pub(in super::super) const DATA: u8 = 0;
    pub(in super::super) const HEADERS: u8 = 1;
    pub(in super::super) const PRIORITY: u8 = 2;
    pub(in super::super) const RST_STREAM: u8 = 3;
    pub(in super::super) const SETTINGS: u8 = 4;
    pub(in super::super) const PUSH_PROMISE: u8 = 5;
    pub(in super::super) const PING: u8 = 6;
    pub(in super::super) const GOAWAY: u8 = 7;
    pub(in super::super) const WINDOW_UPDATE: u8 = 8;
    pub(in super::super) const CONTINUATION: u8 = 9;
}

/// Flags (RFC 9113, section 6).
pub(super) mod flag {
    pub(in super::super) const END_STREAM: u8 = 0x01;
    pub(in super::super) const ACK: u8 = 0x01;
    pub(in super::super) const END_HEADERS: u8 = 0x04;
    pub(in super::super) const PADDED: u8 = 0x08;
    pub(in super::super) const PRIORITY: u8 = 0x20;
}

/// The header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameHeader {
    /// Bytes of payload, below 2^24.
    pub(super) length: u32,
    pub(super) kind: u8,
    pub(super) flags: u8,
    /// Below 2^31; the reserved bit apart.
    pub(super) stream: u32,
    reserved: bool,
}

impl FrameHeader {
    /// Reads the header at the beginning of `bytes`; `None` if they are fewer than [`HEADER`].
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let &[l2, l1, l0, kind, flags, s3, s2, s1, s0, ..] = bytes else {
            return None;
        };
        let stream = u32::from_be_bytes([s3, s2, s1, s0]);
        Some(Self {
            length: u32::from_be_bytes([0, l2, l1, l0]),
            kind,
            flags,
            stream: stream & (u32::MAX >> 1),
            reserved: stream >> 31 == 1,
        })
    }

    pub(super) const fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// False if it contradicts the rules for its type. Unknown types are extensions, and have none.
    pub(super) const fn is_lawful(self) -> bool {
        let on_stream = self.stream != 0;
        match self.kind {
            kind::DATA => on_stream && (!self.has(flag::PADDED) || self.length > 0),
            // A priority of the wrong size is an error of its stream only.
            kind::HEADERS | kind::CONTINUATION | kind::PRIORITY => on_stream,
            kind::RST_STREAM => on_stream && self.length == 4,
            kind::SETTINGS => {
                !on_stream
                    && self.length.is_multiple_of(6)
                    && (!self.has(flag::ACK) || self.length == 0)
            }
            kind::PUSH_PROMISE => on_stream && self.length >= 4,
            kind::PING => !on_stream && self.length == 8,
            kind::GOAWAY => !on_stream && self.length >= 8,
            kind::WINDOW_UPDATE => self.length == 4,
            _ => true,
        }
    }

    /// True if nothing speaks against it where a frame need not begin: a known type other than a continuation, flags of
    /// that type only, a size that every receiver takes, a stream of the client's.
    pub(super) const fn is_credible(self) -> bool {
        let allowed = match self.kind {
            kind::DATA => flag::END_STREAM | flag::PADDED,
            kind::HEADERS => flag::END_STREAM | flag::END_HEADERS | flag::PADDED | flag::PRIORITY,
            kind::PUSH_PROMISE => flag::END_HEADERS | flag::PADDED,
            kind::SETTINGS | kind::PING => flag::ACK,
            kind::PRIORITY | kind::RST_STREAM | kind::GOAWAY | kind::WINDOW_UPDATE => 0,
            _ => return false,
        };
        self.is_lawful()
            && !self.reserved
            && self.flags & !allowed == 0
            && self.length <= DEFAULT_MAX_FRAME
            && (self.kind != kind::PRIORITY || self.length == 5)
            && (self.stream == 0 || self.stream % 2 == 1)
    }
}

/// The frames at the beginning of `bytes`, as far as they are credible.
pub(super) struct Chain<'a> {
    bytes: &'a [u8],
}

/// One of them.
pub(super) struct Link<'a> {
    pub(super) header: FrameHeader,
    /// As much of the payload as there is.
    pub(super) payload: &'a [u8],
}

/// Where a chain ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ChainEnd {
    /// With the bytes, at the end of a frame.
    Exact,
    /// With the bytes, within a header or payload.
    Within,
    /// At something that is no credible frame.
    Broken,
}

impl<'a> Chain<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// The next frame, or how the chain ends.
    pub(super) fn next(&mut self) -> Result<Link<'a>, ChainEnd> {
        if self.bytes.is_empty() {
            return Err(ChainEnd::Exact);
        }
        let header = FrameHeader::read(self.bytes).ok_or(ChainEnd::Within)?;
        if !header.is_credible() {
            return Err(ChainEnd::Broken);
        }
        let rest = self.bytes.get(HEADER..).unwrap_or_default();
        let (payload, rest) = rest
            .split_at_checked(header.length as usize)
            .unwrap_or((rest, &[]));
        self.bytes = rest;
        Ok(Link { header, payload })
    }
}

impl Link<'_> {
    pub(super) const fn is_whole(&self) -> bool {
        self.payload.len() == self.header.length as usize
    }
}

/// True if a frame begins at the beginning of `bytes` beyond reasonable doubt: two credible headers in a row, or a
/// single frame that ends exactly with them.
pub(super) fn is_provable(bytes: &[u8]) -> bool {
    let mut chain = Chain::new(bytes);
    let Ok(first) = chain.next() else {
        return false;
    };
    match chain.next() {
        Ok(_) => true,
        Err(ChainEnd::Exact) => first.is_whole(),
        Err(ChainEnd::Within | ChainEnd::Broken) => false,
    }
}

/// The fragment of a header block in the payload of a HEADERS or `PUSH_PROMISE` frame: without padding, priority and
/// the promised stream (RFC 9113, sections 6.2 and 6.6). `None` if they do not fit.
pub(super) fn fragment(header: FrameHeader, payload: &[u8]) -> Option<&[u8]> {
    let (payload, padding) = unpadded(header, payload)?;
    let before = match header.kind {
        kind::PUSH_PROMISE => 4,
        _ if header.has(flag::PRIORITY) => 5,
        _ => 0,
    };
    let end = payload.len().checked_sub(padding)?;
    payload.get(before..end)
}

/// Content of a DATA frame without its padding; `None` if the length of the padding was not captured or does not fit. Bytes.
pub(super) fn content_length(header: FrameHeader, payload: Option<&[u8]>) -> Option<u32> {
    if !header.has(flag::PADDED) {
        return Some(header.length);
    }
    let &padding = payload?.first()?;
    header
        .length
        .checked_sub(u32::from(padding).checked_add(1)?)
}

/// A payload from behind its padding length on, and that length.
fn unpadded(header: FrameHeader, payload: &[u8]) -> Option<(&[u8], usize)> {
    if !header.has(flag::PADDED) || header.kind == kind::CONTINUATION {
        return Some((payload, 0));
    }
    let (&padding, rest) = payload.split_first()?;
    Some((rest, usize::from(padding)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(length: u32, kind: u8, flags: u8, stream: u32) -> Vec<u8> {
        let mut bytes = length.to_be_bytes().get(1..).unwrap().to_vec();
        bytes.extend([kind, flags]);
        bytes.extend(stream.to_be_bytes());
        bytes.resize(HEADER + length as usize, 0);
        bytes
    }

    #[test]
    fn headers_are_read_and_judged() {
        let cases = [
            (frame(0, kind::SETTINGS, 0, 0), true, true),
            (frame(7, kind::SETTINGS, 0, 0), false, false),
            (frame(6, kind::SETTINGS, flag::ACK, 0), false, false),
            (frame(4, kind::WINDOW_UPDATE, 0, 0), true, true),
            (frame(5, kind::WINDOW_UPDATE, 0, 0), false, false),
            (frame(5, kind::PRIORITY, 0, 1), true, true),
            (frame(4, kind::PRIORITY, 0, 1), true, false),
            (frame(3, kind::DATA, 0, 0), false, false),
            (frame(3, kind::DATA, 0, 2), true, false),
            (frame(3, kind::DATA, 0x40, 1), true, false),
            (frame(3, 0x0c, 0, 0), true, false),
            (frame(20_000, kind::DATA, 0, 1), true, false),
        ];
        for (bytes, lawful, credible) in cases {
            let header = FrameHeader::read(&bytes).unwrap();
            assert_eq!(
                (header.is_lawful(), header.is_credible()),
                (lawful, credible),
                "{header:?}"
            );
        }
        assert_eq!(FrameHeader::read(&[0; 8]), None);
    }

    #[test]
    fn a_boundary_is_provable_by_two_headers_or_one_whole_frame() {
        let window = frame(4, kind::WINDOW_UPDATE, 0, 0);
        let data = frame(100, kind::DATA, 0, 3);
        assert!(is_provable(&window));
        assert!(is_provable(&[window.as_slice(), &data].concat()[..30]));
        assert!(!is_provable(&data[..50]));
        assert!(!is_provable(&[window.as_slice(), b"x"].concat()));
        assert!(!is_provable(b"GET / HTTP/1.1\r\n\r\n"));
        assert!(!is_provable(b""));
    }

    #[test]
    fn fragments_lose_their_wrapping() {
        let header = |kind, flags| FrameHeader {
            length: 0,
            kind,
            flags,
            stream: 1,
            reserved: false,
        };
        let cases = [
            (kind::HEADERS, 0, b"ab".as_slice(), Some(b"ab".as_slice())),
            (kind::HEADERS, flag::PADDED, b"\x02ab..", Some(b"ab")),
            (
                kind::HEADERS,
                flag::PADDED | flag::PRIORITY,
                b"\x01ppppwab.",
                Some(b"ab"),
            ),
            (kind::HEADERS, flag::PADDED, b"\x05ab", None),
            (kind::PUSH_PROMISE, 0, b"ssssab", Some(b"ab")),
            (kind::HEADERS, flag::PRIORITY, b"pp", None),
        ];
        for (kind, flags, payload, expected) in cases {
            assert_eq!(fragment(header(kind, flags), payload), expected);
        }
    }
}
