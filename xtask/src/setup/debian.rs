//! Debian packages through apt-get.

use std::collections::HashSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::Scope;
use super::packages::{CROSS_COMPILERS, PACKAGES, Package, jdk};
use crate::command;

const POLICY: &str = "/usr/sbin/policy-rc.d";

/// Packages of a scope that are not installed.
pub(super) fn missing(scope: Scope) -> Result<Vec<Package>> {
    let mut wanted = [PACKAGES, CROSS_COMPILERS].concat();
    wanted.push(jdk(release_major()));
    wanted.retain(|package| {
        package.scope <= scope && !package.or_program.is_some_and(command::on_path)
    });
    let installed = installed(&wanted)?;
    wanted.retain(|package| !installed.contains(package.name));
    Ok(wanted)
}

/// The packages that the database calls installed. Elsewhere than on Debian none is.
fn installed(wanted: &[Package]) -> Result<HashSet<String>> {
    if !command::on_path("dpkg-query") {
        return Ok(HashSet::new());
    }
    // It fails when one of the names is unknown to it, which is the case that matters here: only the output counts.
    let answer = Command::new("dpkg-query")
        .args([
            "--show",
            "--showformat",
            "${db:Status-Abbrev}\t${Package}\n",
        ])
        .args(wanted.iter().map(|package| package.name))
        .output()
        .context("cannot start dpkg-query")?;
    Ok(parse_installed(&String::from_utf8_lossy(&answer.stdout)))
}

fn parse_installed(database: &str) -> HashSet<String> {
    database
        .lines()
        .filter_map(|line| line.split_once('\t'))
        .filter(|(status, _)| status.starts_with("ii") || status.starts_with("hi"))
        .map(|(_, name)| name.to_owned())
        .collect()
}

/// Debian's major version; testing and unstable have none and count as the newest known.
fn release_major() -> u32 {
    fs::read_to_string("/etc/debian_version")
        .ok()
        .and_then(|version| version.split('.').next()?.trim().parse().ok())
        .unwrap_or(13)
}

/// The command that installs these packages.
pub(super) fn install_line(packages: &[Package]) -> String {
    command::line(&apt_get_install(packages))
}

fn apt_get_install(packages: &[Package]) -> Command {
    let mut install = Command::new("apt-get");
    install
        .args(["install", "--yes", "--no-install-recommends"])
        // A configuration file that somebody changed is kept; asking about it would fail, as there is nobody to ask.
        .args(["--option", "Dpkg::Options::=--force-confold"])
        .args(packages.iter().map(|package| package.name))
        .env("DEBIAN_FRONTEND", "noninteractive");
    install
}

/// Installs packages without starting the services that some of them bring.
pub(super) fn install(packages: &[Package]) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    if !command::on_path("apt-get") {
        let names: Vec<_> = packages.iter().map(|package| package.name).collect();
        bail!(
            "this is not Debian (no apt-get): install the equivalents of these packages by hand: {}",
            names.join(" ")
        );
    }
    command::run(Command::new("apt-get").args(["update", "--quiet"]))?;
    let policy = NoServices::declare()?;
    command::run(&mut apt_get_install(packages))?;
    drop(policy);
    keep_services_off(packages)
}

/// The policy holds for the installation only; the next boot would start the services all the same.
fn keep_services_off(packages: &[Package]) -> Result<()> {
    if !Path::new("/run/systemd/system").is_dir() {
        return Ok(());
    }
    for service in packages.iter().filter_map(|package| package.service) {
        command::output(Command::new("systemctl").args(["disable", "--quiet", service]))?;
    }
    Ok(())
}

/// While this lives, package installations start no service; a policy that was there already is left alone.
struct NoServices {
    ours: bool,
}

impl NoServices {
    fn declare() -> Result<Self> {
        if Path::new(POLICY).exists() {
            return Ok(Self { ours: false });
        }
        let guard = Self { ours: true };
        fs::write(POLICY, "#!/bin/sh\nexit 101\n")
            .with_context(|| format!("cannot write {POLICY}"))?;
        fs::set_permissions(POLICY, Permissions::from_mode(0o755))
            .with_context(|| format!("cannot make {POLICY} executable"))?;
        Ok(guard)
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if self.ours
            && let Err(error) = fs::remove_file(POLICY)
        {
            eprintln!(
                "warning: cannot remove {POLICY}, which keeps packages from starting services: {error}"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_installed_and_held_packages_count() {
        let database = "ii \tgcc\nrc \tnginx-light\nhi \trunc\nun \twrk\n";
        let installed = parse_installed(database);
        assert_eq!(
            installed,
            HashSet::from(["gcc".to_owned(), "runc".to_owned()])
        );
    }
}
