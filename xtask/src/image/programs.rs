//! The static programs in the images.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::architecture::Architecture;
use super::origin::Origin;
use crate::command;
use crate::workspace::Workspace;

/// Cargo's profile of the agent in an image.
const AGENT_PROFILE: &str = "image";

/// What cargo has built.
pub(super) struct Programs {
    /// The agent.
    pub(super) agent: PathBuf,
    /// The OCI hook.
    pub(super) hook: PathBuf,
}

impl Programs {
    /// Builds both for an architecture.
    pub(super) fn build(
        workspace: &Workspace,
        architecture: Architecture,
        origin: &Origin,
    ) -> Result<Self> {
        if !command::on_path(architecture.compiler()) {
            bail!(
                "there is no {} to build for {}: run `cargo xtask setup`",
                architecture.compiler(),
                architecture.name
            );
        }
        let local = LocalPaths::find(workspace)?;
        for (profile, package) in [(AGENT_PROFILE, "pilotfish"), ("hook", "pilotfish-hook")] {
            let mut build = workspace.cargo([
                "build",
                "--locked",
                "--profile",
                profile,
                "--package",
                package,
            ]);
            build.args(["--target", &architecture.triple()]);
            prepare(&mut build, architecture, &local);
            // The C compiler's `__DATE__` and `__TIME__`, which mimalloc prints.
            build.env("SOURCE_DATE_EPOCH", origin.epoch.to_string());
            command::run(&mut build)?;
        }
        let place = workspace.target().join(architecture.triple());
        let programs = Self {
            agent: place.join(AGENT_PROFILE).join("pilotfish"),
            hook: place.join("hook/pilotfish-hook"),
        };
        for program in [&programs.agent, &programs.hook] {
            local.refuse_in(program)?;
        }
        Ok(programs)
    }
}

/// The environment of a build whose product names nothing of this machine.
fn prepare(build: &mut Command, architecture: Architecture, local: &LocalPaths) {
    let triple = architecture.triple();
    let variable = triple.replace('-', "_");
    build
        .env(format!("CC_{variable}"), architecture.compiler())
        .env(
            format!("CARGO_TARGET_{}_LINKER", variable.to_uppercase()),
            architecture.compiler(),
        )
        .env("CARGO_ENCODED_RUSTFLAGS", local.flags().join("\u{1f}"));
}

/// Directories of this machine that compilers write into what they build.
struct LocalPaths(Vec<(PathBuf, &'static str)>);

impl LocalPaths {
    fn find(workspace: &Workspace) -> Result<Self> {
        let sysroot = command::output(
            Command::new("rustc")
                .args(["--print", "sysroot"])
                .current_dir(workspace.path("")),
        )?;
        let cargo_home = env::var_os("CARGO_HOME").map_or_else(
            || PathBuf::from(env::var_os("HOME").unwrap_or_default()).join(".cargo"),
            PathBuf::from,
        );
        Ok(Self(vec![
            (cargo_home, "/cargo"),
            (
                Path::new(sysroot.trim()).join("lib/rustlib/src/rust"),
                "/rust",
            ),
            (workspace.path("").canonicalize()?, "/pilotfish"),
        ]))
    }

    fn flags(&self) -> Vec<String> {
        self.0
            .iter()
            .map(|(local, general)| format!("--remap-path-prefix={}={general}", local.display()))
            .collect()
    }

    /// Fails if a program names one of the directories all the same.
    fn refuse_in(&self, program: &Path) -> Result<()> {
        let bytes =
            fs::read(program).with_context(|| format!("cannot read {}", program.display()))?;
        for (local, _) in &self.0 {
            let local = OsString::from(local.join(""));
            if contains(&bytes, local.as_encoded_bytes()) {
                bail!(
                    "{} contains the path {}, which is this machine's own",
                    program.display(),
                    local.display()
                );
            }
        }
        Ok(())
    }
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_local_path_is_refused() {
        let program = env::temp_dir().join(format!("xtask-paths-{}", std::process::id()));
        let own = LocalPaths(vec![(PathBuf::from("/machine/of/somebody"), "/elsewhere")]);
        assert_eq!(
            own.flags(),
            ["--remap-path-prefix=/machine/of/somebody=/elsewhere"]
        );
        fs::write(
            &program,
            "ELF at /elsewhere/x.rs, of /machine/of/somebody-else/",
        )
        .unwrap();
        own.refuse_in(&program).unwrap();
        fs::write(&program, "ELF at /machine/of/somebody/x.rs").unwrap();
        let error = own.refuse_in(&program).unwrap_err().to_string();
        assert!(error.contains("the path /machine/of/somebody/,"), "{error}");
        fs::remove_file(&program).unwrap();
    }
}
