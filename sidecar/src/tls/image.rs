//! An executable or library as the attacher needs it: where its TLS functions are, or why they cannot be probed.

use super::{
    copies::Copies,
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
    /// It has TLS, or may have some, and cannot be examined.
    Unreadable(String),
    /// An executable in whose processes nothing must be probed.
    Excluded(&'static str),
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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
    let go = match binary.go() {
        Err(error @ SymbolError::Read(_)) => return Err(error),
        // What contradicts itself was not built by Go, or is searched for its marks.
        go => go.ok().flatten(),
    };
    if let Some(go) = go {
        return told(golang(binary, go.minor()), || Copies::find(binary));
    }
    let copies = Copies::find(binary);
    if let Ok(copies) = &copies
        && let Some(reason) = copies.hazard()
    {
        return Ok(Image::Excluded(reason));
    }
    let is_known = copies.as_ref().is_ok_and(Copies::has_known_rustls);
    told(linked(binary, is_known), || copies)
}

/// An executable with a library's functions among its own. Those of rustls are known of one release only.
fn linked<S: Source>(binary: &Binary<S>, is_known_rustls: bool) -> Result<Image, SymbolError> {
    for library in [Library::OpenSsl, Library::GnuTls] {
        if let Some(plan) = native(binary, library)? {
            return Ok(Image::Covered(plan));
        }
    }
    Ok(rustls::examine(binary, is_known_rustls)?.unwrap_or(Image::Unrelated))
}

/// What was found in an executable; where nothing was, or it could not be examined, what its constants tell.
fn told(
    examined: Result<Image, SymbolError>,
    copies: impl FnOnce() -> Result<Copies, SymbolError>,
) -> Result<Image, SymbolError> {
    let failed = match examined {
        Ok(Image::Unrelated) => None,
        Err(error) if !matches!(error, SymbolError::Read(_)) => Some(error),
        found => return found,
    };
    Ok(match (copies(), failed) {
        (Err(error @ SymbolError::Read(_)), _) => return Err(error),
        (Err(error), _) => Image::Unreadable(format!("it was not searched for TLS: {error}")),
        (Ok(copies), failed) => match (copies.stripped(), failed) {
            (None, _) => Image::Unrelated,
            (Some(reason), None) => Image::NotCovered(reason),
            (Some(_), Some(error)) => {
                Image::Unreadable(format!("its TLS functions cannot be probed: {error}"))
            }
        },
    })
}

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

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs::File, process::Command};

    /// Functions of OpenSSL, and the texts that come with the case.
    const PROGRAM: &str = "
        __attribute__((noinline, used)) int SSL_read(int given) { return given + 1; }
        __attribute__((noinline, used)) int SSL_write(int given) { return given + 2; }
        extern const char *volatile texts[];
        int main(int count, char **arguments) { return texts[count - 1] == arguments[0]; }";

    /// What is said of a program with these texts in it.
    fn examined(texts: &[&str], option: &str) -> Image {
        let directory = tempfile::tempdir().unwrap();
        let (source, program) = (
            directory.path().join("program.c"),
            directory.path().join("program"),
        );
        let texts: Vec<String> = texts.iter().map(|text| format!("{text:?}")).collect();
        let texts = format!("const char *volatile texts[] = {{{}}};", texts.join(","));
        std::fs::write(&source, format!("{PROGRAM}\n{texts}\n")).unwrap();
        let status = Command::new("gcc")
            .args(["-O2", option, "-o"])
            .args([&program, &source])
            .status()
            .unwrap();
        assert!(status.success());
        examine(File::open(program).unwrap(), Role::Executable).unwrap()
    }

    #[test]
    fn a_copy_is_covered_by_its_symbols_and_told_without_them() {
        let texts = ["../ssl/ssl_lib.c"];
        let with_symbols = examined(&texts, "-g0");
        assert!(
            matches!(&with_symbols, Image::Covered(plan) if plan.library == Some(Library::OpenSsl)),
            "{with_symbols:?}"
        );
        for (text, part) in [
            ("../deps/openssl/ssl/ssl_lib.c", "OpenSSL"),
            ("COMPLEMENTOFDEFAULT", "OpenSSL"),
            ("external/boringssl/src/ssl/ssl_lib.cc", "BoringSSL"),
            ("/registry/rustls-0.23.40/src/conn.rs", "rustls"),
            ("crypto/tls.(*Conn).Read", "crypto/tls"),
        ] {
            let stripped = examined(&[text], "-s");
            assert!(
                matches!(stripped, Image::NotCovered(reason) if reason.contains(part)),
                "{text}: {stripped:?}"
            );
        }
    }

    /// As nginx, which shows with what it was built.
    #[test]
    fn versions_and_names_in_a_users_texts_are_no_copy() {
        let texts = [
            "built with OpenSSL 3.0.22 3 Apr 2026",
            "OpenSSL 1.1.1w",
            "BoringSSL",
            "ALL:!COMPLEMENTOFDEFAULT:!eNULL",
            "ssl/ssl_lib.cpp",
            "/registry/rustls-pemfile-2.2.0/src/lib.rs",
            "crypto/tls",
            "a Crystal BIO of glass",
        ];
        assert_eq!(examined(&texts, "-s"), Image::Unrelated);
    }

    #[test]
    fn programs_of_crystal_are_left_alone_even_with_symbols() {
        for option in ["-g0", "-s"] {
            let image = examined(&["Crystal BIO"], option);
            assert!(
                matches!(image, Image::Excluded(reason) if reason.contains("Crystal")),
                "{image:?}"
            );
        }
    }

    #[test]
    fn what_cannot_be_examined_is_told_if_it_may_have_tls() {
        let failed = || Err(SymbolError::Undecodable(0x1000));
        let none = told(failed(), || Ok(Copies::default())).unwrap();
        assert_eq!(none, Image::Unrelated);
        let some = told(failed(), || Ok(Copies::of_openssl())).unwrap();
        assert!(
            matches!(&some, Image::Unreadable(reason) if reason.contains("0x1000")),
            "{some:?}"
        );
        let too_large = || Err(SymbolError::Malformed("a segment"));
        let unknown = told(Ok(Image::Unrelated), too_large).unwrap();
        assert!(
            matches!(&unknown, Image::Unreadable(reason) if reason.contains("a segment")),
            "{unknown:?}"
        );
        // What could not be read may be readable the next time, so it is no answer.
        let unread = || Err(SymbolError::Read(std::io::ErrorKind::TimedOut.into()));
        assert!(told(unread(), || Ok(Copies::default())).is_err());
        assert!(told(failed(), || unread().map(|_: Image| Copies::default())).is_err());
    }
}
