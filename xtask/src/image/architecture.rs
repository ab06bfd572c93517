//! The architectures that images are built for.

use std::env::consts::ARCH;

use clap::ValueEnum;

/// `--arch`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Choice {
    /// x86-64
    Amd64,
    /// 64-bit Arm; cross-compiled and not tested
    Arm64,
    /// Both
    All,
}

impl Choice {
    /// What this machine runs.
    pub(super) fn native() -> Self {
        if ARCH == "aarch64" {
            Self::Arm64
        } else {
            Self::Amd64
        }
    }

    /// The architectures meant.
    pub(super) fn architectures(self) -> &'static [Architecture] {
        match self {
            Self::Amd64 => &[AMD64],
            Self::Arm64 => &[ARM64],
            Self::All => &[AMD64, ARM64],
        }
    }
}

/// One architecture, as each tool calls it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Architecture {
    /// Go's name, which images go by.
    pub(super) name: &'static str,
    /// Rust's name.
    rust: &'static str,
    /// Debian's cross compiler for it.
    cross_compiler: &'static str,
}

const AMD64: Architecture = Architecture {
    name: "amd64",
    rust: "x86_64",
    cross_compiler: "x86_64-linux-gnu-gcc",
};

const ARM64: Architecture = Architecture {
    name: "arm64",
    rust: "aarch64",
    cross_compiler: "aarch64-linux-gnu-gcc",
};

impl Architecture {
    /// The target triple of static programs.
    pub(super) fn triple(self) -> String {
        format!("{}-unknown-linux-musl", self.rust)
    }

    /// The compiler of its C code (`ring`, which needs no C library), and its linker.
    pub(super) fn compiler(self) -> &'static str {
        if self.is_native() {
            "gcc"
        } else {
            self.cross_compiler
        }
    }

    /// Whether this machine runs it.
    pub(super) fn is_native(self) -> bool {
        self.rust == ARCH
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_architecture_takes_a_cross_compiler() {
        let natives: Vec<_> = Choice::All
            .architectures()
            .iter()
            .filter(|architecture| architecture.is_native())
            .collect();
        assert_eq!(natives.len(), 1);
        assert_eq!(natives[0].compiler(), "gcc");
        assert_eq!(natives[0].name, Choice::native().architectures()[0].name);
        let foreign = Choice::All
            .architectures()
            .iter()
            .find(|architecture| !architecture.is_native());
        assert!(foreign.is_some_and(|foreign| foreign.compiler().ends_with("-linux-gnu-gcc")));
    }
}
