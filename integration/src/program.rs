//! Fixtures that have to be compiled first.

use crate::place::{self, build, compiled};
use crate::scene::Scene;
use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where Debian's packages of Go libraries are.
const DEBIANS_GO: &str = "/usr/share/gocode";

/// How a Go program is built.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GoBuild {
    /// Without symbol table and debugging information.
    pub stripped: bool,
    /// At any address.
    pub pie: bool,
}

/// Compiles a single-file Go program with the standard library and Debian's packages, and no network.
pub fn go(source: &str) -> Result<PathBuf> {
    go_as(source, GoBuild::default())
}

/// The same, built in a certain way.
pub fn go_as(source: &str, how: GoBuild) -> Result<PathBuf> {
    let mut name = source.to_owned();
    let mut options = Vec::new();
    if how.stripped {
        name.push_str(".stripped");
        options.push("-ldflags=-s -w");
    }
    if how.pie {
        name.push_str(".pie");
        options.push("-buildmode=pie");
    }
    build(source, &format!("{name}.bin"), |source, product| {
        let mut command = place::command("go")?;
        command.arg("build").args(&options);
        command.arg("-o").arg(product).arg(source);
        command.envs([
            ("GO111MODULE", "off"),
            ("GOPATH", DEBIANS_GO),
            ("GOPROXY", "off"),
            ("GOFLAGS", ""),
            ("CGO_ENABLED", "0"),
        ]);
        command.env("GOCACHE", compiled()?.join("go-cache"));
        Ok(command)
    })
}

/// A Rust program of this package, which cargo builds together with the tests.
pub fn rust(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let folder = own
        .ancestors()
        .skip(1)
        .find(|folder| !folder.ends_with("deps") && !folder.ends_with("examples"))
        .context("a test is in a folder")?;
    let program = folder.join(name);
    ensure!(
        program.is_file(),
        "{} is not built; run `cargo build --package integration`",
        program.display()
    );
    Ok(program)
}

/// The same program, without its symbols.
pub fn rust_stripped(name: &str, scene: &Scene) -> Result<PathBuf> {
    let product = scene.folder().join(format!("{name}.stripped"));
    let mut command = place::command("strip")?;
    let status = command.arg("-o").arg(&product).arg(rust(name)?).status()?;
    ensure!(status.success(), "strip failed: {status}");
    Ok(product)
}

/// Compiles a Java class and gives back the class path.
pub fn java(source: &str) -> Result<PathBuf> {
    let class = source.replace(".java", ".class");
    let product = build(source, &class, |source, product| {
        let mut command = place::command("javac")?;
        command
            .arg("-d")
            .arg(product.parent().unwrap_or(product))
            .arg(source);
        Ok(command)
    })?;
    Ok(product
        .parent()
        .context("a class file has a folder")?
        .to_path_buf())
}

/// Compiles a single-file C program.
pub fn c(source: &str) -> Result<PathBuf> {
    c_with(source, &[])
}

/// The same, for images in which there is no library.
pub fn static_c(source: &str) -> Result<PathBuf> {
    c_with(source, &["-static", "-s"])
}

/// The same, as a library that a program can be made to load.
pub fn c_library(source: &str) -> Result<PathBuf> {
    c_with(source, &["-shared", "-fPIC"])
}

/// The same, linked with installed libraries, such as `libssl.so.3`, without their headers.
pub fn c_linked(source: &str, libraries: &[&str]) -> Result<PathBuf> {
    let product = format!("{source}.{}.bin", libraries.join("."));
    build(source, &product, |source, product| {
        let mut command = c_command(&[], source, product)?;
        command.args(libraries.iter().map(|name| format!("-l:{name}")));
        Ok(command)
    })
}

/// The same, stripped, with the archive of each library in it.
pub fn c_with_copies(source: &str, libraries: &[&str]) -> Result<PathBuf> {
    let product = format!("{source}.{}.stripped.bin", libraries.join("."));
    build(source, &product, |source, product| {
        let mut command = c_command(&["-s"], source, product)?;
        command.args(libraries.iter().map(|name| format!("-l:{name}")));
        command.arg("-ldl");
        Ok(command)
    })
}

fn c_with(source: &str, options: &[&str]) -> Result<PathBuf> {
    build(source, &format!("{source}.bin"), |source, product| {
        c_command(options, source, product)
    })
}

fn c_command(options: &[&str], source: &Path, product: &Path) -> Result<Command> {
    let mut command = place::command("gcc")?;
    command
        .args(["-O1", "-Wall", "-Werror", "-pthread"])
        .args(options)
        .arg("-o")
        .arg(product)
        .arg(source);
    Ok(command)
}
