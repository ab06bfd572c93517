//! Manifests from files, directories and standard input.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

/// Most bytes of all manifests together.
const MAX_BYTES: u64 = 64 << 20;

/// Names of files that are read in a directory.
const EXTENSIONS: [&str; 3] = ["yaml", "yml", "json"];

/// Why manifests cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// The system says no.
    #[error("cannot read {path}: {source}")]
    Read {
        /// Which file or directory.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A directory without manifests.
    #[error("{0} has no .yaml, .yml or .json file")]
    EmptyDirectory(String),
    /// More than `MAX_BYTES`.
    #[error("{0} is too much: manifests may have {most} MiB together", most = MAX_BYTES >> 20)]
    TooLarge(String),
    /// Not UTF-8.
    #[error("{0} is not UTF-8 text")]
    NotText(String),
}

/// One text and where it is from.
#[derive(Debug)]
pub(super) struct Source {
    /// For messages.
    pub(super) name: String,
    pub(super) text: String,
}

/// Reads all of them, `-` as standard input.
pub(super) fn read(files: &[PathBuf]) -> Result<Vec<Source>, InputError> {
    let mut left = MAX_BYTES;
    let mut sources = Vec::new();
    for file in files {
        for path in expand(file)? {
            let source = read_one(&path, left)?;
            left -= source.text.len() as u64;
            sources.push(source);
        }
    }
    Ok(sources)
}

fn is_standard_input(path: &Path) -> bool {
    path == Path::new("-")
}

/// The manifests of a directory, by name; of a file itself.
fn expand(path: &Path) -> Result<Vec<PathBuf>, InputError> {
    if is_standard_input(path) || !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = fs::read_dir(path)
        .and_then(Iterator::collect::<io::Result<Vec<_>>>)
        .map_err(|source| failed(path, source))?;
    let is_manifest = |path: &PathBuf| {
        let extension = path.extension().and_then(|extension| extension.to_str());
        extension.is_some_and(|extension| EXTENSIONS.contains(&extension)) && path.is_file()
    };
    let mut files: Vec<PathBuf> = entries
        .iter()
        .map(fs::DirEntry::path)
        .filter(is_manifest)
        .collect();
    files.sort_unstable();
    if files.is_empty() {
        return Err(InputError::EmptyDirectory(path.display().to_string()));
    }
    Ok(files)
}

fn read_one(path: &Path, most: u64) -> Result<Source, InputError> {
    let name = if is_standard_input(path) {
        "standard input".to_owned()
    } else {
        path.display().to_string()
    };
    let mut bytes = Vec::new();
    let read = if is_standard_input(path) {
        io::stdin().lock().take(most + 1).read_to_end(&mut bytes)
    } else {
        File::open(path).and_then(|file| file.take(most + 1).read_to_end(&mut bytes))
    };
    read.map_err(|source| failed(path, source))?;
    if bytes.len() as u64 > most {
        return Err(InputError::TooLarge(name));
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Source { name, text }),
        Err(_) => Err(InputError::NotText(name)),
    }
}

fn failed(path: &Path, source: io::Error) -> InputError {
    InputError::Read {
        path: path.display().to_string(),
        source,
    }
}
