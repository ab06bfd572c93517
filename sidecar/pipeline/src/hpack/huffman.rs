//! The Huffman code of HPACK (RFC 7541, section 5.2 and appendix B).
//!
//! The code is canonical: the lengths of its codes say everything. The tables are made of them at compile time.
//!
//! This is not left to a crate because those that offer it take paddings of zeros for valid (httlib-huffman 0.3.4), or
//! make their tables anew for each string (loona-hpack 0.4.3). The tests compare with both.

use super::{Error, Scratch};

/// The symbol that must not occur; its code fills the last octet.
const EOS: usize = 256;
/// Symbols, EOS included.
const SYMBOLS: usize = 257;
/// Bits of the longest code.
const LONGEST: usize = 30;
/// Bits that are looked up at once. Their codes are those of nearly all that occurs in header fields.
const SHORT: usize = 8;

/// Bits of each symbol's code (appendix B).
#[rustfmt::skip]
const LENGTHS: [u8; SYMBOLS] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
    28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5,
    6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
    30,
];

/// A symbol and the bits of its code; no bits for none.
#[derive(Clone, Copy)]
struct Symbol {
    symbol: u16,
    bits: u8,
}

/// The codes of one length, which follow one another.
#[derive(Clone, Copy)]
struct Row {
    /// The first code behind them, at the top of 32 bits.
    end: u64,
    /// What is added to a code to get its symbol's place in [`ORDER`], modulo 2^32.
    shift: u32,
}

/// The symbols by length of code, then by value, which is the order of their codes.
static ORDER: [u16; SYMBOLS] = order();

/// By length of code.
static ROWS: [Row; LONGEST + 1] = rows();

/// By the next [`SHORT`] bits.
static SHORT_CODES: [Symbol; 1 << SHORT] = short_codes();

#[allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "evaluated by the compiler"
)]
const fn order() -> [u16; SYMBOLS] {
    let mut order = [0; SYMBOLS];
    let (mut place, mut bits) = (0, 0);
    while bits <= LONGEST {
        let mut symbol = 0;
        while symbol < SYMBOLS {
            if LENGTHS[symbol] as usize == bits {
                order[place] = symbol as u16;
                place += 1;
            }
            symbol += 1;
        }
        bits += 1;
    }
    order
}

#[allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "evaluated by the compiler"
)]
const fn rows() -> [Row; LONGEST + 1] {
    let mut rows = [Row { end: 0, shift: 0 }; LONGEST + 1];
    let order = order();
    let (mut place, mut code, mut bits) = (0, 0_u32, 0);
    while bits <= LONGEST {
        rows[bits].shift = (place as u32).wrapping_sub(code);
        while place < SYMBOLS && LENGTHS[order[place] as usize] as usize == bits {
            place += 1;
            code += 1;
        }
        rows[bits].end = (code as u64) << (32 - bits);
        code <<= 1;
        bits += 1;
    }
    rows
}

#[allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "evaluated by the compiler"
)]
const fn short_codes() -> [Symbol; 1 << SHORT] {
    let mut codes = [Symbol { symbol: 0, bits: 0 }; 1 << SHORT];
    let order = order();
    let (mut place, mut next) = (0, 0);
    while LENGTHS[order[place] as usize] as usize <= SHORT {
        let bits = LENGTHS[order[place] as usize];
        let after = next + (1 << (SHORT - bits as usize));
        while next < after {
            codes[next] = Symbol {
                symbol: order[place],
                bits,
            };
            next += 1;
        }
        place += 1;
    }
    codes
}

/// The symbol whose code these 32 bits begin with.
fn symbol(bits: u32) -> Symbol {
    let short = SHORT_CODES.get((bits >> (32 - SHORT)) as usize);
    match short {
        Some(&short) if short.bits > 0 => short,
        _ => long_symbol(bits),
    }
}

#[cold]
fn long_symbol(bits: u32) -> Symbol {
    let row = ROWS
        .iter()
        .enumerate()
        .find(|(_, row)| u64::from(bits) < row.end);
    // Every sequence of 30 bits begins with a code, so that there is one.
    let (length, shift) = row.map_or((LONGEST, 0), |(length, row)| (length, row.shift));
    let unused = 32_u32.saturating_sub(length as u32);
    let place = bits
        .checked_shr(unused)
        .unwrap_or_default()
        .wrapping_add(shift);
    Symbol {
        symbol: ORDER.get(place as usize).copied().unwrap_or(EOS as u16),
        bits: length as u8,
    }
}

/// Bits that wait to be decoded.
struct Bits<'a> {
    rest: &'a [u8],
    /// The next ones, at the top.
    window: u64,
    /// How many of the window there are.
    count: u32,
}

impl Bits<'_> {
    /// Takes up octets until there are more bits than the longest code has, or no more octets.
    fn refill(&mut self) {
        if self.count >= 32 {
            return;
        }
        if let Some((four, rest)) = self.rest.split_first_chunk::<4>() {
            self.put(u64::from(u32::from_be_bytes(*four)) << 32, 32);
            self.rest = rest;
            return;
        }
        while let Some((&octet, rest)) = self.rest.split_first() {
            self.put(u64::from(octet) << 56, 8);
            self.rest = rest;
        }
    }

    fn put(&mut self, bits: u64, count: u32) {
        self.window |= bits.checked_shr(self.count).unwrap_or_default();
        self.count = self.count.saturating_add(count);
    }

    /// The next 32 bits; behind the end of the string follow ones, as in its padding.
    fn peek(&self) -> u32 {
        let padding = u64::MAX.checked_shr(self.count).unwrap_or_default();
        ((self.window | padding) >> 32) as u32
    }

    fn skip(&mut self, count: u32) {
        self.window = self.window.checked_shl(count).unwrap_or_default();
        self.count = self.count.saturating_sub(count);
    }
}

/// Decodes a whole string to the end of `decoded`. That takes at most 8/5 of its length: no code is shorter than five
/// bits.
///
/// [`Error::Huffman`] if it contains EOS, ends within a code, or its padding is longer than seven bits or has zeros.
pub(super) fn decode(encoded: &[u8], decoded: &mut Scratch) -> Result<(), Error> {
    let mut bits = Bits {
        rest: encoded,
        window: 0,
        count: 0,
    };
    loop {
        bits.refill();
        if bits.count == 0 {
            return Ok(());
        }
        let next = bits.peek();
        let Symbol { symbol, bits: used } = symbol(next);
        if u32::from(used) > bits.count {
            let is_padding = bits.count < 8 && next == u32::MAX;
            return if is_padding {
                Ok(())
            } else {
                Err(Error::Huffman)
            };
        }
        decoded.push(u8::try_from(symbol).map_err(|_| Error::Huffman)?);
        bits.skip(u32::from(used));
    }
}
