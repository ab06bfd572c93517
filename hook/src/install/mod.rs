//! `pilotfish-hook install` and `uninstall`: make a runtime call the hook, and take that back.
//!
//! Both make a plan first: every file as it is and as it shall be. Nothing is written before the whole plan
//! stands, and `--dry-run` prints it instead. What is there stays: files of others are edited, not rewritten, and
//! the first original is kept beside them as `NAME.pilotfish-backup`, from which `uninstall` takes the values that
//! were replaced. No runtime is restarted or reloaded.

mod containerd;
mod docker;
mod edited;
pub(crate) mod entry;
mod hooks_dir;
pub(crate) mod object;
mod options;
mod plan;
pub(crate) mod replace;
pub(crate) mod root;

pub use options::{HookOptions, InstallArgs, Runtime, Target, UninstallArgs};

use entry::HookCommand;
use plan::Plan;
use root::Root;
use std::{
    io::{self, Write},
    path::PathBuf,
};

/// Why nothing, or not everything, was installed or removed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or directory could not be read.
    #[error("cannot read {path}: {source}; run as root, or name another root with --root")]
    Read {
        /// The file, below `--root`.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file could not be written or removed.
    #[error(
        "cannot write {path}: {source}; what was printed before this line is done, the rest is not: correct it and \
         run the same command again"
    )]
    Write {
        /// The file, below `--root`.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is a link, or lies behind one that could lead out of `--root`.
    #[error(
        "{path} is a symbolic link, which is not followed: whatever manages it should make this change, or replace it by a file"
    )]
    Link {
        /// The link.
        path: PathBuf,
    },
    /// A file is a directory, a device or too large to be a configuration.
    #[error("{path} is not a regular file of at most {limit} bytes; nothing was changed", limit = root::MAX_FILE)]
    NotAFile {
        /// The file.
        path: PathBuf,
    },
    /// An existing file is not JSON.
    #[error(
        "{path} is not valid JSON: {source}; correct that line (or move the file away) and run again, nothing was changed"
    )]
    Json {
        /// The file.
        path: PathBuf,
        /// What the parser said, with line and column.
        source: serde_json::Error,
    },
    /// An existing file is not TOML.
    #[error(
        "{path} is not valid TOML; correct it (or move it away) and run again, nothing was changed\n{source}"
    )]
    Toml {
        /// The file.
        path: PathBuf,
        /// What the parser said, with line and column.
        source: Box<toml_edit::TomlError>,
    },
    /// An existing file is well-formed but holds something else than the runtime expects.
    #[error("{path}: `{key}` is not {expected}; correct it and run again, nothing was changed")]
    Shape {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// What it should be.
        expected: &'static str,
    },
    /// A containerd configuration version that is not known here.
    #[error(
        "{path} has configuration version {found}, but only 2 (containerd 1.6 and 1.7) and 3 (containerd 2.x) are \
         known; for version 1 let `containerd config migrate` write a newer one"
    )]
    ConfigVersion {
        /// The file.
        path: PathBuf,
        /// What it says.
        found: i64,
    },
    /// A named handler is in no configuration file.
    #[error("containerd has no runtime handler `{handler}` in its configuration; it has: {known}")]
    Handler {
        /// What was asked for.
        handler: String,
        /// What is there.
        known: String,
    },
    /// A program of the runtime that is asked for its version or its default spec did not answer.
    #[error(
        "`{command}` failed: {reason}; is the runtime installed there? Otherwise give {instead}"
    )]
    Ask {
        /// The command line.
        command: String,
        /// What happened.
        reason: String,
        /// The option that makes the question unnecessary.
        instead: &'static str,
    },
    /// An option of another runtime.
    #[error("{0} means nothing to this runtime; leave it out (`--help` says whose option it is)")]
    OtherRuntime(&'static str),
    /// An argument that would not survive the runtime's configuration.
    #[error("{option} `{value}`: {expected}")]
    Argument {
        /// The option.
        option: &'static str,
        /// What was given.
        value: String,
        /// What is possible.
        expected: &'static str,
    },
    /// The default runtime of docker cannot be wrapped as it is.
    #[error(
        "docker's default runtime `{0}` has arguments or a shim of its own; say what the wrapper shall start with --real-runtime PATH"
    )]
    RealRuntime(String),
    /// The runtime would find no hook, and start no container.
    #[error(
        "there is no program {0} on that host, and with a hook that is absent no container starts; put it there first, or let --copy-to PATH do it"
    )]
    NoProgram(String),
    /// The running program's own path is unknown.
    #[error("cannot find the path of this program: {0}; give it with --hook PATH")]
    OwnPath(io::Error),
    /// The report could not be printed.
    #[error("cannot print: {0}")]
    Print(#[from] io::Error),
}

/// Makes the runtime call the hook. What was (or, with `--dry-run`, would be) changed goes to `out`.
pub fn install(args: &InstallArgs, out: &mut impl Write) -> Result<(), Error> {
    args.check()?;
    let root = Root::new(&args.target.root)?;
    let command = HookCommand::new(&args.hook)?;
    let mut plan = Plan::default();
    if let Some(copy) = &args.hook.copy_to {
        plan.copy_own_program(&root, copy)?;
    } else if !root.has_program(&command.path) {
        return Err(Error::NoProgram(command.path));
    }
    if let Some(why) = root.others_may_change(&command.path) {
        plan.note(format!(
            "root runs {} for each container, and others could change it ({why}): put it where only root may write, \
             for example with --copy-to /usr/local/bin/pilotfish-hook",
            command.path
        ));
    }
    if let Some(agent) = &args.hook.agent
        && !root.has_program(&agent.to_string_lossy())
    {
        plan.note(format!(
            "there is no program {} on that host yet: until there is, the hook has no agent to start",
            agent.display()
        ));
    }
    match args.target.runtime {
        Runtime::Podman | Runtime::Crio => {
            hooks_dir::install(&root, args.target.hooks_dir.as_deref(), &command, &mut plan)?;
        }
        Runtime::Containerd => containerd::install(&root, args, &command, &mut plan)?,
        Runtime::Docker => docker::install(&root, args, &command, &mut plan)?,
    }
    plan.carry_out(&root, args.target.dry_run, args.target.runtime, out)
}

/// Takes back what [`install`] added; what others changed since stays.
pub fn uninstall(args: &UninstallArgs, out: &mut impl Write) -> Result<(), Error> {
    args.target.check()?;
    let root = Root::new(&args.target.root)?;
    let mut plan = Plan::default();
    match args.target.runtime {
        Runtime::Podman | Runtime::Crio => {
            hooks_dir::uninstall(&root, args.target.hooks_dir.as_deref(), &mut plan)?;
        }
        Runtime::Containerd => containerd::uninstall(&root, &mut plan)?,
        Runtime::Docker => docker::uninstall(&root, &mut plan)?,
    }
    plan.carry_out(&root, args.target.dry_run, args.target.runtime, out)
}
