use std::ops::{ControlFlow, Range};

use super::Go;
use crate::bounds;
use crate::error::within;
use crate::{Binary, Source, SymbolError};

/// How the build information starts; the linker aligns it to 16 bytes.
const MAGIC: &[u8] = b"\xff Go buildinf:";
const ALIGNMENT: u64 = 16;
/// Bytes of the fixed part.
const HEADER: usize = 32;
/// Flag: big-endian, in the format with pointers.
const BIG_ENDIAN: u8 = 1;
/// Flag: the version stands right after the header, its length before it as a varint (Go 1.18 and later).
const INLINE: u8 = 2;
/// Bytes of the longest varint (`encoding/binary.MaxVarintLen64`).
const VARINT: usize = 10;

impl<S: Source> Binary<S> {
    /// What the file says about the Go that built it; `None` if it is no Go executable.
    pub fn go(&self) -> Result<Option<Go>, SymbolError> {
        for place in self.build_info_places()? {
            if let Some(start) = self.build_info_in(place)? {
                return self.version_at(start).map(|version| Some(Go { version }));
            }
        }
        Ok(None)
    }

    /// Parts of the file where build information can be: its section, or else the data, where `debug/buildinfo` looks.
    fn build_info_places(&self) -> Result<Vec<Range<u64>>, SymbolError> {
        if let Some(section) = self.section(".go.buildinfo") {
            return Ok(vec![self.section_range(section)?]);
        }
        let mut left = bounds::BUILD_INFO_SCAN;
        let mut places = Vec::new();
        for segment in self.loaded().filter(|segment| segment.is_writable()) {
            let (range, _) = self.aligned_range(segment, ALIGNMENT)?;
            let end = range.end.min(range.start.saturating_add(left));
            left = left.saturating_sub(end.saturating_sub(range.start));
            places.push(range.start..end);
        }
        Ok(places)
    }

    /// Where in a part of the file build information starts.
    fn build_info_in(&self, place: Range<u64>) -> Result<Option<u64>, SymbolError> {
        let mut found = None;
        self.bytes.pieces(place, ALIGNMENT, 0, &mut |at, piece| {
            found = piece
                .chunks_exact(ALIGNMENT as usize)
                .position(|chunk| chunk.starts_with(MAGIC))
                .map(|index| at.saturating_add((index as u64).saturating_mul(ALIGNMENT)));
            Ok(match found {
                Some(_) => ControlFlow::Break(()),
                None => ControlFlow::Continue(()),
            })
        })?;
        Ok(found)
    }

    fn version_at(&self, start: u64) -> Result<String, SymbolError> {
        let header = self.bytes.read(start, HEADER as u64)?;
        let Some([pointer_size, flags]) = header.get(MAGIC.len()..MAGIC.len().saturating_add(2))
        else {
            return Err(SymbolError::Malformed("Go build information"));
        };
        let (offset, length) = if flags & INLINE != 0 {
            self.inline_version(start.saturating_add(HEADER as u64))?
        } else if flags & BIG_ENDIAN == 0 && *pointer_size == 8 {
            self.pointed_version(&header)?
        } else {
            return Err(SymbolError::Unsupported(
                "Go build information of another byte order",
            ));
        };
        let length = within("bytes of the Go version", length, bounds::GO_VERSION)?;
        let version = self.bytes.read(offset, length)?;
        String::from_utf8(version)
            .map_err(|_| SymbolError::Malformed("a Go version that is not text"))
    }

    /// Place in the file and length of a version that follows the header.
    fn inline_version(&self, start: u64) -> Result<(u64, u64), SymbolError> {
        let mut window = self.bytes.window();
        let mut length = 0u64;
        for index in 0..VARINT {
            let at = start.saturating_add(index as u64);
            let [byte] = window.read::<1>(at)?;
            let bits = u64::from(byte & 0x7f);
            length |= bits << index.saturating_mul(7);
            if byte & 0x80 == 0 {
                return Ok((at.saturating_add(1), length));
            }
        }
        Err(SymbolError::Malformed("the length of the Go version"))
    }

    /// Place in the file and length of a version to which the header points, by way of a Go string (before Go 1.18).
    fn pointed_version(&self, header: &[u8]) -> Result<(u64, u64), SymbolError> {
        let missing = SymbolError::Malformed("the Go version is not in memory");
        let string = header.get(16..).and_then(<[u8]>::first_chunk);
        let string = u64::from_le_bytes(*string.unwrap_or(&[0; 8]));
        let Some([address, length]) = self.words(string)? else {
            return Err(missing);
        };
        let offset = self.file_offset(address, length).ok_or(missing)?;
        Ok((offset, length))
    }
}
