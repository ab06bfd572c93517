//! Components of the pinned Rust toolchain.

use std::process::Command;

use anyhow::{Context, Result};

use crate::command;

/// One component of the toolchain that `rust-toolchain.toml` pins.
pub(super) struct Component {
    /// Name for rustup.
    pub(super) name: &'static str,
    /// What for.
    pub(super) reason: &'static str,
    /// A file, below the toolchain's root, that only this component brings.
    proof: &'static str,
}

const COMPONENTS: &[Component] = &[
    Component {
        name: "rust-src",
        reason: "the eBPF programs build `core` from source",
        proof: "lib/rustlib/src/rust/library/Cargo.lock",
    },
    Component {
        name: "rustfmt",
        reason: "formatting check",
        proof: "bin/rustfmt",
    },
    Component {
        name: "clippy",
        reason: "lints",
        proof: "bin/cargo-clippy",
    },
    Component {
        name: "rust-std-x86_64-unknown-linux-musl",
        reason: "static programs: the OCI hook, and what images hold",
        proof: "lib/rustlib/x86_64-unknown-linux-musl/lib",
    },
    Component {
        name: "rust-std-aarch64-unknown-linux-musl",
        reason: "the same for 64-bit Arm",
        proof: "lib/rustlib/aarch64-unknown-linux-musl/lib",
    },
];

/// Components that the active toolchain lacks. With `RUSTUP_AUTO_INSTALL=0` rustup does not add them by itself.
pub(super) fn missing() -> Result<Vec<&'static Component>> {
    let sysroot = command::output(Command::new("rustc").args(["--print", "sysroot"]))
        .context("no usable Rust toolchain; install rustup from https://rustup.rs")?;
    let sysroot = std::path::Path::new(sysroot.trim());
    Ok(COMPONENTS
        .iter()
        .filter(|component| !sysroot.join(component.proof).exists())
        .collect())
}

/// Adds components to the active toolchain, which `rust-toolchain.toml` pins.
pub(super) fn install(components: &[&Component]) -> Result<()> {
    if components.is_empty() {
        return Ok(());
    }
    command::run(
        Command::new("rustup")
            .args(["component", "add"])
            .args(components.iter().map(|component| component.name)),
    )
    .context("the Rust toolchain has no rustup to extend it; use the one from https://rustup.rs")
}
