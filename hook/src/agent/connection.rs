//! One connection to the agent's socket.

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::poll::PollFlags;
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, connect, getsockopt,
    recv, sendmsg, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};
use pilotfish_workload::announcement::{FrameError, HEADER, Reply, body_length, decode};

use super::AgentError;
use crate::deadline::{Deadline, Elapsed};

/// A connection to a peer that is root, or the hook's own user.
pub(super) struct Connection<'a> {
    descriptor: OwnedFd,
    path: &'a Path,
}

impl<'a> Connection<'a> {
    /// Connects, and makes sure of the peer.
    pub(super) fn open(path: &'a Path, deadline: Deadline) -> Result<Self, AgentError> {
        let address = UnixAddr::new(path).map_err(|_| AgentError::Path(path.to_owned()))?;
        let failed = |what| {
            move |errno: Errno| AgentError::Socket {
                socket: path.to_owned(),
                what,
                source: errno.into(),
            }
        };
        let descriptor = socket(
            AddressFamily::Unix,
            SockType::Stream,
            SockFlag::SOCK_CLOEXEC,
            None,
        )
        .map_err(failed("make a socket for"))?;
        let connection = Self { descriptor, path };
        connection.connect(&address, deadline)?;
        let peer = getsockopt(&connection.descriptor, sockopt::PeerCredentials)
            .map_err(failed("identify"))?;
        if peer.uid() == 0 || peer.uid() == nix::unistd::geteuid().as_raw() {
            Ok(connection)
        } else {
            Err(AgentError::Stranger {
                socket: path.to_owned(),
                uid: peer.uid(),
            })
        }
    }

    fn connect(&self, address: &UnixAddr, deadline: Deadline) -> Result<(), AgentError> {
        // A unix socket cannot be connected in the background; the kernel bounds the wait for a full backlog by the
        // sending timeout (unix(7), connect(2) EAGAIN).
        let slow = |_: Elapsed| self.slow("accept the connection");
        loop {
            let left = deadline.left().map_err(slow)?;
            let limit =
                TimeVal::microseconds(i64::try_from(left.as_micros()).unwrap_or(i64::MAX).max(1));
            setsockopt(&self.descriptor, sockopt::SendTimeout, &limit)
                .map_err(|errno| self.failed("limit the wait for", errno.into()))?;
            return match connect(self.descriptor.as_raw_fd(), address) {
                Ok(()) => Ok(()),
                Err(Errno::EINTR) => continue,
                Err(Errno::EAGAIN) => Err(slow(Elapsed)),
                Err(errno @ (Errno::ENOENT | Errno::ECONNREFUSED)) => Err(AgentError::Absent {
                    socket: self.path.to_owned(),
                    why: match errno {
                        Errno::ENOENT => "it is not there",
                        _ => "connection refused",
                    },
                }),
                Err(errno) => Err(self.failed("connect to", errno.into())),
            };
        }
    }

    /// Sends one frame, with a descriptor beside its first byte, and receives one reply.
    pub(super) fn exchange(
        &self,
        frame: &[u8],
        descriptor: Option<BorrowedFd<'_>>,
        deadline: Deadline,
    ) -> Result<Reply, AgentError> {
        // An agent that refuses without reading everything has still said why.
        let sent = self.send(frame, descriptor, deadline);
        match (sent, self.receive(deadline)) {
            (Ok(()) | Err(AgentError::Closed(_)), reply) => reply,
            (Err(error), _) => Err(error),
        }
    }

    fn send(
        &self,
        frame: &[u8],
        descriptor: Option<BorrowedFd<'_>>,
        deadline: Deadline,
    ) -> Result<(), AgentError> {
        let descriptors: Vec<_> = descriptor.iter().map(AsRawFd::as_raw_fd).collect();
        let beside = [ControlMessage::ScmRights(&descriptors)];
        let mut sent = 0;
        while sent < frame.len() {
            deadline
                .wait(&self.descriptor, PollFlags::POLLOUT)
                .map_err(|Elapsed| self.slow("read the request"))?;
            let beside: &[_] = if sent == 0 && descriptor.is_some() {
                &beside
            } else {
                &[]
            };
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
            let rest = [IoSlice::new(&frame[sent..])];
            match sendmsg::<UnixAddr>(self.descriptor.as_raw_fd(), &rest, beside, flags, None) {
                Ok(length) => sent += length,
                Err(Errno::EINTR | Errno::EAGAIN) => {}
                Err(Errno::EPIPE | Errno::ECONNRESET) => return Err(self.closed()),
                Err(errno) => return Err(self.failed("send to", errno.into())),
            }
        }
        Ok(())
    }

    fn receive(&self, deadline: Deadline) -> Result<Reply, AgentError> {
        let mut header = [0; HEADER];
        self.fill(&mut header, deadline)?;
        let length = body_length(&header).map_err(|source| self.frame(source))?;
        // Bounded by `MAX_BODY`.
        let mut body = vec![0; length];
        self.fill(&mut body, deadline)?;
        decode(&body).map_err(|source| self.frame(source))
    }

    fn fill(&self, buffer: &mut [u8], deadline: Deadline) -> Result<(), AgentError> {
        let mut filled = 0;
        while filled < buffer.len() {
            deadline
                .wait(&self.descriptor, PollFlags::POLLIN)
                .map_err(|Elapsed| self.slow("reply"))?;
            let part = &mut buffer[filled..];
            match recv(self.descriptor.as_raw_fd(), part, MsgFlags::MSG_DONTWAIT) {
                Ok(0) | Err(Errno::ECONNRESET) => return Err(self.closed()),
                Ok(length) => filled += length,
                Err(Errno::EINTR | Errno::EAGAIN) => {}
                Err(errno) => return Err(self.failed("receive from", errno.into())),
            }
        }
        Ok(())
    }

    fn slow(&self, what: &'static str) -> AgentError {
        AgentError::Slow {
            socket: self.path.to_owned(),
            what,
        }
    }

    fn closed(&self) -> AgentError {
        AgentError::Closed(self.path.to_owned())
    }

    fn frame(&self, source: FrameError) -> AgentError {
        AgentError::Frame {
            socket: self.path.to_owned(),
            source,
        }
    }

    fn failed(&self, what: &'static str, source: io::Error) -> AgentError {
        AgentError::Socket {
            socket: self.path.to_owned(),
            what,
            source,
        }
    }
}
