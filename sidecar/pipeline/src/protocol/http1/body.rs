//! Where a body ends (RFC 9112, sections 6 and 7), over bytes and over gaps.

/// How a head says that the body is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// No body.
    None,
    /// `Content-Length`.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
    /// Everything until the connection closes (responses only).
    UntilClose,
}

/// The body being read: where in it we are, and how much content it had so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Body {
    place: Place,
    /// Bytes of content so far: without chunk framing.
    pub(super) size: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// This much content is left.
    Length(u64),
    UntilClose,
    /// In a chunk-size line, before (`None`) or within its hexadecimal digits.
    Size(Option<u64>),
    /// In a chunk extension or the white space after the size; the chunk will have this size.
    Extension(u64),
    /// This much of the chunk's content is left.
    Data(u64),
    /// At the line end after a chunk's content: CR or, from lenient senders, LF.
    DataCr,
    DataLf,
    /// At the beginning of a trailer line.
    Trailer,
    /// Within a trailer line.
    TrailerLine,
    /// After the CR of what must be the empty line that ends the trailers.
    LastLf,
    Done,
}

/// Bytes that contradict the framing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// What a gap did to a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Skip {
    /// The place in the body is still known (or the body is done).
    Known,
    /// The gap covered chunk framing: the body ends at an unknown place.
    Spilled,
    /// The gap covered the end of the body and more.
    Passed,
}

impl Body {
    /// A body at its first byte; done already when there is none.
    pub(super) const fn new(framing: Framing) -> Self {
        let place = match framing {
            Framing::None | Framing::Length(0) => Place::Done,
            Framing::Length(length) => Place::Length(length),
            Framing::Chunked => Place::Size(None),
            Framing::UntilClose => Place::UntilClose,
        };
        Self { place, size: 0 }
    }

    /// True after the body's last byte.
    pub(super) const fn is_done(&self) -> bool {
        matches!(self.place, Place::Done)
    }

    /// True if the close of the connection is the body's regular end.
    pub(super) const fn ends_with_close(&self) -> bool {
        matches!(self.place, Place::UntilClose)
    }

    /// Consumes bytes up to the body's end; returns what follows it.
    pub(super) fn feed<'a>(&mut self, mut bytes: &'a [u8]) -> Result<&'a [u8], Malformed> {
        while let Some((&first, rest)) = bytes.split_first() {
            bytes = match self.place {
                Place::Done => return Ok(bytes),
                Place::Length(left) | Place::Data(left) => {
                    let taken = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                    self.advance(taken as u64, left);
                    bytes.get(taken..).unwrap_or_default()
                }
                Place::UntilClose => {
                    self.size = self.size.saturating_add(bytes.len() as u64);
                    return Ok(&[]);
                }
                framing => {
                    self.place = framing_byte(framing, first)?;
                    rest
                }
            };
        }
        Ok(bytes)
    }

    /// Skips `length` bytes that nobody saw.
    pub(super) fn skip(&mut self, length: u64) -> Skip {
        match self.place {
            Place::UntilClose => self.size = self.size.saturating_add(length),
            Place::Length(left) | Place::Data(left) if length <= left => self.advance(length, left),
            Place::Length(_) | Place::Done => return Skip::Passed,
            Place::Data(left) => {
                self.size = self.size.saturating_add(left);
                self.place = Place::DataCr;
                return self.skip_line_end(length.saturating_sub(left));
            }
            Place::DataCr => return self.skip_line_end(length),
            Place::DataLf => return self.skip_line_end(length.saturating_add(1)),
            Place::Size(_)
            | Place::Extension(_)
            | Place::Trailer
            | Place::TrailerLine
            | Place::LastLf => {
                return Skip::Spilled;
            }
        }
        Skip::Known
    }

    /// The CRLF after a chunk's content is the one part of the framing that is predictable.
    fn skip_line_end(&mut self, length: u64) -> Skip {
        self.place = match length {
            1 => Place::DataLf,
            2 => Place::Size(None),
            _ => return Skip::Spilled,
        };
        Skip::Known
    }

    fn advance(&mut self, taken: u64, left: u64) {
        self.size = self.size.saturating_add(taken);
        let left = left.saturating_sub(taken);
        self.place = match self.place {
            Place::Data(_) if left == 0 => Place::DataCr,
            Place::Data(_) => Place::Data(left),
            _ if left == 0 => Place::Done,
            _ => Place::Length(left),
        };
    }
}

