//! Header compression of HTTP/2 (HPACK, RFC 7541): the decoder of a bystander.
//!
//! Fields refer to a table that both ends build up from all header blocks of a connection. A bystander may have joined
//! late, and blocks may be lost to it. This decoder then goes on with what it can know: a field is told as it was sent,
//! or it is told as one of which the name, or name and value, are not known ([`Field`]). It is never told as another.
//!
//! # What is certain
//!
//! An index counts from the newest entry, and entries only ever leave the table at its old end. So the entry at an
//! index that the encoder uses is the one that was inserted so many insertions ago, whatever the sizes of the entries,
//! the limit of the table, and which entries are gone: had it been evicted, the encoder could not refer to it. The same
//! holds for an entry that is larger than the whole table, which empties it: nothing older can be referred to any more.
//!
//! - *Complete* (from the first block of the connection on): everything is known.
//! - *After a loss* ([`Decoder::lose`], an error, or joining late) an unknown number of entries may have been inserted:
//!   no entry from before has a known index any more, and all of them are forgotten. Known are: the static table; every
//!   literal, name and value; every entry inserted since, as soon as it is referred to. Of a literal whose name refers to
//!   an entry from before, the value is known. It takes its place in the table, and whatever refers to it again has the
//!   same value and no name. Encoders that keep re-inserting entries become known by and by.
//! - *Whole again*: once the entries inserted since certainly fill the table (each is counted with the least that it can
//!   take), or the encoder has set its limit to less than one entry, nothing from before is left. This needs a limit that
//!   the encoder has told since the loss.
//!
//! While the table is whole, an index behind its end is an error. Else it is a field of which nothing is known.
//!
//! All of this presumes that no block is missing without [`Decoder::lose`], and that the encoder follows the RFC. A lie
//! of the encoder is not told apart from the truth; the receiver would believe it as well.
//!
//! # Bounds
//!
//! - Table: 64 KiB of entries in the measure of RFC 7541, section 4.1, so at most 2,048 of them and 64 KiB of octets,
//!   whatever the encoder's limit. What does not fit is forgotten, oldest first, and counted ([`Block::forgotten`]).
//!   Only fields whose names are wanted are kept with name and value; of others, two lengths.
//! - Fields of a block: 64 KiB in the same measure are told ([`MAX_LIST`]), hence at most 2,048. The rest of the block is
//!   read for the table's sake, and its fields are counted ([`Block::dropped`]).
//! - Integers: 32 bits, in at most five octets after the first. Strings: within the block. Huffman codes: at most 8/5
//!   of their length, decoded into memory that lasts as long as the call. The length of a block is the caller's to bound.

mod huffman;
mod octets;
mod static_table;
mod table;
#[cfg(test)]
mod tests;

use octets::Reader;
use smallvec::SmallVec;
use table::{Entry, Name, OVERHEAD, Table, field_size};

/// What of a block's fields is told, in octets of names and values, and 32 more for each field (RFC 9113, section
/// 6.5.2, `SETTINGS_MAX_HEADER_LIST_SIZE`).
pub const MAX_LIST: u32 = 64 * 1024;

/// Changes of the table's limit at the beginning of one block. Two can say everything (RFC 7541, section 4.2); some
/// encoders say all that happened between two blocks.
const MAX_SIZE_UPDATES: usize = 16;

/// Where Huffman codes are decoded. Most strings fit on the stack.
type Scratch = SmallVec<[u8; 256]>;

/// Why a block cannot be decoded. What was told of it until then is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// An integer or a string goes on behind the end of the block.
    #[error("header block is cut short")]
    Truncated,
    /// More than 32 bits, or more octets than they need.
    #[error("integer in a header block is too large")]
    IntegerTooLarge,
    /// Contains the end symbol, ends within a code, or is padded with other than up to seven ones.
    #[error("string in a header block is no valid Huffman code")]
    Huffman,
    /// The index 0 in place of a field.
    #[error("header block refers to index 0")]
    IndexZero,
    /// The whole table is known, and it has no such entry.
    #[error("header block refers to index {0}, which is behind the end of the table")]
    IndexBeyondTable(u32),
    /// A change of the table's limit after a field.
    #[error("header block changes the table's limit after its first field")]
    MisplacedSizeUpdate,
    /// More changes of the table's limit than a block can have use for.
    #[error("header block changes the table's limit too often")]
    TooManySizeUpdates,
    /// The other side does not allow a table that large.
    #[error(
        "header block sets the table's limit to {0} octets, which is more than the other side allows"
    )]
    SizeBeyondMaximum(u32),
}

