//! Header blocks of one direction, as the fuzz target reads them, and what has to hold of any.
//!
//! Each block is preceded by an octet whose lowest bit says that one decoder loses it, and by its length in two octets.

use pilotfish_pipeline::hpack::{Decoder, Error, Field, MAX_LIST};

/// What a decoder may hold: 64 KiB of octets, and 2,048 entries of 32 bytes.
const MOST_HELD: usize = 64 * 1024 + 2_048 * 32;

/// A block, and whether one decoder loses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step<'a> {
    pub(crate) lost: bool,
    pub(crate) block: &'a [u8],
}

/// Any octets are steps; the last block ends with them.
pub(crate) fn decode(mut octets: &[u8]) -> Vec<Step<'_>> {
    let mut steps = Vec::new();
    while let [flags, high, low, rest @ ..] = octets {
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(rest.len());
        let (block, rest) = rest.split_at(length);
        steps.push(Step {
            lost: flags & 1 == 1,
            block,
        });
        octets = rest;
    }
    steps
}

/// The opposite of [`decode`].
pub(crate) fn encode(steps: &[Step<'_>]) -> Vec<u8> {
    let mut octets = Vec::new();
    for step in steps {
        octets.push(u8::from(step.lost));
        octets.extend(u16::try_from(step.block.len()).unwrap().to_be_bytes());
        octets.extend(step.block);
    }
    octets
}

/// A field with what it owns.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Told {
    Known(Vec<u8>, Vec<u8>),
    Unnamed(Vec<u8>),
    Unknown,
    Unwanted,
}

/// Decodes a block within the bounds.
fn tell(decoder: &mut Decoder, block: &[u8]) -> Result<Vec<Told>, Error> {
    let mut fields = Vec::new();
    let mut size = 0;
    let result = decoder.decode(block, |field| {
        let told = match field {
            Field::Known { name, value } => {
                size += name.len() + value.len();
                Told::Known(name.into(), value.into())
            }
            Field::Unnamed { value } => {
                size += value.len();
                Told::Unnamed(value.into())
            }
            Field::Unknown => Told::Unknown,
            Field::Unwanted => Told::Unwanted,
        };
        size += 32;
        fields.push(told);
    });
    assert!(size <= MAX_LIST as usize, "{size}");
    assert!(decoder.held_bytes() <= MOST_HELD);
    let block = result?;
    assert_eq!((block.fields - block.dropped) as usize, fields.len());
    Ok(fields)
}

fn is_wanted(name: &[u8]) -> bool {
    name.len().is_multiple_of(2)
}

/// What only some names are wanted of.
fn only_wanted(fields: &[Told]) -> Vec<Told> {
    let fields = fields.iter().map(|field| match field {
        Told::Known(name, _) if !is_wanted(name) => Told::Unwanted,
        other => other.clone(),
    });
    fields.collect()
}

/// True if the second says nothing that the first, which knows everything, does not say.
fn agrees(truth: &Told, field: &Told) -> bool {
    match (truth, field) {
        (_, Told::Unknown) => true,
        (Told::Known(_, value), Told::Unnamed(unnamed)) => value == unnamed,
        _ => truth == field,
    }
}

/// Plays the blocks to a decoder that sees all of them, one to which only some names are of use, and one that joins
/// late and loses some. For as long as the first finds no fault with them, the second must tell the same and the third
/// nothing else. Returns how many fields were told truly by the first one, and by the third.
pub(crate) fn check(steps: &[Step<'_>]) -> (usize, usize) {
    let mut complete = Decoder::new(true, |_| true);
    let mut choosy = Decoder::new(true, is_wanted);
    let mut late = Decoder::new(false, |_| true);
    let mut known = (0, 0);
    let mut is_sound = true;
    for &Step { lost, block } in steps {
        let truth = tell(&mut complete, block);
        let chosen = tell(&mut choosy, block);
        // What had to be forgotten cannot be told from what the encoder made up.
        is_sound &= complete.is_whole();
        if lost {
            late.lose();
        }
        let told = (!lost).then(|| tell(&mut late, block));
        let (true, Ok(truth)) = (is_sound, truth) else {
            is_sound = false;
            continue;
        };
        known.0 += truth.len();
        assert_eq!(chosen.as_deref(), Ok(&only_wanted(&truth)[..]));
        let Some(told) = told else {
            continue;
        };
        let told = told.expect("the block is valid");
        // An unknown name counts less, so that more of a list that is too long may be told.
        assert!(told.len() >= truth.len());
        for (truth, field) in truth.iter().zip(&told) {
            assert!(agrees(truth, field), "{field:?} is not {truth:?}");
            known.1 += usize::from(truth == field);
        }
    }
    known
}
