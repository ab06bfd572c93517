//! The changes that take the sidecar out of a pod's specification.

use super::{
    definition::{CONTAINER, INIT_CONTAINERS, SHARE, VOLUME, VOLUMES, record_of},
    edits::{self, Edit},
    place::Place,
    rules::Refusal,
    tree::{self, Entry, Node, Value},
};
use serde::de::IgnoredAny;
use std::ops::Range;

/// Edits of the text, and the specification that they are to give.
pub(super) fn remove<'a>(place: &Place<'_, 'a>) -> Result<(Vec<Edit>, Node<'a>), Refusal> {
    let named = |list: &Node<'_>, name| {
        let mut items = list.items().iter();
        items.position(|item| item.own("name").and_then(Node::as_text) == Some(name))
    };
    let container = place.spec.own(INIT_CONTAINERS).and_then(|list| {
        let at = named(list, CONTAINER)?;
        list.items().get(at)
    });
    let mut removing = Removing {
        place,
        record: container.map(record_of).unwrap_or_default(),
        edits: Vec::new(),
        gone: Vec::new(),
        expected: place.spec.clone(),
    };
    for (key, name) in [(INIT_CONTAINERS, CONTAINER), (VOLUMES, VOLUME)] {
        if let Some(at) = place.spec.position(key)
            && let Some(item) = named(&place.spec.entries()[at].value, name)
        {
            removing.item(key, at, item)?;
        }
    }
    removing.share()?;
    removing.finish()
}

struct Removing<'p, 't, 'a> {
    place: &'p Place<'t, 'a>,
    record: Vec<String>,
    edits: Vec<Edit>,
    /// Positions of entries that go as a whole.
    gone: Vec<usize>,
    expected: Node<'a>,
}

impl<'a> Removing<'_, '_, 'a> {
    fn item(&mut self, key: &'static str, at: usize, item: usize) -> Result<(), Refusal> {
        let entry = &self.place.spec.entries()[at];
        let items = entry.value.items();
        if items.len() == 1 {
            return self.key(key, at);
        }
        let ranges: Vec<_> = items.iter().map(|item| item.range.clone()).collect();
        let edits = if entry.value.is_flow() {
            children(&ranges, &[item])
        } else {
            if edits::dash_column(self.place.text, ranges[item].start).is_none() {
                return Err(self.place.refusal(key, ranges[item].start));
            }
            lines(self.place.text, &ranges, &[item])
        };
        self.edits.extend(edits);
        if let Some(items) = self.expected.at_mut(&[at]).and_then(Node::items_mut) {
            items.remove(item);
        }
        Ok(())
    }

    fn share(&mut self) -> Result<(), Refusal> {
        let Some(at) = self.place.spec.position(SHARE) else {
            return Ok(());
        };
        let is_true = |value: &Node<'_>| value.as_bool() == Some(true);
        if !is_true(&self.place.spec.entries()[at].value) {
            return Ok(());
        }
        let recorded = self.record.iter().find(|line| is_of(line, SHARE));
        if recorded
            .and_then(|line| value_of(line, SHARE))
            .is_some_and(|value| is_true(&value))
        {
            return Ok(());
        }
        self.key(SHARE, at)
    }

    /// Nothing is left at this key: what stood there comes back, if anything did.
    fn key(&mut self, key: &'static str, at: usize) -> Result<(), Refusal> {
        if let Some(source) = self.remembered(key)? {
            return self.restore(key, at, &source);
        }
        self.gone.push(at);
        Ok(())
    }

    /// The entry that stood at this key, if it can be written where the pod is now: as JSON it may have come back
    /// from where it was YAML.
    fn remembered(&self, key: &'static str) -> Result<Option<String>, Refusal> {
        let Some(line) = self.record.iter().find(|line| is_of(line, key)) else {
            return Ok(None);
        };
        let value = value_of(line, key).ok_or(Refusal::Record)?;
        if value.as_text().is_some() && !value.is_null() {
            return Err(Refusal::Record);
        }
        let in_block = || {
            let documents = tree::parse(line).unwrap_or_default();
            documents.iter().any(|entry| entry.own(key).is_some())
        };
        let fits = if self.place.spec.is_flow() {
            is_json(&format!("{{{line}}}")) || !is_json(self.place.text)
        } else {
            in_block()
        };
        Ok(fits.then(|| line.clone()))
    }

