//! x86-64: System V ABI, and Go's internal ABI since 1.17 (`cmd/compile/abi-internal.md`); offsets of `struct pt_regs`.

use core::{ffi::c_void, ptr};

mod at {
    pub const R14: usize = 8;
    pub const BX: usize = 40;
    pub const R8: usize = 72;
    pub const AX: usize = 80;
    pub const CX: usize = 88;
    pub const DX: usize = 96;
    pub const SI: usize = 104;
    pub const DI: usize = 112;
    pub const SP: usize = 152;
}

/// Bytes by which the stack shrinks between a function's entry and the instruction after its call.
const RETURN_ADDRESS: u64 = 8;

/// The user's registers at a probe.
#[derive(Clone, Copy)]
pub struct Registers(*const c_void);

impl Registers {
    #[inline(always)]
    pub fn new(context: *const c_void) -> Self {
        Self(context)
    }

    #[inline(always)]
    fn load(self, offset: usize) -> u64 {
        // SAFETY: the context of a uprobe is a `struct pt_regs`, read in whole members.
        unsafe { ptr::read_volatile(self.0.wrapping_byte_add(offset).cast()) }
    }

    /// Argument 0 to 4 of a C function, at its entry.
    #[inline(always)]
    pub fn argument(self, index: usize) -> u64 {
        self.load(match index {
            0 => at::DI,
            1 => at::SI,
            2 => at::DX,
            3 => at::CX,
            _ => at::R8,
        })
    }

    /// What a C function returned.
    #[inline(always)]
    pub fn returned(self) -> u64 {
        self.load(at::AX)
    }

    /// Where a Rust function that returns a large value leaves it, at its entry.
    #[inline(always)]
    pub fn rust_result(self) -> u64 {
        self.load(at::DI)
    }

    /// Argument 0 to 2 of such a function.
    #[inline(always)]
    pub fn rust_argument(self, index: usize) -> u64 {
        self.load(match index {
            0 => at::SI,
            1 => at::DX,
            _ => at::CX,
        })
    }

    /// The stack pointer at a function's entry.
    #[inline(always)]
    pub fn stack(self) -> u64 {
        self.load(at::SP)
    }

    /// After a function's return: the stack pointer at its entry.
    #[inline(always)]
    pub fn stack_before_return(self) -> u64 {
        self.load(at::SP).wrapping_sub(RETURN_ADDRESS)
    }

    /// Word 0 to 2 of a Go function's arguments, at its entry.
    #[inline(always)]
    pub fn go_argument(self, index: usize) -> u64 {
        self.load(match index {
            0 => at::AX,
            1 => at::BX,
            _ => at::CX,
        })
    }

    /// The first word of a Go function's results, at its return instruction.
    #[inline(always)]
    pub fn go_returned(self) -> u64 {
        self.load(at::AX)
    }

    /// Address of the running goroutine (`runtime.g`).
    #[inline(always)]
    pub fn goroutine(self) -> u64 {
        self.load(at::R14)
    }
}

/// Address of the goroutine of a thread that is in a system call.
///
/// # Safety
/// `registers` must be a task's saved registers.
#[inline(always)]
pub unsafe fn goroutine_in_system_call(registers: *const c_void) -> u64 {
    // SAFETY: by the caller. Go's assembly leaves the register alone on the way into the kernel.
    unsafe { ptr::read_volatile(registers.wrapping_byte_add(at::R14).cast()) }
}
