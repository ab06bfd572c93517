//! aarch64: every instruction is one little-endian word (Arm ARM DDI 0487, C4.1).

use super::{Place, add_return, stays_within};
use crate::SymbolError;

/// `hint` instructions that may stand at an entry: `nop` and the four kinds of `bti`.
const PADDING: [u32; 5] = [
    0xd503_201f,
    0xd503_241f,
    0xd503_245f,
    0xd503_249f,
    0xd503_24df,
];
/// `ldr x16, [x28, #16]`: Go's stack limit (`cmd/internal/obj/arm64`).
const LOAD_STACK_GUARD: u32 = 0xf940_0b90;
/// Instructions in which the comparison with the limit follows.
const STACK_CHECK: usize = 5;

/// Words with their places; the bytes after the last whole one are none.
fn words(code: &[u8]) -> impl Iterator<Item = (u64, u32)> {
    (0..).step_by(4).zip(
        code.as_chunks()
            .0
            .iter()
            .map(|word| u32::from_le_bytes(*word)),
    )
}

pub(super) fn entry(code: &[u8], address: u64) -> Result<Place, SymbolError> {
    words(code)
        .find(|(_, word)| !PADDING.contains(word))
        .filter(|(_, word)| is_allocated(*word))
        .map(place)
        .ok_or(SymbolError::Undecodable(address))
}

/// After the first `b.ls` behind the load of the stack limit.
pub(super) fn after_stack_check(code: &[u8], address: u64) -> Result<Place, SymbolError> {
    let at_entry = entry(code, address)?;
    let mut words = words(code)
        .skip_while(|(inside, _)| *inside < at_entry.inside)
        .peekable();
    if words
        .next_if(|(_, word)| *word == LOAD_STACK_GUARD)
        .is_none()
    {
        return Ok(at_entry);
    }
    let mut check = words.by_ref().take(STACK_CHECK);
    if !check.any(|(_, word)| word & 0xff00_001f == 0x5400_0009) {
        return Ok(at_entry);
    }
    Ok(words
        .next()
        .filter(|(_, word)| is_allocated(*word) && !PADDING.contains(word))
        .map_or(at_entry, place))
}

pub(super) fn returns(code: &[u8], address: u64) -> Result<Vec<u64>, SymbolError> {
    let function = address..address.saturating_add(code.len() as u64);
    let mut returns = Vec::new();
    for (inside, word) in words(code) {
        let here = address.wrapping_add(inside);
        if is_return(word) {
            add_return(&mut returns, inside)?;
        } else if let Some(distance) = jump(word) {
            stays_within(&function, here.wrapping_add_signed(distance), here)?;
        }
    }
    Ok(returns)
}

fn place((inside, word): (u64, u32)) -> Place {
    Place {
        inside,
        is_emulated: is_emulated(word),
    }
}

/// Not one of the encodings reserved for ever (`udf`), which data and padding of zeros are.
fn is_allocated(word: u32) -> bool {
    word >> 16 != 0
}

/// `ret`, also with another register, and with pointer authentication (`retaa`, `retab`).
fn is_return(word: u32) -> bool {
    word & 0xffff_fc1f == 0xd65f_0000 || word & 0xffff_fbff == 0xd65f_0bff
}

/// Distance in bytes of a direct jump that is no call: `b`, `b.cond`, `cbz`, `cbnz`, `tbz`, `tbnz`.
fn jump(word: u32) -> Option<i64> {
    let distance = |low: u32, bits: u32| {
        let shift = 32u32.saturating_sub(bits);
        let field = (word >> low << shift).cast_signed() >> shift;
        i64::from(field).saturating_mul(4)
    };
    match word >> 24 {
        0x14..=0x17 => Some(distance(0, 26)),
        0x54 | 0x34 | 0x35 | 0xb4 | 0xb5 => Some(distance(5, 19)),
        0x36 | 0x37 | 0xb6 | 0xb7 => Some(distance(5, 14)),
        _ => None,
    }
}

