//! Two logical connections over one socket (NRI `pkg/net/multiplex`): frames of a connection id, a length, both
//! big-endian `u32`, and so many bytes. A frame is a piece of a byte stream and means nothing by itself.

/// Bytes before a frame's payload.
const HEADER: usize = 8;

/// Longest frame that is read, bytes. NRI writes at most 4 MiB and 10; nothing is allocated for a frame.
const MAX_FRAME: u32 = 16 << 20;

/// Longest frame that is written, bytes: NRI's reader refuses a frame that does not fit into its buffer of 4 KiB.
const MAX_WRITE: usize = 4096;

/// A logical connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Channel {
    /// The runtime calls, the plugin answers.
    Plugin,
    /// The plugin calls, the runtime answers.
    Runtime,
}

impl Channel {
    const fn id(self) -> u32 {
        match self {
            Self::Plugin => 1,
            Self::Runtime => 2,
        }
    }

    const fn of(id: u32) -> Option<Self> {
        match id {
            1 => Some(Self::Plugin),
            2 => Some(Self::Runtime),
            _ => None,
        }
    }
}

/// Why a frame cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a frame of {0} bytes, more than the {MAX_FRAME} allowed: check that the socket is the runtime's NRI socket"
)]
pub struct MuxError(u32);

/// Takes frames apart, whatever the pieces in which they arrive.
#[derive(Debug, Default)]
pub(crate) struct Demux {
    header: [u8; HEADER],
    /// How much of the header is there.
    have: usize,
    /// Payload bytes of the present frame that are still to come.
    remaining: u32,
}

impl Demux {
    /// Takes the next piece of a logical connection from the front of `input`; `None` when `input` is used up.
    /// Connections that nobody opened are skipped, as NRI does.
    pub(crate) fn next<'a>(
        &mut self,
        input: &mut &'a [u8],
    ) -> Result<Option<(Channel, &'a [u8])>, MuxError> {
        while !input.is_empty() {
            if self.remaining == 0 && !self.fill_header(input)? {
                return Ok(None);
            }
            let [i0, i1, i2, i3, ..] = self.header;
            let length = input.len().min(self.remaining as usize);
            let (piece, rest) = input.split_at(length);
            *input = rest;
            self.remaining -= length as u32;
            if let Some(channel) = Channel::of(u32::from_be_bytes([i0, i1, i2, i3]))
                && !piece.is_empty()
            {
                return Ok(Some((channel, piece)));
            }
        }
        Ok(None)
    }

    /// True when a header is complete.
    fn fill_header(&mut self, input: &mut &[u8]) -> Result<bool, MuxError> {
        let length = input.len().min(HEADER - self.have);
        let (piece, rest) = input.split_at(length);
        self.header[self.have..self.have + length].copy_from_slice(piece);
        *input = rest;
        self.have += length;
        if self.have < HEADER {
            return Ok(false);
        }
        self.have = 0;
        let [.., l0, l1, l2, l3] = self.header;
        self.remaining = u32::from_be_bytes([l0, l1, l2, l3]);
        if self.remaining > MAX_FRAME {
            return Err(MuxError(self.remaining));
        }
        Ok(true)
    }
}

/// Frames that carry `bytes`.
pub(crate) fn encode(channel: Channel, bytes: &[u8]) -> Vec<u8> {
    let frames = bytes.len().div_ceil(MAX_WRITE);
    let mut out = Vec::with_capacity(bytes.len() + frames * HEADER);
    for piece in bytes.chunks(MAX_WRITE) {
        out.extend_from_slice(&channel.id().to_be_bytes());
        out.extend_from_slice(&(piece.len() as u32).to_be_bytes());
        out.extend_from_slice(piece);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(pieces: &[&[u8]]) -> Result<(Vec<u8>, Vec<u8>), MuxError> {
        let mut demux = Demux::default();
        let (mut plugin, mut runtime) = (Vec::new(), Vec::new());
        for mut piece in pieces.iter().copied() {
            while let Some((channel, bytes)) = demux.next(&mut piece)? {
                match channel {
                    Channel::Plugin => plugin.extend_from_slice(bytes),
                    Channel::Runtime => runtime.extend_from_slice(bytes),
                }
            }
        }
        Ok((plugin, runtime))
    }

    fn two_channels() -> Vec<u8> {
        let mut wire = encode(Channel::Plugin, b"configure");
        wire.extend(encode(Channel::Runtime, b"registered"));
        wire.extend([0, 0, 0, 9, 0, 0, 0, 3]);
        wire.extend(b"who");
        wire.extend([0, 0, 0, 1, 0, 0, 0, 0]);
        wire.extend(encode(Channel::Plugin, b" again"));
        wire
    }

    #[test]
    fn every_split_gives_the_same_streams() {
        let wire = two_channels();
        let whole = (b"configure again".to_vec(), b"registered".to_vec());
        for at in 0..=wire.len() {
            let (first, second) = wire.split_at(at);
            assert_eq!(read(&[first, second]).as_ref(), Ok(&whole), "split at {at}");
        }
    }

    #[test]
    fn a_prefix_gives_a_prefix() {
        let wire = two_channels();
        let (plugin, runtime) = read(&[&wire]).unwrap();
        for at in 0..wire.len() {
            let (some_plugin, some_runtime) = read(&[&wire[..at]]).unwrap();
            assert!(plugin.starts_with(&some_plugin));
            assert!(runtime.starts_with(&some_runtime));
        }
    }

    #[test]
    fn what_is_written_fits_the_other_side() {
        let bytes = vec![7; 3 * MAX_WRITE + 5];
        let wire = encode(Channel::Runtime, &bytes);
        assert_eq!(wire.len(), bytes.len() + 4 * HEADER);
        assert_eq!(wire[4..8], (MAX_WRITE as u32).to_be_bytes());
        assert_eq!(read(&[&wire]), Ok((Vec::new(), bytes)));
    }

    #[test]
    fn a_length_without_bounds_is_refused() {
        assert_eq!(read(&[b"HTTP/1.1 400 Bad"]), Err(MuxError(0x2f31_2e31)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..20)) {
            let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
            if let Ok((plugin, runtime)) = read(&pieces) {
                let length: usize = pieces.iter().map(|piece| piece.len()).sum();
                prop_assert!(plugin.len() + runtime.len() <= length);
            }
        }
    }
}
