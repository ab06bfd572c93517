//! Calls over one logical connection (ttrpc `PROTOCOL.md`): a header of length, stream id (both big-endian `u32`),
//! type and flags, and a protobuf message. Only unary calls exist in NRI.

use prost::Message as _;

/// Bytes before a message.
const HEADER: usize = 10;

/// Longest message that is kept, bytes. ttrpc allows 4 MiB, but containerd 1.7 tells of all its containers in one
/// message, however long.
const MAX_MESSAGE: usize = 16 << 20;

/// A message, its length excluded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    /// The call it belongs to: odd, chosen by the caller.
    pub(crate) stream: u32,
    /// What it is.
    pub(crate) kind: u8,
    /// How the stream goes on.
    pub(crate) flags: u8,
    /// Protobuf; `None` of a message that is longer than [`MAX_MESSAGE`].
    pub(crate) payload: Option<Vec<u8>>,
}

impl Message {
    /// [`Self::kind`] of a [`Request`].
    pub(crate) const REQUEST: u8 = 1;
    /// [`Self::kind`] of a [`Response`].
    pub(crate) const RESPONSE: u8 = 2;

    /// [`Self::flags`] of a caller that will send nothing more.
    const REMOTE_CLOSED: u8 = 1;
    /// [`Self::flags`] of a caller that will send more.
    const REMOTE_OPEN: u8 = 2;

    /// A unary call.
    pub(crate) fn request(stream: u32, request: &Request) -> Self {
        Self {
            stream,
            kind: Self::REQUEST,
            flags: Self::REMOTE_CLOSED,
            payload: Some(request.encode_to_vec()),
        }
    }

    /// The answer to a unary call.
    pub(crate) fn response(stream: u32, response: &Response) -> Self {
        Self {
            stream,
            kind: Self::RESPONSE,
            flags: 0,
            payload: Some(response.encode_to_vec()),
        }
    }

    /// True for the first message of a call that is not unary.
    pub(crate) const fn is_streaming(&self) -> bool {
        self.flags & Self::REMOTE_OPEN != 0
    }

    /// The bytes on the connection.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let payload = self.payload.as_deref().unwrap_or_default();
        let mut out = Vec::with_capacity(HEADER + payload.len());
        out.extend_from_slice(&(payload.len() as u32).to_be_bytes());
        out.extend_from_slice(&self.stream.to_be_bytes());
        out.extend_from_slice(&[self.kind, self.flags]);
        out.extend_from_slice(payload);
        out
    }
}

/// A call (ttrpc `request.proto`).
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct Request {
    #[prost(string, tag = "1")]
    pub(crate) service: String,
    #[prost(string, tag = "2")]
    pub(crate) method: String,
    #[prost(bytes = "vec", tag = "3")]
    pub(crate) payload: Vec<u8>,
    /// What the caller waits from now on; 0 without limit.
    #[prost(int64, tag = "4")]
    pub(crate) timeout_nano: i64,
}

/// Its answer.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct Response {
    /// Absent when all is well.
    #[prost(message, optional, tag = "1")]
    pub(crate) status: Option<Status>,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) payload: Vec<u8>,
}

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct Status {
    /// `google.rpc.Code`.
    #[prost(int32, tag = "1")]
    pub(crate) code: i32,
    #[prost(string, tag = "2")]
    pub(crate) message: String,
}

impl Status {
    /// The call cannot be read.
    pub(crate) const INVALID_ARGUMENT: i32 = 3;
    /// There is no such call.
    pub(crate) const UNIMPLEMENTED: i32 = 12;
}

/// Puts messages together, whatever the pieces in which they arrive. Memory grows with what has arrived.
#[derive(Debug, Default)]
pub(crate) struct Assembler {
    header: [u8; HEADER],
    /// How much of the header is there.
    have: usize,
    payload: Vec<u8>,
    /// How much of a payload that is not kept is there.
    skipped: usize,
}

