//! JSON objects that are edited without touching what is not ours: members keep their order and their own text.

use indexmap::IndexMap;
use oci_spec::runtime::Hook;
use serde::Serialize;
use serde_json::{
    Error,
    ser::{Formatter, PrettyFormatter, Serializer},
    value::RawValue,
};

/// Members of an object; values are the text that stood there, so that no number, escape or unknown field changes.
pub(crate) type Object = IndexMap<String, Node>;

/// A value: kept as it was, or made here.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum Node {
    /// As it stood in the file.
    Kept(Box<RawValue>),
    /// Taken apart or new.
    Object(Object),
    /// Taken apart or new.
    List(Vec<Node>),
    /// New.
    Text(String),
    /// New, an entry of a spec's `hooks`.
    Hook(Hook),
}

impl Node {
    /// Its members, if it is an object.
    pub(crate) fn object(&self) -> Option<Object> {
        match self {
            Self::Kept(raw) => parse(raw.get()).ok(),
            Self::Object(members) => Some(members.clone()),
            _ => None,
        }
    }

    /// Its elements, if it is a list.
    pub(crate) fn list(&self) -> Option<Vec<Self>> {
        match self {
            Self::Kept(raw) => {
                let elements: Vec<Box<RawValue>> = serde_json::from_str(raw.get()).ok()?;
                Some(elements.into_iter().map(Self::Kept).collect())
            }
            Self::List(elements) => Some(elements.clone()),
            _ => None,
        }
    }

    /// Its text, if it is a string.
    pub(crate) fn text(&self) -> Option<String> {
        match self {
            Self::Kept(raw) => serde_json::from_str(raw.get()).ok(),
            Self::Text(text) => Some(text.clone()),
            _ => None,
        }
    }

    /// Whether it is `null`, which Go programs read like an absent member.
    pub(crate) fn is_null(&self) -> bool {
        matches!(self, Self::Kept(raw) if raw.get() == "null")
    }

    /// Whether both mean the same, however they are written.
    pub(crate) fn same(&self, other: &Self) -> bool {
        let value = |node: &Self| serde_json::to_value(node).ok();
        value(self).is_some_and(|mine| Some(mine) == value(other))
    }
}

impl From<&str> for Node {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

/// Takes an object apart, one level deep.
pub(crate) fn parse(text: &str) -> Result<Object, Error> {
    let members: IndexMap<String, Box<RawValue>> = serde_json::from_str(text)?;
    Ok(members
        .into_iter()
        .map(|(name, value)| (name, Node::Kept(value)))
        .collect())
}

/// The manner of a file that is not there yet, for [`write_like`].
pub(crate) const NEW: &str = "{\n}\n";

/// Writes an object in the manner of the text that it came from: its indentation (none if it was on one line) and
/// its final newline.
pub(crate) fn write_like(original: &str, object: &Object) -> String {
    let mut text = match indentation(original) {
        None => to_text(object, serde_json::ser::CompactFormatter),
        Some(space) => to_text(object, PrettyFormatter::with_indent(space.as_bytes())),
    };
    if original.ends_with('\n') {
        text.push('\n');
    }
    text
}

fn to_text(object: &Object, formatter: impl Formatter) -> String {
    let mut bytes = Vec::new();
    object
        .serialize(&mut Serializer::with_formatter(&mut bytes, formatter))
        .expect("members have text keys and memory takes every byte");
    String::from_utf8(bytes).expect("JSON is UTF-8")
}

/// White space before the first indented member; `None` for an object on one line.
fn indentation(text: &str) -> Option<&str> {
    text.trim().contains('\n').then(|| {
        text.lines()
            .map(|line| &line[..line.len() - line.trim_start().len()])
            .find(|space| !space.is_empty())
            .unwrap_or("  ")
    })
}
