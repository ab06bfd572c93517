//! The file of `pilotfish record` and `pilotfish replay`: ring-buffer records as they came, with what is needed to
//! understand them elsewhere: the clock and the containers' resources. What the pipeline was told of each container is
//! not in it: it does not change the records, and a replay has its own settings.
//!
//! Layout, native-endian: magic `PILOTFSH`, byte-order mark `0x01020304` (u32), format version (u16), record layout
//! version (u16); then frames of kind (u32), length (u32) and that many bytes.

use pilotfish_abi::VERSION as RECORD_VERSION;
use serde::{Deserialize, Serialize};
use std::{
    fs::{File, OpenOptions, Permissions},
    io::{self, BufReader, BufWriter, Read, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
};

const MAGIC: &[u8; 8] = b"PILOTFSH";
const BYTE_ORDER: u32 = 0x0102_0304;
/// Version of this file format.
const FORMAT_VERSION: u16 = 1;
/// No frame is larger: a record is at most a header and the largest capture.
const MAX_FRAME: u32 = 1 << 20;

const FRAME_RECORD: u32 = 1;
const FRAME_CLOCK: u32 = 2;
const FRAME_CONTAINER: u32 = 3;

/// Why a file could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The operating system said no.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: String,
        /// The reason.
        source: io::Error,
    },
    /// Not our file.
    #[error("{0} is not a file written by `pilotfish record`")]
    NotAStream(String),
    /// Our file, from another version or machine.
    #[error(
        "{path} has format {format} and record layout {layout}; this pilotfish reads {FORMAT_VERSION} and {RECORD_VERSION}, written on a machine of the same byte order"
    )]
    Version {
        /// Which file.
        path: String,
        /// Its format version.
        format: u16,
        /// Its record layout version.
        layout: u16,
    },
    /// A frame contradicts itself.
    #[error("{path} is damaged at frame {frame}")]
    Damaged {
        /// Which file.
        path: String,
        /// Which frame, from 0.
        frame: u64,
    },
}

/// One frame.
#[derive(Clone, Debug, PartialEq)]
pub enum Frame {
    /// A ring-buffer record.
    Record(Vec<u8>),
    /// Unix time minus `CLOCK_MONOTONIC`, nanoseconds.
    Clock(i64),
    /// A container appeared.
    Container(ContainerFrame),
}

/// Identity of a slot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ContainerFrame {
    /// The slot that its records carry.
    pub slot: u32,
    /// Resource attributes.
    pub resource: Vec<(String, String)>,
}

/// Writes a stream.
pub struct Writer {
    path: String,
    file: BufWriter<File>,
}

impl Writer {
    /// Makes the file, for its owner only: it holds bytes of the workload.
    pub fn create(path: &Path) -> Result<Self, StreamError> {
        let name = path.display().to_string();
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .custom_flags(nix::libc::O_NOFOLLOW)
            .open(path)
            // A file that was there before keeps its mode otherwise.
            .and_then(|file| {
                if file.metadata()?.is_file() {
                    file.set_permissions(Permissions::from_mode(0o600))?;
                }
                Ok(file)
            })
            .map_err(|source| StreamError::Io {
                action: "create",
                path: name.clone(),
                source,
            })?;
        let mut writer = Self {
            path: name,
            file: BufWriter::with_capacity(1 << 16, file),
        };
        let mut head = MAGIC.to_vec();
        head.extend(BYTE_ORDER.to_ne_bytes());
        head.extend(FORMAT_VERSION.to_ne_bytes());
        head.extend(RECORD_VERSION.to_ne_bytes());
        writer.bytes(&head)?;
        Ok(writer)
    }

    /// Appends a record.
    pub fn record(&mut self, record: &[u8]) -> Result<(), StreamError> {
        self.frame(FRAME_RECORD, record)
    }

    /// Appends the clock's offset.
    pub fn clock(&mut self, unix_offset: i64) -> Result<(), StreamError> {
        self.frame(FRAME_CLOCK, &unix_offset.to_ne_bytes())
    }

    /// Appends a container's identity.
    pub fn container(&mut self, container: &ContainerFrame) -> Result<(), StreamError> {
        let json = serde_json::to_vec(container).unwrap_or_default();
        self.frame(FRAME_CONTAINER, &json)
    }

    /// Writes out what is buffered.
    pub fn flush(&mut self) -> Result<(), StreamError> {
        let path = &self.path;
        self.file.flush().map_err(|source| StreamError::Io {
            action: "write",
            path: path.clone(),
            source,
        })
    }

    fn frame(&mut self, kind: u32, payload: &[u8]) -> Result<(), StreamError> {
        self.bytes(&kind.to_ne_bytes())?;
        self.bytes(&(payload.len() as u32).to_ne_bytes())?;
        self.bytes(payload)
    }

    fn bytes(&mut self, bytes: &[u8]) -> Result<(), StreamError> {
        let path = &self.path;
        self.file
            .write_all(bytes)
            .map_err(|source| StreamError::Io {
                action: "write",
                path: path.clone(),
                source,
            })
    }
}

/// Reads a stream.
pub struct Reader<R> {
    path: String,
    input: R,
    frames: u64,
    left_over: u64,
}

impl Reader<BufReader<File>> {
    /// Opens and checks a file.
    pub fn open(path: &Path) -> Result<Self, StreamError> {
        let name = path.display().to_string();
        let file = File::open(path).map_err(|source| StreamError::Io {
            action: "open",
            path: name.clone(),
            source,
        })?;
        Self::new(name, BufReader::new(file))
    }
}

