//! Where the node agent listens: the directory, the lock that only one agent holds, and the socket.

use super::trusted::{Directory, TrustError};
use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, fchmod, flock, openat, unlinkat};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, Shutdown, SocketAddrUnix, SocketFlags, SocketType, bind, listen, shutdown,
    socket_with, sockopt,
};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::net::{UnixListener as StdListener, UnixStream as StdStream};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::UnixListener;
use tokio::time::{Instant, sleep};

/// File beside the socket that the running agent holds locked.
const LOCK: &str = "agent.lock";

/// How long an agent that is about to end may still hold the lock: its exporters flush for up to 1.5 s.
pub(super) const LOCK_WAIT: Duration = Duration::from_secs(3);

/// Between two looks at the lock.
const LOCK_RETRY: Duration = Duration::from_millis(20);

/// Connections that may wait to be accepted; the kernel's `net.core.somaxconn` bounds it too.
const BACKLOG: i32 = 1024;

/// Why the agent cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// The socket's path has no directory or no file name.
    #[error("--socket {0}: give an absolute path of a file")]
    Path(PathBuf),
    /// The directory is not fit for it.
    #[error("the socket's directory cannot be used: {0}{remedy}", remedy = remedy(.0, "--socket"))]
    Directory(#[from] TrustError),
    /// Another agent serves there.
    #[error(
        "another pilotfish agent is already running with the socket {0}: stop it, or give another --socket"
    )]
    AlreadyRunning(PathBuf),
    /// The lock file is in the way.
    #[error("cannot lock {path}: {source}")]
    Lock {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The path is taken by something else.
    #[error("{0} exists and is no socket: remove it, or give another --socket")]
    Taken(PathBuf),
    /// The kernel refused the socket.
    #[error("cannot listen on {path}: {source}")]
    Listen {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What the service manager passed cannot be used.
    #[error(
        "the service manager passed {0}; a pilotfish.socket unit has exactly one ListenStream= with a path"
    )]
    Activation(String),
}

/// What to do about a path that `flag` names.
pub(super) fn remedy(error: &TrustError, flag: &str) -> String {
    if error.is_denied() {
        format!("; run `pilotfish node` as root, or give another path ({flag})")
    } else {
        String::new()
    }
}

/// A listening socket, and that nobody else listens there.
#[derive(Debug)]
pub struct Place {
    /// Accepts connections.
    pub listener: UnixListener,
    address: Address,
}

/// What is left of a [`Place`] without its listener.
#[derive(Debug)]
pub struct Address {
    socket: PathBuf,
    /// Of the socket file that we made; `None` when it is the service manager's.
    made: Option<(u64, u64)>,
    lock: Lock,
}

impl Place {
    /// Takes the lock and listens on `socket`, or on `passed`, the service manager's descriptor. The socket exists
    /// with mode 0600 from its first moment.
    pub async fn take(
        socket: &Path,
        passed: Option<OwnedFd>,
        patience: Duration,
    ) -> Result<Self, PlaceError> {
        let (directory, name) = split(socket)?;
        let directory = Directory::create(&directory)?;
        let lock = Lock::take(directory, socket, patience).await?;
        let (listener, made) = if let Some(descriptor) = passed {
            (activated(descriptor)?, None)
        } else {
            clear(&lock.directory, socket, &name)?;
            let listener = listen_at(socket)?;
            (listener, lock.directory.identity(&name))
        };
        let address = Address {
            socket: socket.to_owned(),
            made,
            lock,
        };
        let listener = into_tokio(listener, socket)?;
        Ok(Self { listener, address })
    }

    /// Stops listening so that nobody is left waiting: from now on a connection is refused or finds no socket, and
    /// what came before is returned. A socket of the service manager stays as it is, and so do its connections.
    pub fn close(self) -> Result<(Address, Vec<StdStream>), PlaceError> {
        let Self { listener, address } = self;
        if address.made.is_none() {
            return Ok((address, Vec::new()));
        }
        let fail = |source| listen_error(&address.socket, source);
        address.unlink();
        let listener = listener.into_std().map_err(fail)?;
        // After this the kernel refuses whoever had looked the path up before, and the queue can only get shorter.
        shutdown(&listener, Shutdown::Both).map_err(|error| fail(error.into()))?;
        let waiting = listener.incoming().map_while(Result::ok).collect();
        Ok((address, waiting))
    }
}

impl Address {
    /// Listens again where [`Place::close`] has stopped.
    pub fn reopen(mut self) -> Result<Place, PlaceError> {
        let (_, name) = split(&self.socket)?;
        clear(&self.lock.directory, &self.socket, &name)?;
        let listener = into_tokio(listen_at(&self.socket)?, &self.socket)?;
        self.made = self.lock.directory.identity(&name);
        Ok(Place {
            listener,
            address: self,
        })
    }

    /// True when the socket is the service manager's.
    pub fn is_activated(&self) -> bool {
        self.made.is_none()
    }

    /// Removes the socket file if it is still the one that we made.
    fn unlink(&self) {
        let Ok((_, name)) = split(&self.socket) else {
            return;
        };
        let directory = &self.lock.directory;
        if self.made.is_some() && directory.identity(&name) == self.made {
            // It may be gone already; what is left behind is replaced by the next agent.
            let _ = unlinkat(directory, &name, AtFlags::empty());
        }
    }
}

impl Drop for Address {
    fn drop(&mut self) {
        self.unlink();
    }
}

