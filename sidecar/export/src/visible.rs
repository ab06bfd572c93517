//! Text of the workload, made harmless for a terminal.

use unicode_width::UnicodeWidthChar;

/// The text with everything replaced that a terminal obeys instead of showing it, or that hides or reorders what
/// stands beside it: control characters, characters without width (joiners, combining marks, directional
/// formatting), separators of lines and paragraphs, soft hyphens.
pub(crate) fn visible(text: &str) -> String {
    text.chars()
        .map(|char| {
            if shows(char) {
                char
            } else {
                char::REPLACEMENT_CHARACTER
            }
        })
        .collect()
}

fn shows(char: char) -> bool {
    // Unicode Standard Annex 11 gives control characters no width, and zero to what is drawn upon another character.
    char.width().is_some_and(|width| width > 0)
        && !matches!(
            char,
            '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_hides_or_reorders_is_replaced() {
        for hostile in [
            '\0',
            '\u{7}',
            '\u{8}',
            '\t',
            '\n',
            '\r',
            '\u{1b}',
            '\u{7f}',
            '\u{9b}',
            '\u{ad}',
            '\u{301}',
            '\u{61c}',
            '\u{200b}',
            '\u{200d}',
            '\u{200e}',
            '\u{200f}',
            '\u{2028}',
            '\u{2029}',
            '\u{202a}',
            '\u{202e}',
            '\u{2060}',
            '\u{2066}',
            '\u{2069}',
            '\u{fe0f}',
            '\u{feff}',
            '\u{e0041}',
        ] {
            let text = format!("a{hostile}b");
            assert_eq!(visible(&text), "a\u{fffd}b", "{hostile:?}");
        }
        assert_eq!(visible("GET /ä/日本/שלום/🐟"), "GET /ä/日本/שלום/🐟");
    }
}
