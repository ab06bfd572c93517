//! The shapes of ids and names. Anything that has another shape is not believed.

/// Longest container id that is accepted: the limit of runc's state directory names, with room to spare.
const MAX_ID: usize = 256;

/// Whether this is a generated container id: 64 lower-case hexadecimal digits.
pub(crate) fn is_generated_id(text: &str) -> bool {
    text.len() == 64 && is_hex(text)
}

/// Whether an OCI runtime would take this as a container id (runc: `^[\w+-\.]+$`).
pub(crate) fn is_oci_id(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= MAX_ID
        && text != "."
        && text != ".."
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_+-.".contains(&byte))
}

/// A Kubernetes pod uid in its canonical form: a UUID (systemd slices write `_` for `-`), or the 32-digit hash
/// that the kubelet gives static pods.
pub(crate) fn pod_uid(text: &str) -> Option<String> {
    let text = text.replace('_', "-");
    let groups = || text.split('-').map(str::len);
    let uuid = text.len() == 36 && groups().eq([8, 4, 4, 4, 12]);
    let hash = text.len() == 32 && groups().count() == 1;
    let hex = text.bytes().all(|byte| byte == b'-' || is_hex_digit(byte));
    ((uuid || hash) && hex).then_some(text)
}

/// A Kubernetes container name: a DNS label (RFC 1123), at most 63 characters.
pub(crate) fn is_container_name(text: &str) -> bool {
    let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    bytes.len() <= 63
        && edge(bytes.first())
        && edge(bytes.last())
        && bytes
            .iter()
            .all(|&byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

/// Lower-case hexadecimal digits only.
pub(crate) fn is_hex(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(is_hex_digit)
}

fn is_hex_digit(byte: u8) -> bool {
    byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)
}
