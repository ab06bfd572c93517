//! Takes one request off a connection: the bytes of its frame and the pidfd beside them.

use pilotfish_workload::announcement::{FrameError, Request};
use pilotfish_workload::incoming::Incoming;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, recvmsg};
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use tokio::io::Interest;
use tokio::net::UnixStream;

/// Descriptors that one message may bring before the kernel itself throws the rest away.
const DESCRIPTORS: usize = 4;

/// Bytes of one read.
const BUFFER: usize = 4096;

/// What came.
#[derive(Debug)]
pub(super) struct Received {
    /// The request.
    pub request: Request,
    /// The descriptors beside it.
    pub descriptors: Descriptors,
}

/// Descriptors that a peer sent. Only the first is kept, and none once it is known that there were more.
#[derive(Debug, Default)]
pub(super) struct Descriptors {
    first: Option<OwnedFd>,
    surplus: bool,
}

/// Why a connection gave no request.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReceiveError {
    /// It ended early, or was broken.
    #[error("the peer ended the connection before its request was whole")]
    Ended,
    /// It sent something else.
    #[error(transparent)]
    Frame(#[from] FrameError),
}

/// Why the descriptors are not what is needed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum DescriptorError {
    /// None.
    #[error("no pidfd came with the announcement")]
    Missing,
    /// Several.
    #[error("more than one descriptor came with the announcement")]
    Surplus,
    /// Something else.
    #[error("the descriptor that came with the announcement is no pidfd")]
    NoPidfd,
}

/// Reads one request and nothing after it.
pub(super) async fn receive(stream: &UnixStream) -> Result<Received, ReceiveError> {
    let mut incoming = Incoming::default();
    let mut descriptors = Descriptors::default();
    let mut buffer = [0; BUFFER];
    loop {
        let wanted = incoming.wanted().min(BUFFER);
        let Some(place) = buffer.get_mut(..wanted).filter(|place| !place.is_empty()) else {
            return Err(ReceiveError::Ended);
        };
        let read = stream
            .async_io(Interest::READABLE, || read(stream, place, &mut descriptors))
            .await
            .map_err(|_| ReceiveError::Ended)?;
        let Some(bytes) = place.get(..read).filter(|bytes| !bytes.is_empty()) else {
            return Err(ReceiveError::Ended);
        };
        if let Some(request) = incoming.push(bytes)? {
            return Ok(Received {
                request,
                descriptors,
            });
        }
    }
}

/// One `recvmsg`. What it brings beyond one descriptor is closed at once.
fn read(stream: &UnixStream, place: &mut [u8], descriptors: &mut Descriptors) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut pieces = [IoSliceMut::new(place)];
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let received = recvmsg(stream, &mut pieces, &mut control, flags)?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(sent) = message {
            sent.for_each(|descriptor| descriptors.take(descriptor));
        }
    }
    if received.flags.contains(ReturnFlags::CTRUNC) {
        descriptors.refuse();
    }
    Ok(received.bytes)
}

impl Descriptors {
    fn take(&mut self, descriptor: OwnedFd) {
        if self.surplus || self.first.is_some() {
            self.refuse();
        } else {
            self.first = Some(descriptor);
        }
    }

    fn refuse(&mut self) {
        self.surplus = true;
        self.first = None;
    }

    /// The one pidfd.
    pub(super) fn into_pidfd(self) -> Result<OwnedFd, DescriptorError> {
        if self.surplus {
            return Err(DescriptorError::Surplus);
        }
        let descriptor = self.first.ok_or(DescriptorError::Missing)?;
        if is_pidfd(&descriptor) {
            Ok(descriptor)
        } else {
            Err(DescriptorError::NoPidfd)
        }
    }
}

/// Only the fdinfo of a pidfd has a line `Pid:` (`proc_pid_fdinfo(5)`, Linux 5.2 and later).
fn is_pidfd(descriptor: &impl AsFd) -> bool {
    let number = descriptor.as_fd().as_raw_fd();
    std::fs::read_to_string(format!("/proc/self/fdinfo/{number}"))
        .is_ok_and(|text| text.lines().any(|line| line.starts_with("Pid:")))
}
