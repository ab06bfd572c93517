//! One direction's bytes, cut into frames.
//!
//! What is kept of a payload is what somebody reads: header blocks and error codes. The rest is counted, so that a
//! gap inside a payload costs nothing but its content. A gap that swallows the end of a frame loses the place; it is found
//! again where an operation begins with frames beyond reasonable doubt.

use super::frame::{self, FrameHeader, HEADER, PREFACE, flag, kind};
use crate::protocol::{Loss, Moment};
use smallvec::SmallVec;

/// Longest header block, continuations and padding included. Bytes.
pub(super) const MAX_BLOCK: usize = 64 * 1024;

/// What a direction's bytes turn out to be.
#[derive(Debug)]
pub(super) enum Item<'a> {
    /// A DATA frame has ended.
    Data {
        stream: u32,
        /// Without padding; `None` if the length of the padding was not captured.
        length: Option<u32>,
        end_stream: bool,
    },
    /// A header block has ended, or one that was promised by the server.
    Block {
        stream: u32,
        end_stream: bool,
        /// `None` if part of it was not captured, or if it is too long.
        block: Option<&'a [u8]>,
        promised: bool,
        /// When its first frame began.
        at: Moment,
    },
    /// A stream was ended early; the error code, if it was captured.
    Reset { stream: u32, code: Option<u32> },
    /// The sender takes no streams of the other side behind this one.
    GoAway { last: u32 },
    /// The place in the bytes is lost.
    Lost(Loss),
}

/// Takes what was found. False: nothing more is read.
pub(super) trait Items {
    fn item(&mut self, item: Item<'_>, at: Moment) -> bool;
}

/// Where reading stands.
#[derive(Debug)]
enum Place {
    /// This many bytes of the preface were read.
    Preface(usize),
    /// Between frames, with the beginning of a header.
    Header(SmallVec<[u8; HEADER]>),
    Payload(Payload),
    Lost,
}

/// A frame whose payload has not ended.
#[derive(Debug)]
struct Payload {
    header: FrameHeader,
    remaining: u32,
    /// The first bytes of it, at most `wanted`.
    kept: Vec<u8>,
    wanted: usize,
    /// Some of the wanted bytes were not captured.
    cut: bool,
}

/// A header block that continues.
#[derive(Debug)]
struct OpenBlock {
    stream: u32,
    end_stream: bool,
    promised: bool,
    at: Moment,
    /// `None` once part of it is missing.
    bytes: Option<Vec<u8>>,
}

/// The frames of one direction.
#[derive(Debug)]
pub(super) struct Framing {
    place: Place,
    /// When the frame that is being read began.
    frame_at: Moment,
    block: Option<OpenBlock>,
    /// No frame was read yet, and the first has to be SETTINGS (RFC 9113, section 3.4).
    first: bool,
}

impl Framing {
    /// At the connection's first byte.
    pub(super) fn at_start(has_preface: bool) -> Self {
        let place = if has_preface {
            Place::Preface(0)
        } else {
            Place::Header(SmallVec::new())
        };
        Self {
            place,
            frame_at: Moment::default(),
            block: None,
            first: true,
        }
    }

    /// Somewhere in the connection.
    pub(super) fn lost() -> Self {
        Self {
            place: Place::Lost,
            frame_at: Moment::default(),
            block: None,
            first: false,
        }
    }

    pub(super) const fn is_lost(&self) -> bool {
        matches!(self.place, Place::Lost)
    }

    /// Bytes allocated until more arrive.
    pub(super) fn held_bytes(&self) -> usize {
        let payload = match &self.place {
            Place::Payload(payload) => payload.kept.capacity(),
            _ => 0,
        };
        let block = self.block.as_ref().and_then(|block| block.bytes.as_ref());
        payload.saturating_add(block.map_or(0, Vec::capacity))
    }

    /// Reads (a piece of) one operation.
    pub(super) fn on_bytes(&mut self, bytes: &[u8], at: Moment, items: &mut dyn Items) {
        if self.is_lost() {
            self.place = if frame::is_provable(bytes) {
                Place::Header(SmallVec::new())
            } else if is_preface(bytes) {
                Place::Preface(0)
            } else {
                return;
            };
        }
        let mut rest = bytes;
        while !rest.is_empty() {
            let here = moved_on(at, bytes, rest);
            match self.step(rest, here, items) {
                Some(left) => rest = left,
                None => return,
            }
        }
    }

