//! podman and CRI-O: two files in a directory of hooks, one per stage (oci-hooks(5), schema 1.0.0).

use super::{
    Error,
    entry::{ANNOTATION_PATTERN, HookCommand, STAGES, VALUE_PATTERN},
    object::{Node, Object, write_like},
    plan::Plan,
    root::Root,
};
use std::path::{Path, PathBuf};

/// The directory that both runtimes read with no configuration at all; `/etc/containers/oci/hooks.d` has to be
/// configured first (`hooks_dir` of containers.conf(5) and crio.conf(5)).
const DEFAULT: &str = "/usr/share/containers/oci/hooks.d";

pub(super) fn install(
    root: &Root,
    directory: Option<&Path>,
    command: &HookCommand,
    plan: &mut Plan,
) -> Result<(), Error> {
    for stage in STAGES {
        plan.write_own(root, &file(directory, stage), definition(command, stage))?;
    }
    Ok(())
}

pub(super) fn uninstall(
    root: &Root,
    directory: Option<&Path>,
    plan: &mut Plan,
) -> Result<(), Error> {
    for stage in STAGES {
        plan.remove_own(root, &file(directory, stage))?;
    }
    plan.note("podman and CRI-O share these files: neither calls the hook any more".to_owned());
    Ok(())
}

/// The hook learns its stage from its arguments, which a file gives for all of its stages: hence a file for each.
fn file(directory: Option<&Path>, stage: &str) -> PathBuf {
    let directory = directory.unwrap_or(Path::new(DEFAULT));
    directory.join(format!("pilotfish-{stage}.json"))
}

fn definition(command: &HookCommand, stage: &str) -> String {
    let annotations = Object::from([(ANNOTATION_PATTERN.to_owned(), Node::from(VALUE_PATTERN))]);
    let when = Object::from([("annotations".to_owned(), Node::Object(annotations))]);
    let hook = Object::from([
        ("version".to_owned(), Node::from("1.0.0")),
        ("hook".to_owned(), command.entry(stage)),
        ("when".to_owned(), Node::Object(when)),
        ("stages".to_owned(), Node::List(vec![Node::from(stage)])),
    ]);
    write_like(super::object::NEW, &hook)
}
