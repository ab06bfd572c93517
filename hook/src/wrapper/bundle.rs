//! A bundle's `config.json`, to which the hook is added.

use super::Error;
use crate::install::{
    entry::{self, HookCommand},
    object::{self, Object},
    replace::replace,
    root::{MAX_FILE, open_regular},
};
use std::{io::Read, os::unix::fs::MetadataExt, path::Path};

/// Adds the hook's entries after those that are there, if the annotations ask for it; else nothing is written.
pub(super) fn add_hook(bundle: &Path, command: &HookCommand) -> Result<(), Error> {
    let path = bundle.join("config.json");
    let read = |source| Error::Read {
        path: path.clone(),
        source,
    };
    let (file, metadata) = open_regular(&path).map_err(read)?;
    let mut text = String::new();
    file.take(MAX_FILE)
        .read_to_string(&mut text)
        .map_err(read)?;
    let Some(changed) = with_hook(&path, &text, command)? else {
        return Ok(());
    };
    let owner = (metadata.uid(), metadata.gid());
    replace(
        &path,
        changed.as_bytes(),
        metadata.mode() & 0o7777,
        Some(owner),
    )
    .map_err(|source| Error::Write { path, source })
}

fn with_hook(path: &Path, text: &str, command: &HookCommand) -> Result<Option<String>, Error> {
    let wrong = |reason: String| Error::Spec {
        path: path.to_owned(),
        reason,
    };
    let mut spec = object::parse(text).map_err(|error| wrong(error.to_string()))?;
    if !asks(&spec) {
        return Ok(None);
    }
    let added = command
        .add_to(&mut spec)
        .map_err(|error| wrong(error.to_string()))?;
    Ok(added.then(|| object::write_like(text, &spec)))
}

/// Whether an annotation may select the container; the hook decides.
fn asks(spec: &Object) -> bool {
    let annotations = spec.get("annotations").and_then(object::Node::object);
    annotations
        .unwrap_or_default()
        .iter()
        .any(|(key, value)| value.text().is_some_and(|text| entry::asks(key, &text)))
}
