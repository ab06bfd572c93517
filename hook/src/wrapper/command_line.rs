//! The command line of OCI runtimes, as far as it names a bundle: `runc [global options] create --bundle DIR ID`
//! (runc(8), crun(1)).

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt,
    path::PathBuf,
};

/// Options that take a value as the next argument: of runc 1.0 to 1.3, crun 1.x and youki 0.x.
const WITH_VALUE: [&str; 17] = [
    // Before the command.
    "root",
    "r",
    "log",
    "l",
    "log-format",
    "log-level",
    "criu",
    "rootless",
    "cgroup-manager",
    // Of `create` and `run`.
    "bundle",
    "b",
    "console-socket",
    "pid-file",
    "preserve-fds",
    "config",
    "f",
    "pidfd-socket",
];

/// What matters of a command line.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct CommandLine {
    /// Directory of the bundle, if the command makes a container.
    pub(super) bundle: Option<PathBuf>,
    /// The runtime's log.
    pub(super) log: Option<PathBuf>,
}

impl CommandLine {
    pub(super) fn parse(arguments: &[OsString]) -> Self {
        let mut found = Self::default();
        let mut makes_container = false;
        let mut command = None;
        let mut bundle = None;
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            let Some(option) = Flag::read(argument) else {
                if command.is_none() {
                    makes_container = argument == "create" || argument == "run";
                    command = Some(argument);
                    if !makes_container {
                        break;
                    }
                }
                continue;
            };
            let value = match option.value {
                Some(value) => Some(value),
                None if WITH_VALUE.contains(&option.name) => rest.next().map(OsString::as_os_str),
                None => None,
            };
            match (option.name, value) {
                ("bundle" | "b", Some(value)) => bundle = Some(PathBuf::from(value)),
                ("log" | "l", Some(value)) => found.log = Some(PathBuf::from(value)),
                _ => {}
            }
        }
        if makes_container {
            found.bundle = Some(bundle.unwrap_or_else(|| PathBuf::from(".")));
        }
        found
    }
}

struct Flag<'a> {
    name: &'a str,
    value: Option<&'a OsStr>,
}

impl<'a> Flag<'a> {
    /// `--name`, `--name=value` and, as runc takes it, the same with one dash.
    fn read(argument: &'a OsStr) -> Option<Self> {
        let bytes = argument.as_bytes();
        let text = bytes.strip_prefix(b"--").or(bytes.strip_prefix(b"-"))?;
        let (name, value) = match text.iter().position(|byte| *byte == b'=') {
            Some(at) => (&text[..at], Some(OsStr::from_bytes(&text[at + 1..]))),
            None => (text, None),
        };
        // A name that is not text is none that we know.
        let name = std::str::from_utf8(name).unwrap_or_default();
        Some(Self { name, value })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle(arguments: &[&str]) -> Option<PathBuf> {
        let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
        CommandLine::parse(&arguments).bundle
    }

    #[test]
    fn bundle_is_found_wherever_a_runtime_takes_it() {
        let cases: [&[&str]; 8] = [
            &["create", "--bundle", "/b", "id"],
            &["create", "--bundle=/b", "id"],
            &["create", "-b", "/b", "id"],
            &["create", "-b=/b", "id"],
            &["create", "-bundle", "/b", "id"],
            &["run", "id", "--bundle", "/b"],
            // As containerd's shim calls it, for docker.
            &[
                "--root",
                "/var/run/docker/runtime-runc/moby",
                "--log",
                "/l/log.json",
                "--log-format",
                "json",
                "--systemd-cgroup",
                "create",
                "--bundle",
                "/b",
                "--pid-file",
                "/b/init.pid",
                "--console-socket",
                "/s",
                "id",
            ],
            &[
                "--cgroup-manager",
                "run",
                "create",
                "--pid-file",
                "--bundle",
                "-b",
                "/b",
                "id",
            ],
        ];
        for case in cases {
            assert_eq!(bundle(case), Some("/b".into()), "{case:?}");
        }
    }

    #[test]
    fn default_bundle_is_the_working_directory() {
        assert_eq!(bundle(&["create", "id"]), Some(".".into()));
        assert_eq!(bundle(&["--debug", "run", "-d", "id"]), Some(".".into()));
    }

    #[test]
    fn other_commands_have_no_bundle() {
        let cases: [&[&str]; 7] = [
            &[],
            &["--version"],
            &["features"],
            &["--root", "create", "start", "id"],
            &["exec", "--process", "/p", "id", "create", "--bundle", "/b"],
            &["--log", "run"],
            &["delete", "--force", "run"],
        ];
        for case in cases {
            assert_eq!(bundle(case), None, "{case:?}");
        }
    }

    #[test]
    fn log_is_found() {
        let arguments = ["--log", "/l/log.json", "create", "id"].map(OsString::from);
        assert_eq!(
            CommandLine::parse(&arguments).log,
            Some("/l/log.json".into())
        );
    }

    #[test]
    fn arguments_that_are_not_text_are_passed_over() {
        let arguments = [
            OsString::from("create"),
            OsStr::from_bytes(b"--\xff=\xfe").to_owned(),
            OsString::from("-b"),
            OsStr::from_bytes(b"/b\xff").to_owned(),
        ];
        let expected = PathBuf::from(OsStr::from_bytes(b"/b\xff"));
        assert_eq!(CommandLine::parse(&arguments).bundle, Some(expected));
    }
}