impl Assembler {
    /// Takes the next message from the front of `input`; `None` when `input` is used up before its end.
    pub(crate) fn next(&mut self, input: &mut &[u8]) -> Option<Message> {
        let piece = take(input, HEADER - self.have);
        self.header[self.have..self.have + piece.len()].copy_from_slice(piece);
        self.have += piece.len();
        if self.have < HEADER {
            return None;
        }
        let [l0, l1, l2, l3, s0, s1, s2, s3, kind, flags] = self.header;
        let length = u32::from_be_bytes([l0, l1, l2, l3]) as usize;
        let piece = take(input, length - self.payload.len() - self.skipped);
        let is_kept = length <= MAX_MESSAGE;
        if is_kept {
            self.payload.extend_from_slice(piece);
        } else {
            self.skipped += piece.len();
        }
        if self.payload.len() + self.skipped < length {
            return None;
        }
        (self.have, self.skipped) = (0, 0);
        let payload = std::mem::take(&mut self.payload);
        Some(Message {
            stream: u32::from_be_bytes([s0, s1, s2, s3]),
            kind,
            flags,
            payload: is_kept.then_some(payload),
        })
    }
}

fn take<'a>(input: &mut &'a [u8], most: usize) -> &'a [u8] {
    let (piece, rest) = input.split_at(input.len().min(most));
    *input = rest;
    piece
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(pieces: &[&[u8]]) -> Vec<Message> {
        let mut assembler = Assembler::default();
        let mut messages = Vec::new();
        for mut piece in pieces.iter().copied() {
            while let Some(message) = assembler.next(&mut piece) {
                messages.push(message);
            }
            assert!(piece.is_empty());
        }
        messages
    }

    fn calls() -> Vec<Message> {
        let request = Request {
            service: "nri.pkg.api.v1alpha1.Plugin".to_owned(),
            method: "Shutdown".to_owned(),
            timeout_nano: 2_000_000_000,
            ..Request::default()
        };
        vec![
            Message::request(1, &request),
            Message::response(1, &Response::default()),
            Message::request(3, &request),
        ]
    }

    #[test]
    fn every_split_gives_the_same_messages() {
        let wire: Vec<u8> = calls().iter().flat_map(Message::encode).collect();
        for at in 0..=wire.len() {
            let (first, second) = wire.split_at(at);
            assert_eq!(read(&[first, second]), calls(), "split at {at}");
        }
    }

    #[test]
    fn a_prefix_gives_whole_messages_only() {
        let wire: Vec<u8> = calls().iter().flat_map(Message::encode).collect();
        for at in 0..wire.len() {
            let messages = read(&[&wire[..at]]);
            assert!(messages.len() < calls().len());
            assert!(calls().starts_with(&messages));
        }
    }

    #[test]
    fn a_request_is_written_as_the_specification_has_it() {
        let request = Request {
            service: "s".to_owned(),
            method: "m".to_owned(),
            payload: vec![9],
            timeout_nano: 5,
        };
        let wire = Message::request(7, &request).encode();
        assert_eq!(
            wire,
            [
                0, 0, 0, 11, 0, 0, 0, 7, 1, 1, 0x0a, 1, b's', 0x12, 1, b'm', 0x1a, 1, 9, 0x20, 5
            ]
        );
    }

    #[test]
    fn a_message_beyond_the_limit_is_skipped_and_never_kept() {
        let header = |length: usize| {
            let mut header = (length as u32).to_be_bytes().to_vec();
            header.extend([0, 0, 0, 1, 1, 0]);
            header
        };
        let mut assembler = Assembler::default();
        let (mut start, piece) = (&header(MAX_MESSAGE + 1)[..], vec![0; 1 << 20]);
        assert_eq!(assembler.next(&mut start), None);
        for _ in 0..16 {
            assert_eq!(assembler.next(&mut &piece[..]), None);
            assert_eq!(assembler.payload.capacity(), 0);
        }
        let long = assembler.next(&mut &[0][..]).unwrap();
        assert_eq!((long.stream, long.kind, long.payload), (1, 1, None));

        let after = calls().remove(0);
        assert_eq!(assembler.next(&mut &after.encode()[..]), Some(after));
        // And what is claimed costs nothing before it comes.
        assert_eq!(assembler.next(&mut &header(MAX_MESSAGE)[..]), None);
        assert!(assembler.payload.capacity() < MAX_MESSAGE);
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..20)) {
            let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
            let length: usize = pieces.iter().map(|piece| piece.len()).sum();
            let mut kept = 0;
            for message in read(&pieces) {
                let payload = message.payload.unwrap_or_default();
                kept += HEADER + payload.len();
                // Whatever comes of it: no panic.
                let _ = Request::decode(payload.as_slice());
                let _ = Response::decode(payload.as_slice());
            }
            prop_assert!(kept <= length);
        }
    }
}