    /// `length` bytes were not captured.
    pub(super) fn on_gap(&mut self, length: u64, at: Moment, items: &mut dyn Items) {
        match &mut self.place {
            Place::Lost => {}
            Place::Payload(payload) if length <= u64::from(payload.remaining) => {
                let missed = u32::try_from(length).unwrap_or(u32::MAX);
                payload.remaining = payload.remaining.saturating_sub(missed);
                payload.cut |= payload.kept.len() < payload.wanted;
                if payload.remaining == 0 {
                    self.end_payload(at, items);
                }
            }
            _ => _ = self.lose(Loss::Gap, at, items),
        }
    }

    /// Reads on by one part; what is left, or `None` if nothing more can be read of these bytes.
    fn step<'b>(&mut self, bytes: &'b [u8], at: Moment, items: &mut dyn Items) -> Option<&'b [u8]> {
        match &mut self.place {
            Place::Preface(read) => {
                let expected = PREFACE.get(*read..)?;
                let length = expected.len().min(bytes.len());
                let (found, rest) = bytes.split_at_checked(length)?;
                if !expected.starts_with(found) {
                    return self.lose(Loss::Malformed, at, items);
                }
                *read = read.saturating_add(length);
                if *read == PREFACE.len() {
                    self.place = Place::Header(SmallVec::new());
                }
                Some(rest)
            }
            Place::Header(read) => {
                if read.is_empty() {
                    self.frame_at = at;
                }
                let length = HEADER.saturating_sub(read.len()).min(bytes.len());
                let (found, rest) = bytes.split_at_checked(length)?;
                read.extend_from_slice(found);
                let Some(header) = FrameHeader::read(read) else {
                    return Some(rest);
                };
                self.begin(header, rest, at, items)
            }
            Place::Payload(payload) => {
                let length = bytes.len().min(payload.remaining as usize);
                let (found, rest) = bytes.split_at_checked(length)?;
                let room = payload.wanted.saturating_sub(payload.kept.len());
                payload
                    .kept
                    .extend_from_slice(found.get(..room).unwrap_or(found));
                payload.remaining = payload
                    .remaining
                    .saturating_sub(u32::try_from(length).unwrap_or(u32::MAX));
                if payload.remaining > 0 {
                    return Some(rest);
                }
                self.end_payload(at, items).then_some(rest)
            }
            Place::Lost => None,
        }
    }

    /// A frame's header has ended; `rest` may begin with its payload.
    fn begin<'b>(
        &mut self,
        header: FrameHeader,
        rest: &'b [u8],
        at: Moment,
        items: &mut dyn Items,
    ) -> Option<&'b [u8]> {
        if !self.fits(header) {
            return self.lose(Loss::Malformed, at, items);
        }
        self.first = false;
        if let Some((payload, rest)) = rest.split_at_checked(header.length as usize) {
            // In one piece, as almost always: nothing is copied.
            self.place = Place::Header(SmallVec::new());
            return self
                .end_frame(header, Some(payload), at, items)
                .then_some(rest);
        }
        self.place = Place::Payload(Payload {
            header,
            remaining: header.length,
            kept: Vec::new(),
            wanted: wanted(header),
            cut: false,
        });
        Some(rest)
    }

    /// Whether a frame may stand here: a continuation behind what it continues, SETTINGS first.
    fn fits(&self, header: FrameHeader) -> bool {
        let continues = self
            .block
            .as_ref()
            .is_some_and(|block| block.stream == header.stream);
        header.is_lawful()
            && (!self.first || header.kind == kind::SETTINGS)
            && match header.kind {
                kind::CONTINUATION => continues,
                _ => self.block.is_none(),
            }
    }

    fn end_payload(&mut self, at: Moment, items: &mut dyn Items) -> bool {
        let place = std::mem::replace(&mut self.place, Place::Header(SmallVec::new()));
        let Place::Payload(payload) = place else {
            return true;
        };
        let kept = (!payload.cut).then_some(payload.kept.as_slice());
        self.end_frame(payload.header, kept, at, items)
    }

    /// A frame has ended; `payload` is what was kept of it, `None` if less than was wanted.
    fn end_frame(
        &mut self,
        header: FrameHeader,
        payload: Option<&[u8]>,
        at: Moment,
        items: &mut dyn Items,
    ) -> bool {
        let stream = header.stream;
        let item = match header.kind {
            kind::DATA => Item::Data {
                stream,
                length: frame::content_length(header, payload),
                end_stream: header.has(flag::END_STREAM),
            },
            kind::HEADERS | kind::PUSH_PROMISE | kind::CONTINUATION => {
                return self.end_fragment(header, payload, at, items);
            }
            kind::RST_STREAM => Item::Reset {
                stream,
                code: payload
                    .and_then(|payload| payload.first_chunk())
                    .map(|&code| u32::from_be_bytes(code)),
            },
            kind::GOAWAY => {
                let Some(&last) = payload.and_then(|payload| payload.first_chunk()) else {
                    return true;
                };
                Item::GoAway {
                    last: u32::from_be_bytes(last) & (u32::MAX >> 1),
                }
            }
            _ => return true,
        };
        items.item(item, at)
    }

    /// A frame with a part of a header block has ended.
    fn end_fragment(
        &mut self,
        header: FrameHeader,
        payload: Option<&[u8]>,
        at: Moment,
        items: &mut dyn Items,
    ) -> bool {
        // Beyond its bound nothing is kept, so that the payload is not whole.
        let payload = payload.filter(|payload| payload.len() == header.length as usize);
        let fragment = match payload.map(|payload| frame::fragment(header, payload)) {
            Some(None) => return self.lose(Loss::Malformed, at, items).is_some(),
            Some(fragment) => fragment.filter(|fragment| fragment.len() <= MAX_BLOCK),
            None => None,
        };
        let Some(mut open) = self.block.take() else {
            let (end_stream, promised) = (
                header.kind == kind::HEADERS && header.has(flag::END_STREAM),
                header.kind == kind::PUSH_PROMISE,
            );
            if header.has(flag::END_HEADERS) {
                let item = Item::Block {
                    stream: header.stream,
                    end_stream,
                    block: fragment,
                    promised,
                    at: self.frame_at,
                };
                return items.item(item, at);
            }
            self.block = Some(OpenBlock {
                stream: header.stream,
                end_stream,
                promised,
                at: self.frame_at,
                bytes: fragment.map(<[u8]>::to_vec),
            });
            return true;
        };
        open.bytes = open.bytes.zip(fragment).and_then(|(mut bytes, fragment)| {
            bytes.extend_from_slice(fragment);
            (bytes.len() <= MAX_BLOCK).then_some(bytes)
        });
        if !header.has(flag::END_HEADERS) {
            self.block = Some(open);
            return true;
        }
        let item = Item::Block {
            stream: open.stream,
            end_stream: open.end_stream,
            block: open.bytes.as_deref(),
            promised: open.promised,
            at: open.at,
        };
        items.item(item, at)
    }

    fn lose<'b>(&mut self, loss: Loss, at: Moment, items: &mut dyn Items) -> Option<&'b [u8]> {
        self.place = Place::Lost;
        self.block = None;
        self.first = false;
        items.item(Item::Lost(loss), at);
        None
    }
}

/// True if these bytes are the beginning of the preface, or begin with it.
fn is_preface(bytes: &[u8]) -> bool {
    PREFACE.starts_with(bytes) || bytes.starts_with(PREFACE)
}

/// How much of a payload somebody reads. Bytes.
fn wanted(header: FrameHeader) -> usize {
    let length = header.length as usize;
    match header.kind {
        kind::HEADERS | kind::PUSH_PROMISE | kind::CONTINUATION => length.min(MAX_BLOCK),
        kind::RST_STREAM => length,
        kind::GOAWAY => 4,
        kind::DATA if header.has(flag::PADDED) => 1,
        _ => 0,
    }
}

/// The moment of `rest`, the tail of `bytes`, which moved at `at`.
const fn moved_on(at: Moment, bytes: &[u8], rest: &[u8]) -> Moment {
    let consumed = bytes.len().saturating_sub(rest.len()) as u64;
    Moment {
        offset: at.offset.saturating_add(consumed),
        ..at
    }
}
