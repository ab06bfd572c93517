//! Request methods that are told apart; every other one is `_OTHER`.

/// RFC 9110, section 9.1, and RFC 5789; the likely ones first.
const KNOWN: [&str; 9] = [
    "GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "CONNECT", "TRACE",
];

/// The known method of that name. Methods are case-sensitive.
pub(in crate::protocol) fn known(method: &[u8]) -> Option<&'static str> {
    KNOWN.into_iter().find(|known| known.as_bytes() == method)
}

/// True if some known method begins like that.
pub(in crate::protocol) fn is_beginning(bytes: &[u8]) -> bool {
    KNOWN
        .iter()
        .any(|known| known.as_bytes().starts_with(bytes))
}
