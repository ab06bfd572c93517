//! Directory trees of other Debian releases: the machines in which the integration tests run container runtimes.
//!
//! Nothing of them is installed on the host and the host's apt configuration stays as it is; its mirror is used.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::archive::{Archive, extract};
use crate::command;
use crate::workspace::Workspace;

/// Signs every release of Debian; part of its base system.
pub(super) const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// One tree below `target/tools/trees`.
pub(super) struct Tree {
    /// Its directory; `integration::runtime::Tree` knows it by this name.
    name: &'static str,
    /// What for.
    pub(super) reason: &'static str,
    /// The release it comes from. A stable one changes by point releases only.
    suite: &'static str,
    content: Content,
}

enum Content {
    /// A root file system with these packages beside the essential ones.
    System(&'static [&'static str]),
    /// The programs of one package, to lay over a system.
    Programs(&'static str),
    /// The Go compiler and sources of libraries for it, with all that they depend on. Debian's libraries depend on
    /// what any part of them imports; what is only needed by parts that nobody here uses is left out.
    Go {
        libraries: &'static [&'static str],
        without: &'static [&'static str],
    },
}

const TREES: &[Tree] = &[
    Tree {
        name: "debian13",
        reason: "machines with container runtimes (1 to 3 minutes, 0.7 GB)",
        suite: "trixie",
        content: Content::System(&[
            "runc",
            "crun",
            "podman",
            "netavark",
            "nftables",
            "catatonit",
            "containerd",
            "containernetworking-plugins",
            "docker.io",
            "docker-cli",
            "docker-compose",
            "iptables",
            "iproute2",
            "procps",
            "busybox-static",
            "ca-certificates",
            "curl",
            "nginx-light",
            "python3",
        ]),
    },
    Tree {
        name: "containerd-1.6",
        reason: "the oldest containerd that is supported",
        suite: "bookworm",
        content: Content::Programs("containerd"),
    },
    Tree {
        name: "containerd-2",
        reason: "containerd with configuration version 3",
        suite: "sid",
        content: Content::Programs("containerd"),
    },
    Tree {
        name: "kubectl",
        reason: "its debugging of running pods",
        suite: "trixie",
        content: Content::Programs("kubectl"),
    },
    Tree {
        name: "kustomize",
        reason: "builds the Kubernetes manifests",
        suite: "trixie",
        content: Content::Programs("kustomize"),
    },
    Tree {
        name: "apiserver",
        reason: "the API server's own evaluation of admission policies (1 minute, 0.8 GB)",
        // From Kubernetes 1.36 on these policies are stable; the releases before have older versions of the library.
        suite: "sid",
        content: Content::Go {
            libraries: &["golang-k8s-apiserver-dev"],
            without: &[
                "golang-etcd-server-dev",
                "golang-github-aws-aws-sdk-go-v2-dev",
                "golang-github-klauspost-compress-dev",
                "golang-golang-x-tools",
                "golang-golang-x-tools-dev",
                "golang-gonum-v1-gonum-dev",
                "golang-google-cloud-dev",
                "golang-mongodb-mongo-driver-dev",
            ],
        },
    },
];

impl Tree {
    /// What `setup` calls it.
    pub(super) fn label(&self) -> String {
        format!("tree {} of Debian {}", self.name, self.suite)
    }

    /// Written once the tree is whole, so that neither an aborted build nor an older recipe is taken for it.
    fn recipe(&self) -> String {
        let content = match self.content {
            Content::System(packages) => format!("system with {}", packages.join(" ")),
            Content::Programs(package) => format!("programs of {package}"),
            Content::Go { libraries, without } => format!(
                "Go with {} without {}",
                libraries.join(" "),
                without.join(" ")
            ),
        };
        format!("{}: {content}\n", self.suite)
    }

    fn stamp(&self, trees: &Path) -> PathBuf {
        trees.join(format!("{}.recipe", self.name))
    }

    fn is_missing(&self, trees: &Path) -> bool {
        !fs::read_to_string(self.stamp(trees)).is_ok_and(|stamp| stamp == self.recipe())
    }

    fn build(&self, trees: &Path, mirror: &str) -> Result<()> {
        let partial = trees.join(format!("{}.partial", self.name));
        remove(&partial)?;
        fs::create_dir_all(&partial)
            .with_context(|| format!("cannot create {}", partial.display()))?;
        let product = match self.content {
            Content::System(packages) => bootstrap(&partial, self.suite, packages, mirror)?,
            Content::Programs(package) => unpack(&partial, self.suite, package, mirror)?,
            Content::Go { libraries, without } => {
                gather(&partial, self.suite, libraries, without, mirror)?
            }
        };
        let place = trees.join(self.name);
        let stamp = self.stamp(trees);
        if stamp.exists() {
            fs::remove_file(&stamp)?;
        }
        // Removing takes long; until then the old one is in nobody's way.
        if place.exists() {
            fs::rename(&place, partial.join("old"))
                .with_context(|| format!("cannot move {} away", place.display()))?;
        }
        fs::rename(&product, &place)
            .with_context(|| format!("cannot move {} into its place", product.display()))?;
        fs::write(&stamp, self.recipe())
            .with_context(|| format!("cannot write {}", stamp.display()))?;
        remove(&partial)
    }
}

fn directory(workspace: &Workspace) -> PathBuf {
    workspace.tools().join("trees")
}

/// Trees that are not there, not whole, or made by another recipe.
pub(super) fn missing(workspace: &Workspace) -> Vec<&'static Tree> {
    let trees = directory(workspace);
    TREES
        .iter()
        .filter(|tree| tree.is_missing(&trees))
        .collect()
}

