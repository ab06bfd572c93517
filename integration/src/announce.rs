//! The hook's side of a node agent's socket, for what no hook would send too.

use anyhow::{Context, Result, ensure};
use pilotfish_workload::Identity;
use pilotfish_workload::announcement::{
    Announcement, HEADER, Reply, Request, body_length, decode, encode,
};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::collections::BTreeMap;
use std::io::{ErrorKind, IoSlice, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// Bound for what an agent answers within milliseconds, and for its patience with a slow peer.
const LIMIT: Duration = Duration::from_secs(20);

/// Most descriptors that one message of a trial carries; the kernel's own bound is 253 (`SCM_MAX_FD`).
pub const MOST_DESCRIPTORS: usize = 253;

/// One connection.
#[derive(Debug)]
pub struct Dialogue(UnixStream);

impl Dialogue {
    /// Connects to an agent.
    pub fn open(socket: &Path) -> Result<Self> {
        let stream = UnixStream::connect(socket)
            .with_context(|| format!("cannot connect to {}", socket.display()))?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.set_write_timeout(Some(LIMIT))?;
        Ok(Self(stream))
    }

    /// Sends bytes, with descriptors beside the first of them.
    pub fn send(&self, bytes: &[u8], descriptors: &[BorrowedFd]) -> Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        ensure!(
            descriptors.is_empty() || control.push(SendAncillaryMessage::ScmRights(descriptors)),
            "too many descriptors for one message"
        );
        let sent = sendmsg(
            &self.0,
            &[IoSlice::new(bytes)],
            &mut control,
            SendFlags::NOSIGNAL,
        )
        .context("cannot send to the agent")?;
        ensure!(sent == bytes.len(), "only {sent} bytes were sent");
        Ok(())
    }

    /// The agent's answer; none if it has closed the connection without one.
    pub fn reply(mut self) -> Result<Option<Reply>> {
        let mut header = [0; HEADER];
        match self.0.read_exact(&mut header) {
            Ok(()) => {}
            // The kernel says so of a peer that has closed before it had read everything.
            Err(error)
                if [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset]
                    .contains(&error.kind()) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(error).context("no answer of the agent"),
        }
        let mut body = vec![0; body_length(&header)?];
        self.0.read_exact(&mut body).context("half an answer")?;
        Ok(Some(decode(&body)?))
    }
}

/// What a hook would say of a container whose first process is this one.
pub fn announcement(id: &str, pid: u32, annotations: &[(&str, &str)]) -> Request {
    let pairs = annotations.iter();
    Request::Attach(Box::new(Announcement {
        id: id.to_owned(),
        pid: pid as i32,
        identity: Identity::default(),
        annotations: pairs
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect(),
        labels: BTreeMap::new(),
        warnings: Vec::new(),
        program: None,
    }))
}

/// A descriptor of a process.
pub fn pidfd(pid: u32) -> Result<OwnedFd> {
    let number = Pid::from_raw(pid as i32).context("0 is no process")?;
    pidfd_open(number, PidfdFlags::empty()).with_context(|| format!("no pidfd of process {pid}"))
}

/// Announces a container and gives back the answer.
pub fn attach(socket: &Path, id: &str, pid: u32, annotations: &[(&str, &str)]) -> Result<Reply> {
    let dialogue = Dialogue::open(socket)?;
    let frame = encode(&announcement(id, pid, annotations))?;
    dialogue.send(&frame, &[pidfd(pid)?.as_fd()])?;
    dialogue.reply()?.context("the agent closed the connection")
}

/// Says that a container has ended and gives back the answer.
pub fn remove(socket: &Path, id: &str) -> Result<Reply> {
    let dialogue = Dialogue::open(socket)?;
    dialogue.send(&encode(&Request::Remove { id: id.to_owned() })?, &[])?;
    dialogue.reply()?.context("the agent closed the connection")
}
