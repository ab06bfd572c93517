//! The bundle's `config.json` (runtime-spec, "Configuration"): its annotations.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::Mode;
use serde::Deserialize;

/// Longest configuration that is read, bytes.
pub const MAX_SPEC: u64 = 4 * 1024 * 1024;

/// The file's name in its bundle.
const NAME: &str = "config.json";

/// Why the configuration is not used.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    /// The bundle is not there, or is no directory.
    #[error("the bundle {bundle} cannot be opened: {source}")]
    Bundle {
        /// Its path.
        bundle: String,
        /// Why.
        source: io::Error,
    },
    /// Absent, unreadable, or a symbolic link.
    #[error("{NAME} of the bundle cannot be opened: {0}")]
    Open(#[source] io::Error),
    /// A directory, a FIFO, a device.
    #[error("{NAME} of the bundle is not a regular file")]
    NoFile,
    /// More than [`MAX_SPEC`].
    #[error("{NAME} of the bundle is longer than the {MAX_SPEC} bytes allowed")]
    TooLong,
    /// Read error.
    #[error("{NAME} of the bundle cannot be read: {0}")]
    Read(#[source] io::Error),
    /// Not a configuration.
    #[error("{NAME} of the bundle is not what the OCI runtime specification defines: {0}")]
    Syntax(#[source] serde_json::Error),
}

/// The part of a configuration that is used.
///
/// Not `oci_spec::runtime::Spec`: a field of a later specification anywhere in the file would hide the annotations,
/// and it makes a binary of 0.9 MB one of 2.5 MB (regular expressions for CPU lists). It is the tests' second opinion; what we *write* into a spec is of its types.
#[derive(Deserialize)]
struct Annotated {
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

/// Opens a bundle's directory; a runtime names it, so links in its path are the runtime's.
pub fn open_bundle(bundle: &Path) -> Result<OwnedFd, SpecError> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    nix::fcntl::open(bundle, flags, Mode::empty()).map_err(|errno| SpecError::Bundle {
        bundle: bundle.display().to_string(),
        source: errno.into(),
    })
}

/// Reads the annotations of the bundle. Only a regular file directly in it is read, whatever has been put there.
pub fn read(bundle: &OwnedFd) -> Result<BTreeMap<String, String>, SpecError> {
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC)
        .resolve(
            ResolveFlag::RESOLVE_NO_SYMLINKS
                | ResolveFlag::RESOLVE_NO_MAGICLINKS
                | ResolveFlag::RESOLVE_BENEATH,
        );
    let file = openat2(bundle, NAME, how).map_err(|errno| SpecError::Open(errno.into()))?;
    let file = File::from(file);
    let metadata = file.metadata().map_err(SpecError::Read)?;
    if !metadata.is_file() {
        return Err(SpecError::NoFile);
    }
    if metadata.len() > MAX_SPEC {
        return Err(SpecError::TooLong);
    }
    let mut text = Vec::with_capacity(metadata.len() as usize + 1);
    // It may grow.
    file.take(MAX_SPEC + 1)
        .read_to_end(&mut text)
        .map_err(SpecError::Read)?;
    annotations(&text)
}

/// The annotations in a JSON text.
pub fn annotations(text: &[u8]) -> Result<BTreeMap<String, String>, SpecError> {
    if text.len() as u64 > MAX_SPEC {
        return Err(SpecError::TooLong);
    }
    serde_json::from_slice::<Annotated>(text)
        .map(|spec| spec.annotations.unwrap_or_default())
        .map_err(SpecError::Syntax)
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::{Spec, SpecBuilder};

    use super::*;

    #[test]
    fn annotations_are_those_of_the_specification() {
        let pairs = [
            ("a", "b"),
            ("pilotfish.dev/instrument", "tr\"ue\n\u{1f41f}"),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()));
        let spec = SpecBuilder::default()
            .annotations(std::collections::HashMap::from(pairs.clone()))
            .build()
            .unwrap();
        for text in [
            serde_json::to_vec(&spec).unwrap(),
            serde_json::to_vec_pretty(&spec).unwrap(),
        ] {
            assert_eq!(annotations(&text).unwrap(), BTreeMap::from(pairs.clone()));
        }
        let none = serde_json::to_vec(&Spec::default()).unwrap();
        assert!(annotations(&none).unwrap().is_empty());
    }

    #[test]
    fn fields_of_a_later_specification_do_not_hide_them() {
        let text = br#"{"ociVersion":"9","process":{"capabilities":{"bounding":["CAP_OF_TOMORROW"]},"cwd":7},"annotations":{"a":"b"}}"#;
        assert!(serde_json::from_slice::<Spec>(text).is_err());
        assert_eq!(annotations(text).unwrap()["a"], "b");
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["", "{", "7", r#"{"annotations":{"a":1}}"#] {
            assert!(
                matches!(annotations(text.as_bytes()), Err(SpecError::Syntax(_))),
                "{text}"
            );
        }
        let deep = r#"{"process":"#.repeat(200_000);
        assert!(annotations(deep.as_bytes()).is_err());
        assert!(matches!(
            annotations(&vec![b' '; MAX_SPEC as usize + 1]),
            Err(SpecError::TooLong)
        ));
    }
}
