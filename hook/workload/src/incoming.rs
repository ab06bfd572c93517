//! A frame that arrives in pieces.

use std::marker::PhantomData;

use serde::de::DeserializeOwned;

use crate::announcement::{FrameError, HEADER, body_length, decode};

/// Most bytes asked for at once, so that memory grows with what has arrived and not with the length announced.
const PIECE: usize = 16 * 1024;

/// Puts the one message of a connection together. It never asks for a byte beyond the message's end.
#[derive(Debug)]
pub struct Incoming<M> {
    header: [u8; HEADER],
    /// Bytes of the header that are here.
    filled: usize,
    /// Length of the body, once the header says so.
    expected: Option<usize>,
    body: Vec<u8>,
    message: PhantomData<M>,
}

impl<M> Default for Incoming<M> {
    fn default() -> Self {
        Self {
            header: [0; HEADER],
            filled: 0,
            expected: None,
            body: Vec::new(),
            message: PhantomData,
        }
    }
}

impl<M: DeserializeOwned> Incoming<M> {
    /// How many bytes may be read next; 0 once the message is whole or refused.
    pub fn wanted(&self) -> usize {
        match self.expected {
            None => HEADER - self.filled,
            Some(length) => length.saturating_sub(self.body.len()).min(PIECE),
        }
    }

    /// Takes what was read, at most [`Self::wanted`] bytes; the message as soon as it is whole. After an error or a
    /// message there is nothing more to push.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Option<M>, FrameError> {
        if bytes.len() > self.wanted() {
            return Err(FrameError::Body("bytes follow its end".to_owned()));
        }
        let Some(length) = self.expected else {
            let (Some(place), true) = (
                self.header.get_mut(self.filled..self.filled + bytes.len()),
                !bytes.is_empty(),
            ) else {
                return Ok(None);
            };
            place.copy_from_slice(bytes);
            self.filled += bytes.len();
            if self.filled < HEADER {
                return Ok(None);
            }
            let length = body_length(&self.header)?;
            self.expected = Some(length);
            return self.finish(length);
        };
        self.body.extend_from_slice(bytes);
        self.finish(length)
    }

    /// True when nothing has arrived yet.
    pub fn is_empty(&self) -> bool {
        self.filled == 0
    }

    fn finish(&self, length: usize) -> Result<Option<M>, FrameError> {
        if self.body.len() < length {
            return Ok(None);
        }
        decode(&self.body).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::announcement::{MAX_BODY, Request, encode};

    fn request() -> Request {
        Request::Remove {
            id: "a1b2c3".to_owned(),
        }
    }

    /// Feeds pieces of at most `size` bytes, never more than wanted.
    fn feed(frame: &[u8], size: usize) -> (Result<Option<Request>, FrameError>, usize) {
        let mut incoming = Incoming::default();
        let mut at = 0;
        while at < frame.len() {
            let take = size.min(incoming.wanted()).min(frame.len() - at);
            if take == 0 {
                break;
            }
            let result = incoming.push(&frame[at..at + take]);
            at += take;
            match result {
                Ok(None) => {}
                done => return (done, at),
            }
        }
        (Ok(None), at)
    }

    #[test]
    fn every_chunking_gives_the_same_message() {
        let frame = encode(&request()).unwrap();
        for size in 1..=frame.len() {
            assert_eq!(feed(&frame, size), (Ok(Some(request())), frame.len()));
        }
    }

    #[test]
    fn no_prefix_is_a_message() {
        let frame = encode(&request()).unwrap();
        for end in 0..frame.len() {
            assert_eq!(feed(&frame[..end], end.max(1)), (Ok(None), end));
        }
    }

    #[test]
    fn bytes_of_the_next_message_are_never_asked_for() {
        let mut two = encode(&request()).unwrap();
        let length = two.len();
        two.extend_from_slice(&two.clone());
        assert_eq!(feed(&two, two.len()), (Ok(Some(request())), length));
        let mut incoming = Incoming::<Request>::default();
        assert!(incoming.push(&two).is_err());
    }

    #[test]
    fn an_announced_length_reserves_nothing() {
        let mut header = encode(&request()).unwrap()[..HEADER].to_vec();
        header[8..].copy_from_slice(&u32::try_from(MAX_BODY).unwrap().to_le_bytes());
        let mut incoming = Incoming::<Request>::default();
        assert_eq!(incoming.push(&header), Ok(None));
        assert_eq!(incoming.body.capacity(), 0);
        assert_eq!(incoming.wanted(), PIECE);
    }

    #[test]
    fn an_empty_body_is_no_message() {
        let mut header = encode(&request()).unwrap()[..HEADER].to_vec();
        header[8..].copy_from_slice(&[0; 4]);
        let refused = Incoming::<Request>::default().push(&header);
        assert!(matches!(refused, Err(FrameError::Body(_))), "{refused:?}");
    }
}
