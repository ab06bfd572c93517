//! aarch64: AAPCS64, and Go's internal ABI since 1.18 (`cmd/compile/abi-internal.md`); offsets of `struct user_pt_regs`.

use core::{ffi::c_void, ptr};

mod at {
    pub const R8: usize = 8 * 8;
    /// Register 28 holds the goroutine.
    pub const R28: usize = 28 * 8;
    pub const SP: usize = 31 * 8;
}

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
        // SAFETY: the context of a uprobe is a `struct user_pt_regs`, read in whole members.
        unsafe { ptr::read_volatile(self.0.wrapping_byte_add(offset).cast()) }
    }

    /// Argument 0 to 4 of a C function, at its entry.
    #[inline(always)]
    pub fn argument(self, index: usize) -> u64 {
        self.load(index * 8)
    }

    /// What a C function returned.
    #[inline(always)]
    pub fn returned(self) -> u64 {
        self.load(0)
    }

    /// Where a Rust function that returns a large value leaves it, at its entry: the indirect result register.
    #[inline(always)]
    pub fn rust_result(self) -> u64 {
        self.load(at::R8)
    }

    /// Argument 0 to 2 of such a function.
    #[inline(always)]
    pub fn rust_argument(self, index: usize) -> u64 {
        self.load(index * 8)
    }

    /// The stack pointer at a function's entry.
    #[inline(always)]
    pub fn stack(self) -> u64 {
        self.load(at::SP)
    }

    /// After a function's return: the stack pointer at its entry. The return address is in a register.
    #[inline(always)]
    pub fn stack_before_return(self) -> u64 {
        self.load(at::SP)
    }

    /// Word 0 to 2 of a Go function's arguments, at its entry.
    #[inline(always)]
    pub fn go_argument(self, index: usize) -> u64 {
        self.load(index * 8)
    }

    /// The first word of a Go function's results, at its return instruction.
    #[inline(always)]
    pub fn go_returned(self) -> u64 {
        self.load(0)
    }

    /// Address of the running goroutine (`runtime.g`).
    #[inline(always)]
    pub fn goroutine(self) -> u64 {
        self.load(at::R28)
    }
}

/// Address of the goroutine of a thread that is in a system call.
///
/// # Safety
/// `registers` must be a task's saved registers.
#[inline(always)]
pub unsafe fn goroutine_in_system_call(registers: *const c_void) -> u64 {
    // SAFETY: by the caller. Go's assembly leaves the register alone on the way into the kernel.
    unsafe { ptr::read_volatile(registers.wrapping_byte_add(at::R28).cast()) }
}
