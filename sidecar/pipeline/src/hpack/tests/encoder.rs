//! An encoder that uses every representation, as a plan says, and remembers what each field refers to.

use super::Told;
use proptest::prelude::*;
use std::collections::VecDeque;

/// How a field is to be sent.
#[derive(Clone, Copy, Debug)]
pub(super) enum How {
    /// By its index, if it stands in a table, else like [`Self::Inserted`].
    Indexed,
    Inserted,
    NotInserted,
    NeverInserted,
}

/// A field of a plan.
#[derive(Clone, Debug)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "an encoder makes these choices one by one"
)]
pub(super) struct Planned {
    pub(super) name: Vec<u8>,
    pub(super) value: Vec<u8>,
    pub(super) how: How,
    /// The name is sent even if it stands in a table.
    pub(super) literal_name: bool,
    pub(super) huffman_name: bool,
    pub(super) huffman_value: bool,
    /// The oldest suitable entry is referred to, not the newest.
    pub(super) oldest: bool,
}

/// A block of a plan.
#[derive(Clone, Debug)]
pub(super) struct PlannedBlock {
    pub(super) limits: Vec<u32>,
    pub(super) fields: Vec<Planned>,
}

/// What is sent of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// Everything, or an index of the static table.
    InFull,
    /// The value; the name stands in the entry of this number, counted from the connection's first.
    Value(usize),
    /// Nothing; the field stands in the entry of this number.
    Nothing(usize),
}

/// A block, and what is true of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Encoded {
    pub(super) octets: Vec<u8>,
    pub(super) fields: Vec<Told>,
    pub(super) sent: Vec<Sent>,
    /// How many entries precede the block.
    pub(super) entries_before: usize,
    /// What each of its entries was made of.
    pub(super) inserted: Vec<Sent>,
    /// Size of the table after it.
    pub(super) size: usize,
}

/// The encoder's side of a connection.
#[derive(Debug)]
pub(super) struct Encoder {
    /// Newest first.
    table: VecDeque<(Vec<u8>, Vec<u8>)>,
    limit: usize,
    /// Entries inserted so far.
    inserted: usize,
}

impl Default for Encoder {
    fn default() -> Self {
        Self {
            table: VecDeque::new(),
            limit: 4096,
            inserted: 0,
        }
    }
}

impl Encoder {
    pub(super) fn encode(&mut self, block: &PlannedBlock) -> Encoded {
        let mut encoded = Encoded {
            entries_before: self.inserted,
            ..Encoded::default()
        };
        for &limit in &block.limits {
            integer(&mut encoded.octets, 0x20, 0x1f, limit as usize);
            self.limit = limit as usize;
            self.evict();
        }
        for field in &block.fields {
            let sent = self.field(&mut encoded, field);
            let (name, value) = (field.name.clone(), field.value.clone());
            encoded.fields.push(Told::Known(name, value));
            encoded.sent.push(sent);
        }
        encoded.size = self.size();
        encoded
    }

    fn field(&mut self, encoded: &mut Encoded, field: &Planned) -> Sent {
        let whole = self.find(field, |name, value| {
            (name, value) == (&field.name, &field.value)
        });
        if let (How::Indexed, Some((index, number))) = (field.how, whole) {
            integer(&mut encoded.octets, 0x80, 0x7f, index);
            return number.map_or(Sent::InFull, Sent::Nothing);
        }
        let (pattern, prefix) = match field.how {
            How::Indexed | How::Inserted => (0x40, 0x3f),
            How::NotInserted => (0, 0x0f),
            How::NeverInserted => (0x10, 0x0f),
        };
        let named = self
            .find(field, |name, _| *name == field.name)
            .filter(|_| !field.literal_name);
        integer(
            &mut encoded.octets,
            pattern,
            prefix,
            named.map_or(0, |(index, _)| index),
        );
        if named.is_none() {
            string(&mut encoded.octets, &field.name, field.huffman_name);
        }
        string(&mut encoded.octets, &field.value, field.huffman_value);
        let sent = match named {
            Some((_, Some(number))) => Sent::Value(number),
            _ => Sent::InFull,
        };
        if pattern == 0x40 {
            self.table
                .push_front((field.name.clone(), field.value.clone()));
            self.inserted += 1;
            encoded.inserted.push(sent);
            self.evict();
        }
        sent
    }

