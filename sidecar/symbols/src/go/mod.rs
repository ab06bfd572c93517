//! Go executables: which version of Go built them, and where their functions are when the symbol table was stripped.
//!
//! Go's own tables stay in a stripped executable because its runtime needs them: `.go.buildinfo` (format:
//! `cmd/link/internal/ld/data.go`, `debug/buildinfo`) and `.gopclntab` (`runtime/symtab.go`, `debug/gosym`).

mod build_info;
mod functions;
mod module_data;
mod relocated;
mod table;

/// What a Go executable says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Go {
    /// Version of the toolchain as it was written by the linker, such as `go1.24.4`; empty if it was left out. At most
    /// [`GO_VERSION`](crate::bounds::GO_VERSION) bytes.
    pub version: String,
}

impl Go {
    /// N of a release `go1.N`, with whatever follows; `None` for other versions.
    pub fn minor(&self) -> Option<u32> {
        let rest = self.version.strip_prefix("go1.")?;
        let end = rest
            .find(|character: char| !character.is_ascii_digit())
            .unwrap_or(rest.len());
        rest.get(..end)?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::Go;

    #[test]
    fn releases_have_a_minor_version() {
        let minor = |version: &str| {
            let version = version.to_owned();
            Go { version }.minor()
        };
        assert_eq!(minor("go1.17"), Some(17));
        assert_eq!(minor("go1.24.4"), Some(24));
        assert_eq!(minor("go1.26rc1 X:nodwarf5"), Some(26));
        assert_eq!(minor("devel go1.27-0123456789"), None);
        assert_eq!(minor("go1."), None);
        assert_eq!(minor("go1.99999999999"), None);
        assert_eq!(minor(""), None);
    }
}
