//! What the OCI hook and the agent say to each other.
//!
//! One connection carries one request and one reply, each a [`frame`](self::encode): 4 bytes of [`MAGIC`], the
//! version as a little-endian `u16`, 2 bytes of zero, the length of the body as a little-endian `u32`, and the body,
//! a JSON object. With [`Request::Attach`] travels a pidfd of the container's first process (`SCM_RIGHTS`), so that
//! neither a recycled process id nor another pid namespace can lead to the wrong process.

use std::collections::BTreeMap;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::annotations::{asks, relevant, resolve};
use crate::identity::Identity;
use crate::oci;

/// First bytes of every frame.
pub const MAGIC: [u8; 4] = *b"pfsh";

/// Version of the protocol. Another one is refused with a [`Reply::Failed`] that names both.
pub const VERSION: u16 = 1;

/// Bytes before the body.
pub const HEADER: usize = 12;

/// Longest body, bytes.
pub const MAX_BODY: usize = 256 * 1024;

/// Longest file name of a program, bytes (`NAME_MAX`).
const MAX_PROGRAM: usize = 255;

/// Where the agent listens unless told otherwise; its directory is for root only.
pub const DEFAULT_SOCKET: &str = "/run/pilotfish/hook.sock";

/// A container that is about to start, or was found running.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announcement {
    /// Container id, see [`is_container_id`].
    pub id: String,
    /// The first process as the sender sees it; only to be shown. The pidfd beside the frame decides.
    pub pid: i32,
    /// What the runtime says about the container; `container_id` is [`Self::id`].
    pub identity: Identity,
    /// Annotations of the container and its pod, only keys that [`crate::annotations`] knows or should warn of.
    pub annotations: BTreeMap<String, String>,
    /// Labels of the pod that name the service (`app.kubernetes.io/*`), where the runtime tells them.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// What was left out of the message and why, for `/status`.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// File name of the program that the first process is going to execute. Until it has, what it runs is the
    /// runtime's.
    #[serde(default)]
    pub program: Option<String>,
}

impl Announcement {
    /// What there is to announce of a container, if its annotations select it and it is no pod's sandbox. `all` are
    /// the annotations of its OCI state and configuration, `bundle` the directory of the latter.
    pub fn of_container(
        id: String,
        pid: i32,
        all: &BTreeMap<String, String>,
        bundle: &Path,
    ) -> Option<Self> {
        if oci::is_sandbox(all) {
            return None;
        }
        let identity = Identity::from_annotations(&id, all, bundle);
        let (annotations, warnings) = relevant(all);
        let announcement = Self {
            id,
            pid,
            identity,
            annotations,
            labels: oci::labels(all),
            warnings,
            program: None,
        };
        announcement.is_selected().then_some(announcement)
    }

    /// Of a container that [`Self::of_container`] does not select: what is wrong with its annotations, if they ask for
    /// observation in a way that cannot be read. Whoever wrote them meant something.
    pub fn unread_wish(id: &str, all: &BTreeMap<String, String>, bundle: &Path) -> Option<String> {
        if oci::is_sandbox(all) {
            return None;
        }
        unread_wish(all, &Identity::from_annotations(id, all, bundle))
    }

    /// It, of a container whose first process is going to execute this program, a path or a name.
    #[must_use]
    pub fn about_to_execute(mut self, program: Option<&str>) -> Self {
        let name = program.and_then(|path| Path::new(path).file_name()?.to_str());
        self.program = name
            .filter(|name| name.len() <= MAX_PROGRAM && !name.chars().any(char::is_control))
            .map(ToOwned::to_owned);
        self
    }

    /// Whether the annotations ask for observation: `instrument` is `true`, or a list with the container's name.
    pub fn is_selected(&self) -> bool {
        resolve(&self.annotations, self.identity.name_in_pod()).instrument == Some(true)
    }
}

/// As [`Announcement::unread_wish`], of a container that is no sandbox and whose identity is known.
pub fn unread_wish<'a>(
    all: impl IntoIterator<Item = (&'a String, &'a String)>,
    identity: &Identity,
) -> Option<String> {
    let asking = all.into_iter().filter(|(key, _)| asks(key));
    let (annotations, left_out) = relevant(asking);
    let wishes = resolve(&annotations, identity.name_in_pod());
    if wishes.instrument.is_some() {
        return None;
    }
    left_out.into_iter().chain(wishes.warnings).next()
}

/// From the hook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "request")]
pub enum Request {
    /// Observe this container before it starts; the same container may be announced again.
    Attach(Box<Announcement>),
    /// The container is gone.
    Remove {
        /// Its id.
        id: String,
    },
}

/// From the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "reply")]
pub enum Reply {
    /// The container is observed from now on.
    Attached,
    /// It is not, on purpose.
    Ignored {
        /// Why.
        reason: String,
    },
    /// Nothing is left of the container; also when nothing was known of it.
    Removed,
    /// It is not observed, and that is a fault.
    Failed {
        /// Why, and what to do.
        reason: String,
    },
}

