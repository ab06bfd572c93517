//! The decoder against the examples of RFC 7541, an independent decoder, and an encoder whose blocks go missing.

mod appendix_c;
mod bounds;
mod encoder;
mod errors;
mod huffman;
mod loss;
mod oracle;

use super::{Block, Decoder, Error, Field};

/// A field with what it owns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Told {
    Known(Vec<u8>, Vec<u8>),
    Unnamed(Vec<u8>),
    Unknown,
    Unwanted,
}

impl Told {
    fn known(name: &str, value: &str) -> Self {
        Self::Known(name.into(), value.into())
    }

    fn unnamed(value: &str) -> Self {
        Self::Unnamed(value.into())
    }
}

impl From<Field<'_>> for Told {
    fn from(field: Field<'_>) -> Self {
        match field {
            Field::Known { name, value } => Self::Known(name.into(), value.into()),
            Field::Unnamed { value } => Self::Unnamed(value.into()),
            Field::Unknown => Self::Unknown,
            Field::Unwanted => Self::Unwanted,
        }
    }
}

/// A decoder to which every name is of use.
fn decoder(complete: bool) -> Decoder {
    Decoder::new(complete, |_| true)
}

/// Everything that is told of a block, and what came of it.
fn try_decode(decoder: &mut Decoder, block: &[u8]) -> (Vec<Told>, Result<Block, Error>) {
    let mut fields = Vec::new();
    let result = decoder.decode(block, |field| fields.push(field.into()));
    (fields, result)
}

/// The fields of a block without error of which none is dropped.
fn decode(decoder: &mut Decoder, block: &[u8]) -> Vec<Told> {
    let (fields, result) = try_decode(decoder, block);
    let unknown = |field: &&Told| matches!(field, Told::Unnamed(_) | Told::Unknown);
    assert_eq!(
        result,
        Ok(Block {
            fields: u32::try_from(fields.len()).unwrap(),
            unknown: u32::try_from(fields.iter().filter(unknown).count()).unwrap(),
            ..Block::default()
        })
    );
    fields
}

/// The octets that these digits stand for; spaces are ignored.
fn hex(digits: &str) -> Vec<u8> {
    let digits: Vec<u8> = digits
        .chars()
        .filter_map(|digit| digit.to_digit(16))
        .map(|digit| digit as u8)
        .collect();
    digits
        .chunks(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect()
}
