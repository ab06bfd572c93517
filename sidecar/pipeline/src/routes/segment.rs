//! What one segment of a path looks like.

/// Longest segment that can be a word; longer ones are identifiers or noise.
const MAX_WORD: usize = 48;

/// Shortest run of hexadecimal digits or mixed letters and digits that counts as a hash.
const MIN_HASH: usize = 16;

/// Most digits in a word such as `v2` or `oauth2` or `iso8601`.
const MAX_WORD_DIGITS: usize = 4;

/// The placeholder for a segment that looks like an identifier, or `None` for a word.
pub(super) fn placeholder(segment: &str) -> Option<&'static str> {
    let bytes = segment.as_bytes();
    let digits = bytes.iter().filter(|byte| byte.is_ascii_digit()).count();
    if digits == 0 && bytes.len() < MIN_HASH && bytes.iter().all(|&byte| is_word_byte(byte)) {
        return None;
    }
    if !bytes.is_empty() && digits == bytes.len() || is_number(bytes) {
        return Some("{id}");
    }
    if is_uuid(bytes) {
        return Some("{uuid}");
    }
    if is_email(segment) {
        return Some("{email}");
    }
    if is_hash(bytes, digits) {
        return Some("{hash}");
    }
    if digits > MAX_WORD_DIGITS {
        return Some("{id}");
    }
    (bytes.len() > MAX_WORD || !bytes.iter().all(|&byte| is_word_byte(byte))).then_some("*")
}

/// RFC 3986 `pchar` without percent-encoding, whose presence means free text.
fn is_word_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()+,;:".contains(&byte)
}

/// `-12`, `1.5`, `2024-01-31`, `12:30`, `1,2`.
fn is_number(bytes: &[u8]) -> bool {
    bytes.iter().any(u8::is_ascii_digit)
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_digit() || b"-+.,:_".contains(byte))
}

/// RFC 9562: 8-4-4-4-12 hexadecimal digits.
fn is_uuid(bytes: &[u8]) -> bool {
    let is_dash_place = |index| matches!(index, 8 | 13 | 18 | 23);
    bytes.len() == 36
        && bytes.iter().enumerate().all(|(index, byte)| match byte {
            b'-' => is_dash_place(index),
            _ => byte.is_ascii_hexdigit() && !is_dash_place(index),
        })
}

fn is_email(segment: &str) -> bool {
    let parts = segment
        .split_once('@')
        .or_else(|| segment.split_once("%40"));
    parts.is_some_and(|(user, host)| !user.is_empty() && host.contains('.'))
}

/// Long hexadecimal text, or long text without separators that mixes digits with letters as base64 does.
fn is_hash(bytes: &[u8], digits: usize) -> bool {
    if bytes.len() < MIN_HASH || digits == 0 {
        return false;
    }
    let hexadecimal = bytes.iter().all(u8::is_ascii_hexdigit);
    let base64 = bytes
        .iter()
        .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'+' | b'='));
    let upper = bytes.iter().any(u8::is_ascii_uppercase);
    let lower = bytes.iter().any(u8::is_ascii_lowercase);
    hexadecimal || base64 && (upper && lower || digits > MAX_WORD_DIGITS)
}

#[cfg(test)]
mod tests {
    use super::placeholder;

    #[test]
    fn words_stay() {
        for word in [
            "users",
            "v2",
            "oauth2",
            "index.html",
            "",
            "favicon.ico",
            "my-long-resource-name-without-digits",
            "iso8601",
        ] {
            assert_eq!(placeholder(word), None, "{word}");
        }
    }

    #[test]
    fn identifiers_are_replaced() {
        for (segment, expected) in [
            ("42", "{id}"),
            ("-7", "{id}"),
            ("2024-01-31", "{id}"),
            ("order-20240131", "{id}"),
            ("0190b5a6-7c3e-7bd1-9f6e-2f5a0c1d2e3f", "{uuid}"),
            ("9e107d9d372bb6826bd81d3542a419d6", "{hash}"),
            ("dGhpcyBpcyBhIHRlc3Q1", "{hash}"),
            ("01ARZ3NDEKTSV4RRFFQ69G5FAV", "{hash}"),
            ("jo@example.org", "{email}"),
            ("jo%40example.org", "{email}"),
            ("caf%C3%A9", "*"),
            ("a\u{1b}[31m", "*"),
            ("日本", "*"),
        ] {
            assert_eq!(placeholder(segment), Some(expected), "{segment}");
        }
        assert_eq!(placeholder(&"x".repeat(49)), Some("*"));
    }
}
