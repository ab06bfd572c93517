//! x86-64.

use iced_x86::{Code, Decoder, DecoderOptions, Instruction, Mnemonic, OpKind, Register};

use super::{Place, add_return, stays_within};
use crate::SymbolError;

/// Place of Go's stack limit in the goroutine that register R14 points to (`runtime.g.stackguard0`).
const STACK_GUARD: u64 = 16;

/// An instruction and where it starts in the code.
struct Decoded {
    inside: u64,
    instruction: Instruction,
}

/// Instructions in the order of their addresses, up to the first that cannot be decoded.
fn decode(code: &[u8], address: u64) -> impl Iterator<Item = Result<Decoded, SymbolError>> {
    let mut decoder = Decoder::with_ip(64, code, address, DecoderOptions::NONE);
    std::iter::from_fn(move || {
        let inside = decoder.position() as u64;
        decoder.can_decode().then(|| {
            let instruction = decoder.decode();
            if instruction.is_invalid() {
                return Err(SymbolError::Undecodable(address.wrapping_add(inside)));
            }
            Ok(Decoded {
                inside,
                instruction,
            })
        })
    })
    .fuse()
}

fn is_padding(instruction: &Instruction) -> bool {
    matches!(instruction.mnemonic(), Mnemonic::Endbr64 | Mnemonic::Nop)
}

pub(super) fn entry(code: &[u8], address: u64) -> Result<Place, SymbolError> {
    for decoded in decode(code, address) {
        let decoded = decoded?;
        if !is_padding(&decoded.instruction) {
            return Ok(place(code, &decoded));
        }
    }
    Err(SymbolError::Undecodable(address))
}

/// After `cmp rsp, [r14+16]; jbe` or, in functions with a large frame, `lea r12, [rsp-N]; cmp r12, [r14+16]; jbe`
/// (`cmd/internal/obj/x86`, since Go 1.17).
pub(super) fn after_stack_check(code: &[u8], address: u64) -> Result<Place, SymbolError> {
    let at_entry = entry(code, address)?;
    let mut instructions = decode(code, address)
        .map_while(Result::ok)
        .filter(|decoded| !is_padding(&decoded.instruction))
        .peekable();
    instructions.next_if(|decoded| decoded.instruction.code() == Code::Lea_r64_m);
    let is_checked = instructions.next_if(|decoded| is_stack_check(&decoded.instruction));
    let is_left = instructions.next_if(|decoded| {
        matches!(
            decoded.instruction.code(),
            Code::Jbe_rel8_64 | Code::Jbe_rel32_64
        )
    });
    match (is_checked, is_left, instructions.next()) {
        (Some(_), Some(_), Some(after)) if !is_padding(&after.instruction) => {
            Ok(place(code, &after))
        }
        _ => Ok(at_entry),
    }
}

fn is_stack_check(instruction: &Instruction) -> bool {
    instruction.code() == Code::Cmp_r64_rm64
        && matches!(instruction.op0_register(), Register::RSP | Register::R12)
        && instruction.memory_base() == Register::R14
        && instruction.memory_index() == Register::None
        && instruction.memory_displacement64() == STACK_GUARD
}

pub(super) fn returns(code: &[u8], address: u64) -> Result<Vec<u64>, SymbolError> {
    let function = address..address.saturating_add(code.len() as u64);
    let mut returns = Vec::new();
    for decoded in decode(code, address) {
        let Decoded {
            inside,
            instruction,
        } = decoded?;
        if instruction.mnemonic() == Mnemonic::Ret {
            add_return(&mut returns, inside)?;
        } else if instruction.op0_kind() == OpKind::NearBranch64
            && instruction.mnemonic() != Mnemonic::Call
        {
            let target = instruction.near_branch64();
            stays_within(&function, target, instruction.ip())?;
        }
    }
    Ok(returns)
}

fn place(code: &[u8], decoded: &Decoded) -> Place {
    let bytes = code.get(decoded.inside as usize..).unwrap_or_default();
    Place {
        inside: decoded.inside,
        is_emulated: is_emulated(bytes),
    }
}

