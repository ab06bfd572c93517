//! Buildah with a storage of its own: no daemon, no registry, no trace in the machine's own images.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use super::Image;
use super::architecture::Architecture;
use super::origin::Origin;
use crate::command;
use crate::workspace::Workspace;

/// A storage for one run, removed at its end.
pub(super) struct Buildah {
    directory: PathBuf,
}

impl Buildah {
    /// Makes an empty storage.
    pub(super) fn new(directory: PathBuf) -> Result<Self> {
        remove(&directory)?;
        fs::create_dir_all(&directory)
            .with_context(|| format!("cannot create {}", directory.display()))?;
        Ok(Self { directory })
    }

    fn command(&self, subcommand: &str) -> Command {
        let mut buildah = Command::new("buildah");
        buildah
            // The only driver that needs neither a mount nor a kernel's file system for it.
            .args(["--storage-driver", "vfs", "--root"])
            .arg(self.directory.join("root"))
            .arg("--runroot")
            .arg(self.directory.join("run"))
            .arg(subcommand)
            .env("TMPDIR", &self.directory);
        buildah
    }

    /// Builds an image from its file tree. Its health check is the result: the OCI format has no place for one, so
    /// that it is lost on the way into an archive.
    pub(super) fn build(
        &self,
        workspace: &Workspace,
        image: &Image,
        architecture: Architecture,
        origin: &Origin,
        tree: &Path,
    ) -> Result<Value> {
        command::run(
            self.command("build")
                .args(["--quiet", "--format", "docker", "--isolation", "chroot"])
                .args(["--layers=false", "--identity-label=false"])
                .args(["--arch", architecture.name])
                .arg(format!("--timestamp={}", origin.epoch))
                .args(["--build-arg", "PROGRAMS=local"])
                .arg(format!("--build-arg=VERSION={}", super::VERSION))
                .arg(format!("--build-arg=REVISION={}", origin.revision))
                .args(["--tag", &image.reference(), "--file"])
                .arg(workspace.path(image.containerfile))
                .arg(tree),
        )?;
        let inspected =
            command::output(
                self.command("inspect")
                    .args(["--type", "image", &image.reference()]),
            )?;
        let inspected: Value =
            serde_json::from_str(&inspected).context("buildah inspect wrote no JSON")?;
        Ok(inspected["Docker"]["config"]["Healthcheck"].clone())
    }

    /// Writes an image as an OCI layout, a directory that must not exist.
    pub(super) fn write_layout(&self, image: &Image, layout: &Path) -> Result<()> {
        remove(layout)?;
        command::run(
            self.command("push")
                .args(["--quiet", "--format", "oci", &image.reference()])
                .arg(format!("oci:{}:{}", layout.display(), image.reference())),
        )
    }
}

impl Drop for Buildah {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.directory) {
            eprintln!("warning: {error:#}");
        }
    }
}

fn remove(directory: &Path) -> Result<()> {
    if directory.exists() {
        fs::remove_dir_all(directory)
            .with_context(|| format!("cannot remove {}", directory.display()))?;
    }
    Ok(())
}
