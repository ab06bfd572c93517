//! The protocol between hook and agent: any bytes are a message or an error, whatever the pieces they come in; and
//! a message that was read is written so that the same is read again.
//!
//! The first byte of the input is the size of the pieces.
#![no_main]

use std::fmt::Debug;

use libfuzzer_sys::fuzz_target;
use pilotfish_workload::announcement::{
    FrameError, HEADER, MAX_BODY, Reply, Request, body_length, decode, encode,
};
use pilotfish_workload::incoming::Incoming;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The message at the beginning of a stream, if it is whole.
fn at_once<M: DeserializeOwned>(stream: &[u8]) -> Result<Option<M>, FrameError> {
    let Some((header, rest)) = stream.split_first_chunk::<HEADER>() else {
        return Ok(None);
    };
    let length = body_length(header)?;
    assert!(length <= MAX_BODY);
    rest.get(..length).map(decode).transpose()
}

fn in_pieces<M: DeserializeOwned>(mut stream: &[u8], size: usize) -> Result<Option<M>, FrameError> {
    let mut incoming = Incoming::default();
    loop {
        let length = incoming.wanted().min(size).min(stream.len());
        let (piece, rest) = stream.split_at(length);
        if piece.is_empty() {
            return Ok(None);
        }
        if let Some(message) = incoming.push(piece)? {
            return Ok(Some(message));
        }
        stream = rest;
    }
}

fn check<M: Serialize + DeserializeOwned + PartialEq + Debug>(stream: &[u8], size: usize) {
    let message = at_once::<M>(stream);
    assert_eq!(in_pieces::<M>(stream, size), message);
    if let Ok(Some(message)) = message {
        let frame = encode(&message).expect("a short message");
        assert_eq!(at_once::<M>(&frame), Ok(Some(message)));
    }
}

fuzz_target!(|bytes: &[u8]| {
    let [size, stream @ ..] = bytes else {
        return;
    };
    let size = usize::from(*size).max(1);
    check::<Request>(stream, size);
    check::<Reply>(stream, size);
});
