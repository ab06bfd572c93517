//! The directory trees that `cargo xtask setup` makes of Debian releases.

use crate::place;
use std::fmt;
use std::path::PathBuf;

/// One of `target/tools/trees`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tree {
    /// A Debian 13 system with every runtime.
    Debian13,
    /// The programs of containerd 1.6, to lay over a system.
    Containerd16,
    /// The programs of containerd 2, to lay over a system.
    Containerd2,
    /// Go and the API server's library; no system.
    Apiserver,
}

impl Tree {
    fn name(self) -> &'static str {
        match self {
            Self::Debian13 => "debian13",
            Self::Containerd16 => "containerd-1.6",
            Self::Containerd2 => "containerd-2",
            Self::Apiserver => "apiserver",
        }
    }

    fn folder() -> PathBuf {
        place::workspace().join("target/tools/trees")
    }

    /// Its directory, which nobody may change.
    pub fn path(self) -> PathBuf {
        Self::folder().join(self.name())
    }

    /// True if its construction was finished.
    pub fn is_whole(self) -> bool {
        Self::folder()
            .join(format!("{}.recipe", self.name()))
            .is_file()
    }
}

impl fmt::Display for Tree {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}