/// A header field, as far as it is known and wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field<'a> {
    /// As it was sent.
    Known {
        /// Its name; in HTTP/2 it has no capital letters.
        name: &'a [u8],
        /// Its value.
        value: &'a [u8],
    },
    /// Of any name, even a wanted one: the name was sent before the loss.
    Unnamed {
        /// Its value, which was sent after the loss.
        value: &'a [u8],
    },
    /// Of any name and value: both were sent before the loss.
    Unknown,
    /// Certainly of a name that is not wanted.
    Unwanted,
}

/// What was found in a block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Block {
    /// All fields, including the dropped ones.
    pub fields: u32,
    /// Fields without a known name, including the dropped ones.
    pub unknown: u32,
    /// Fields that were not told because the list was too long ([`MAX_LIST`]).
    pub dropped: u32,
    /// Entries that had to be forgotten, since the last block without error, although the encoder may refer to them.
    pub forgotten: u32,
}

/// The decoder of one direction of one connection.
#[derive(Debug)]
pub struct Decoder {
    table: Table,
    wanted: fn(&[u8]) -> bool,
}

impl Decoder {
    /// `complete`: the next block is the connection's first. `wanted`: whether fields of that name are of use. It
    /// must give the same answer each time, and should want short names only: two octets of a block can have the name
    /// of another entry copied.
    pub fn new(complete: bool, wanted: fn(&[u8]) -> bool) -> Self {
        Self {
            table: Table::new(complete),
            wanted,
        }
    }

    /// A block, or an unknown number of them, is missing.
    pub fn lose(&mut self) {
        self.table.lose();
    }

    /// True if every entry of the encoder's table is known, at least its place.
    pub const fn is_whole(&self) -> bool {
        self.table.is_whole()
    }

    /// What the other side allows as the table's limit (`SETTINGS_HEADER_TABLE_SIZE`, 4,096 if it sent none), or `None`
    /// if that is not known, which is how it begins. An encoder that goes beyond is in error. After the other side has
    /// changed its mind the encoder may use the former limit until it has read that: tell the larger one till then.
    pub const fn set_maximum(&mut self, maximum: Option<u32>) {
        self.table.set_maximum(maximum);
    }

    /// Bytes on the heap. See [the bounds](self#bounds).
    pub fn held_bytes(&self) -> usize {
        self.table.held_bytes()
    }

