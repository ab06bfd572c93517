//! The annotations and labels of our own pod, as the Downward API writes them into files.

use pilotfish_workload::{
    annotations::{parse_downward, relevant},
    naming_labels,
};
use std::{
    collections::BTreeMap,
    fmt,
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
    /// Labels that name the service.
    pub labels: BTreeMap<String, String>,
    /// What could not be read.
    pub warnings: Vec<String>,
}

/// A file cannot be read at the start.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot read the pod's {what} from {path}: {source}; mount a downwardAPI volume with \
     `fieldRef: {{fieldPath: metadata.{what}}}` there, or leave --{what}-file out"
)]
pub struct PodFileError {
    what: What,
    path: String,
    source: io::Error,
}

/// What a file holds, by the name of the field of `metadata`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Annotations,
    Labels,
}

impl fmt::Display for What {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Annotations => "annotations",
            Self::Labels => "labels",
        })
    }
}

/// The files of our pod that there are. They may change.
#[derive(Debug, Default)]
pub struct PodFiles {
    annotations: Option<PodFile>,
    labels: Option<PodFile>,
}

impl PodFiles {
    /// Reads those that are named for the first time.
    pub fn open(
        annotations: Option<&Path>,
        labels: Option<&Path>,
    ) -> Result<(Self, Pod), PodFileError> {
        let open =
            |what, path: Option<&Path>| path.map(|path| PodFile::open(what, path)).transpose();
        let files = Self {
            annotations: open(What::Annotations, annotations)?,
            labels: open(What::Labels, labels)?,
        };
        let pod = files.pod();
        Ok((files, pod))
    }

    /// Whether there is a file that can change.
    pub fn is_empty(&self) -> bool {
        self.annotations.is_none() && self.labels.is_none()
    }

    /// What they say now, if that is something else than before. What cannot be read leaves the former in force.
    pub fn poll(&mut self) -> Option<Pod> {
        let mut changed = false;
        for file in [&mut self.annotations, &mut self.labels]
            .into_iter()
            .flatten()
        {
            changed |= file.poll();
        }
        changed.then(|| self.pod())
    }

    fn pod(&self) -> Pod {
        let read = |file: &Option<PodFile>| {
            let text = file.as_ref().map_or("", |file| &file.text);
            parse_downward(text)
        };
        let (annotations, mut warnings) = read(&self.annotations);
        let (annotations, left_out) = relevant(&annotations);
        let (labels, unread) = read(&self.labels);
        warnings.extend(left_out);
        warnings.extend(unread);
        Pod {
            annotations,
            labels: naming_labels(labels),
            warnings,
        }
    }
}

/// A Downward API file that may change. Kubernetes replaces it through a link, so its text is compared, not the file.
#[derive(Debug)]
struct PodFile {
    what: What,
    path: PathBuf,
    text: String,
    /// The last failure, told once.
    failure: Option<String>,
}

impl PodFile {
    fn open(what: What, path: &Path) -> Result<Self, PodFileError> {
        let text = read(path).map_err(|source| PodFileError {
            what,
            path: path.display().to_string(),
            source,
        })?;
        Ok(Self {
            what,
            path: path.to_owned(),
            text,
            failure: None,
        })
    }

    /// Reads it again: true if it says something else.
    fn poll(&mut self) -> bool {
        match read(&self.path) {
            Ok(text) => {
                self.failure = None;
                let changed = text != self.text;
                self.text = text;
                changed
            }
            Err(error) => {
                let failure = error.to_string();
                if self.failure.as_ref() != Some(&failure) {
                    tracing::warn!(
                        what = %self.what,
                        file = %self.path.display(),
                        error = failure,
                        "a file of the pod cannot be read, what was read last stays in force"
                    );
                    self.failure = Some(failure);
                }
                false
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
        let (mut files, pod) = PodFiles::open(Some(&directory.join("annotations")), None).unwrap();
        assert_eq!((ratio(&pod), pod.annotations.len()), (Some("0.5"), 1));
        assert_eq!(files.poll(), None);

        write("2", "0.25");
        assert_eq!(ratio(&files.poll().unwrap()), Some("0.25"));
        assert_eq!(files.poll(), None);

        fs::remove_file(directory.join("..data")).unwrap();
        assert_eq!(files.poll(), None);
        let failure = |files: &PodFiles| files.annotations.as_ref().unwrap().failure.clone();
        assert!(failure(&files).is_some());
        write("3", "0.25");
        assert_eq!(files.poll(), None, "the same text");
        assert_eq!(failure(&files), None);
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
            for (annotations, labels, what) in [
                (Some(path), None, "annotations"),
                (None, Some(path), "labels"),
            ] {
                let opened = PodFiles::open(
                    annotations.map(PathBuf::as_path),
                    labels.map(PathBuf::as_path),
                );
                let message = opened.unwrap_err().to_string();
                let flag = format!("--{what}-file");
                for word in ["downwardAPI", &flag, &*path.to_string_lossy()] {
                    assert!(message.contains(word), "no {word}: {message}");
                }
            }
        }
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn lines_that_cannot_be_read_are_warned_of() {
        let directory = directory("pod-file-lines");
        let write = |name: &str, text: &str| {
            let path = directory.join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let annotations = write("annotations", "nonsense\npilotfish.dev/ports=\"80\"\n");
        let labels = write(
            "labels",
            "app.kubernetes.io/name=shop\njob-name=\"nightly\"\n",
        );
        let (_, pod) = PodFiles::open(Some(&annotations), Some(&labels)).unwrap();
        assert_eq!((pod.annotations.len(), pod.warnings.len()), (1, 2));
        let expected = [("job-name".to_owned(), "nightly".to_owned())];
        assert_eq!(pod.labels, BTreeMap::from(expected));
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn labels_change_without_the_annotations() {
        let directory = directory("pod-file-labels");
        let labels = directory.join("labels");
        let annotations = directory.join("annotations");
        let name = |name: &str| fs::write(&labels, format!("app.kubernetes.io/name=\"{name}\"\n"));
        fs::write(&annotations, "pilotfish.dev/ports=\"80\"\n").unwrap();
        name("shop").unwrap();
        let (mut files, _) = PodFiles::open(Some(&annotations), Some(&labels)).unwrap();
        assert_eq!(files.poll(), None);
        name("store").unwrap();
        let pod = files.poll().unwrap();
        assert_eq!(pod.labels["app.kubernetes.io/name"], "store");
        assert_eq!(pod.annotations.len(), 1);
        assert_eq!(files.poll(), None);
        fs::remove_dir_all(directory).unwrap();
    }
}
