//! Who is behind the socket: process ids in NRI's messages are believed only from a privileged process of our own pid
//! namespace, where they mean the same processes.

use std::fs;
use std::io;
use std::path::PathBuf;
use tokio::net::UnixStream;

/// Why the process behind the socket is not believed.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// The kernel does not tell who it is.
    #[error("the process behind the socket cannot be determined: {0}")]
    Unknown(#[source] io::Error),
    /// It is somebody else's.
    #[error(
        "the process behind the socket runs as uid {0}, not as root: check the path that `--nri` names"
    )]
    User(u32),
    /// Its process ids are others than ours.
    #[error(
        "the runtime is in another pid namespace than the agent, so its process ids mean other processes here: run the agent in the host's pid namespace (`hostPID: true`)"
    )]
    Namespace,
    /// It cannot be told whether they are.
    #[error(
        "the pid namespace of the runtime (process {pid}) cannot be read: {source}; give the agent CAP_SYS_PTRACE"
    )]
    Unreadable {
        /// The runtime.
        pid: i32,
        /// Why.
        source: io::Error,
    },
}

/// Believes root and our own user, in our own pid namespace.
pub(crate) fn check(stream: &UnixStream) -> Result<(), PeerError> {
    let peer = stream.peer_cred().map_err(PeerError::Unknown)?;
    let own = own_uid().map_err(PeerError::Unknown)?;
    if peer.uid() != 0 && peer.uid() != own {
        return Err(PeerError::User(peer.uid()));
    }
    // The kernel shows 0 for a process that is not visible here.
    let pid = peer
        .pid()
        .filter(|&pid| pid > 0)
        .ok_or(PeerError::Namespace)?;
    let unreadable = |source| PeerError::Unreadable { pid, source };
    let theirs = pid_namespace(&pid.to_string()).map_err(unreadable)?;
    let ours = pid_namespace("self").map_err(unreadable)?;
    if theirs == ours {
        Ok(())
    } else {
        Err(PeerError::Namespace)
    }
}

/// `pid:[inode]`.
fn pid_namespace(process: &str) -> io::Result<PathBuf> {
    fs::read_link(format!("/proc/{process}/ns/pid"))
}

fn own_uid() -> io::Result<u32> {
    use std::os::unix::fs::MetadataExt;
    Ok(fs::metadata("/proc/self")?.uid())
}
