//! Where things are: the checkout, the fixtures, build results, and the tools that the tests drive.

use anyhow::{Context, Result, bail};
use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

/// The root of the checkout.
pub fn workspace() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own).to_path_buf()
}

/// A file of `integration/fixtures/`.
pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fixtures")
        .join(name)
}

/// The agent under test: `PILOTFISH_BIN`, or the release build of this checkout.
pub fn agent_binary() -> Result<PathBuf> {
    binary(
        "PILOTFISH_BIN",
        "target/release/pilotfish",
        "cargo build --release",
    )
}

/// The OCI hook under test, a static program: `PILOTFISH_HOOK_BIN`, or that build of this checkout.
pub fn hook_binary() -> Result<PathBuf> {
    let target = format!("{}-unknown-linux-musl", env::consts::ARCH);
    binary(
        "PILOTFISH_HOOK_BIN",
        &format!("target/{target}/hook/pilotfish-hook"),
        &format!("cargo build --profile hook --target {target} --package pilotfish-hook"),
    )
}

/// The agent's image under test, an OCI archive: `PILOTFISH_IMAGE`, or what this checkout built last.
pub fn agent_image() -> Result<PathBuf> {
    image("PILOTFISH_IMAGE", "pilotfish")
}

/// The node agent's image under test: `PILOTFISH_NODE_IMAGE`, or what this checkout built last.
pub fn node_image() -> Result<PathBuf> {
    image("PILOTFISH_NODE_IMAGE", "pilotfish-node")
}

fn image(variable: &str, name: &str) -> Result<PathBuf> {
    let architecture = match env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let built = format!("target/images/{name}-{architecture}.tar");
    binary(variable, &built, "cargo xtask image")
}

fn binary(variable: &str, built: &str, command: &str) -> Result<PathBuf> {
    let path = env::var_os(variable).map_or_else(|| workspace().join(built), PathBuf::from);
    if !path.is_file() {
        bail!(
            "what is to be tested is not built: no file {}; run `{command}`, or set {variable}",
            path.display()
        );
    }
    path.canonicalize()
        .with_context(|| format!("cannot resolve {}", path.display()))
}

/// Looks a tool up: first among those that `cargo xtask setup` put under `target/tools`, then in `PATH`, then in
/// the system directories that are not in everyone's `PATH`.
pub fn tool(name: &str) -> Option<PathBuf> {
    let tools = workspace().join("target/tools");
    let venv = tools.join("venv");
    let own = [
        venv.join("bin"),
        tools.join("npm/node_modules/.bin"),
        tools.join("trees").join(name).join("usr/bin"),
    ];
    let in_path: Vec<PathBuf> =
        env::var_os("PATH").map_or_else(Vec::new, |paths| env::split_paths(&paths).collect());
    let system = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    own.into_iter()
        .chain(in_path)
        .chain(system)
        .map(|folder| folder.join(name))
        .chain(packaged_in_venv(&venv, name))
        .find(|candidate| candidate.is_file())
}

/// The Python package `rotel` ships its collector as `rotel/rotel-agent` and no script for it.
fn packaged_in_venv(venv: &Path, name: &str) -> Option<PathBuf> {
    let versions = venv.join("lib").read_dir().ok()?;
    versions
        .flatten()
        .map(|version| {
            version
                .path()
                .join("site-packages")
                .join(name)
                .join(format!("{name}-agent"))
        })
        .next()
}

/// A command for a tool that the trial declared as a need.
pub fn command(name: &str) -> Result<Command> {
    Ok(Command::new(tool(name).with_context(|| {
        format!("{name} is not installed; run `cargo xtask setup`")
    })?))
}

/// A program of this crate, which cargo builds along with its tests.
pub fn own_program(name: &str) -> Result<PathBuf> {
    let running = env::current_exe().context("cannot tell which program runs")?;
    // Tests are one folder below the programs.
    running
        .ancestors()
        .skip(1)
        .take(2)
        .map(|folder| folder.join(name))
        .find(|candidate| candidate.is_file())
        .with_context(|| format!("no program {name} near {}", running.display()))
}

/// The folder of compiled fixtures, kept between runs.
pub fn compiled() -> Result<PathBuf> {
    let target =
        env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from);
    let folder = target.join("fixtures");
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot create {}", folder.display()))?;
    folder
        .canonicalize()
        .with_context(|| format!("cannot resolve {}", folder.display()))
}

/// Makes `product` from the fixture `source` unless it is there and newer.
pub fn build(
    source: &str,
    product: &str,
    compile: impl FnOnce(&Path, &Path) -> Result<Command>,
) -> Result<PathBuf> {
    let source = fixture(source);
    let product = compiled()?.join(product);
    if modified(&product) > modified(&source) {
        return Ok(product);
    }
    let mut command = compile(&source, &product)?;
    let output = command
        .output()
        .with_context(|| format!("cannot run {command:?}"))?;
    if !output.status.success() {
        bail!(
            "{command:?} failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(product)
}

fn modified(path: &Path) -> Option<SystemTime> {
    path.metadata()
        .and_then(|metadata| metadata.modified())
        .ok()
}
