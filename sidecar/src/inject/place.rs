//! What the text around a place says about its notation.

use super::{
    edits,
    render::{Block, Flow, Layout},
    rules::Refusal,
    tree::{Entry, Node, Value},
};

/// Longest entry that is replaced and remembered, bytes.
const MAX_REMEMBERED: usize = 64;

/// A specification in its text.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'t, 'a> {
    pub(super) text: &'t str,
    pub(super) spec: &'t Node<'a>,
}

/// An entry `key: value` whose value is next to nothing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Short<'t> {
    /// As it is written.
    pub(super) source: &'t str,
    /// Its beginning up to the colon, colon included.
    pub(super) key: &'t str,
}

impl<'t> Place<'t, '_> {
    pub(super) fn refusal(&self, key: &'static str, at: usize) -> Refusal {
        let line = edits::line_number(self.text, at);
        Refusal::Notation { line, key }
    }

    /// The end of the colon after a key.
    pub(super) fn colon_end(&self, key: &Node<'_>) -> Option<usize> {
        let rest = self.text.get(key.range.end..)?;
        let spaces = rest.len() - rest.trim_start_matches([' ', '\t']).len();
        let at = key.range.end + spaces;
        self.text.get(at..)?.starts_with(':').then_some(at + 1)
    }

    /// An entry that can be replaced, and written again from memory.
    pub(super) fn short(&self, entry: &Entry<'_>) -> Option<Short<'t>> {
        let colon = self.colon_end(&entry.key)?;
        let value = &entry.value;
        let start = entry.key.range.start;
        let end = if value.range.is_empty() {
            colon
        } else {
            let between = self.text.get(colon..value.range.start)?;
            between
                .trim_matches([' ', '\t'])
                .is_empty()
                .then_some(value.range.end)?
        };
        let source = self.text.get(start..end)?;
        let is_plain = value.anchor == 0
            && value.tag.is_none()
            && entry.key.anchor == 0
            && entry.key.tag.is_none()
            && source.len() <= MAX_REMEMBERED
            && !source.contains(['\n', '\r']);
        is_plain.then_some(Short {
            source,
            key: self.text.get(start..colon)?,
        })
    }

    /// The column of the specification's keys in block notation.
    pub(super) fn column(&self) -> Option<usize> {
        edits::column(self.text, self.spec.range.start)
    }

    /// How block notation is written here; `above` is the column of the key `spec`.
    pub(super) fn block(&self, above: usize) -> Block<'static> {
        let column = self.column().unwrap_or_default();
        Block {
            newline: edits::newline(self.text, self.spec.range.start),
            step: column.saturating_sub(above).clamp(1, 8),
            dash: self.dashes(column).unwrap_or_default(),
        }
    }

    /// Columns from the keys of the specification to the dashes below them.
    fn dashes(&self, column: usize) -> Option<usize> {
        let mut lists = self.spec.entries().iter().map(|entry| &entry.value);
        let list = lists.find(|list| !list.is_flow() && !list.items().is_empty())?;
        let first = list.items().first()?.range.start;
        let dash = edits::dash_column(self.text, first)?;
        dash.checked_sub(column)
    }

    /// How a collection in flow notation is written, with the white space at the beginning of its children's lines.
    pub(super) fn flow(&self, collection: &Node<'_>) -> (Flow<'t>, &'t str) {
        let text = self.text;
        let open = collection.range.start;
        let mut starts = children(collection);
        let first = starts.next().map_or(open, |(start, _)| start);
        let key = first_key(collection).or_else(|| first_key(self.spec));
        let quoted = key.is_some_and(|key| {
            text.get(key.range.start..)
                .unwrap_or_default()
                .starts_with('"')
        });
        let spaced = key.and_then(|key| self.colon_end(key)).is_none_or(|colon| {
            text.get(colon..)
                .unwrap_or_default()
                .starts_with([' ', '\t', '\r', '\n'])
        });
        let colon = if quoted && !spaced { ":" } else { ": " };
        let between = text.get(open + 1..first).unwrap_or_default();
        if between.contains('\n') {
            let (indent, outer) = (edits::indent(text, first), edits::indent(text, open));
            let unit = indent.strip_prefix(outer).filter(|unit| !unit.is_empty());
            let layout = Layout::Lines {
                newline: edits::newline(text, open),
                unit: unit.unwrap_or("  "),
            };
            return (
                Flow {
                    quoted,
                    colon,
                    layout,
                },
                indent,
            );
        }
        let spaced = match children(collection).zip(starts).next() {
            Some(((_, end), (next, _))) => text.get(end..next).unwrap_or_default().contains(' '),
            None => spaced,
        };
        let comma = if spaced { ", " } else { "," };
        let layout = Layout::Line { comma };
        (
            Flow {
                quoted,
                colon,
                layout,
            },
            "",
        )
    }
}

impl Flow<'_> {
    /// What stands between two children whose lines begin with this white space.
    pub(super) fn separator(&self, indent: &str) -> String {
        match self.layout {
            Layout::Line { comma } => comma.to_owned(),
            Layout::Lines { newline, .. } => format!(",{newline}{indent}"),
        }
    }
}

/// Where the children of a collection begin and end.
fn children(collection: &Node<'_>) -> impl Iterator<Item = (usize, usize)> {
    let items = collection.items().iter().map(|item| item.range.clone());
    let entries = collection.entries().iter().map(Entry::range);
    items.chain(entries).map(|range| (range.start, range.end))
}

fn first_key<'n, 'a>(node: &'n Node<'a>) -> Option<&'n Node<'a>> {
    match &node.value {
        Value::Mapping { entries, .. } => entries.first().map(|entry| &entry.key),
        Value::Sequence { items, .. } => items.first().and_then(first_key),
        _ => None,
    }
}
