//! Values as text, in the notation of the place where they are put.

use super::tree::{Node, Value, is_text};

/// How block notation is written in a manifest.
#[derive(Clone, Debug)]
pub(super) struct Block<'a> {
    pub(super) newline: &'a str,
    /// Columns from a key to the keys below it.
    pub(super) step: usize,
    /// Columns from a key to the dashes below it.
    pub(super) dash: usize,
}

impl Block<'_> {
    /// A key and its value as whole lines.
    pub(super) fn entry(&self, key: &str, value: &Node<'_>, column: usize) -> String {
        let mut text = String::new();
        self.put_entry(&mut text, key, value, column);
        text
    }

    /// A list's item as whole lines, the dash at this column.
    pub(super) fn item(&self, value: &Node<'_>, column: usize) -> String {
        let mut text = String::new();
        self.put_item(&mut text, value, column);
        text
    }

    fn put_entry(&self, text: &mut String, key: &str, value: &Node<'_>, column: usize) {
        text.extend(std::iter::repeat_n(' ', column));
        self.put_pair(text, key, value, column);
    }

    fn put_pair(&self, text: &mut String, key: &str, value: &Node<'_>, column: usize) {
        text.push_str(key);
        text.push(':');
        match &value.value {
            Value::Mapping { flow: false, .. } => {
                text.push_str(self.newline);
                for entry in value.entries() {
                    let key = entry.key.as_text().unwrap_or_default();
                    self.put_entry(text, key, &entry.value, column + self.step);
                }
            }
            Value::Sequence { flow: false, items } => {
                text.push_str(self.newline);
                for item in items {
                    self.put_item(text, item, column + self.dash);
                }
            }
            _ => {
                text.push(' ');
                Flow::YAML.put(text, value, "");
                text.push_str(self.newline);
            }
        }
    }

    fn put_item(&self, text: &mut String, value: &Node<'_>, column: usize) {
        text.extend(std::iter::repeat_n(' ', column));
        text.push_str("- ");
        let entries = value.entries();
        for (index, entry) in entries.iter().enumerate() {
            let key = entry.key.as_text().unwrap_or_default();
            if index == 0 {
                self.put_pair(text, key, &entry.value, column + 2);
            } else {
                self.put_entry(text, key, &entry.value, column + 2);
            }
        }
        if entries.is_empty() {
            Flow::YAML.put(text, value, "");
            text.push_str(self.newline);
        }
    }
}

/// How flow notation, JSON among it, is written in a manifest.
#[derive(Clone, Debug)]
pub(super) struct Flow<'a> {
    /// Whether every text is quoted, as JSON has it.
    pub(super) quoted: bool,
    pub(super) colon: &'a str,
    pub(super) layout: Layout<'a>,
}

/// Where flow notation breaks lines.
#[derive(Clone, Debug)]
pub(super) enum Layout<'a> {
    /// Nowhere; this is between two children.
    Line { comma: &'a str },
    /// Before every child.
    Lines {
        newline: &'a str,
        /// One step to the right.
        unit: &'a str,
    },
}

impl Flow<'static> {
    /// Short lists within block notation.
    const YAML: Self = Self {
        quoted: false,
        colon: ": ",
        layout: Layout::Line { comma: ", " },
    };
}

impl Flow<'_> {
    /// `key: value`, the line that it stands on indented so.
    pub(super) fn entry(&self, key: &str, value: &Node<'_>, indent: &str) -> String {
        let mut text = String::new();
        self.put_text(&mut text, key, true);
        text.push_str(self.colon);
        self.put(&mut text, value, indent);
        text
    }

    pub(super) fn value(&self, value: &Node<'_>, indent: &str) -> String {
        let mut text = String::new();
        self.put(&mut text, value, indent);
        text
    }

    fn put(&self, text: &mut String, value: &Node<'_>, indent: &str) {
        match &value.value {
            Value::Scalar {
                text: scalar,
                plain,
            } => self.put_text(text, scalar, *plain),
            Value::Sequence { items, .. } => {
                let items = items.iter().map(|item| (None, item));
                self.put_children(text, '[', items, ']', indent);
            }
            Value::Mapping { entries, .. } => {
                let entries = entries.iter();
                let entries = entries.map(|entry| (entry.key.as_text(), &entry.value));
                self.put_children(text, '{', entries, '}', indent);
            }
            Value::Alias(_) => {}
        }
    }

    fn put_children<'n>(
        &self,
        text: &mut String,
        open: char,
        children: impl Iterator<Item = (Option<&'n str>, &'n Node<'n>)>,
        close: char,
        indent: &str,
    ) {
        text.push(open);
        let deeper = match self.layout {
            Layout::Line { .. } => String::new(),
            Layout::Lines { unit, .. } => format!("{indent}{unit}"),
        };
        for (index, (key, value)) in children.enumerate() {
            match self.layout {
                Layout::Line { comma } if index > 0 => text.push_str(comma),
                Layout::Line { .. } => {}
                Layout::Lines { newline, .. } => {
                    text.push_str(if index > 0 { "," } else { "" });
                    text.push_str(newline);
                    text.push_str(&deeper);
                }
            }
            if let Some(key) = key {
                self.put_text(text, key, true);
                text.push_str(self.colon);
            }
            self.put(text, value, &deeper);
        }
        if let Layout::Lines { newline, .. } = self.layout {
            text.push_str(newline);
            text.push_str(indent);
        }
        text.push(close);
    }

    fn put_text(&self, text: &mut String, scalar: &str, plain: bool) {
        let is_literal = plain && !is_text(scalar);
        if is_literal || (plain && !self.quoted && is_safe(scalar)) {
            text.push_str(scalar);
        } else {
            // JSON's strings are YAML's double-quoted ones.
            text.push_str(&serde_json::Value::from(scalar).to_string());
        }
    }
}

/// Whether a text can stand without quotes, in block and in flow notation.
fn is_safe(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphanumeric() || first == '/')
        && !text.ends_with(':')
        && text
            .chars()
            .all(|char| char.is_ascii_alphanumeric() || "-_./:@=+".contains(char))
        || text.strip_prefix("--").is_some_and(is_flag)
}

fn is_flag(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_lowercase())
        && name
            .chars()
            .all(|char| char.is_ascii_lowercase() || char == '-')
}