    fn restore(&mut self, key: &'static str, at: usize, source: &str) -> Result<(), Refusal> {
        let (text, entry) = (self.place.text, &self.place.spec.entries()[at]);
        let start = entry.key.range.start;
        let is_block = !entry.value.is_flow() && !entry.value.items().is_empty();
        let end = if is_block {
            let colon = self.place.colon_end(&entry.key);
            let colon = colon.ok_or_else(|| self.place.refusal(key, start))?;
            self.edits
                .extend(lines(text, std::slice::from_ref(&entry.value.range), &[0]));
            colon
        } else {
            entry.value.range.end
        };
        self.edits.push(Edit {
            range: start..end,
            text: source.to_owned(),
        });
        let value = value_of(source, key).ok_or(Refusal::Record)?;
        if let Some(node) = self.expected.at_mut(&[at]) {
            *node = value;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<(Vec<Edit>, Node<'a>), Refusal> {
        let (text, spec) = (self.place.text, self.place.spec);
        let ranges: Vec<_> = spec.entries().iter().map(Entry::range).collect();
        self.gone.sort_unstable();
        if spec.is_flow() {
            self.edits.extend(children(&ranges, &self.gone));
        } else {
            for &at in &self.gone {
                let start = ranges[at].start;
                if edits::column(text, start).is_none() {
                    return Err(self.place.refusal(SHARE, start));
                }
            }
            self.edits.extend(lines(text, &ranges, &self.gone));
        }
        if let Some(entries) = self.expected.entries_mut() {
            for &at in self.gone.iter().rev() {
                entries.remove(at);
            }
        }
        Ok((self.edits, self.expected))
    }
}

fn is_of(line: &str, key: &str) -> bool {
    let line = line.trim_start_matches(['"', '\'']);
    line.strip_prefix(key)
        .is_some_and(|rest| rest.starts_with(['"', '\'', ' ', ':']))
}

fn is_json(text: &str) -> bool {
    serde_json::from_str::<IgnoredAny>(text).is_ok()
}

/// The value in a line of the record: a word or an empty list.
fn value_of(line: &str, key: &str) -> Option<Node<'static>> {
    let line = format!("{{{line}}}");
    let documents = tree::parse(&line).ok()?;
    let [document] = documents.as_slice() else {
        return None;
    };
    let value = document
        .own(key)
        .filter(|_| document.entries().len() == 1)?;
    match &value.value {
        _ if value.anchor != 0 || value.tag.is_some() => None,
        Value::Scalar { text, plain: true } => Some(Node::literal(text.to_string())),
        Value::Sequence { items, .. } if items.is_empty() => Some(Node::sequence(Vec::new())),
        _ => None,
    }
}

/// Removes children in block notation: whole lines.
fn lines(text: &str, children: &[Range<usize>], gone: &[usize]) -> Vec<Edit> {
    let mut ranges: Vec<Range<usize>> = Vec::new();
    for child in gone.iter().filter_map(|&at| children.get(at)) {
        let range = edits::line_start(text, child.start)..edits::lines_end(text, child.end);
        match ranges.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => ranges.push(range),
        }
    }
    // The last line of a text without a break at its end leaves the break in front of it behind.
    if let Some(last) = ranges.last_mut()
        && last.end == text.len()
        && !text.ends_with('\n')
    {
        let kept = text.get(..last.start).unwrap_or_default();
        last.start = edits::without_break(kept).len();
    }
    ranges.into_iter().map(Edit::remove).collect()
}

/// Removes children in flow notation, each with the comma that it no longer needs.
fn children(children: &[Range<usize>], gone: &[usize]) -> Vec<Edit> {
    let mut removed = Vec::new();
    let mut at = 0;
    while at < children.len() {
        if !gone.contains(&at) {
            at += 1;
            continue;
        }
        let first = at;
        while gone.contains(&at) {
            at += 1;
        }
        let range = match (children.get(at), first.checked_sub(1)) {
            (Some(next), _) => children[first].start..next.start,
            (None, Some(before)) => children[before].end..children[at - 1].end,
            (None, None) => children[first].start..children[at - 1].end,
        };
        removed.push(Edit::remove(range));
    }
    removed
}
