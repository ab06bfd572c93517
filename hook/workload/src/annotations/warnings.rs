//! Warnings for people: bounded in number and in length.

/// Most warnings that are kept of one source; a last one counts those left out.
pub const MAX_WARNINGS: usize = 32;

/// Characters shown of a text that somebody else wrote.
const SHOWN: usize = 64;

#[derive(Default)]
pub(super) struct Warnings {
    kept: Vec<String>,
    left_out: usize,
}

impl Warnings {
    /// Adds one; beyond the bound it is only counted, and its text is never made.
    pub(super) fn push(&mut self, text: impl FnOnce() -> String) {
        if self.kept.len() < MAX_WARNINGS {
            self.kept.push(text());
        } else {
            self.left_out += 1;
        }
    }

    pub(super) fn into_list(mut self) -> Vec<String> {
        if self.left_out > 0 {
            self.kept
                .push(format!("and {} more warnings", self.left_out));
        }
        self.kept
    }
}

/// A text in quotes, escaped and shortened.
pub(super) fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{:?}...", text.get(..end).unwrap_or_default()),
        None => format!("{text:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_shortened_at_a_character() {
        assert_eq!(shown("a\n\"b"), r#""a\n\"b""#);
        assert_eq!(
            shown(&"ü".repeat(65)),
            format!("\"{}\"...", "ü".repeat(SHOWN))
        );
        assert_eq!(shown(&"ü".repeat(64)), format!("\"{}\"", "ü".repeat(SHOWN)));
    }

    #[test]
    fn the_rest_is_counted() {
        let mut warnings = Warnings::default();
        for number in 0..MAX_WARNINGS + 2 {
            warnings.push(|| number.to_string());
        }
        let list = warnings.into_list();
        assert_eq!(list.len(), MAX_WARNINGS + 1);
        assert_eq!(list[MAX_WARNINGS], "and 2 more warnings");
    }
}