    /// Decodes a block: the fragments of one HEADERS or `PUSH_PROMISE` frame and its CONTINUATION frames, joined.
    /// `each` gets its fields in order. If the end of the block is missing, what there is can be decoded all the same,
    /// with [`Self::lose`] afterwards.
    ///
    /// After an error the table is not known any more, as after [`Self::lose`].
    pub fn decode(&mut self, block: &[u8], each: impl FnMut(Field<'_>)) -> Result<Block, Error> {
        let result = self.read(Reader::new(block), each);
        if result.is_err() {
            self.lose();
        }
        result
    }

    fn read(
        &mut self,
        mut reader: Reader<'_>,
        each: impl FnMut(Field<'_>),
    ) -> Result<Block, Error> {
        let mut list = List {
            each,
            size: 0,
            block: Block::default(),
        };
        self.read_size_updates(&mut reader)?;
        while let Some(first) = reader.octet() {
            match first {
                0x80.. => {
                    let index = reader.integer(first, 0x7f)?;
                    self.read_indexed(index, &mut list)?;
                }
                0x40.. => {
                    let index = reader.integer(first, 0x3f)?;
                    if let Some(entry) = self.read_literal(index, &mut reader, true, &mut list)? {
                        self.table.insert(entry);
                    }
                }
                0x20.. => return Err(Error::MisplacedSizeUpdate),
                _ => {
                    let index = reader.integer(first, 0x0f)?;
                    self.read_literal(index, &mut reader, false, &mut list)?;
                }
            }
        }
        list.block.forgotten = self.table.take_forgotten();
        Ok(list.block)
    }

    /// Changes of the table's limit (RFC 7541, section 6.3).
    fn read_size_updates(&mut self, reader: &mut Reader<'_>) -> Result<(), Error> {
        let mut updates = 0..MAX_SIZE_UPDATES;
        while let Some(first @ 0x20..0x40) = reader.peek() {
            reader.octet();
            let limit = reader.integer(first, 0x1f)?;
            if self.table.maximum().is_some_and(|maximum| limit > maximum) {
                return Err(Error::SizeBeyondMaximum(limit));
            }
            updates.next().ok_or(Error::TooManySizeUpdates)?;
            self.table.set_limit(limit);
        }
        Ok(())
    }

    /// A field that stands in a table (RFC 7541, section 6.1).
    fn read_indexed(
        &self,
        index: u32,
        list: &mut List<impl FnMut(Field<'_>)>,
    ) -> Result<(), Error> {
        match self.find(index)? {
            Found::Static(name, value) => {
                let name = self.known(name);
                list.take(field_size(name, value), name, value);
            }
            Found::Entry(entry) => list.take(entry.size(), entry.name(), entry.value()),
            Found::Unknown => list.take_unknown(),
        }
        Ok(())
    }

    /// A field whose value follows, and whose name does if `index` is 0 (RFC 7541, section 6.2). Returns what
    /// is to be inserted, if anything is.
    fn read_literal(
        &self,
        index: u32,
        reader: &mut Reader<'_>,
        is_inserted: bool,
        list: &mut List<impl FnMut(Field<'_>)>,
    ) -> Result<Option<Entry>, Error> {
        let (mut name_scratch, mut value_scratch) = (Scratch::new(), Scratch::new());
        let name = if index == 0 {
            self.known(reader.string()?.decode(&mut name_scratch)?)
        } else {
            match self.find(index)? {
                Found::Static(name, _) => self.known(name),
                Found::Entry(entry) => entry.name(),
                Found::Unknown => Name::Unknown,
            }
        };
        let value = reader.string()?.decode(&mut value_scratch)?;
        list.take(field_size(name, value), name, value);
        // Made before anything is evicted for it: that may be the entry that its name is from (section 4.4).
        Ok(is_inserted.then(|| Entry::new(name, value)))
    }

    fn known<'a>(&self, name: &'a [u8]) -> Name<'a> {
        if (self.wanted)(name) {
            Name::Known(name)
        } else {
            Name::Unwanted(u32::try_from(name.len()).unwrap_or(u32::MAX))
        }
    }

    fn find(&self, index: u32) -> Result<Found<'_>, Error> {
        if let Some((name, value)) = static_table::entry(index) {
            return Ok(Found::Static(name, value));
        }
        let place = index
            .checked_sub(static_table::ENTRIES)
            .and_then(|index| index.checked_sub(1))
            .ok_or(Error::IndexZero)?;
        match self.table.get(place) {
            Some(entry) => Ok(Found::Entry(entry)),
            None if self.table.is_whole() => Err(Error::IndexBeyondTable(index)),
            None => Ok(Found::Unknown),
        }
    }
}

/// What an index refers to.
enum Found<'a> {
    Static(&'static [u8], &'static [u8]),
    Entry(&'a Entry),
    Unknown,
}

/// The fields of a block, as they are told.
struct List<F> {
    each: F,
    size: u32,
    block: Block,
}

impl<F: FnMut(Field<'_>)> List<F> {
    fn take(&mut self, size: u32, name: Name<'_>, value: &[u8]) {
        let field = match name {
            Name::Known(name) => Field::Known { name, value },
            Name::Unwanted(_) => Field::Unwanted,
            Name::Unknown => Field::Unnamed { value },
        };
        self.tell(size, field);
    }

    fn take_unknown(&mut self) {
        self.tell(OVERHEAD, Field::Unknown);
    }

    fn tell(&mut self, size: u32, field: Field<'_>) {
        self.block.fields = self.block.fields.saturating_add(1);
        if matches!(field, Field::Unnamed { .. } | Field::Unknown) {
            self.block.unknown = self.block.unknown.saturating_add(1);
        }
        self.size = self.size.saturating_add(size);
        if self.size > MAX_LIST {
            self.block.dropped = self.block.dropped.saturating_add(1);
        } else {
            (self.each)(field);
        }
    }
}
