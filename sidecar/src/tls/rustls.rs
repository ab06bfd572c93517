//! rustls in an executable: the methods that encrypt and decrypt records, by their symbols.
//!
//! They are methods of trait objects, so the compiler can neither leave them out nor inline them away, link-time optimisation
//! included. Their arguments are those of 0.23, which decrypts in the buffer that was received into; before and after it they
//! are others, so the release is looked for among the names of source files that panics carry ([`super::copies`]).

use super::functions::Library;
use super::image::{Image, Plan};
use crate::instrument::{Probe, TlsProgram};
use pilotfish_abi::{
    TlsAction::{self, Decrypt, Encrypt},
    TlsCookie,
    TlsResult::{self, ChaCha, Gcm, Inner},
};
use pilotfish_symbols::{Binary, Source, SymbolError};

/// What every mangled name of such a method has in it.
const TRAITS: [&str; 2] = ["MessageEncrypter", "MessageDecrypter"];

/// What a method does, by its name as Rust writes it.
fn cookie(mangled: &str) -> Option<TlsCookie> {
    if !TRAITS.iter().any(|name| mangled.contains(name)) {
        return None;
    }
    let name = format!("{:#}", rustc_demangle::try_demangle(mangled).ok()?);
    let (implementer, method) = name
        .strip_prefix("<rustls::crypto::")?
        .split_once(" as rustls::crypto::cipher::")?;
    let action = match method {
        "MessageEncrypter>::encrypt" => Encrypt,
        "MessageDecrypter>::decrypt" => Decrypt,
        _ => return None,
    };
    let cipher = implementer
        .strip_prefix("ring::")
        .or_else(|| implementer.strip_prefix("aws_lc_rs::"))?;
    Some(TlsCookie::new(action, layout(cipher)?))
}

/// How a record looks, by module and type of what encrypts or decrypts it.
fn layout(cipher: &str) -> Option<TlsResult> {
    match cipher.split_once("::")? {
        ("tls13", _) => Some(Inner),
        ("tls12", name) if name.starts_with("Gcm") => Some(Gcm),
        ("tls12", name) if name.starts_with("ChaCha20Poly1305") => Some(ChaCha),
        _ => None,
    }
}

/// What an executable has of rustls by its symbols; nothing if it has none. `is_known` says that it is release 0.23.
pub(super) fn examine<S: Source>(
    binary: &Binary<S>,
    is_known: bool,
) -> Result<Option<Image>, SymbolError> {
    let found = binary.functions_matching(&mut |name| cookie(name).is_some())?;
    if found.is_empty() {
        return Ok(None);
    }
    if !is_known {
        return Ok(Some(Image::NotCovered(
            "only release 0.23 of rustls is covered; this is another, or its release cannot be told",
        )));
    }
    let (mut entries, mut returns, mut stepped) = (Vec::new(), Vec::new(), 0);
    let mut actions: Vec<TlsAction> = Vec::new();
    for place in &found {
        let Some(cookie) = cookie(&place.name) else {
            continue;
        };
        let entry = binary.entry(place)?;
        stepped += usize::from(!entry.is_emulated);
        let probe = Probe {
            offset: entry.offset,
            cookie,
        };
        actions.extend(cookie.action());
        entries.push(probe);
        returns.push(probe);
    }
    if ![Encrypt, Decrypt]
        .iter()
        .all(|action| actions.contains(action))
    {
        return Ok(Some(Image::NotCovered(
            "this build of rustls lacks the functions that encrypt or decrypt with ring or aws-lc-rs",
        )));
    }
    Ok(Some(Image::Covered(Plan {
        library: Some(Library::Rustls),
        probes: vec![
            (TlsProgram::RecordLeave, returns),
            (TlsProgram::RecordEnter, entries),
        ],
        stepped,
    })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_both_manglings_are_understood() {
        for (name, expected) in [
            (
                "_ZN111_$LT$rustls..crypto..ring..tls13..Tls13MessageDecrypter$u20$as$u20$rustls..crypto..cipher..MessageDecrypter$GT$7decrypt17hcf507f652999249fE",
                Some((Decrypt, Inner)),
            ),
            (
                "_ZN109_$LT$rustls..crypto..ring..tls12..GcmMessageEncrypter$u20$as$u20$rustls..crypto..cipher..MessageEncrypter$GT$7encrypt17h82900d87c093820eE",
                Some((Encrypt, Gcm)),
            ),
            (
                "_ZN109_$LT$rustls..crypto..ring..tls12..GcmMessageEncrypter$u20$as$u20$rustls..crypto..cipher..MessageEncrypter$GT$21encrypted_payload_len17hdfee29bd372ef387E",
                None,
            ),
            (
                "_ZN108_$LT$rustls..crypto..cipher..InvalidMessageDecrypter$u20$as$u20$rustls..crypto..cipher..MessageDecrypter$GT$7decrypt17h9ca91a85c08e52aaE.llvm.9012385225876642649",
                None,
            ),
            (
                "_RNvXs3_NtNtNtCscwmbPMg72Ip_6rustls6crypto4ring5tls12NtB5_32ChaCha20Poly1305MessageEncrypterNtNtB9_6cipher16MessageEncrypter7encrypt",
                Some((Encrypt, ChaCha)),
            ),
            (
                "_RNvXs3_NtNtNtCscwmbPMg72Ip_6rustls6crypto4ring5tls12NtB5_32ChaCha20Poly1305MessageEncrypterNtNtB9_6cipher16MessageEncrypter21encrypted_payload_len",
                None,
            ),
            ("MessageEncrypter", None),
            ("_ZN16MessageEncrypter", None),
        ] {
            let cookie = expected.map(|(action, result)| TlsCookie::new(action, result));
            assert_eq!(super::cookie(name), cookie, "{name}");
        }
    }
}
