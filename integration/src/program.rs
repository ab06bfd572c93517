//! Fixtures that have to be compiled first.

use crate::place::{self, build, compiled};
use anyhow::{Context, Result};
use std::path::PathBuf;

/// Compiles a single-file Go program with nothing but the standard library and no network.
pub fn go(source: &str) -> Result<PathBuf> {
    build(source, &format!("{source}.bin"), |source, product| {
        let mut command = place::command("go")?;
        command.args(["build", "-o"]).arg(product).arg(source);
        command.envs([
            ("GO111MODULE", "off"),
            ("GOPROXY", "off"),
            ("GOFLAGS", ""),
            ("CGO_ENABLED", "0"),
        ]);
        command.env("GOCACHE", compiled()?.join("go-cache"));
        Ok(command)
    })
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

fn c_with(source: &str, options: &[&str]) -> Result<PathBuf> {
    build(source, &format!("{source}.bin"), |source, product| {
        let mut command = place::command("gcc")?;
        command
            .args(["-O1", "-Wall", "-Werror", "-pthread"])
            .args(options)
            .arg("-o")
            .arg(product)
            .arg(source);
        Ok(command)
    })
}
