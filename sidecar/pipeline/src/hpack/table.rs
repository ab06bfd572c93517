//! The dynamic table (RFC 7541, sections 2.3.2, 3.2 and 4), as far as it is known.

use std::collections::VecDeque;

/// What an entry takes beside its octets (RFC 7541, section 4.1).
pub(super) const OVERHEAD: u32 = 32;

/// Size of the table before the encoder says otherwise (RFC 9113, section 6.5.2).
const INITIAL_LIMIT: u32 = 4096;

/// Largest table that is kept, in the same measure; of larger ones the oldest entries are forgotten.
pub(super) const MAX_KEPT: u32 = 64 * 1024;

/// The newest entries of a direction's dynamic table.
#[derive(Debug)]
pub(super) struct Table {
    /// Newest first, so that an entry's place is its distance from the newest.
    entries: VecDeque<Entry>,
    /// At least so much do the entries take for the encoder.
    size: u32,
    /// What they may take for the encoder, if that is known.
    limit: Option<u32>,
    /// What the other side allows, if that is known.
    maximum: Option<u32>,
    /// Nothing in the encoder's table is older than `entries`.
    whole: bool,
    /// Octets of names and values on the heap.
    text: usize,
    /// Entries dropped though the encoder may have them, since it was last asked.
    forgotten: u32,
}

impl Table {
    /// `complete`: the connection has just begun, so that the table is empty.
    pub(super) fn new(complete: bool) -> Self {
        Self {
            entries: VecDeque::new(),
            size: 0,
            limit: complete.then_some(INITIAL_LIMIT),
            maximum: None,
            whole: complete,
            text: 0,
            forgotten: 0,
        }
    }

    pub(super) fn lose(&mut self) {
        *self = Self {
            maximum: self.maximum,
            forgotten: self.forgotten,
            ..Self::new(false)
        };
    }

    pub(super) const fn is_whole(&self) -> bool {
        self.whole
    }

    pub(super) const fn set_maximum(&mut self, maximum: Option<u32>) {
        self.maximum = maximum;
    }

    pub(super) const fn maximum(&self) -> Option<u32> {
        self.maximum
    }

    /// The encoder's new limit.
    pub(super) fn set_limit(&mut self, limit: u32) {
        self.limit = Some(limit);
        self.evict();
    }

    /// The entry at this distance from the newest.
    pub(super) fn get(&self, place: u32) -> Option<&Entry> {
        self.entries.get(usize::try_from(place).ok()?)
    }

    /// Adds the newest entry. One that is too large for the table empties it (section 4.4); it is then gone itself, but
    /// so is everything whose place it would shift.
    pub(super) fn insert(&mut self, entry: Entry) {
        self.size = self.size.saturating_add(entry.size);
        self.text = self.text.saturating_add(entry.content.text());
        self.entries.push_front(entry);
        self.evict();
    }

    /// Drops what the encoder has dropped, as far as that is certain, and what exceeds the bound.
    fn evict(&mut self) {
        if let Some(limit) = self.limit {
            // Whatever is older would take at least as much as an entry without octets.
            self.whole |= self.size.saturating_add(OVERHEAD) > limit;
        }
        while self
            .limit
            .or(self.maximum)
            .is_some_and(|limit| self.size > limit)
        {
            self.drop_oldest();
        }
        while self.size > MAX_KEPT {
            self.drop_oldest();
            self.whole = false;
            self.forgotten = self.forgotten.saturating_add(1);
        }
    }

    fn drop_oldest(&mut self) {
        match self.entries.pop_back() {
            Some(entry) => {
                self.size = self.size.saturating_sub(entry.size);
                self.text = self.text.saturating_sub(entry.content.text());
            }
            None => self.size = 0,
        }
    }

    pub(super) const fn take_forgotten(&mut self) -> u32 {
        std::mem::replace(&mut self.forgotten, 0)
    }

    /// Bytes on the heap.
    pub(super) fn held_bytes(&self) -> usize {
        self.entries
            .capacity()
            .saturating_mul(size_of::<Entry>())
            .saturating_add(self.text)
    }

    #[cfg(test)]
    pub(super) fn size(&self) -> u32 {
        self.size
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}

/// The name of a field, as far as it is known.
#[derive(Clone, Copy)]
pub(super) enum Name<'a> {
    Known(&'a [u8]),
    /// Known, and nobody wants it; its length in octets.
    Unwanted(u32),
    Unknown,
}

impl Name<'_> {
    /// Octets; none if that is not known.
    pub(super) fn length(self) -> u32 {
        match self {
            Self::Known(name) => length(name),
            Self::Unwanted(length) => length,
            Self::Unknown => 0,
        }
    }
}

/// A header field in the table.
#[derive(Debug)]
pub(super) struct Entry {
    /// What it takes at least for the encoder; exact unless the name is unknown.
    size: u32,
    /// Octets of the name.
    name_length: u32,
    content: Content,
}

/// What is kept of an entry.
#[derive(Debug)]
enum Content {
    /// Name and value, one behind the other.
    Known(Box<[u8]>),
    /// Only the value.
    Unnamed(Box<[u8]>),
    Unwanted,
}

impl Content {
    fn text(&self) -> usize {
        match self {
            Self::Known(text) | Self::Unnamed(text) => text.len(),
            Self::Unwanted => 0,
        }
    }
}

impl Entry {
    pub(super) fn new(name: Name<'_>, value: &[u8]) -> Self {
        Self {
            size: field_size(name, value),
            name_length: name.length(),
            content: match name {
                Name::Known(name) => Content::Known([name, value].concat().into()),
                Name::Unwanted(_) => Content::Unwanted,
                Name::Unknown => Content::Unnamed(value.into()),
            },
        }
    }

    pub(super) const fn size(&self) -> u32 {
        self.size
    }

    pub(super) fn name(&self) -> Name<'_> {
        match &self.content {
            Content::Known(text) => Name::Known(self.split(text).0),
            Content::Unnamed(_) => Name::Unknown,
            Content::Unwanted => Name::Unwanted(self.name_length),
        }
    }

    /// The value; empty if it was not kept.
    pub(super) fn value(&self) -> &[u8] {
        match &self.content {
            Content::Known(text) => self.split(text).1,
            Content::Unnamed(value) => value,
            Content::Unwanted => &[],
        }
    }

    fn split<'a>(&self, text: &'a [u8]) -> (&'a [u8], &'a [u8]) {
        usize::try_from(self.name_length)
            .ok()
            .and_then(|length| text.split_at_checked(length))
            .unwrap_or_default()
    }
}

/// Size of a field (RFC 7541, section 4.1); the least that it can be if the name is unknown.
pub(super) fn field_size(name: Name<'_>, value: &[u8]) -> u32 {
    OVERHEAD
        .saturating_add(name.length())
        .saturating_add(length(value))
}

fn length(octets: &[u8]) -> u32 {
    u32::try_from(octets.len()).unwrap_or(u32::MAX)
}
