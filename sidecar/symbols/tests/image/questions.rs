//! Everything that can be asked of a file. No answer may point outside of it.

use pilotfish_symbols::{Binary, Function, bounds};

use super::{AARCH64, X86_64, function_of};

pub(crate) const WANTED: [&str; 6] = [
    "tls_read",
    "tls_write",
    "local",
    "",
    "crypto/tls.(*Conn).Read",
    "crypto/tls.(*Conn).Write",
];

/// Asks; whether the file was opened.
pub(crate) fn ask(bytes: &[u8]) -> bool {
    let Ok(binary) = Binary::open(bytes) else {
        return false;
    };
    if let Ok(needed) = binary.needed() {
        assert!(needed.len() as u64 <= bounds::NEEDED);
    }
    let functions = binary.functions(&WANTED).unwrap_or_default();
    assert!(functions.len() as u64 <= bounds::FUNCTIONS);
    for function in &functions {
        assert!(WANTED.contains(&function.name.as_str()));
        check(&binary, bytes, function);
    }
    let matching = binary
        .functions_matching(&mut |name| name.contains('l'))
        .unwrap_or_default();
    for function in &matching {
        assert!(function.name.contains('l'));
        check(&binary, bytes, function);
    }
    let _ = binary.contains(&[b"OpenSSL 3.", b"", b"OpenSSL 1.1.1"]);
    ask_go(&binary, bytes);
    true
}

/// The part about Go.
pub(crate) fn ask_go(binary: &Binary<&[u8]>, bytes: &[u8]) {
    if let Ok(Some(go)) = binary.go() {
        assert!(go.version.len() as u64 <= bounds::GO_VERSION);
        let _ = go.minor();
    }
    for function in &binary.go_functions(&WANTED).unwrap_or_default() {
        assert!(WANTED.contains(&function.name.as_str()));
        check(binary, bytes, function);
    }
}

/// Entries and returns of a function are in it.
pub(crate) fn check(binary: &Binary<&[u8]>, bytes: &[u8], function: &Function) {
    let end = function.offset + function.size.max(1);
    assert!(end <= bytes.len() as u64);
    let most = function.offset + function.size.max(bounds::ENTRY);
    for probe in [binary.entry(function), binary.go_entry(function)]
        .into_iter()
        .flatten()
    {
        assert!((function.offset..most).contains(&probe.offset));
        assert!(probe.offset < bytes.len() as u64);
    }
    let returns = binary.returns(function).unwrap_or_default();
    assert!(returns.is_sorted());
    for offset in returns {
        assert!((function.offset..end).contains(&offset));
    }
}

/// Asks about code: a byte that picks the machine, then the function.
pub(crate) fn ask_code(input: &[u8]) -> bool {
    let Some((machine, code)) = input.split_first() else {
        return false;
    };
    if code.is_empty() {
        return false;
    }
    let machine = [X86_64, AARCH64][usize::from(machine & 1)];
    let (bytes, function) = function_of(machine, code);
    let binary = Binary::open(bytes.as_slice()).unwrap();
    check(&binary, &bytes, &function);
    let unknown = Function {
        size: 0,
        ..function.clone()
    };
    check(&binary, &bytes, &unknown);
    assert!(binary.returns(&unknown).is_err());
    // What a function's entry is does not depend on what comes after the bytes that are looked at.
    if let Ok(probe) = binary.entry(&function) {
        assert_eq!(binary.entry(&unknown).unwrap(), probe);
    }
    true
}
