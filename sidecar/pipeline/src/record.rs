//! The record reader: bytes of the ring buffer (or of a recorded stream) into a checked view.

use pilotfish_abi::{Header, Kind};
use zerocopy::FromBytes;

/// A record whose lengths have been checked: the payload is exactly `header.captured` bytes.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// What happened.
    pub kind: Kind,
    /// The fixed part.
    pub header: Header,
    /// Captured bytes of the workload; empty unless the kind is `Send` or `Receive`.
    pub payload: &'a [u8],
}

/// Why bytes are not a record. Each is counted, none is logged per record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Shorter than a header, or than the header promises.
    #[error("record is cut short")]
    Short,
    /// A kind that this version does not know.
    #[error("record of unknown kind {0}")]
    UnknownKind(u8),
    /// More captured bytes than the operation moved, or payload on a record that has none.
    #[error("record contradicts itself")]
    Inconsistent,
}

impl<'a> Record<'a> {
    /// Checks and splits one record. Bytes after the payload are ignored: the ring buffer pads to eight.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, RecordError> {
        let (header, rest) = Header::read_from_prefix(bytes).map_err(|_| RecordError::Short)?;
        let kind = Kind::from_u8(header.kind).ok_or(RecordError::UnknownKind(header.kind))?;
        let payload = rest
            .get(..header.captured as usize)
            .ok_or(RecordError::Short)?;
        let carries_bytes = matches!(kind, Kind::Send | Kind::Receive);
        let consistent = if carries_bytes {
            header.captured <= header.total
        } else {
            header.captured == 0
        };
        if !consistent {
            return Err(RecordError::Inconsistent);
        }
        Ok(Self {
            kind,
            header,
            payload,
        })
    }
}
