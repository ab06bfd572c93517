//! Integers and strings (RFC 7541, sections 5.1 and 5.2).

use super::{Error, Scratch, huffman};

/// Reads a header block from its front.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) const fn new(block: &'a [u8]) -> Self {
        Self { rest: block }
    }

    /// The next octet, which is left where it is.
    pub(super) fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    /// The next octet.
    pub(super) fn octet(&mut self) -> Option<u8> {
        let (&octet, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(octet)
    }

    /// The integer that begins in `first`, in the bits of `prefix`. At most 32 bits, in at most five further octets.
    pub(super) fn integer(&mut self, first: u8, prefix: u8) -> Result<u32, Error> {
        let start = first & prefix;
        if start < prefix {
            return Ok(u32::from(start));
        }
        let mut value = u64::from(prefix);
        for shift in [0_u32, 7, 14, 21, 28] {
            let octet = self.octet().ok_or(Error::Truncated)?;
            // At most 7 bits, moved by at most 28: far from 64.
            let part = u64::from(octet & 0x7f)
                .checked_shl(shift)
                .unwrap_or(u64::MAX);
            value = value.saturating_add(part);
            if octet & 0x80 == 0 {
                return u32::try_from(value).map_err(|_| Error::IntegerTooLarge);
            }
        }
        Err(Error::IntegerTooLarge)
    }

    /// The next string, as it was sent.
    pub(super) fn string(&mut self) -> Result<Encoded<'a>, Error> {
        let first = self.octet().ok_or(Error::Truncated)?;
        let length = self.integer(first, 0x7f)?;
        let length = usize::try_from(length).map_err(|_| Error::Truncated)?;
        let (octets, rest) = self.rest.split_at_checked(length).ok_or(Error::Truncated)?;
        self.rest = rest;
        Ok(Encoded {
            octets,
            is_huffman: first & 0x80 != 0,
        })
    }
}

/// A string as it was sent.
#[derive(Clone, Copy)]
pub(super) struct Encoded<'a> {
    octets: &'a [u8],
    is_huffman: bool,
}

impl<'a> Encoded<'a> {
    /// The string itself: where it stands, or decoded into `scratch`.
    pub(super) fn decode(self, scratch: &'a mut Scratch) -> Result<&'a [u8], Error> {
        if !self.is_huffman {
            return Ok(self.octets);
        }
        scratch.clear();
        huffman::decode(self.octets, scratch)?;
        Ok(scratch)
    }
}