/// Why a frame cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The first bytes are another protocol's.
    #[error(
        "the peer does not speak pilotfish's protocol: check that the socket belongs to `pilotfish node`"
    )]
    Magic,
    /// Another version.
    #[error(
        "the peer speaks version {theirs} of the protocol, this is version {VERSION}: install the hook and the agent of one release"
    )]
    Version {
        /// The peer's.
        theirs: u16,
    },
    /// The body is too long.
    #[error("the message has {0} bytes, more than the {MAX_BODY} allowed")]
    TooLong(usize),
    /// The body is no such message.
    #[error("the message cannot be read: {0}")]
    Body(String),
}

/// True for an id that the runtimes make and that is safe as a file name: 1 to 128 ASCII letters, digits, `_`, `+`,
/// `.`, `-`, the first a letter or digit (runc's own rule without the leading punctuation).
pub fn is_container_id(id: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_+.-".contains(&byte);
    (1..=128).contains(&id.len())
        && id.bytes().all(allowed)
        && id.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric)
}

/// A frame around a message.
pub fn encode(message: &impl Serialize) -> Result<Vec<u8>, FrameError> {
    let body = serde_json::to_vec(message).map_err(|error| FrameError::Body(error.to_string()))?;
    let length = u32::try_from(body.len())
        .ok()
        .filter(|_| body.len() <= MAX_BODY)
        .ok_or(FrameError::TooLong(body.len()))?;
    let mut frame = Vec::with_capacity(HEADER + body.len());
    frame.extend_from_slice(&MAGIC);
    frame.extend_from_slice(&VERSION.to_le_bytes());
    frame.extend_from_slice(&[0; 2]);
    frame.extend_from_slice(&length.to_le_bytes());
    frame.extend_from_slice(&body);
    Ok(frame)
}

/// The length of the body that follows a header.
pub fn body_length(header: &[u8; HEADER]) -> Result<usize, FrameError> {
    let [m0, m1, m2, m3, v0, v1, _, _, l0, l1, l2, l3] = *header;
    if [m0, m1, m2, m3] != MAGIC {
        return Err(FrameError::Magic);
    }
    let theirs = u16::from_le_bytes([v0, v1]);
    if theirs != VERSION {
        return Err(FrameError::Version { theirs });
    }
    let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
    if length > MAX_BODY {
        return Err(FrameError::TooLong(length));
    }
    Ok(length)
}

/// The message of a body.
pub fn decode<M: DeserializeOwned>(body: &[u8]) -> Result<M, FrameError> {
    serde_json::from_slice(body).map_err(|error| FrameError::Body(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_comes_back_as_it_was_sent() {
        let request = Request::Remove {
            id: "a1".to_owned(),
        };
        let frame = encode(&request).unwrap();
        let (header, body) = frame.split_first_chunk::<HEADER>().unwrap();
        assert_eq!(body_length(header), Ok(body.len()));
        assert_eq!(decode::<Request>(body), Ok(request));
    }

    #[test]
    fn other_protocols_versions_and_lengths_are_refused() {
        let mut header = [0; HEADER];
        assert_eq!(body_length(&header), Err(FrameError::Magic));
        header[..4].copy_from_slice(&MAGIC);
        assert_eq!(body_length(&header), Err(FrameError::Version { theirs: 0 }));
        header[4] = 1;
        assert_eq!(body_length(&header), Ok(0));
        header[10] = 0x10;
        assert_eq!(body_length(&header), Err(FrameError::TooLong(0x10_0000)));
    }

    #[test]
    fn ids_are_safe_file_names() {
        assert!(is_container_id("3f1c0de1a5b0"));
        assert!(is_container_id("web-1_a.b+c"));
        for id in ["", ".", "..", "../x", "a/b", "-x", "a\0b", "ü"] {
            assert!(!is_container_id(id), "{id:?}");
        }
        assert!(!is_container_id(&"a".repeat(129)));
    }

    #[test]
    fn annotations_select_containers_and_no_sandbox() {
        let of = |pairs: &[(&str, &str)]| {
            let all = pairs
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect();
            Announcement::of_container("a1".to_owned(), 7, &all, Path::new("/bundle"))
        };
        let instrument = ("pilotfish.dev/instrument", "true");
        let kind = "io.kubernetes.cri.container-type";
        assert_eq!(
            of(&[instrument]).map(|found| found.id),
            Some("a1".to_owned())
        );
        assert!(of(&[instrument, (kind, "container")]).is_some());
        assert_eq!(of(&[instrument, (kind, "sandbox")]), None);
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[("pilotfish.dev/instrument", "false")]), None);
        let name = ("io.kubernetes.cri.container-name", "web");
        let listed = |list| {
            of(&[
                ("pilotfish.dev/instrument", list),
                name,
                (kind, "container"),
            ])
        };
        assert!(listed("api,web").is_some());
        assert_eq!(listed("api"), None);
    }
}