/// What Linux simulates (`arm_probe_decode_insn` in arch/arm64/kernel/probes/decode-insn.c): branches, and addresses and
/// loads relative to the instruction.
fn is_emulated(word: u32) -> bool {
    let is_branch = jump(word).is_some() || word >> 26 == 0b10_0101;
    let is_register_branch = matches!(word & 0xffff_fc1f, 0xd61f_0000 | 0xd63f_0000 | 0xd65f_0000);
    let is_address = word & 0x1f00_0000 == 0x1000_0000;
    // `ldr` of a 32-bit or 64-bit register, `ldrsw`.
    let is_literal = matches!(word >> 24, 0x18 | 0x58 | 0x98);
    is_branch || is_register_branch || is_address || is_literal
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    fn at(inside: u64, is_emulated: bool) -> Place {
        Place {
            inside,
            is_emulated,
        }
    }

    #[test]
    fn an_entry_is_after_landing_pads_and_no_operations() {
        // stp x29, x30, [sp, #-32]!
        let push = 0xa9be_7bfd;
        assert_eq!(entry(&code(&[push]), 0).unwrap(), at(0, false));
        // bti c; nop
        let padded = code(&[0xd503_245f, 0xd503_201f, push]);
        assert_eq!(entry(&padded, 0).unwrap(), at(8, false));
        // b +8; adrp x0, 0; ldr x0, +8; cbz x0, +8
        for word in [0x1400_0002, 0x9000_0000, 0x5800_0040, 0xb400_0040] {
            assert_eq!(entry(&code(&[word]), 0).unwrap(), at(0, true));
        }
        for refused in [
            &code(&[])[..],
            &code(&[0xd503_201f]),
            &code(&[0]),
            &[1, 2, 3],
        ] {
            assert!(entry(refused, 0).is_err(), "{refused:02x?}");
        }
    }

    #[test]
    fn a_go_entry_is_after_the_stack_check() {
        // ldr x16, [x28, #16]; cmp sp, x16; b.ls; str x30, [sp, #-112]!
        let small = code(&[0xf940_0b90, 0xeb30_63ff, 0x5400_1a49, 0xf819_0ffe]);
        assert_eq!(after_stack_check(&small, 0).unwrap(), at(12, false));
        // ldr x16, [x28, #16]; sub x17, sp, #0x40; cmp x17, x16; b.ls; sub x20, sp, #0xd0
        let large = code(&[
            0xf940_0b90,
            0xd101_03f1,
            0xeb10_023f,
            0x5400_1a49,
            0xd103_43f4,
        ]);
        assert_eq!(after_stack_check(&large, 0).unwrap(), at(16, false));
        // str x30, [sp, #-112]!: a function that checks nothing
        let unchecked = code(&[0xf819_0ffe]);
        assert_eq!(after_stack_check(&unchecked, 0).unwrap(), at(0, false));
        // ldr x16, [x28, #16]; b.hi
        let other = code(&[0xf940_0b90, 0x5400_1a48, 0xf819_0ffe]);
        assert_eq!(after_stack_check(&other, 0).unwrap(), at(0, false));
    }

    #[test]
    fn every_return_is_found() {
        // cbz x0, +8; ret; ret x1; retaa; retab; bl out of the function; br x16
        let words = [
            0xb400_0040,
            0xd65f_03c0,
            0xd65f_0020,
            0xd65f_0bff,
            0xd65f_0fff,
            0x9400_1000,
            0xd61f_0200,
        ];
        assert_eq!(returns(&code(&words), 0x1000).unwrap(), [4, 8, 12, 16]);
    }

    #[test]
    fn a_jump_out_of_the_function_is_refused() {
        // b -4; b +8; b.eq +8; tbz x0, #1, -4
        for word in [0x17ff_ffff, 0x1400_0002, 0x5400_0040, 0x360f_ffe0] {
            let found = returns(&code(&[word, 0xd65f_03c0]), 0x1000);
            let is_refused = matches!(found, Err(SymbolError::LeavesByJump(0x1000)));
            assert!(is_refused, "{word:08x}");
        }
    }
}
