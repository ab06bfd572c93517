//! Bounded reading of procfs text.

use std::io::{self, Read};

/// Most bytes read of one procfs file. A container may hold 100,000 mounts; those the runtime made come first.
pub const MAX_TEXT: usize = 1024 * 1024;

/// Most lines looked at in one text.
pub const MAX_LINES: usize = 8192;

/// Reads at most [`MAX_TEXT`] bytes, drops a last line that the bound cut, and replaces bytes that are not UTF-8.
pub fn read_text(source: impl Read) -> io::Result<String> {
    let mut bytes = Vec::new();
    source.take(MAX_TEXT as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > MAX_TEXT {
        let whole = bytes.iter().rposition(|&byte| byte == b'\n').unwrap_or(0);
        bytes.truncate(whole);
    }
    Ok(match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
    })
}

/// The lines of a text, up to the bound.
pub(crate) fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().take(MAX_LINES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_line_is_dropped() {
        let line = "x".repeat(1000) + "\n";
        let text = read_text(line.repeat(2000).as_bytes()).unwrap();
        assert!(text.len() <= MAX_TEXT);
        assert!(text.lines().all(|line| line.len() == 1000));
    }

    #[test]
    fn an_endless_line_leaves_nothing() {
        assert_eq!(read_text(io::repeat(b'x')).unwrap(), "");
    }

    #[test]
    fn bytes_that_are_not_text_are_replaced() {
        assert_eq!(read_text(&b"0::/a\xff\n"[..]).unwrap(), "0::/a\u{fffd}\n");
    }
}