/// What Linux emulates (`branch_setup_xol_ops` and `push_setup_xol_ops` in arch/x86/kernel/uprobes.c, 4.16 to 6.18):
/// pushes of one register and near jumps and calls with a constant distance, without any other prefix.
fn is_emulated(bytes: &[u8]) -> bool {
    matches!(
        bytes,
        [0x50..=0x57 | 0xe8 | 0xe9 | 0xeb | 0x70..=0x7f, ..]
            | [0x41, 0x50..=0x57, ..]
            | [0x0f, 0x80..=0x8f, ..]
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(inside: u64, is_emulated: bool) -> Place {
        Place {
            inside,
            is_emulated,
        }
    }

    #[test]
    fn an_entry_is_after_landing_pads_and_no_operations() {
        let cases: [(&[u8], Place); 8] = [
            // push rbp; push r12
            (&[0x55], at(0, true)),
            (&[0x41, 0x54], at(0, true)),
            // endbr64; push rbp
            (&[0xf3, 0x0f, 0x1e, 0xfa, 0x55], at(4, true)),
            // endbr64; sub rsp, 24
            (
                &[0xf3, 0x0f, 0x1e, 0xfa, 0x48, 0x83, 0xec, 0x18],
                at(4, false),
            ),
            // nop of 1, 2, 5 and 10 bytes; jmp +0
            (
                &[
                    0x90, 0x66, 0x90, 0x0f, 0x1f, 0x44, 0, 0, 0x66, 0x2e, 0x0f, 0x1f, 0x84, 0, 0,
                    0, 0, 0, 0xeb, 0,
                ],
                at(18, true),
            ),
            // test edx, edx; ret; pause, which is a no-operation only by its byte
            (&[0x85, 0xd2], at(0, false)),
            (&[0xc3], at(0, false)),
            (&[0xf3, 0x90], at(0, false)),
        ];
        for (code, expected) in cases {
            assert_eq!(entry(code, 0x1000).unwrap(), expected, "{code:02x?}");
        }
    }

    #[test]
    fn an_entry_that_is_no_code_is_refused() {
        // Nothing; only padding; an opcode that does not exist in 64-bit mode; half an instruction.
        for code in [
            &[][..],
            &[0x90],
            &[0xf3, 0x0f, 0x1e, 0xfa, 0x06],
            &[0xe8, 1],
        ] {
            assert!(entry(code, 0x1000).is_err(), "{code:02x?}");
        }
    }

    #[test]
    fn a_go_entry_is_after_the_stack_check() {
        let cases: [(&[u8], Place); 6] = [
            // cmp rsp, [r14+16]; jbe near; push rbp
            (
                &[0x49, 0x3b, 0x66, 0x10, 0x0f, 0x86, 9, 0, 0, 0, 0x55],
                at(10, true),
            ),
            // cmp rsp, [r14+16]; jbe short; sub rsp, 24
            (
                &[0x49, 0x3b, 0x66, 0x10, 0x76, 9, 0x48, 0x83, 0xec, 0x18],
                at(6, false),
            ),
            // lea r12, [rsp-128]; cmp r12, [r14+16]; jbe; push rbp
            (
                &[
                    0x4c, 0x8d, 0x64, 0x24, 0x80, 0x4d, 0x3b, 0x66, 0x10, 0x76, 9, 0x55,
                ],
                at(11, true),
            ),
            // cmp rsp, [r14+24]; jbe; push rbp
            (&[0x49, 0x3b, 0x66, 0x18, 0x76, 9, 0x55], at(0, false)),
            // cmp rsp, [r14+16]; ja; push rbp
            (&[0x49, 0x3b, 0x66, 0x10, 0x77, 9, 0x55], at(0, false)),
            (&[0x55, 0x48, 0x89, 0xe5], at(0, true)),
        ];
        for (code, expected) in cases {
            let found = after_stack_check(code, 0x1000).unwrap();
            assert_eq!(found, expected, "{code:02x?}");
        }
    }

    #[test]
    fn every_return_is_found_and_bytes_that_look_like_one_are_not() {
        // mov eax, 0xc3; je +1; ret; ret 16; rep ret; call out of the function; int3
        let code = [
            0xb8, 0xc3, 0, 0, 0, 0x74, 1, 0xc3, 0xc2, 16, 0, 0xf3, 0xc3, 0xe8, 0, 1, 0, 0, 0xcc,
        ];
        assert_eq!(returns(&code, 0x1000).unwrap(), [7, 8, 11]);
    }

    #[test]
    fn a_function_that_cannot_be_followed_is_refused() {
        // ret; an opcode that does not exist
        let unknown = returns(&[0xc3, 0x06], 0x1000);
        assert!(matches!(unknown, Err(SymbolError::Undecodable(0x1001))));
        // ret; half a call
        let cut = returns(&[0xc3, 0xe8, 0], 0x1000);
        assert!(matches!(cut, Err(SymbolError::Undecodable(0x1001))));
        // nop; jmp to the byte after the function; ret
        let leaving = returns(&[0x90, 0xeb, 1, 0xc3], 0x1000);
        assert!(matches!(leaving, Err(SymbolError::LeavesByJump(0x1001))));
        let many = returns(&[0xc3; 1025], 0x1000);
        assert!(matches!(many, Err(SymbolError::TooLarge { .. })));
    }
}