    /// Index of an entry that suits; and its number, if it is not a static one.
    fn find(
        &self,
        field: &Planned,
        suits: impl Fn(&[u8], &[u8]) -> bool,
    ) -> Option<(usize, Option<usize>)> {
        let fixed = (1..=61).filter_map(|index| {
            let (name, value) = super::super::static_table::entry(index)?;
            suits(name, value).then_some((index as usize, None))
        });
        let dynamic = self.table.iter().enumerate();
        let dynamic = dynamic
            .filter(|(_, (name, value))| suits(name, value))
            .map(|(place, _)| (62 + place, Some(self.inserted - 1 - place)));
        let mut all = fixed.chain(dynamic);
        if field.oldest { all.last() } else { all.next() }
    }

    fn size(&self) -> usize {
        let octets = self
            .table
            .iter()
            .map(|(name, value)| name.len() + value.len());
        octets.map(|octets| octets + 32).sum()
    }

    fn evict(&mut self) {
        while self.size() > self.limit {
            self.table.pop_back();
        }
    }
}

fn integer(octets: &mut Vec<u8>, pattern: u8, prefix: u8, value: usize) {
    let Some(mut rest) = value.checked_sub(usize::from(prefix)) else {
        octets.push(pattern | value as u8);
        return;
    };
    octets.push(pattern | prefix);
    while rest >= 0x80 {
        octets.push(0x80 | (rest & 0x7f) as u8);
        rest >>= 7;
    }
    octets.push(rest as u8);
}

fn string(octets: &mut Vec<u8>, string: &[u8], huffman: bool) {
    if huffman {
        let mut code = Vec::new();
        httlib_huffman::encode(string, &mut code).unwrap();
        integer(octets, 0x80, 0x7f, code.len());
        octets.extend(code);
    } else {
        integer(octets, 0, 0x7f, string.len());
        octets.extend(string);
    }
}

/// Few enough that fields recur.
fn name() -> impl Strategy<Value = Vec<u8>> {
    let usual = [
        ":method",
        ":path",
        ":status",
        ":authority",
        "content-type",
        "grpc-status",
        "te",
        "traceparent",
        "x",
        "",
        "x-with-a-name-that-takes-more-octets-than-most-names-do-by-a-good-deal",
    ];
    prop_oneof![
        9 => prop::sample::select(usual.map(|name| name.as_bytes().to_vec()).to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..3),
    ]
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    let usual = [
        "",
        "GET",
        "POST",
        "200",
        "/",
        "/a.B/C",
        "application/grpc",
        "trailers",
        "0",
    ];
    prop_oneof![
        16 => prop::sample::select(usual.map(|value| value.as_bytes().to_vec()).to_vec()),
        2 => prop::collection::vec(any::<u8>(), 0..200),
        1 => (any::<u8>(), 0_usize..3_000).prop_map(|(octet, length)| vec![octet; length]),
    ]
}

fn field() -> impl Strategy<Value = Planned> {
    let how = prop_oneof![
        4 => Just(How::Indexed),
        4 => Just(How::Inserted),
        1 => Just(How::NotInserted),
        1 => Just(How::NeverInserted),
    ];
    let choices = (
        prop::bool::weighted(0.2),
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
    );
    (name(), value(), how, choices).prop_map(
        |(name, value, how, (literal_name, huffman_name, huffman_value, oldest))| Planned {
            name,
            value,
            how,
            literal_name,
            huffman_name,
            huffman_value,
            oldest,
        },
    )
}

/// Blocks of a connection. No table exceeds what is kept of one.
pub(super) fn blocks() -> impl Strategy<Value = Vec<PlannedBlock>> {
    let limit = prop_oneof![Just(0), 1_u32..300, 300_u32..5_000, 5_000_u32..=65_536];
    let limits = prop_oneof![
        6 => Just(Vec::new()),
        1 => prop::collection::vec(limit, 1..3),
    ];
    let block = (limits, prop::collection::vec(field(), 1..12))
        .prop_map(|(limits, fields)| PlannedBlock { limits, fields });
    prop::collection::vec(block, 1..12)
}

/// All blocks of a connection.
pub(super) fn encode(blocks: &[PlannedBlock]) -> Vec<Encoded> {
    let mut encoder = Encoder::default();
    blocks.iter().map(|block| encoder.encode(block)).collect()
}
