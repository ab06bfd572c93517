//! The changes that put the sidecar into a pod's specification.
//!
//! What has no place yet stands in front of everything else there, and the sidecar in front of other init
//! containers, since they start in order and it is to see what they send.

use super::{
    definition::{Definition, INIT_CONTAINERS, SHARE, VOLUMES},
    edits::{self, Edit},
    place::Place,
    rules::Refusal,
    tree::{Entry, Node},
};

/// What comes to stand at a key.
struct Addition {
    key: &'static str,
    what: What,
}

enum What {
    /// This.
    Literal(Node<'static>),
    /// A list's first item.
    Item(Node<'static>),
}

impl Addition {
    /// The value of a key that is not there yet.
    fn value(&self) -> Node<'static> {
        match &self.what {
            What::Literal(value) => value.clone(),
            What::Item(item) => Node::sequence(vec![item.clone()]),
        }
    }
}

/// Edits of the text, and the specification that they are to give. `above` is the column of the key `spec`.
pub(super) fn add<'a>(
    place: &Place<'_, 'a>,
    above: usize,
    definition: &Definition,
) -> Result<(Vec<Edit>, Node<'a>), Refusal> {
    let additions = [
        Addition {
            key: SHARE,
            what: What::Literal(Node::literal("true")),
        },
        Addition {
            key: INIT_CONTAINERS,
            what: What::Item(definition.container(&record(place)?)),
        },
        Addition {
            key: VOLUMES,
            what: What::Item(definition.volume.clone()),
        },
    ];
    let mut adding = Adding {
        place,
        above,
        edits: Vec::new(),
        expected: place.spec.clone(),
    };
    let mut new = Vec::new();
    for addition in additions {
        match place.spec.position(addition.key) {
            None => new.push(addition),
            Some(at) => adding.there(at, &addition)?,
        }
    }
    adding.in_front(&new)?;
    Ok((adding.edits, adding.expected))
}

/// Entries of the pod that `--uninject` has to write again.
fn record(place: &Place<'_, '_>) -> Result<Vec<String>, Refusal> {
    let mut record = Vec::new();
    for key in [SHARE, INIT_CONTAINERS, VOLUMES] {
        let Some(at) = place.spec.position(key) else {
            continue;
        };
        let entry = &place.spec.entries()[at];
        if entry.value.items().is_empty() {
            let short = place.short(entry);
            let refusal = || place.refusal(key, entry.key.range.start);
            record.push(short.ok_or_else(refusal)?.source.to_owned());
        }
    }
    Ok(record)
}

struct Adding<'p, 't, 'a> {
    place: &'p Place<'t, 'a>,
    above: usize,
    edits: Vec<Edit>,
    expected: Node<'a>,
}

impl Adding<'_, '_, '_> {
    /// The key stands at this position.
    fn there(&mut self, at: usize, addition: &Addition) -> Result<(), Refusal> {
        let entry = &self.place.spec.entries()[at];
        match &addition.what {
            What::Literal(_) if entry.value.as_bool() == Some(true) => Ok(()),
            What::Item(item) if !entry.value.items().is_empty() => {
                self.edits
                    .push(self.first_item(addition.key, &entry.value, item)?);
                let items = self.expected.at_mut(&[at]).and_then(Node::items_mut);
                if let Some(items) = items {
                    items.insert(0, item.clone());
                }
                Ok(())
            }
            _ => {
                self.replace(entry, addition)?;
                if let Some(value) = self.expected.at_mut(&[at]) {
                    *value = addition.value();
                }
                Ok(())
            }
        }
    }

    fn first_item(
        &self,
        key: &'static str,
        list: &Node<'_>,
        item: &Node<'_>,
    ) -> Result<Edit, Refusal> {
        let text = self.place.text;
        let start = list
            .items()
            .first()
            .map_or(list.range.start, |first| first.range.start);
        if list.is_flow() {
            let (flow, indent) = self.place.flow(list);
            let written = flow.value(item, indent) + &flow.separator(indent);
            return Ok(Edit::insert(start, written));
        }
        let column = edits::dash_column(text, start);
        let column = column.ok_or_else(|| self.place.refusal(key, start))?;
        let written = self.place.block(self.above).item(item, column);
        Ok(Edit::insert(edits::above_comments(text, start), written))
    }

    /// Nothing, or an empty list, is there.
    fn replace(&mut self, entry: &Entry<'_>, addition: &Addition) -> Result<(), Refusal> {
        let (text, start) = (self.place.text, entry.key.range.start);
        let refusal = || self.place.refusal(addition.key, start);
        let short = self.place.short(entry).ok_or_else(refusal)?;
        let range = start..start + short.source.len();
        let value = addition.value();
        if self.place.spec.is_flow() || value.items().is_empty() {
            let (flow, indent) = self.place.flow(self.place.spec);
            let colon = short.key.len() - 1;
            let key = short.key.get(..colon).unwrap_or_default();
            let written = [key, flow.colon, &flow.value(&value, indent)].concat();
            self.edits.push(Edit {
                range,
                text: written,
            });
            return Ok(());
        }
        let column = edits::column(text, start).ok_or_else(refusal)?;
        let block = self.place.block(self.above);
        let written: String = value
            .items()
            .iter()
            .map(|item| block.item(item, column + block.dash))
            .collect();
        let end = edits::line_end(text, start);
        self.edits.push(Edit {
            range,
            text: short.key.to_owned(),
        });
        let written = if edits::lines_end(text, end) == end
            && text.get(..end).is_some_and(|text| text.ends_with('\n'))
        {
            written
        } else {
            [block.newline, edits::without_break(&written)].concat()
        };
        self.edits.push(Edit::insert(end, written));
        Ok(())
    }

    /// The keys are not there yet.
    fn in_front(&mut self, additions: &[Addition]) -> Result<(), Refusal> {
        let Some(first) = additions.first() else {
            return Ok(());
        };
        let (text, start) = (self.place.text, self.place.spec.range.start);
        let edit = if self.place.spec.is_flow() {
            let start = self
                .place
                .spec
                .entries()
                .first()
                .map_or(start, |entry| entry.key.range.start);
            let (flow, indent) = self.place.flow(self.place.spec);
            let written = additions.iter().map(|addition| {
                flow.entry(addition.key, &addition.value(), indent) + &flow.separator(indent)
            });
            Edit::insert(start, written.collect())
        } else {
            let column = self.place.column();
            let column = column.ok_or_else(|| self.place.refusal(first.key, start))?;
            let block = self.place.block(self.above);
            let written = additions
                .iter()
                .map(|addition| block.entry(addition.key, &addition.value(), column));
            Edit::insert(edits::above_comments(text, start), written.collect())
        };
        self.edits.push(edit);
        let new = additions
            .iter()
            .map(|addition| Entry::new(addition.key, addition.value()));
        if let Some(entries) = self.expected.entries_mut() {
            entries.splice(0..0, new);
        }
        Ok(())
    }
}
