//! Documents as trees whose nodes know their place in the text.

use granit_parser::{Event, Parser, ScalarStyle, StructureStyle};
use std::{borrow::Cow, collections::HashSet, ops::Range};

/// Most nodes of one text. A node takes about a hundred bytes.
const MAX_NODES: usize = 2_000_000;

/// Why a text cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// It is no YAML.
    #[error(
        "line {line}, column {column}: {reason}; mend it there, and if it is a template, render it first"
    )]
    Syntax {
        /// From 1.
        line: usize,
        /// From 1, in characters.
        column: usize,
        /// What the parser says.
        reason: String,
    },
    /// It is too much.
    #[error("more than {MAX_NODES} values in one text; split it")]
    TooManyNodes,
}

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Node<'a> {
    /// Bytes of the text: with brackets and quotes, without anchor and tag; for block collections from the first
    /// to the last child.
    pub(super) range: Range<usize>,
    /// Number of the anchor; 0 for none.
    pub(super) anchor: usize,
    pub(super) tag: Option<Box<str>>,
    pub(super) value: Value<'a>,
}

/// What a node is.
#[derive(Clone, Debug)]
pub(super) enum Value<'a> {
    Scalar {
        text: Cow<'a, str>,
        /// Without quotes, so that `true` is no text.
        plain: bool,
    },
    Sequence {
        flow: bool,
        items: Vec<Node<'a>>,
    },
    Mapping {
        flow: bool,
        entries: Vec<Entry<'a>>,
    },
    Alias(usize),
}

/// A key and its value.
#[derive(Clone, Debug)]
pub(super) struct Entry<'a> {
    pub(super) key: Node<'a>,
    pub(super) value: Node<'a>,
}

impl<'a> Entry<'a> {
    pub(super) fn new(key: &'a str, value: Node<'a>) -> Self {
        Self {
            key: Node::text(key),
            value,
        }
    }

    pub(super) fn range(&self) -> Range<usize> {
        self.key.range.start..self.value.range.end.max(self.key.range.end)
    }
}

impl<'a> Node<'a> {
    fn new(value: Value<'a>) -> Self {
        Self {
            range: 0..0,
            anchor: 0,
            tag: None,
            value,
        }
    }

    /// A text, quoted where it would be something else without.
    pub(super) fn text(text: impl Into<Cow<'a, str>>) -> Self {
        let text = text.into();
        let plain = is_text(&text);
        Self::new(Value::Scalar { text, plain })
    }

    /// A number or a truth value.
    pub(super) fn literal(text: impl Into<Cow<'a, str>>) -> Self {
        Self::new(Value::Scalar {
            text: text.into(),
            plain: true,
        })
    }

    pub(super) fn mapping(entries: Vec<Entry<'a>>) -> Self {
        Self::new(Value::Mapping {
            flow: false,
            entries,
        })
    }

    pub(super) fn sequence(items: Vec<Self>) -> Self {
        Self::new(Value::Sequence { flow: false, items })
    }

    pub(super) fn as_text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }

    /// Nothing, in any of its spellings.
    pub(super) fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar { text, plain: true }
            if matches!(&**text, "" | "~" | "null" | "Null" | "NULL"))
    }

    /// A truth value as Kubernetes reads it, which takes YAML 1.1.
    pub(super) fn as_bool(&self) -> Option<bool> {
        let Value::Scalar { text, plain: true } = &self.value else {
            return None;
        };
        match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "y" => Some(true),
            "false" | "no" | "off" | "n" => Some(false),
            _ => None,
        }
    }

    pub(super) fn entries(&self) -> &[Entry<'a>] {
        match &self.value {
            Value::Mapping { entries, .. } => entries,
            _ => &[],
        }
    }

    pub(super) fn entries_mut(&mut self) -> Option<&mut Vec<Entry<'a>>> {
        match &mut self.value {
            Value::Mapping { entries, .. } => Some(entries),
            _ => None,
        }
    }

    pub(super) fn items(&self) -> &[Self] {
        match &self.value {
            Value::Sequence { items, .. } => items,
            _ => &[],
        }
    }

    pub(super) fn items_mut(&mut self) -> Option<&mut Vec<Self>> {
        match &mut self.value {
            Value::Sequence { items, .. } => Some(items),
            _ => None,
        }
    }

    pub(super) fn is_flow(&self) -> bool {
        matches!(
            self.value,
            Value::Mapping { flow: true, .. } | Value::Sequence { flow: true, .. }
        )
    }

    /// Position of a key among the entries.
    pub(super) fn position(&self, key: &str) -> Option<usize> {
        self.entries()
            .iter()
            .position(|entry| entry.key.as_text() == Some(key))
    }

    /// The value that stands at a key in this very mapping.
    pub(super) fn own(&self, key: &str) -> Option<&Self> {
        self.entries()
            .get(self.position(key)?)
            .map(|entry| &entry.value)
    }

    /// The node at the end of this path of positions; of a mapping the value of the entry.
    pub(super) fn at_mut(&mut self, path: &[usize]) -> Option<&mut Self> {
        path.iter()
            .try_fold(self, |node, &index| match &mut node.value {
                Value::Mapping { entries, .. } => {
                    entries.get_mut(index).map(|entry| &mut entry.value)
                }
                Value::Sequence { items, .. } => items.get_mut(index),
                _ => None,
            })
    }

    pub(super) fn children(&self) -> impl Iterator<Item = &Self> {
        self.items().iter().chain(
            self.entries()
                .iter()
                .flat_map(|entry| [&entry.key, &entry.value]),
        )
    }

    /// The key that stands twice in this very mapping.
    pub(super) fn own_duplicate(&self) -> Option<&str> {
        let mut seen = HashSet::new();
        let mut keys = self
            .entries()
            .iter()
            .filter_map(|entry| entry.key.as_text());
        keys.find(|key| !seen.insert(*key))
    }

    /// The key that stands twice in one mapping, here or deeper.
    pub(super) fn duplicate_key(&self) -> Option<&str> {
        self.own_duplicate()
            .or_else(|| self.children().find_map(Node::duplicate_key))
    }

    /// Whether both mean the same: order counts, notation does not.
    pub(super) fn means(&self, other: &Node<'_>) -> bool {
        if self.anchor != other.anchor || self.tag != other.tag {
            return false;
        }
        match (&self.value, &other.value) {
            (
                Value::Scalar { text, plain },
                Value::Scalar {
                    text: other_text,
                    plain: other_plain,
                },
            ) => {
                text == other_text
                    && (*plain && !is_text(text)) == (*other_plain && !is_text(other_text))
            }
            (Value::Alias(alias), Value::Alias(other)) => alias == other,
            (Value::Sequence { items, .. }, Value::Sequence { items: others, .. }) => {
                items.len() == others.len()
                    && items
                        .iter()
                        .zip(others)
                        .all(|(item, other)| item.means(other))
            }
            (
                Value::Mapping { entries, .. },
                Value::Mapping {
                    entries: others, ..
                },
            ) => {
                entries.len() == others.len()
                    && entries.iter().zip(others).all(|(entry, other)| {
                        entry.key.means(&other.key) && entry.value.means(&other.value)
                    })
            }
            _ => false,
        }
    }
}

