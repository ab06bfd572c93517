//! Recognises HTTP/2 at its start, and in the middle of its life.

use super::fields::{Field, RequestFields, ResponseFields, is_wanted};
use super::frame::{self, Chain, FrameHeader, HEADER, Link, PREFACE, flag, kind};
use crate::hpack;
use crate::protocol::{Side, Verdict};
use std::ops::RangeInclusive;

/// Frames of one operation that are looked at for a header block.
const MAX_FRAMES: usize = 32;
/// Most settings in the first frame of a server that is believed to be one.
const MAX_SETTINGS: u32 = 16;
/// Identifiers of settings: registered ones, some to come, and those for experiments, of which gRPC uses one (IANA, "HTTP/2
/// Settings").
const SETTINGS: [RangeInclusive<u16>; 2] = [0..=0x20, 0xf000..=0xffff];

/// A client begins with the preface, a server with SETTINGS. Where neither is, a header block in the middle of credible
/// frames may tell a side: its own bytes prove it, or nothing does.
pub(super) fn detect(bytes: &[u8], late: bool) -> Verdict {
    if PREFACE.starts_with(bytes) {
        return if bytes.len() == PREFACE.len() {
            Verdict::Yes(Side::Request)
        } else {
            Verdict::NeedMore
        };
    }
    if bytes.starts_with(PREFACE) {
        return Verdict::Yes(Side::Request);
    }
    match server_settings(bytes) {
        Verdict::No if late => in_the_middle(bytes),
        verdict => verdict,
    }
}

/// SETTINGS that are no acknowledgement, on no stream, with known identifiers.
fn server_settings(bytes: &[u8]) -> Verdict {
    let Some(header) = FrameHeader::read(bytes) else {
        let is_beginning = bytes
            .iter()
            .zip([
                Some(0),
                Some(0),
                None,
                Some(kind::SETTINGS),
                Some(0),
                Some(0),
                Some(0),
                Some(0),
                Some(0),
            ])
            .all(|(&byte, expected)| expected.is_none_or(|expected| byte == expected));
        return if is_beginning {
            Verdict::NeedMore
        } else {
            Verdict::No
        };
    };
    let is_settings = header.kind == kind::SETTINGS
        && header.flags == 0
        && header.is_credible()
        && header.length <= MAX_SETTINGS.saturating_mul(6);
    if !is_settings {
        return Verdict::No;
    }
    let payload = bytes.get(HEADER..).unwrap_or_default();
    let mut settings = payload
        .chunks_exact(6)
        .take((header.length / 6) as usize)
        .filter_map(|setting| setting.first_chunk())
        .map(|&identifier| u16::from_be_bytes(identifier));
    if settings.all(|identifier| SETTINGS.iter().any(|range| range.contains(&identifier))) {
        Verdict::Yes(Side::Response)
    } else {
        Verdict::No
    }
}

/// An operation that begins with frames, one of which is a whole header block with pseudo-header fields.
fn in_the_middle(bytes: &[u8]) -> Verdict {
    if !frame::is_provable(bytes) {
        return Verdict::No;
    }
    let mut chain = Chain::new(bytes);
    for _ in 0..MAX_FRAMES {
        let Ok(link) = chain.next() else {
            return Verdict::No;
        };
        if let Some(side) = side(&link) {
            return Verdict::Yes(side);
        }
    }
    Verdict::No
}

/// Whose header block this is, by a pseudo-header field whose name is in the static table or spelt out.
fn side(link: &Link<'_>) -> Option<Side> {
    let header = link.header;
    if header.kind != kind::HEADERS || !header.has(flag::END_HEADERS) || !link.is_whole() {
        return None;
    }
    let block = frame::fragment(header, link.payload)?;
    let (mut request, mut response) = (RequestFields::default(), ResponseFields::default());
    hpack::Decoder::new(false, is_wanted)
        .decode(block, |field| {
            request.take(field);
            response.take(field);
        })
        .ok()?;
    match (&request.method, response.status) {
        (Field::Known(_), None) => Some(Side::Request),
        (Field::Absent, Some(_)) => Some(Side::Response),
        _ => None,
    }
}