/// The descriptor that the service manager passed to this process, if any.
pub(super) fn passed_descriptor() -> Result<Option<OwnedFd>, PlaceError> {
    let passed = sd_notify::listen_fds()
        .map_err(|error| PlaceError::Activation(format!("unusable LISTEN_FDS: {error}")))?;
    match passed.len() {
        0 => Ok(None),
        1 => {
            // SAFETY: the service manager gave this descriptor to this process (LISTEN_PID), and nothing else takes it.
            Ok(passed
                .last()
                .map(|descriptor| unsafe { OwnedFd::from_raw_fd(descriptor) }))
        }
        many => Err(PlaceError::Activation(format!("{many} descriptors"))),
    }
}

fn activated(descriptor: OwnedFd) -> Result<StdListener, PlaceError> {
    let listens = sockopt::socket_domain(&descriptor) == Ok(AddressFamily::UNIX)
        && sockopt::socket_type(&descriptor) == Ok(SocketType::STREAM)
        && sockopt::socket_acceptconn(&descriptor) == Ok(true);
    if !listens {
        return Err(PlaceError::Activation(
            "a descriptor that is no listening unix stream socket".to_owned(),
        ));
    }
    Ok(StdListener::from(descriptor))
}

fn split(socket: &Path) -> Result<(PathBuf, PathBuf), PlaceError> {
    let refused = || PlaceError::Path(socket.to_owned());
    let directory = socket.parent().filter(|_| socket.is_absolute());
    let name = socket.file_name().ok_or_else(refused)?;
    Ok((directory.ok_or_else(refused)?.to_owned(), name.into()))
}

/// Removes what a killed agent left; the lock is ours, so only the service manager's socket can be alive.
fn clear(directory: &Directory, socket: &Path, name: &Path) -> Result<(), PlaceError> {
    if directory.identity(name).is_none() {
        return Ok(());
    }
    match StdStream::connect(socket) {
        Ok(_) => Err(PlaceError::AlreadyRunning(socket.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            use std::os::unix::fs::FileTypeExt;
            let metadata = std::fs::symlink_metadata(socket);
            if !metadata.is_ok_and(|metadata| metadata.file_type().is_socket()) {
                return Err(PlaceError::Taken(socket.to_owned()));
            }
            unlinkat(directory, name, AtFlags::empty())
                .map_err(|error| listen_error(socket, error.into()))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // A full queue means that somebody listens.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            Err(PlaceError::AlreadyRunning(socket.to_owned()))
        }
        Err(source) => Err(listen_error(socket, source)),
    }
}

fn listen_at(socket: &Path) -> Result<StdListener, PlaceError> {
    let make = || -> Result<OwnedFd, Errno> {
        let address = SocketAddrUnix::new(socket)?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let descriptor = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        // bind(2) gives the file the socket's own mode (unix_bind, Linux 2.6 and later), so that no moment is open.
        fchmod(&descriptor, Mode::RUSR | Mode::WUSR)?;
        bind(&descriptor, &address)?;
        listen(&descriptor, BACKLOG)?;
        Ok(descriptor)
    };
    make()
        .map(StdListener::from)
        .map_err(|error| listen_error(socket, error.into()))
}

fn into_tokio(listener: StdListener, socket: &Path) -> Result<UnixListener, PlaceError> {
    listener
        .set_nonblocking(true)
        .and_then(|()| UnixListener::from_std(listener))
        .map_err(|source| listen_error(socket, source))
}

fn listen_error(socket: &Path, source: io::Error) -> PlaceError {
    PlaceError::Listen {
        path: socket.to_owned(),
        source,
    }
}

/// Held for as long as the agent lives; the kernel lets go of it when the process ends, however that happens.
#[derive(Debug)]
struct Lock {
    file: File,
    directory: Directory,
}

impl Lock {
    async fn take(
        directory: Directory,
        socket: &Path,
        patience: Duration,
    ) -> Result<Self, PlaceError> {
        let path = directory.path().join(LOCK);
        let fail = |error: Errno| PlaceError::Lock {
            path: path.clone(),
            source: error.into(),
        };
        let until = Instant::now() + patience;
        loop {
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let mode = Mode::RUSR | Mode::WUSR;
            let file = File::from(openat(&directory, LOCK, flags, mode).map_err(fail)?);
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                // The former holder removes the file when it ends: what we hold must still be what others will open.
                Ok(()) if is_current(&directory, &file) => {
                    let mut lock = Self { file, directory };
                    lock.sign();
                    return Ok(lock);
                }
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) if Instant::now() < until => sleep(LOCK_RETRY).await,
                Err(Errno::WOULDBLOCK) => {
                    return Err(PlaceError::AlreadyRunning(socket.to_owned()));
                }
                Err(error) => return Err(fail(error)),
            }
        }
    }

    /// Writes our process id into it, for people only.
    fn sign(&mut self) {
        let _ = self
            .file
            .set_len(0)
            .and_then(|()| writeln!(self.file, "{}", std::process::id()));
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Removed while it is held: whoever waits for it sees that it is not current and makes a new one.
        let _ = unlinkat(&self.directory, LOCK, AtFlags::empty());
    }
}

fn is_current(directory: &Directory, file: &File) -> bool {
    rustix::fs::fstat(file)
        .is_ok_and(|stat| directory.identity(Path::new(LOCK)) == Some((stat.st_dev, stat.st_ino)))
}

#[cfg(test)]
mod tests;
