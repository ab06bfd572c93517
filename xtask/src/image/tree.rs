//! The file tree of an image, laid out beneath a directory.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::Image;
use super::programs::Programs;
use crate::command;
use crate::workspace::Workspace;

/// Certificate authorities as Debian's package ca-certificates has them. The bundle in `/etc/ssl` would be this
/// machine's own, with whatever its owner added.
const AUTHORITIES: &str = "/usr/share/ca-certificates/mozilla";

/// Permitted, not effective: without the effective bit the program starts where a container lacks one of them, and says
/// which (`check::privileges::raise`).
const FILE_CAPABILITIES: &str = "cap_bpf,cap_perfmon,cap_sys_ptrace+p";

/// Lays out everything that an image holds. Its size in bytes is the result.
pub(super) fn lay_out(
    workspace: &Workspace,
    image: &Image,
    programs: &Programs,
    tree: &Path,
) -> Result<u64> {
    if tree.exists() {
        fs::remove_dir_all(tree).with_context(|| format!("cannot remove {}", tree.display()))?;
    }
    let bundle = authorities(Path::new(AUTHORITIES))?;
    put(tree, "etc/ssl/certs/ca-certificates.crt", &bundle, 0o644)?;
    for name in ["etc/passwd", "etc/group"] {
        copy(
            &workspace.path("images/files").join(name),
            tree,
            name,
            0o644,
        )?;
    }
    for (file, name) in [
        ("LICENSE-APACHE", "LICENSE-APACHE"),
        ("LICENSE-MIT", "LICENSE-MIT"),
        ("ebpf/LICENSE-GPL2", "LICENSE-GPL2"),
    ] {
        let place = format!("usr/share/doc/pilotfish/{name}");
        copy(&workspace.path(file), tree, &place, 0o644)?;
    }
    copy(&programs.agent, tree, "pilotfish", 0o755)?;
    if image.has_hook {
        copy(&programs.hook, tree, "pilotfish-hook", 0o755)?;
    }
    if image.file_capabilities {
        command::run(
            Command::new("setcap")
                .arg(FILE_CAPABILITIES)
                .arg(tree.join("pilotfish")),
        )?;
    }
    size(tree)
}

/// All certificates in one file, in the order of their files' names.
fn authorities(directory: &Path) -> Result<Vec<u8>> {
    let entries = fs::read_dir(directory).with_context(|| {
        format!(
            "no certificate authorities in {}: run `cargo xtask setup`",
            directory.display()
        )
    })?;
    let mut files: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|suffix| suffix == "crt"))
        .collect();
    if files.is_empty() {
        bail!("no certificate in {}", directory.display());
    }
    files.sort();
    let mut bundle = Vec::new();
    for file in files {
        bundle.extend(fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?);
        if !bundle.ends_with(b"\n") {
            bundle.push(b'\n');
        }
    }
    Ok(bundle)
}

fn copy(file: &Path, tree: &Path, place: &str, mode: u32) -> Result<()> {
    let bytes = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    put(tree, place, &bytes, mode)
}

fn put(tree: &Path, place: &str, bytes: &[u8], mode: u32) -> Result<()> {
    let place = tree.join(place);
    let write = || -> std::io::Result<()> {
        let parent = place.parent().unwrap_or(tree);
        fs::create_dir_all(parent)?;
        fs::write(&place, bytes)?;
        fs::set_permissions(&place, Permissions::from_mode(mode))?;
        // Whatever this shell's umask is.
        for directory in parent
            .ancestors()
            .take_while(|above| above.starts_with(tree))
        {
            fs::set_permissions(directory, Permissions::from_mode(0o755))?;
        }
        Ok(())
    };
    write().with_context(|| format!("cannot write {}", place.display()))
}

fn size(tree: &Path) -> Result<u64> {
    let mut total = 0;
    for entry in fs::read_dir(tree)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        total += if metadata.is_dir() {
            size(&entry.path())?
        } else {
            metadata.len()
        };
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let directory = std::env::temp_dir().join(format!("xtask-{name}-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        directory
    }

    #[test]
    fn a_bundle_holds_every_certificate_in_order() {
        let directory = scratch("authorities");
        assert!(authorities(&directory).is_err());
        for (name, text) in [("b.crt", "second\n"), ("a.crt", "first"), ("c.pem", "no\n")] {
            fs::write(directory.join(name), text).unwrap();
        }
        assert_eq!(authorities(&directory).unwrap(), b"first\nsecond\n");
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn a_tree_is_as_large_as_its_files() {
        let tree = scratch("tree");
        put(&tree, "etc/passwd", b"12345", 0o644).unwrap();
        put(&tree, "program", b"123", 0o755).unwrap();
        assert_eq!(size(&tree).unwrap(), 8);
        let mode = fs::metadata(tree.join("program")).unwrap().permissions();
        assert_eq!(mode.mode() & 0o7777, 0o755);
        fs::remove_dir_all(tree).unwrap();
    }
}