/// Whether these characters without quotes are a text by YAML 1.1 and 1.2, and not a number, a truth value, nothing,
/// or a time.
pub(super) fn is_text(text: &str) -> bool {
    let word = text.to_ascii_lowercase();
    !matches!(
        word.as_str(),
        "" | "~" | "null" | "true" | "false" | "yes" | "no" | "on" | "off" | "y" | "n" | "=" | "<<"
    ) && !is_number(&word)
}

fn is_number(word: &str) -> bool {
    let digits = word.trim_start_matches(['+', '-']).replace('_', "");
    let is_decimal = |part: &str| part.parse::<f64>().is_ok();
    if matches!(digits.as_str(), ".inf" | ".nan") {
        return true;
    }
    digits.starts_with(|first: char| first.is_ascii_digit() || first == '.')
        // YAML 1.1 has minutes and seconds, and dates.
        && (digits.split(':').all(is_decimal)
            || ["0x", "0o", "0b"].iter().any(|base| digits.starts_with(base))
            || digits.split('-').next().is_some_and(|year| year.len() == 4 && is_decimal(year)))
}

/// The documents of a text, in order; of an empty one a null.
pub(super) fn parse(text: &str) -> Result<Vec<Node<'_>>, TreeError> {
    let options = granit_parser::options! { emit_comments: false };
    let mut builder = Builder::default();
    for event in Parser::new_from_str_with_options(text, options) {
        let (event, span) = event.map_err(|error| TreeError::Syntax {
            line: error.marker().line(),
            column: error.marker().col() + 1,
            reason: error.info().clone(),
        })?;
        let range = span.byte_range().unwrap_or_default();
        builder.take(event, range)?;
    }
    Ok(builder.documents)
}

#[derive(Default)]
struct Builder<'a> {
    documents: Vec<Node<'a>>,
    /// Collections that are open, each with the key that waits for its value.
    open: Vec<(Node<'a>, Option<Node<'a>>)>,
    nodes: usize,
}

impl<'a> Builder<'a> {
    fn take(&mut self, event: Event<'a>, range: Range<usize>) -> Result<(), TreeError> {
        let (anchor, tag, value) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain;
                (anchor, tag, Value::Scalar { text, plain })
            }
            Event::Alias(id) => (0, None, Value::Alias(id)),
            Event::SequenceStart(style, anchor, tag) => {
                let (flow, items) = (style == StructureStyle::Flow, Vec::new());
                (anchor, tag, Value::Sequence { flow, items })
            }
            Event::MappingStart(style, anchor, tag) => {
                let (flow, entries) = (style == StructureStyle::Flow, Vec::new());
                (anchor, tag, Value::Mapping { flow, entries })
            }
            Event::SequenceEnd | Event::MappingEnd => {
                self.close(range.end);
                return Ok(());
            }
            _ => return Ok(()),
        };
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(TreeError::TooManyNodes);
        }
        let is_leaf = matches!(value, Value::Scalar { .. } | Value::Alias(_));
        let node = Node {
            range,
            anchor,
            tag: tag.map(|tag| tag.to_string().into()),
            value,
        };
        if is_leaf {
            self.place(node);
        } else {
            self.open.push((node, None));
        }
        Ok(())
    }

    fn close(&mut self, end: usize) {
        let Some((mut node, _)) = self.open.pop() else {
            return;
        };
        if node.is_flow() {
            node.range.end = end;
        } else {
            let first = node.children().next().map(|child| child.range.start);
            let last = node.children().last().map(|child| child.range.end);
            node.range = first.unwrap_or(end)..last.unwrap_or(end);
        }
        self.place(node);
    }

    fn place(&mut self, node: Node<'a>) {
        let Some((parent, waiting)) = self.open.last_mut() else {
            self.documents.push(node);
            return;
        };
        match &mut parent.value {
            Value::Sequence { items, .. } => items.push(node),
            Value::Mapping { entries, .. } => match waiting.take() {
                None => *waiting = Some(node),
                Some(key) => entries.push(Entry { key, value: node }),
            },
            _ => {}
        }
    }
}