impl<R: Read> Reader<R> {
    /// Checks the head of a stream.
    pub fn new(path: String, mut input: R) -> Result<Self, StreamError> {
        let mut head = [0; 16];
        if input.read_exact(&mut head).is_err() || !head.starts_with(MAGIC) {
            return Err(StreamError::NotAStream(path));
        }
        let [.., b0, b1, b2, b3, f0, f1, l0, l1] = head;
        let (format, layout) = (u16::from_ne_bytes([f0, f1]), u16::from_ne_bytes([l0, l1]));
        let same_order = u32::from_ne_bytes([b0, b1, b2, b3]) == BYTE_ORDER;
        if !same_order || format != FORMAT_VERSION || layout != RECORD_VERSION {
            return Err(StreamError::Version {
                path,
                format,
                layout,
            });
        }
        Ok(Self {
            path,
            input,
            frames: 0,
            left_over: 0,
        })
    }

    /// Bytes at the end that are no whole frame; known once [`Self::next_frame`] has returned `None`.
    pub fn left_over(&self) -> u64 {
        self.left_over
    }

    /// The next frame, `None` at the end. A frame cut short by a killed writer is the end.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, StreamError> {
        loop {
            let Some((kind, payload)) = self.raw_frame()? else {
                return Ok(None);
            };
            let damaged = || StreamError::Damaged {
                path: self.path.clone(),
                frame: self.frames,
            };
            let frame = match kind {
                FRAME_RECORD => Frame::Record(payload),
                FRAME_CLOCK => Frame::Clock(
                    payload
                        .try_into()
                        .map(i64::from_ne_bytes)
                        .map_err(|_| damaged())?,
                ),
                FRAME_CONTAINER => {
                    Frame::Container(serde_json::from_slice(&payload).map_err(|_| damaged())?)
                }
                // A later minor addition: not ours to understand.
                _ => continue,
            };
            self.frames += 1;
            return Ok(Some(frame));
        }
    }

    fn raw_frame(&mut self) -> Result<Option<(u32, Vec<u8>)>, StreamError> {
        let mut head = [0; 8];
        let read = self.fill(&mut head)?;
        if read < head.len() {
            self.left_over = read as u64;
            return Ok(None);
        }
        let [k0, k1, k2, k3, l0, l1, l2, l3] = head;
        let length = u32::from_ne_bytes([l0, l1, l2, l3]);
        if length > MAX_FRAME {
            return Err(StreamError::Damaged {
                path: self.path.clone(),
                frame: self.frames,
            });
        }
        let mut payload = vec![0; length as usize];
        let read = self.fill(&mut payload)?;
        if read < payload.len() {
            self.left_over = (head.len() + read) as u64;
            return Ok(None);
        }
        Ok(Some((u32::from_ne_bytes([k0, k1, k2, k3]), payload)))
    }

    /// Fills the buffer as far as the input goes; returns how far.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, StreamError> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.input.read(rest) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => {
                    return Err(StreamError::Io {
                        action: "read",
                        path: self.path.clone(),
                        source,
                    });
                }
            }
        }
        Ok(filled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written() -> Vec<u8> {
        let path = std::env::temp_dir().join(format!("pilotfish-stream-{}", std::process::id()));
        let mut writer = Writer::create(&path).expect("temporary file");
        writer.clock(-5).expect("written");
        let container = ContainerFrame {
            slot: 3,
            resource: vec![("service.name".into(), "a".into())],
        };
        writer.container(&container).expect("written");
        writer.record(b"0123456789").expect("written");
        writer.flush().expect("written");
        let bytes = std::fs::read(&path).expect("readable");
        std::fs::remove_file(&path).expect("removable");
        bytes
    }

    #[test]
    fn round_trip_and_every_truncation() {
        let bytes = written();
        let (mut most, mut whole) = (0, Vec::new());
        for end in 16..=bytes.len() {
            let mut reader = Reader::new("test".into(), &bytes[..end]).expect("head is whole");
            let mut frames = Vec::new();
            while let Some(frame) = reader.next_frame().expect("a cut is an end") {
                frames.push(frame);
                if reader.input.is_empty() {
                    whole.push(end);
                }
            }
            let last = whole.last().copied().unwrap_or(16);
            assert_eq!(reader.left_over(), (end - last) as u64, "cut at {end}");
            assert!(frames.len() >= most, "more bytes never give fewer frames");
            most = frames.len();
            if end == bytes.len() {
                assert_eq!(frames[0], Frame::Clock(-5));
                assert_eq!(frames[2], Frame::Record(b"0123456789".to_vec()));
            }
        }
        assert_eq!(most, 3);
    }

    #[test]
    fn refuses_other_files_and_versions() {
        assert!(matches!(
            Reader::new("x".into(), &b"hello"[..]),
            Err(StreamError::NotAStream(_))
        ));
        let mut bytes = written();
        bytes[12] = 99;
        assert!(matches!(
            Reader::new("x".into(), &bytes[..]),
            Err(StreamError::Version { format: 99, .. })
        ));
        let mut bytes = written();
        bytes[20..24].fill(0xff);
        let mut reader = Reader::new("x".into(), &bytes[..]).expect("head is whole");
        assert!(matches!(
            reader.next_frame(),
            Err(StreamError::Damaged { frame: 0, .. })
        ));
    }
}