/// One byte of chunk framing. Extensions and trailers are passed over unread; bare LF ends a line, as servers accept.
fn framing_byte(place: Place, byte: u8) -> Result<Place, Malformed> {
    Ok(match (place, byte) {
        (Place::Size(Some(size)) | Place::Extension(size), b'\n') => match size {
            0 => Place::Trailer,
            _ => Place::Data(size),
        },
        (Place::Size(size), digit) if digit.is_ascii_hexdigit() => {
            let digit = (digit as char).to_digit(16).ok_or(Malformed)?;
            let size = size.unwrap_or(0).checked_mul(16).ok_or(Malformed)?;
            Place::Size(Some(size.checked_add(u64::from(digit)).ok_or(Malformed)?))
        }
        (Place::Size(Some(size)), b'\r' | b' ' | b'\t' | b';') | (Place::Extension(size), _) => {
            Place::Extension(size)
        }
        (Place::DataCr, b'\r') => Place::DataLf,
        (Place::DataCr | Place::DataLf, b'\n') => Place::Size(None),
        (Place::Trailer, b'\r') => Place::LastLf,
        (Place::Trailer | Place::LastLf, b'\n') => Place::Done,
        (Place::TrailerLine, b'\n') => Place::Trailer,
        (Place::Trailer | Place::TrailerLine, _) => Place::TrailerLine,
        _ => return Err(Malformed),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rest after the body, and the body's size; `None` when it is not done.
    fn whole(framing: Framing, bytes: &[u8]) -> Result<Option<(&[u8], u64)>, Malformed> {
        let mut body = Body::new(framing);
        let rest = body.feed(bytes)?;
        Ok(body.is_done().then_some((rest, body.size)))
    }

    #[test]
    fn ends() {
        type Case = (
            Framing,
            &'static [u8],
            Result<Option<(&'static [u8], u64)>, Malformed>,
        );
        let cases: &[Case] = &[
            (Framing::None, b"x", Ok(Some((b"x", 0)))),
            (Framing::Length(0), b"x", Ok(Some((b"x", 0)))),
            (Framing::Length(2), b"abc", Ok(Some((b"c", 2)))),
            (Framing::Length(4), b"abc", Ok(None)),
            (Framing::UntilClose, b"abc", Ok(None)),
            (
                Framing::Chunked,
                b"3\r\nabc\r\n0\r\n\r\nrest",
                Ok(Some((b"rest", 3))),
            ),
            (
                Framing::Chunked,
                b"A;ext=\"x\"\r\n0123456789\r\n000\r\nT: v\r\n\r\n",
                Ok(Some((b"", 10))),
            ),
            (
                Framing::Chunked,
                b"3 \nabc\n0\n\nrest",
                Ok(Some((b"rest", 3))),
            ),
            (Framing::Chunked, b"3\r\nabc\r\n0\r\n", Ok(None)),
            (Framing::Chunked, b"\r\n", Err(Malformed)),
            (Framing::Chunked, b"xyz", Err(Malformed)),
            (Framing::Chunked, b"3\r\nabcd", Err(Malformed)),
            (Framing::Chunked, b"fffffffffffffffff\r\n", Err(Malformed)),
        ];
        for (framing, bytes, expected) in cases {
            assert_eq!(
                whole(*framing, bytes),
                *expected,
                "{framing:?} {:?}",
                String::from_utf8_lossy(bytes)
            );
        }
    }

    #[test]
    fn gaps() {
        // Framing, bytes before the gap, gap, verdict, bytes that then complete the body, size.
        type Case = (
            Framing,
            &'static [u8],
            u64,
            Skip,
            Option<(&'static [u8], u64)>,
        );
        let cases: &[Case] = &[
            (
                Framing::Length(10),
                b"ab",
                5,
                Skip::Known,
                Some((b"xyz", 10)),
            ),
            (Framing::Length(10), b"ab", 8, Skip::Known, Some((b"", 10))),
            (Framing::Length(10), b"ab", 9, Skip::Passed, None),
            (Framing::Length(10), b"ab", u64::MAX, Skip::Passed, None),
            (
                Framing::Chunked,
                b"a\r\n01",
                8,
                Skip::Known,
                Some((b"\r\n0\r\n\r\n", 10)),
            ),
            (
                Framing::Chunked,
                b"a\r\n01",
                9,
                Skip::Known,
                Some((b"\n0\r\n\r\n", 10)),
            ),
            (
                Framing::Chunked,
                b"a\r\n01",
                10,
                Skip::Known,
                Some((b"0\r\n\r\n", 10)),
            ),
            (Framing::Chunked, b"a\r\n01", 11, Skip::Spilled, None),
            (
                Framing::Chunked,
                b"1\r\nx\r",
                1,
                Skip::Known,
                Some((b"0\r\n\r\n", 1)),
            ),
            (Framing::Chunked, b"1\r\nx\r", 2, Skip::Spilled, None),
            (Framing::Chunked, b"1", 1, Skip::Spilled, None),
            (Framing::Chunked, b"0\r\n", 1, Skip::Spilled, None),
        ];
        for (framing, before, gap, verdict, after) in cases {
            let mut body = Body::new(*framing);
            body.feed(before).unwrap();
            assert_eq!(body.skip(*gap), *verdict, "{framing:?} {before:?} {gap}");
            if let Some((bytes, size)) = after {
                assert_eq!(
                    body.feed(bytes),
                    Ok(&b""[..]),
                    "{framing:?} {before:?} {gap}"
                );
                assert_eq!(
                    (body.is_done(), body.size),
                    (true, *size),
                    "{framing:?} {before:?} {gap}"
                );
            }
        }
        let mut endless = Body::new(Framing::UntilClose);
        assert_eq!(
            (endless.skip(u64::MAX), endless.skip(7)),
            (Skip::Known, Skip::Known)
        );
    }
}
