//! The bundle's `config.json` (runtime-spec, "Configuration"): its annotations and its program.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::Mode;
use serde::Deserialize;
use serde_json::value::RawValue;

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
/// and it makes a binary of 0.9 MB one of 2.5 MB (regular expressions for CPU lists). It is the tests' second opinion;
/// what we *write* into a spec is of its types.
#[derive(Deserialize)]
struct Written<'a> {
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
    #[serde(borrow, default)]
    process: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Process {
    args: Vec<String>,
}

/// What a configuration tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Configuration {
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// The program of the first process, a path or a name, where it can be read.
    pub program: Option<String>,
}

/// Opens a bundle's directory; a runtime names it, so links in its path are the runtime's.
pub fn open_bundle(bundle: &Path) -> Result<OwnedFd, SpecError> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    nix::fcntl::open(bundle, flags, Mode::empty()).map_err(|errno| SpecError::Bundle {
        bundle: bundle.display().to_string(),
        source: errno.into(),
    })
}

/// Reads the configuration of the bundle. Only a regular file directly in it is read, whatever has been put there.
pub fn read(bundle: &OwnedFd) -> Result<Configuration, SpecError> {
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
    parse(&text)
}

/// What a JSON text tells. A process that is not as the specification has it does not hide the annotations.
pub fn parse(text: &[u8]) -> Result<Configuration, SpecError> {
    if text.len() as u64 > MAX_SPEC {
        return Err(SpecError::TooLong);
    }
    let spec: Written = serde_json::from_slice(text).map_err(SpecError::Syntax)?;
    let process = spec
        .process
        .and_then(|process| serde_json::from_str::<Process>(process.get()).ok());
    Ok(Configuration {
        annotations: spec.annotations.unwrap_or_default(),
        program: process.and_then(|process| process.args.into_iter().next()),
    })
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
            let found = parse(&text).unwrap();
            assert_eq!(found.annotations, BTreeMap::from(pairs.clone()));
            // `Process::default` of the crate.
            assert_eq!(found.program.as_deref(), Some("sh"));
        }
        let none = serde_json::to_vec(&Spec::default()).unwrap();
        assert!(parse(&none).unwrap().annotations.is_empty());
    }

    #[test]
    fn fields_of_a_later_specification_do_not_hide_them() {
        let text = br#"{"ociVersion":"9","process":{"capabilities":{"bounding":["CAP_OF_TOMORROW"]},"cwd":7},"annotations":{"a":"b"}}"#;
        assert!(serde_json::from_slice::<Spec>(text).is_err());
        assert_eq!(parse(text).unwrap().annotations["a"], "b");
        for process in ["7", "{}", r#"{"args":[]}"#, r#"{"args":[7]}"#, "null"] {
            let text = format!(r#"{{"process":{process},"annotations":{{"a":"b"}}}}"#);
            let found = parse(text.as_bytes()).unwrap();
            assert_eq!(
                (found.annotations.len(), found.program),
                (1, None),
                "{text}"
            );
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["", "{", "7", r#"{"annotations":{"a":1}}"#] {
            assert!(
                matches!(parse(text.as_bytes()), Err(SpecError::Syntax(_))),
                "{text}"
            );
        }
        let deep = r#"{"process":"#.repeat(200_000);
        assert!(parse(deep.as_bytes()).is_err());
        assert!(matches!(
            parse(&vec![b' '; MAX_SPEC as usize + 1]),
            Err(SpecError::TooLong)
        ));
    }
}
