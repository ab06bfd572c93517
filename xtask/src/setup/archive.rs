//! Packages of another Debian release than the host's, fetched by an apt with lists and a state of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::trees::KEYRING;
use crate::command;

/// Newer than anything that a package can ask for.
const ANY_VERSION: &str = "9999:0";

/// One release, seen from a working directory.
pub(super) struct Archive<'a> {
    folder: &'a Path,
    suite: &'a str,
}

impl<'a> Archive<'a> {
    /// Fetches the release's lists.
    pub(super) fn open(folder: &'a Path, suite: &'a str, mirror: &str) -> Result<Self> {
        fs::write(
            folder.join("sources.list"),
            format!("deb [signed-by={KEYRING}] {mirror} {suite} main\n"),
        )?;
        fs::create_dir_all(folder.join("lists/partial"))?;
        fs::create_dir_all(folder.join("archives/partial"))?;
        let archive = Self { folder, suite };
        command::output(archive.apt_get().arg("update"))?;
        Ok(archive)
    }

    fn apt_get(&self) -> Command {
        let mut apt_get = Command::new("apt-get");
        apt_get
            .current_dir(self.folder)
            .arg("--quiet")
            .arg(option(
                "Dir::Etc::sourcelist",
                &self.folder.join("sources.list"),
            ))
            .arg(option("Dir::Etc::sourceparts", Path::new("/dev/null")))
            .arg(option("Dir::State::lists", &self.folder.join("lists")))
            .arg(option("Dir::Cache", self.folder))
            .arg("-oAcquire::Languages=none")
            // The directory is root's; the user `_apt` could not write into it.
            .arg("-oAPT::Sandbox::User=root");
        apt_get
    }

    /// One package alone.
    pub(super) fn download(&self, package: &str) -> Result<PathBuf> {
        // Without the suite apt would want the version that is installed here, if one from elsewhere is.
        let wanted = format!("{package}/{}", self.suite);
        command::output(self.apt_get().args(["download", &wanted]))?;
        packages_in(self.folder)?
            .pop()
            .with_context(|| format!("apt-get downloaded no package {package}"))
    }

    /// Packages and all that they depend on, but for `without` and what only those need.
    pub(super) fn download_all(&self, packages: &[&str], without: &[&str]) -> Result<Vec<PathBuf>> {
        let status = self.folder.join("status");
        fs::write(&status, installed(without))?;
        command::output(
            self.apt_get()
                .arg(option("Dir::State::status", &status))
                .args(["install", "--download-only", "--yes"])
                .arg("--no-install-recommends")
                .args(packages),
        )?;
        packages_in(&self.folder.join("archives"))
    }
}

/// The state of a machine on which these packages are installed, and nothing else.
fn installed(packages: &[&str]) -> String {
    let paragraph = |package: &&str| {
        [
            &format!("Package: {package}\n"),
            "Status: install ok installed\n",
            &format!("Version: {ANY_VERSION}\n"),
            "Architecture: all\n",
            "Maintainer: nobody\n",
            "Description: left out\n\n",
        ]
        .concat()
    };
    packages.iter().map(paragraph).collect()
}

/// The package files of a directory, by name.
fn packages_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found: Vec<PathBuf> = fs::read_dir(folder)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|suffix| suffix == "deb"))
        .collect();
    found.sort();
    Ok(found)
}

/// Unpacks a package file; no script of it runs.
pub(super) fn extract(package: &Path, into: &Path) -> Result<()> {
    command::output(
        Command::new("dpkg-deb")
            .arg("--extract")
            .arg(package)
            .arg(into),
    )?;
    Ok(())
}

fn option(name: &str, value: &Path) -> String {
    format!("-o{name}={}", value.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_counts_as_installed() {
        let status = installed(&["one", "two"]);
        let paragraphs: Vec<&str> = status.trim_end().split("\n\n").collect();
        assert_eq!(paragraphs.len(), 2);
        assert!(paragraphs[1].starts_with("Package: two\nStatus: install ok installed\n"));
        assert_eq!(installed(&[]), "");
    }
}
