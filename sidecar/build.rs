//! Builds the eBPF object with the project's own toolchain and leaves it in `OUT_DIR`.
//!
//! What it needs is checked first, so that a missing tool is a sentence and not a linker error.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

const LINKER_VERSION: &str = "0.10.3";
const SETUP: &str = "run `cargo xtask setup --only build`, which installs it";

fn main() {
    println!("cargo::rerun-if-env-changed=PILOTFISH_BPF_LINKER");
    println!("cargo::rerun-if-changed=../ebpf/src");
    println!("cargo::rerun-if-changed=../ebpf/abi/src");
    println!("cargo::rerun-if-changed=../ebpf/Cargo.toml");
    println!("cargo::rerun-if-changed=../ebpf/Cargo.lock");
    println!("cargo::rerun-if-changed=../ebpf/.cargo/config.toml");
    if let Err(message) = build() {
        println!("cargo::error={message}");
    }
}

fn build() -> Result<(), String> {
    let out = PathBuf::from(variable("OUT_DIR")?);
    let workspace = PathBuf::from(variable("CARGO_MANIFEST_DIR")?).join("..");
    let rustc = variable("RUSTC")?;
    check_rust_src(&rustc)?;
    let linker = find_linker(&workspace)?;

    // target/<profile>/build/<package>/out: one directory for the object whatever the profile of user space.
    let target = out
        .ancestors()
        .nth(4)
        .ok_or("OUT_DIR is not inside a target directory")?
        .join("ebpf");
    let source = workspace.join("ebpf");
    let mut build = Command::new(variable("CARGO")?);
    // Settings for the agent's own build are not for the programs: less optimised, the verifier refuses them.
    for (name, _) in env::vars_os() {
        if name.to_string_lossy().starts_with("CARGO_PROFILE_") {
            build.env_remove(name);
        }
    }
    let status = build
        .current_dir(&source)
        .args(["build", "--release", "--locked", "--target-dir"])
        .arg(&target)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", &linker)
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("CARGO_BUILD_TARGET")
        .env_remove("RUSTC_WRAPPER")
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .status()
        .map_err(|error| format!("cannot start cargo for the eBPF object: {error}"))?;
    if !status.success() {
        return Err(format!(
            "building the eBPF object in ebpf/ failed ({status}); the messages are above"
        ));
    }
    let object = target.join("bpfel-unknown-none/release/pilotfish-ebpf");
    std::fs::copy(&object, out.join("pilotfish-ebpf"))
        .map_err(|error| format!("cannot copy the eBPF object {}: {error}", object.display()))?;
    Ok(())
}

fn variable(name: &str) -> Result<String, String> {
    env::var(name).map_err(|_| format!("{name} is not set: this build script must be run by cargo"))
}

/// `-Z build-std=core` compiles the standard library's source.
fn check_rust_src(rustc: &str) -> Result<(), String> {
    let output = Command::new(rustc)
        .args(["--print", "sysroot"])
        .output()
        .map_err(|error| format!("cannot run {rustc}: {error}"))?;
    let sysroot = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    if sysroot.join("lib/rustlib/src/rust/library/core").is_dir() {
        Ok(())
    } else {
        Err(format!(
            "the eBPF object needs the component rust-src of this toolchain: {SETUP}"
        ))
    }
}

fn find_linker(workspace: &Path) -> Result<PathBuf, String> {
    if let Some(path) = env::var_os("PILOTFISH_BPF_LINKER") {
        return Ok(path.into());
    }
    let ours = workspace.join("target/tools/bin/bpf-linker");
    let installed = [ours, PathBuf::from("bpf-linker")];
    for candidate in installed {
        let Ok(output) = Command::new(&candidate).arg("--version").output() else {
            continue;
        };
        if String::from_utf8_lossy(&output.stdout).contains(LINKER_VERSION) {
            return Ok(candidate.canonicalize().unwrap_or(candidate));
        }
    }
    Err(format!(
        "the eBPF object needs bpf-linker {LINKER_VERSION}: {SETUP} into target/tools"
    ))
}
