//! Changes of a text, and what its lines look like.

use std::ops::Range;

/// A part of a text and what takes its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Edit {
    pub(super) range: Range<usize>,
    pub(super) text: String,
}

impl Edit {
    pub(super) fn insert(at: usize, text: String) -> Self {
        Self {
            range: at..at,
            text,
        }
    }

    pub(super) fn remove(range: Range<usize>) -> Self {
        Self {
            range,
            text: String::new(),
        }
    }
}

/// Makes the changes, in any order; none if two overlap or one is beyond the text.
pub(super) fn apply(text: &str, mut edits: Vec<Edit>) -> Option<String> {
    edits.sort_by_key(|edit| (edit.range.start, edit.range.end));
    let mut changed = String::with_capacity(text.len());
    let mut done = 0;
    for edit in edits {
        changed.push_str(text.get(done..edit.range.start)?);
        changed.push_str(&edit.text);
        text.get(edit.range.clone())?;
        done = edit.range.end;
    }
    changed.push_str(text.get(done..)?);
    Some(changed)
}

/// Start of the line that this byte is on.
pub(super) fn line_start(text: &str, at: usize) -> usize {
    before(text, at).rfind('\n').map_or(0, |end| end + 1)
}

/// End of the line that this byte is on, its line break included.
pub(super) fn line_end(text: &str, at: usize) -> usize {
    let rest = text.get(at..).unwrap_or_default();
    rest.find('\n').map_or(text.len(), |end| at + end + 1)
}

/// Where lines end that are full up to this byte: there, or at the end of the line that it is within.
pub(super) fn lines_end(text: &str, at: usize) -> usize {
    if before(text, at).ends_with('\n') {
        at
    } else {
        line_end(text, at)
    }
}

/// Spaces at the beginning of the line that this byte is on; none if there is something else in front of the byte.
pub(super) fn column(text: &str, at: usize) -> Option<usize> {
    let lead = text.get(line_start(text, at)..at)?;
    let lead = lead.strip_prefix('\u{feff}').unwrap_or(lead);
    lead.bytes().all(|byte| byte == b' ').then_some(lead.len())
}

/// The column of the dash of a list's item in block notation, if only spaces are in front of it.
pub(super) fn dash_column(text: &str, item: usize) -> Option<usize> {
    let line = text.get(line_start(text, item)..line_end(text, item))?;
    let spaces = line.bytes().take_while(|byte| *byte == b' ').count();
    line.get(spaces..)?
        .strip_prefix('-')?
        .starts_with([' ', '\t', '\r', '\n'])
        .then_some(spaces)
}

/// Start of the first of the lines of comment and of blank lines that lead up to the line of this byte.
pub(super) fn above_comments(text: &str, at: usize) -> usize {
    let mut start = line_start(text, at);
    while start > 0 {
        let previous = line_start(text, start - 1);
        let line = text.get(previous..start).unwrap_or_default().trim();
        if !line.is_empty() && !line.starts_with('#') {
            break;
        }
        start = previous;
    }
    start
}

/// The line break that the text uses where this byte is.
pub(super) fn newline(text: &str, at: usize) -> &'static str {
    let end = line_end(text, at);
    if text.get(at..end).unwrap_or_default().ends_with("\r\n") {
        "\r\n"
    } else {
        "\n"
    }
}

/// Without the line break at its end.
pub(super) fn without_break(text: &str) -> &str {
    let text = text.strip_suffix('\n').unwrap_or(text);
    text.strip_suffix('\r').unwrap_or(text)
}

/// 1 for the first line.
pub(super) fn line_number(text: &str, at: usize) -> usize {
    before(text, at).matches('\n').count() + 1
}

/// White space at the beginning of the line that this byte is on.
pub(super) fn indent(text: &str, at: usize) -> &str {
    let line = text.get(line_start(text, at)..).unwrap_or_default();
    let end = line.find(|char: char| !matches!(char, ' ' | '\t'));
    line.get(..end.unwrap_or(line.len())).unwrap_or_default()
}

fn before(text: &str, at: usize) -> &str {
    text.get(..at).unwrap_or_default()
}
