//! `cargo xtask image`: container images from locally built programs, without a registry and without a daemon.

mod architecture;
mod archive;
mod buildah;
mod origin;
mod programs;
mod sbom;
mod tree;

use std::fs;
use std::path::{Path, PathBuf};

use anstream::println;
use anyhow::{Context, Result, bail};
use clap::Args;

use crate::command;
use crate::setup;
use crate::workspace::Workspace;
use architecture::{Architecture, Choice};
use buildah::Buildah;
use origin::Origin;
use programs::Programs;

/// That of every package of the workspace.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Most bytes that the files of an image may have.
const LARGEST: u64 = 15_000_000;

/// Programs that the build calls, beside cargo and compilers.
const NEEDED: &[&str] = &["buildah", "setcap", "sha256sum", "tar"];

/// One of the images.
struct Image {
    /// Its name without the version.
    name: &'static str,
    /// What it is made by.
    containerfile: &'static str,
    /// Whether it holds the OCI hook.
    has_hook: bool,
    /// Whether the agent gets its capabilities from its file, as no user but root has any.
    file_capabilities: bool,
}

const IMAGES: &[Image] = &[
    Image {
        name: "pilotfish",
        containerfile: "images/agent/Containerfile",
        has_hook: false,
        file_capabilities: true,
    },
    Image {
        name: "pilotfish-node",
        containerfile: "images/node/Containerfile",
        has_hook: true,
        file_capabilities: false,
    },
];

impl Image {
    /// The name that manifests use.
    fn reference(&self) -> String {
        format!("{}:{VERSION}", self.name)
    }

    /// What runtimes make of that name.
    fn full_reference(&self) -> String {
        format!("docker.io/library/{}", self.reference())
    }
}

/// Options of `image`.
#[derive(Args)]
pub(crate) struct Options {
    /// For which machines; by default for those like this one
    #[arg(long, value_enum, value_name = "ARCHITECTURE")]
    arch: Option<Choice>,
    /// Where archives and bills of materials go; by default target/images
    #[arg(long, value_name = "DIRECTORY")]
    dest: Option<PathBuf>,
    /// Only lay out the images' files in directories beneath this one; the Containerfiles call this
    #[arg(long, value_name = "DIRECTORY", conflicts_with = "dest")]
    trees: Option<PathBuf>,
}

impl Options {
    /// Images that this machine runs, in their place.
    pub(crate) fn native() -> Self {
        Self {
            arch: None,
            dest: None,
            trees: None,
        }
    }
}

/// The `image` command.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let architectures = options.arch.unwrap_or_else(Choice::native).architectures();
    if !setup::is_root() {
        bail!("images are built by root: file capabilities and owners in a file tree need it");
    }
    let origin = Origin::find(workspace)?;
    if let Some(trees) = &options.trees {
        let [architecture] = architectures else {
            bail!("--trees lays out the files of one architecture, not of all");
        };
        let programs = Programs::build(workspace, *architecture, &origin)?;
        for image in IMAGES {
            tree::lay_out(workspace, image, &programs, &trees.join(image.name))?;
        }
        return Ok(());
    }
    if let Some(missing) = NEEDED.iter().find(|program| !command::on_path(program)) {
        bail!("there is no {missing}: run `cargo xtask setup`");
    }
    let place = options
        .dest
        .clone()
        .unwrap_or_else(|| workspace.path("target/images"));
    fs::create_dir_all(&place).with_context(|| format!("cannot create {}", place.display()))?;
    for &architecture in architectures {
        make(workspace, architecture, &origin, &place)?;
    }
    Ok(())
}

/// Builds both images for an architecture.
fn make(
    workspace: &Workspace,
    architecture: Architecture,
    origin: &Origin,
    place: &Path,
) -> Result<()> {
    let programs = Programs::build(workspace, architecture, origin)?;
    // Not `image`: that is cargo's directory of the profile with this name.
    let work = workspace.target().join("image-work");
    for image in IMAGES {
        let buildah = Buildah::new(work.join("storage"))?;
        let tree = work.join("tree");
        let size = tree::lay_out(workspace, image, &programs, &tree)?;
        if size > LARGEST {
            bail!(
                "image {} for {} has {size} bytes of files; at most {LARGEST} are allowed",
                image.name,
                architecture.name
            );
        }
        let health_check = buildah.build(workspace, image, architecture, origin, &tree)?;
        let layout = work.join("layout");
        buildah.write_layout(image, &layout)?;
        archive::complete(&layout, image, health_check)?;
        let stem = format!("{}-{}", image.name, architecture.name);
        let archive = place.join(format!("{stem}.tar"));
        archive::pack(&layout, origin, &archive)?;
        sbom::write(
            workspace,
            image,
            architecture,
            origin,
            &place.join(format!("{stem}.cdx.json")),
        )?;
        println!(
            "{:<32} {:>5.1} MB of files, {:.1} MB packed{}",
            format!("{stem}.tar"),
            megabytes(size),
            megabytes(fs::metadata(&archive)?.len()),
            if architecture.is_native() {
                ""
            } else {
                ", built and not tested"
            }
        );
    }
    fs::remove_dir_all(&work).with_context(|| format!("cannot remove {}", work.display()))
}

fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_image_has_a_containerfile() {
        let workspace = Workspace::locate();
        for image in IMAGES {
            let file = workspace.path(image.containerfile);
            let text = fs::read_to_string(&file).unwrap();
            // Without a tree of local programs it compiles them, by the same command.
            assert!(text.contains("cargo xtask image"), "{}", file.display());
            assert!(
                text.contains(&format!("/trees/{}/", image.name)),
                "{}",
                file.display()
            );
            assert_eq!(
                text.contains("\nUSER 65532:65532\n"),
                image.file_capabilities
            );
        }
    }
}
