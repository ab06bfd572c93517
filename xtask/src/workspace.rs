//! Where the checkout and its build products are.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The checkout that `cargo xtask` was called in.
pub(crate) struct Workspace {
    root: PathBuf,
}

impl Workspace {
    /// Finds the checkout; the variable that cargo sets wins over the path that was compiled in, so that a moved
    /// checkout with a kept `target/` works.
    pub(crate) fn locate() -> Self {
        let package = env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        Self {
            root: package.parent().map_or(package.clone(), Path::to_path_buf),
        }
    }

    /// A path inside the checkout.
    pub(crate) fn path(&self, relative: &str) -> PathBuf {
        self.root.join(relative)
    }

    /// Tools that the project installs for itself; always in `target/`, whatever `CARGO_TARGET_DIR` says, because
    /// the build script of the agent looks for its linker there.
    pub(crate) fn tools(&self) -> PathBuf {
        self.root.join("target/tools")
    }

    /// Where cargo leaves what it builds.
    pub(crate) fn target(&self) -> PathBuf {
        env::var_os("CARGO_TARGET_DIR")
            .and_then(|directory| std::path::absolute(directory).ok())
            .unwrap_or_else(|| self.root.join("target"))
    }

    /// The release build of the agent.
    pub(crate) fn agent(&self) -> PathBuf {
        self.target().join("release/pilotfish")
    }

    /// The target triple of static programs.
    pub(crate) fn static_target() -> String {
        format!("{}-unknown-linux-musl", env::consts::ARCH)
    }

    /// The static build of the OCI hook.
    pub(crate) fn hook(&self) -> PathBuf {
        self.target()
            .join(Self::static_target())
            .join("hook/pilotfish-hook")
    }

    /// Builds the release build of the agent.
    pub(crate) fn build_agent(&self) -> Command {
        self.cargo(["build", "--release", "--package", "pilotfish"])
    }

    /// Builds the static build of the hook.
    pub(crate) fn build_hook(&self) -> Command {
        let mut command = self.cargo(["build", "--profile", "hook", "--package", "pilotfish-hook"]);
        command.args(["--target", &Self::static_target()]);
        command
    }

    /// `cargo` with these arguments, at the root of the checkout.
    pub(crate) fn cargo<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Command {
        self.cargo_in(".", arguments)
    }

    /// `cargo` in a directory of the checkout, where that directory's `.cargo/config.toml` applies.
    pub(crate) fn cargo_in<'a>(
        &self,
        directory: &str,
        arguments: impl IntoIterator<Item = &'a str>,
    ) -> Command {
        let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command
            .current_dir(self.root.join(directory))
            .args(arguments);
        command
    }
}
