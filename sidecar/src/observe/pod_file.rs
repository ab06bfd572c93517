//! The annotations of our own pod, as the Downward API writes them into a file.

use pilotfish_workload::annotations::{parse_downward, relevant};
use std::{
    collections::BTreeMap,
    fs::OpenOptions,
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// Longest file that is read, bytes. Kubernetes allows 256 KiB of annotations, which escaping can make longer.
pub const MAX_FILE: u64 = 1 << 20;

/// What a pod says about its containers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pod {
    /// Annotations that concern us.
    pub annotations: BTreeMap<String, String>,
    /// What could not be read.
    pub warnings: Vec<String>,
}

/// The file cannot be read at the start.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot read the pod's annotations from {path}: {source}; mount a downwardAPI volume with \
     `fieldRef: {{fieldPath: metadata.annotations}}` there, or leave --annotations-file out"
)]
pub struct PodFileError {
    path: String,
    source: io::Error,
}

/// A Downward API file that may change. Kubernetes replaces it through a link, so its text is compared, not the file.
#[derive(Debug)]
pub struct PodFile {
    path: PathBuf,
    text: String,
    /// The last failure, told once.
    failure: Option<String>,
}

impl PodFile {
    /// Reads it for the first time.
    pub fn open(path: &Path) -> Result<(Self, Pod), PodFileError> {
        let text = read(path).map_err(|source| PodFileError {
            path: path.display().to_string(),
            source,
        })?;
        let pod = parse(&text);
        let file = Self {
            path: path.to_owned(),
            text,
            failure: None,
        };
        Ok((file, pod))
    }

    /// What it says now, if that is something else than before. What cannot be read leaves the former in force.
    pub fn poll(&mut self) -> Option<Pod> {
        match read(&self.path) {
            Ok(text) => {
                self.failure = None;
                if text == self.text {
                    return None;
                }
                self.text = text;
                Some(parse(&self.text))
            }
            Err(error) => {
                let failure = error.to_string();
                if self.failure.as_ref() != Some(&failure) {
                    tracing::warn!(
                        file = %self.path.display(),
                        error = failure,
                        "the pod's annotations cannot be read, those read last stay in force"
                    );
                    self.failure = Some(failure);
                }
                None
            }
        }
    }
}

/// A regular file, links followed: Kubernetes puts links there. A FIFO must not hold us up.
fn read(path: &Path) -> io::Result<String> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(nix::libc::O_NONBLOCK)
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut text = String::new();
    let read = file.take(MAX_FILE + 1).read_to_string(&mut text)?;
    if read as u64 > MAX_FILE {
        return Err(io::Error::other("it is longer than 1 MiB"));
    }
    Ok(text)
}

fn parse(text: &str) -> Pod {
    let (pairs, mut warnings) = parse_downward(text);
    let (annotations, left_out) = relevant(&pairs);
    warnings.extend(left_out);
    Pod {
        annotations,
        warnings,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::symlink};

    fn directory(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("pilotfish-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).unwrap();
        path
    }

    fn ratio(pod: &Pod) -> Option<&str> {
        pod.annotations
            .get("pilotfish.dev/sample-ratio")
            .map(String::as_str)
    }

    #[test]
    fn a_swapped_link_is_noticed_and_a_missing_file_survived() {
        let directory = directory("pod-file");
        let write = |version: &str, ratio: &str| {
            let text = format!("other=\"x\"\npilotfish.dev/sample-ratio=\"{ratio}\"\n");
            fs::create_dir(directory.join(version)).unwrap();
            fs::write(directory.join(version).join("annotations"), text).unwrap();
            let _ = fs::remove_file(directory.join("..data"));
            symlink(version, directory.join("..data")).unwrap();
        };
        write("1", "0.5");
        symlink("..data/annotations", directory.join("annotations")).unwrap();
        let (mut file, pod) = PodFile::open(&directory.join("annotations")).unwrap();
        assert_eq!((ratio(&pod), pod.annotations.len()), (Some("0.5"), 1));
        assert_eq!(file.poll(), None);

        write("2", "0.25");
        assert_eq!(ratio(&file.poll().unwrap()), Some("0.25"));
        assert_eq!(file.poll(), None);

        fs::remove_file(directory.join("..data")).unwrap();
        assert_eq!(file.poll(), None);
        assert!(file.failure.is_some());
        write("3", "0.25");
        assert_eq!(file.poll(), None, "the same text");
        assert_eq!(file.failure, None);
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn what_is_no_such_file_is_refused_with_advice() {
        let directory = directory("pod-file-refused");
        let fifo = directory.join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let long = directory.join("long");
        fs::write(&long, vec![b'a'; MAX_FILE as usize + 1]).unwrap();
        for path in [&directory, &fifo, &long, &directory.join("absent")] {
            let message = PodFile::open(path).unwrap_err().to_string();
            assert!(message.contains("downwardAPI"), "{message}");
            assert!(message.contains(&*path.to_string_lossy()), "{message}");
        }
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn lines_that_cannot_be_read_are_warned_of() {
        let pod = parse("nonsense\npilotfish.dev/ports=\"80\"\n");
        assert_eq!(pod.annotations.len(), 1);
        assert_eq!(pod.warnings.len(), 1);
    }
}
