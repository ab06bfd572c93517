//! A server with a fake observer behind it, and clients that can do what the hook would not.

use super::super::*;
use crate::announced::Command;
use crate::node::place::Place;
use pilotfish_workload::Identity;
use pilotfish_workload::incoming::Incoming;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::process::{PidfdFlags, getpid, pidfd_open};
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream as StdStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;

/// What a fake observer does with a command.
#[derive(Clone, Copy)]
pub(super) enum Observer {
    Attaches,
    NeverAnswers,
    NeverReads,
    Gone,
}

pub(super) struct Scene {
    pub(super) held: TempDir,
    pub(super) socket: PathBuf,
    pub(super) stats: Arc<NodeStats>,
    pub(super) activity: Activity,
    pub(super) attached: Arc<Mutex<Vec<Announcement>>>,
    _queue: Option<mpsc::Receiver<Command>>,
}

pub(super) async fn scene(observer: Observer, limits: Limits) -> Scene {
    let held = tempfile::tempdir().unwrap();
    let socket = held.path().join("hook.sock");
    let place = Place::take(&socket, None, Duration::ZERO).await.unwrap();
    let (commands, queue) = mpsc::channel(match observer {
        Observer::NeverReads => 1,
        _ => crate::announced::COMMAND_QUEUE,
    });
    let attached = Arc::new(Mutex::new(Vec::new()));
    let mut kept = None;
    match observer {
        Observer::NeverReads => kept = Some(queue),
        Observer::Gone => drop(queue),
        answers => {
            tokio::spawn(observe(queue, Arc::clone(&attached), answers));
        }
    }
    let (stats, activity) = (Arc::new(NodeStats::default()), Activity::default());
    let server = Server::new(commands, Arc::clone(&stats), activity.clone(), limits);
    tokio::spawn(async move {
        // Whole: its address removes the socket when it is dropped.
        let place = place;
        server.accept(&place.listener).await;
    });
    Scene {
        held,
        socket,
        stats,
        activity,
        attached,
        _queue: kept,
    }
}

async fn observe(
    mut queue: mpsc::Receiver<Command>,
    attached: Arc<Mutex<Vec<Announcement>>>,
    observer: Observer,
) {
    let mut unanswered = Vec::new();
    while let Some(command) = queue.recv().await {
        match command {
            Command::Attach { reply, .. } if matches!(observer, Observer::NeverAnswers) => {
                unanswered.push(reply);
            }
            Command::Attach {
                announcement,
                reply,
                ..
            } => {
                attached.lock().unwrap().push(*announcement);
                let _ = reply.send(Reply::Attached);
            }
            Command::Remove { reply, .. } => {
                let _ = reply.send(Reply::Removed);
            }
            Command::Keep { .. } => {}
            Command::Complete { done } => done.send(()).unwrap(),
        }
    }
}

pub(super) fn announcement(id: &str) -> Announcement {
    Announcement {
        id: id.to_owned(),
        pid: 1,
        identity: Identity::default(),
        annotations: [].into(),
        labels: [].into(),
        warnings: Vec::new(),
        program: None,
    }
}

pub(super) fn attach_frame(id: &str) -> Vec<u8> {
    encode(&Request::Attach(Box::new(announcement(id)))).unwrap()
}

pub(super) fn own_pidfd() -> OwnedFd {
    pidfd_open(getpid(), PidfdFlags::empty()).unwrap()
}

/// Sends bytes with descriptors beside the first of them.
pub(super) fn send(stream: &StdStream, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(16))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        assert!(control.push(SendAncillaryMessage::ScmRights(descriptors)));
    }
    let sent = sendmsg(
        stream,
        &[IoSlice::new(bytes)],
        &mut control,
        SendFlags::NOSIGNAL,
    );
    assert_eq!(sent, Ok(bytes.len()));
}

/// What comes until the server closes; `None` is silence.
pub(super) async fn reply(stream: StdStream) -> Option<Reply> {
    stream.set_nonblocking(true).unwrap();
    let mut stream = UnixStream::from_std(stream).unwrap();
    let mut bytes = Vec::new();
    // A server that closes with bytes unread resets the connection, after what it has sent.
    let _ = stream.read_to_end(&mut bytes).await;
    let mut incoming = Incoming::default();
    let mut rest = bytes.as_slice();
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(incoming.wanted().min(rest.len()));
        rest = after;
        if let Some(reply) = incoming.push(piece).unwrap() {
            assert!(rest.is_empty(), "one reply and nothing more");
            return Some(reply);
        }
    }
    assert!(incoming.is_empty(), "half a reply");
    None
}

impl Scene {
    pub(super) fn connect(&self) -> StdStream {
        StdStream::connect(&self.socket).unwrap()
    }

    pub(super) async fn exchange(
        &self,
        bytes: &[u8],
        descriptors: &[BorrowedFd<'_>],
    ) -> Option<Reply> {
        let stream = self.connect();
        send(&stream, bytes, descriptors);
        reply(stream).await
    }

    pub(super) async fn attach(&self, id: &str) -> Option<Reply> {
        let pidfd = own_pidfd();
        self.exchange(&attach_frame(id), &[pidfd.as_fd()]).await
    }

    pub(super) fn counted(&self, counter: impl Fn(&NodeStats) -> &AtomicU64) -> u64 {
        counter(&self.stats).load(Ordering::Relaxed)
    }
}

pub(super) fn reason(reply: Option<Reply>) -> String {
    match reply {
        Some(Reply::Failed { reason }) => reason,
        other => panic!("{other:?}"),
    }
}