/// Builds trees, each in a directory of its own that takes its place at the end.
pub(super) fn install(workspace: &Workspace, wanted: &[&Tree]) -> Result<()> {
    if wanted.is_empty() {
        return Ok(());
    }
    let mirror = mirror()?;
    let trees = directory(workspace);
    fs::create_dir_all(&trees).with_context(|| format!("cannot create {}", trees.display()))?;
    // Another `setup` in this checkout would take the half of a tree away; what it has made is not made again.
    let lock = File::create(trees.join("lock")).context("cannot create the trees' lock")?;
    lock.lock().context("cannot lock the trees")?;
    for tree in wanted.iter().filter(|tree| tree.is_missing(&trees)) {
        tree.build(&trees, &mirror)
            .with_context(|| format!("cannot make the {}", tree.label()))?;
    }
    Ok(())
}

/// Where the host's apt gets Debian itself from.
fn mirror() -> Result<String> {
    let ask = || {
        command::output(Command::new("apt-get").args([
            "indextargets",
            "--format",
            "$(ORIGIN)\t$(LABEL)\t$(COMPONENT)\t$(REPO_URI)",
            "Created-By: Packages",
        ]))
    };
    let mut targets = ask()?;
    if debian_among(&targets).is_none() {
        // Without the release files apt does not know whose archive it is.
        command::run(Command::new("apt-get").args(["update", "--quiet"]))?;
        targets = ask()?;
    }
    match debian_among(&targets) {
        Some(mirror) => Ok(mirror.to_owned()),
        None => bail!(
            "apt knows no mirror of Debian; add one to /etc/apt/sources.list.d, then try again"
        ),
    }
}

fn debian_among(targets: &str) -> Option<&str> {
    targets
        .lines()
        .find_map(|line| line.strip_prefix("Debian\tDebian\tmain\t"))
}

/// A root file system. Its mounts stay in a mount namespace of their own, whatever ends the build.
fn bootstrap(partial: &Path, suite: &str, packages: &[&str], mirror: &str) -> Result<PathBuf> {
    let root = partial.join("root");
    let mut build = Command::new("unshare");
    build
        .args(["--mount", "--propagation", "private", "--", "debootstrap"])
        .args(["--variant=minbase", "--merged-usr"])
        .arg(format!("--keyring={KEYRING}"))
        .arg(format!("--include={}", packages.join(",")))
        .arg(suite)
        .arg(&root)
        .arg(mirror)
        // Maintainer scripts ask nobody.
        .env("DEBIAN_FRONTEND", "noninteractive");
    // It tells of its failures on standard output, and of everything else too.
    command::output(&mut build).with_context(|| {
        let log = fs::read_to_string(root.join("debootstrap/debootstrap.log")).unwrap_or_default();
        let last = log.lines().last().unwrap_or("empty");
        format!("the last line of debootstrap's log: {last}")
    })?;
    for waste in ["var/cache/apt/archives", "var/lib/apt/lists"] {
        remove(&root.join(waste))?;
    }
    Ok(root)
}

/// The programs of one package.
fn unpack(partial: &Path, suite: &str, package: &str, mirror: &str) -> Result<PathBuf> {
    let file = Archive::open(partial, suite, mirror)?.download(package)?;
    let unpacked = partial.join("unpacked");
    extract(&file, &unpacked)?;
    // A directory `lib` laid over a system would hide its link to `usr/lib`: nothing but `usr` is kept.
    let product = partial.join("product");
    fs::create_dir(&product)?;
    fs::rename(unpacked.join("usr"), product.join("usr"))
        .with_context(|| format!("package {package} has no /usr"))?;
    Ok(product)
}

/// A Go toolchain in `usr/lib/go`, libraries below `usr/share/gocode`, and what they are in `packages`.
fn gather(
    partial: &Path,
    suite: &str,
    libraries: &[&str],
    without: &[&str],
    mirror: &str,
) -> Result<PathBuf> {
    let wanted = [&["golang-go"], libraries].concat();
    let files = Archive::open(partial, suite, mirror)?.download_all(&wanted, without)?;
    let product = partial.join("product");
    fs::create_dir(&product)?;
    let mut list = String::new();
    for file in &files {
        let name = file.file_stem().unwrap_or_default().to_string_lossy();
        // A library that needs a C compiler brings one along.
        if !name.starts_with("golang-") {
            continue;
        }
        extract(file, &product)?;
        list.push_str(&name);
        list.push('\n');
    }
    fs::write(product.join("packages"), list)?;
    Ok(product)
}

/// Removes a directory that may not be there.
fn remove(directory: &Path) -> Result<()> {
    if directory.exists() {
        fs::remove_dir_all(directory)
            .with_context(|| format!("cannot remove {}", directory.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debian_itself_is_told_from_its_security_updates_and_others() {
        let targets = "Debian\tDebian-Security\tmain\thttp://a/debian-security/\n\
                       Vendor\tVendor\tmain\thttp://b/\n\
                       Debian\tDebian\tmain\thttp://c/debian/\n\
                       Debian\tDebian\tmain\thttp://d/debian/\n";
        assert_eq!(debian_among(targets), Some("http://c/debian/"));
        assert_eq!(debian_among("Vendor\tVendor\tmain\thttp://b/\n"), None);
    }

    #[test]
    fn a_recipe_names_all_that_makes_the_tree() {
        let recipes: Vec<String> = TREES.iter().map(Tree::recipe).collect();
        assert_eq!(recipes[1], "bookworm: programs of containerd\n");
        assert!(recipes[0].starts_with("trixie: system with runc crun "));
    }
}
