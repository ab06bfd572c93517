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
    let sysroot = sysroot(&rustc)?;
    check_rust_src(&sysroot)?;
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
        .arg("--config")
        .arg(without_local_paths(&workspace, &sysroot)?)
        // The system call ABI of the machine that will run it, which need not be this one.
        .env("AYA_BPF_TARGET_ARCH", variable("CARGO_CFG_TARGET_ARCH")?)
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

/// Setting for cargo, added to those of `ebpf/.cargo/config.toml`: the object's BTF names source files, and they are
/// called the same wherever it is built.
fn without_local_paths(workspace: &Path, sysroot: &Path) -> Result<String, String> {
    let workspace = workspace
        .canonicalize()
        .map_err(|error| format!("cannot resolve {}: {error}", workspace.display()))?;
    let cargo_home = env::var_os("CARGO_HOME").map_or_else(
        || PathBuf::from(env::var_os("HOME").unwrap_or_default()).join(".cargo"),
        PathBuf::from,
    );
    let flags: Vec<String> = [
        (cargo_home.as_path(), "/cargo"),
        (&sysroot.join("lib/rustlib/src/rust"), "/rust"),
        (&workspace, "/pilotfish"),
    ]
    .iter()
    .map(|(local, general)| {
        format!(
            "{:?}",
            format!("--remap-path-prefix={}={general}", local.display())
        )
    })
    .collect();
    Ok(format!("build.rustflags=[{}]", flags.join(",")))
}

fn sysroot(rustc: &str) -> Result<PathBuf, String> {
    let output = Command::new(rustc)
        .args(["--print", "sysroot"])
        .output()
        .map_err(|error| format!("cannot run {rustc}: {error}"))?;
    Ok(PathBuf::from(
        String::from_utf8_lossy(&output.stdout).trim(),
    ))
}

/// `-Z build-std=core` compiles the standard library's source.
fn check_rust_src(sysroot: &Path) -> Result<(), String> {
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
