//! What only containerd itself knows: its version and its default spec.

use super::{
    super::{Error, root},
    Root, Version,
};
use std::{
    io::Read,
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, Stdio},
};

/// Programs are looked for here, below the root, whatever the caller's environment says.
const SEARCH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The configuration version that goes with a version of containerd, as given or as the program says.
pub(super) fn version(root: &Root, given: Option<&str>) -> Result<Version, Error> {
    let command = ["containerd", "--version"];
    let said = match given {
        Some(given) => given.to_owned(),
        None => run(root, &command, "--containerd-version VERSION")?,
    };
    let major = said
        .split_whitespace()
        .filter_map(|word| word.trim_start_matches('v').split_once('.'))
        .find_map(|(major, _)| major.parse::<u32>().ok());
    match (major, given) {
        (Some(1), _) => Ok(Version::Two),
        (Some(2), _) => Ok(Version::Three),
        (_, Some(given)) => Err(Error::Argument {
            option: "--containerd-version",
            value: given.to_owned(),
            expected: "a version like 1.7.24 or 2.1.0 is needed",
        }),
        (_, None) => Err(Error::Ask {
            command: command.join(" "),
            reason: format!("it said `{}`", said.trim()),
            instead: "--containerd-version VERSION",
        }),
    }
}

/// The spec that containerd makes containers from when no base spec is configured.
pub(super) fn default_spec(root: &Root) -> Result<String, Error> {
    run(root, &["ctr", "oci", "spec"], "--default-spec FILE")
}

/// The same, from a file of the caller.
pub(super) fn given_spec(path: &Path) -> Result<String, Error> {
    let read = |source| Error::Read {
        path: path.to_owned(),
        source,
    };
    let (file, _) = root::open_regular(path).map_err(read)?;
    let mut text = String::new();
    file.take(root::MAX_FILE)
        .read_to_string(&mut text)
        .map_err(read)?;
    Ok(text)
}

fn run(root: &Root, words: &[&str], instead: &'static str) -> Result<String, Error> {
    let failed = |reason: String| Error::Ask {
        command: words.join(" "),
        reason,
        instead,
    };
    let mut command = Command::new(words[0]);
    command
        .args(&words[1..])
        .env_clear()
        .env("PATH", SEARCH)
        .stdin(Stdio::null());
    if !root.is_own() {
        let directory = root.directory().to_owned();
        // SAFETY: between fork and exec only async-signal-safe system calls are made; the path was allocated before,
        // and nix copies one below 1,024 bytes to the stack.
        unsafe {
            command.pre_exec(move || {
                nix::unistd::chroot(&directory)?;
                nix::unistd::chdir("/")?;
                Ok(())
            });
        }
    }
    let output = command
        .output()
        .map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        String::from_utf8(output.stdout).map_err(|error| failed(error.to_string()))
    } else {
        let said = String::from_utf8_lossy(&output.stderr);
        Err(failed(format!("{}, {}", output.status, said.trim())))
    }
}
