//! What an executable says of TLS by the constants in it: libraries that were linked into it and stripped, Go's functions,
//! and a runtime whose programs must not be probed.
//!
//! A program that is linked to a shared library can have that library's name and version in it (`nginx -V` shows
//! "OpenSSL 3.0.22"), so a marker is something that only the library's own code has.

use pilotfish_symbols::{Binary, Source, SymbolError};

/// A constant, and what it is a mark of.
const MARKERS: [(&[u8], Mark); 7] = [
    // Name of a source file, which every error of that file carries.
    (b"ssl/ssl_lib.c\0", Mark::OpenSsl),
    // An alias among its names of ciphers, where names of source files are left out (`no-filenames`).
    (b"\0COMPLEMENTOFDEFAULT\0", Mark::OpenSsl),
    (b"ssl/ssl_lib.cc\0", Mark::BoringSsl),
    // Sources of the crate itself, not of those whose names begin so.
    (b"/rustls-0.", Mark::Rustls),
    (b"/rustls-0.23.", Mark::KnownRustls),
    (b"crypto/tls.(*Conn).Read\0", Mark::Go),
    // Name of the I/O method that Crystal's standard library gives to OpenSSL (`src/openssl/bio.cr`).
    (b"Crystal BIO\0", Mark::Crystal),
];

/// What a constant is a mark of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Mark {
    OpenSsl,
    BoringSsl,
    Rustls,
    /// Of the release whose functions are known.
    KnownRustls,
    Go,
    Crystal,
}

/// The marks that an executable has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Copies(Vec<Mark>);

impl Copies {
    /// Searches an executable.
    pub(super) fn find<S: Source>(binary: &Binary<S>) -> Result<Self, SymbolError> {
        let found = binary.contains(MARKERS.map(|(marker, _)| marker).as_slice())?;
        let marks = MARKERS.iter().zip(found);
        let mut marks: Vec<Mark> = marks
            .filter(|(_, found)| *found)
            .map(|((_, mark), _)| *mark)
            .collect();
        marks.dedup();
        Ok(Self(marks))
    }

    #[cfg(test)]
    pub(super) fn of_openssl() -> Self {
        Self(vec![Mark::OpenSsl])
    }

    /// Why its probes could end the program: a switch of stacks inside a call, which then returns on another stack than
    /// the one whose return address a probe has replaced.
    pub(super) fn hazard(&self) -> Option<&'static str> {
        self.0.contains(&Mark::Crystal).then_some(
            "Crystal switches between fibers inside calls of its TLS library; probes at returns would end the program",
        )
    }

    /// True if it has the release of rustls whose functions are known.
    pub(super) fn has_known_rustls(&self) -> bool {
        self.0.contains(&Mark::KnownRustls)
    }

    /// Which TLS it has without symbols, if it has any.
    pub(super) fn stripped(&self) -> Option<&'static str> {
        self.0.iter().find_map(|mark| match mark {
            Mark::OpenSsl => {
                Some("OpenSSL is linked into the executable, whose symbols were stripped")
            }
            Mark::BoringSsl => {
                Some("BoringSSL is linked into the executable, whose symbols were stripped")
            }
            Mark::Rustls => {
                Some("rustls is linked into the executable, whose symbols were stripped")
            }
            Mark::Go => Some(
                "crypto/tls is in the executable, whose table of functions is not of Go's linker",
            ),
            Mark::KnownRustls | Mark::Crystal => None,
        })
    }
}
