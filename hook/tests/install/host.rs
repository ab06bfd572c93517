//! A directory that stands for a host's root.

use std::{
    collections::BTreeMap,
    fs::{self, Permissions},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::Command,
};
use tempfile::TempDir;

/// Where the tests say that the hook is.
pub(crate) const HOOK: &str = "/usr/local/bin/pilotfish-hook";

/// A file of this directory's fixtures.
pub(crate) fn fixture(name: &str) -> String {
    let path = fixtures().join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/install/fixtures")
}

/// What a run said.
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Said {
    #[track_caller]
    pub(crate) fn succeeded(self) -> String {
        assert_eq!(self.code, Some(0), "{}{}", self.out, self.err);
        assert_eq!(self.err, "");
        self.out
    }

    #[track_caller]
    pub(crate) fn failed_with(self, words: &[&str]) {
        assert_eq!(self.code, Some(1), "{}{}", self.out, self.err);
        for word in words {
            assert!(self.err.contains(word), "no `{word}` in: {}", self.err);
        }
    }
}

/// A host's root.
pub(crate) struct Host {
    directory: TempDir,
    runtime: &'static str,
}

impl Host {
    pub(crate) fn new(runtime: &'static str) -> Self {
        let host = Self {
            directory: TempDir::new().unwrap(),
            runtime,
        };
        host.write(HOOK, "");
        fs::set_permissions(host.path(HOOK), Permissions::from_mode(0o755)).unwrap();
        host
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.directory.path().join(path.trim_start_matches('/'))
    }

    pub(crate) fn with(self, path: &str, text: &str) -> Self {
        self.write(path, text);
        self
    }

    pub(crate) fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[track_caller]
    pub(crate) fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    pub(crate) fn json(&self, path: &str) -> serde_json::Value {
        serde_json::from_str(&self.read(path)).unwrap()
    }

    /// Every file but the hook: its text, mode and inode.
    pub(crate) fn files(&self) -> BTreeMap<String, (String, u32, u64)> {
        let mut found = BTreeMap::new();
        let mut directories = vec![self.directory.path().to_owned()];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                let metadata = path.symlink_metadata().unwrap();
                if metadata.is_dir() {
                    directories.push(path);
                    continue;
                }
                if path == self.path(HOOK) {
                    continue;
                }
                let name = path.strip_prefix(self.directory.path()).unwrap();
                let text = fs::read_to_string(&path).unwrap();
                let facts = (text, metadata.mode(), metadata.ino());
                found.insert(format!("/{}", name.display()), facts);
            }
        }
        found
    }

    /// The same without what changes when a file is written anew.
    pub(crate) fn texts(&self) -> BTreeMap<String, String> {
        let files = self.files().into_iter();
        files.map(|(path, (text, ..))| (path, text)).collect()
    }

    pub(crate) fn run(&self, command: &str, options: &[&str]) -> Said {
        let output = Command::new(env!("CARGO_BIN_EXE_pilotfish-hook"))
            .args([command, "--runtime", self.runtime, "--root"])
            .arg(self.directory.path())
            .args(options)
            .output()
            .unwrap();
        Said {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Installs a hook at [`HOOK`]; containerd's default spec comes from a fixture.
    pub(crate) fn install(&self, options: &[&str]) -> Said {
        let spec = fixtures().join("default-spec.json");
        let mut all = vec!["--hook", HOOK];
        if self.runtime == "containerd" {
            all.extend(["--default-spec", spec.to_str().unwrap()]);
        }
        all.extend(options);
        self.run("install", &all)
    }

    pub(crate) fn uninstall(&self) -> Said {
        self.run("uninstall", &[])
    }
}

/// Installs twice, uninstalls, and expects: a dry run that writes nothing, a second installation that writes nothing,
/// and in the end what was there at first, byte for byte.
#[track_caller]
pub(crate) fn round_trip(host: &Host, options: &[&str]) {
    let original = host.files();
    let dry = [options, &["--dry-run"]].concat();
    let said = host.install(&dry).succeeded();
    assert!(said.ends_with("dry run: nothing was written\n"), "{said}");
    assert_eq!(host.files(), original, "a dry run wrote");

    host.install(options).succeeded();
    let installed = host.files();
    assert_ne!(installed, original);
    let said = host.install(options).succeeded();
    assert!(said.ends_with("nothing to change\n"), "{said}");
    assert_eq!(host.files(), installed, "a second installation wrote");

    let said = host.run("uninstall", &["--dry-run"]).succeeded();
    assert!(said.ends_with("dry run: nothing was written\n"), "{said}");
    assert_eq!(host.files(), installed, "a dry run wrote");
    host.uninstall().succeeded();
    let before: Vec<_> = original
        .iter()
        .map(|(path, file)| (path, &file.0, file.1))
        .collect();
    let after = host.files();
    let after: Vec<_> = after
        .iter()
        .map(|(path, file)| (path, &file.0, file.1))
        .collect();
    assert_eq!(after, before);
    let said = host.uninstall().succeeded();
    assert!(said.ends_with("nothing to change\n"), "{said}");
}
