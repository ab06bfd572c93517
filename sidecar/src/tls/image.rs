//! An executable or library as the attacher needs it: where its TLS functions are, or why they cannot be probed.

use super::{
    functions::{Function, Library},
    rustls,
};
use crate::instrument::{Probe, TlsProgram};
use pilotfish_symbols::{Binary, Function as Found, Source, SymbolError};

/// Oldest Go with the register ABI on amd64 (`cmd/compile/abi-internal.md`).
const FIRST_GO: u32 = 17;

/// What a file says about TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Image {
    /// It has nothing to do with TLS.
    Unrelated,
    /// Its functions can be probed.
    Covered(Plan),
    /// It has TLS that cannot be seen.
    NotCovered(&'static str),
}

/// Where probes go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// Which library it is, or contains.
    pub library: Option<Library>,
    /// By program; returns before entries, so that no call is entered whose return would not be seen.
    pub probes: Vec<(TlsProgram, Vec<Probe>)>,
    /// Probes whose instruction the kernel has to single-step, each at some ten times the price.
    pub stepped: usize,
}

/// What a mapped file is by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// The process's executable, whatever its name.
    Executable,
    /// A library that may have the functions of one kind.
    Library(Library),
    /// A library whose TLS is never seen.
    Foreign(&'static str),
}

const NSS: &str = "NSS is not covered: its functions serve files and sockets alike";
const JAVA: &str = "Java has its own TLS, which is not covered";

/// What a library with this file name is worth a look for.
pub(super) fn role_of_library(name: &str) -> Option<Role> {
    Some(match name {
        "libssl3.so" | "libnspr4.so" => Role::Foreign(NSS),
        "libjvm.so" => Role::Foreign(JAVA),
        name if name.starts_with("libssl") || name.starts_with("libboringssl") => {
            Role::Library(Library::OpenSsl)
        }
        name if name.starts_with("libgnutls") && !name.starts_with("libgnutlsxx") => {
            Role::Library(Library::GnuTls)
        }
        _ => return None,
    })
}

/// Reads a file.
pub(super) fn examine<S: Source>(source: S, role: Role) -> Result<Image, SymbolError> {
    let binary = match role {
        Role::Foreign(reason) => return Ok(Image::NotCovered(reason)),
        Role::Executable | Role::Library(_) => Binary::open(source)?,
    };
    match role {
        Role::Library(library) => Ok(native(&binary, library)?.map_or(
            Image::NotCovered("the library does not export its functions"),
            Image::Covered,
        )),
        _ => executable(&binary),
    }
}

fn executable<S: Source>(binary: &Binary<S>) -> Result<Image, SymbolError> {
    if let Some(go) = binary.go()? {
        return golang(binary, go.minor());
    }
    for library in [Library::OpenSsl, Library::GnuTls] {
        if let Some(plan) = native(binary, library)? {
            return Ok(Image::Covered(plan));
        }
    }
    let markers: Vec<&[u8]> = STATIC_COPIES
        .iter()
        .map(|(marker, _)| *marker)
        .chain(rustls::MARKERS)
        .collect();
    let mut found = binary.contains(&markers)?;
    let of_rustls = found.split_off(STATIC_COPIES.len());
    if let Some(image) = rustls::examine(binary, &of_rustls)? {
        return Ok(image);
    }
    let copy = STATIC_COPIES.iter().zip(found).find(|(_, found)| *found);
    Ok(copy.map_or(Image::Unrelated, |((_, reason), _)| {
        Image::NotCovered(reason)
    }))
}

/// What a stripped executable with a TLS library inside still contains: version texts, names of source files.
const STATIC_COPIES: [(&[u8], &str); 3] = [
    (
        b"OpenSSL 3.",
        "OpenSSL is linked into the executable, whose symbols were stripped",
    ),
    (
        b"OpenSSL 1.1.1",
        "OpenSSL is linked into the executable, whose symbols were stripped",
    ),
    (
        b"BoringSSL",
        "BoringSSL is linked into the executable, whose symbols were stripped",
    ),
];

fn native<S: Source>(binary: &Binary<S>, library: Library) -> Result<Option<Plan>, SymbolError> {
    let functions = library.functions();
    let names: Vec<&str> = functions.iter().map(|function| function.name).collect();
    let found = binary.functions(&names)?;
    let (mut entries, mut returns, mut stepped) = (Vec::new(), Vec::new(), 0);
    for place in &found {
        let Some(function) = named(functions, place) else {
            continue;
        };
        let entry = binary.entry(place)?;
        stepped += usize::from(!entry.is_emulated);
        let probe = Probe {
            offset: entry.offset,
            cookie: function.cookie,
        };
        entries.push(probe);
        if function.returns {
            returns.push(probe);
        }
    }
    // Bytes come and go only through these.
    let moves = |wanted: &str| found.iter().any(|place| place.name == wanted);
    let complete = match library {
        Library::OpenSsl => moves("SSL_read") && moves("SSL_write"),
        _ => moves("gnutls_record_recv") && moves("gnutls_record_send"),
    };
    Ok(complete.then(|| Plan {
        library: Some(library),
        probes: vec![(TlsProgram::Leave, returns), (TlsProgram::Enter, entries)],
        stepped,
    }))
}

fn named<'a>(functions: &'a [Function], place: &Found) -> Option<&'a Function> {
    functions
        .iter()
        .find(|function| function.name == place.name)
}

fn golang<S: Source>(binary: &Binary<S>, minor: Option<u32>) -> Result<Image, SymbolError> {
    let functions = Library::Go.functions();
    let names: Vec<&str> = functions.iter().map(|function| function.name).collect();
    let found = binary.go_functions(&names)?;
    if found.is_empty() {
        return Ok(Image::Unrelated);
    }
    // A toolchain without a release number is newer than any that we know of.
    if minor.is_some_and(|minor| minor < FIRST_GO) {
        return Ok(Image::NotCovered(
            "built by Go before 1.17, which passes arguments on the stack",
        ));
    }
    // The linker leaves out what a program cannot reach: a client has no server's handshake.
    let has = |wanted: &str| {
        found
            .iter()
            .any(|place| place.name.strip_prefix("crypto/tls.(*Conn).") == Some(wanted))
    };
    let complete =
        has("Read") && has("Write") && (has("clientHandshake") || has("serverHandshake"));
    if !complete {
        return Ok(Image::NotCovered(
            "this version of Go has other functions in crypto/tls than those that are known",
        ));
    }
    let (mut probes, mut stepped) = (Vec::new(), 0);
    for place in &found {
        let Some(function) = named(functions, place) else {
            continue;
        };
        if function.returns {
            let cookie = function.cookie.at_return();
            for offset in binary.returns(place)? {
                probes.push(Probe { offset, cookie });
                stepped += 1;
            }
        }
        let entry = binary.go_entry(place)?;
        stepped += usize::from(!entry.is_emulated);
        probes.push(Probe {
            offset: entry.offset,
            cookie: function.cookie,
        });
    }
    Ok(Image::Covered(Plan {
        library: Some(Library::Go),
        probes: vec![(TlsProgram::Go, probes)],
        stepped,
    }))
}
