//! arm64: numbers of `include/uapi/asm-generic/unistd.h`, registers of `struct pt_regs`. Compiled, not yet run.

use core::{ffi::c_void, ptr};

pub const READ: u64 = 63;
pub const WRITE: u64 = 64;
pub const READV: u64 = 65;
pub const WRITEV: u64 = 66;
pub const SENDTO: u64 = 206;
pub const RECVFROM: u64 = 207;
pub const SENDMSG: u64 = 211;
pub const RECVMSG: u64 = 212;
pub const RECVMMSG: u64 = 243;
pub const SENDMMSG: u64 = 269;
pub const PREADV2: u64 = 286;
pub const PWRITEV2: u64 = 287;
pub const IO_URING_ENTER: u64 = 426;

/// `PSR_MODE32_BIT`: the task runs AArch32 code.
const MODE32: u64 = 0x10;

/// Byte offsets in `struct pt_regs`: thirty-one registers, sp, pc, pstate, orig_x0, syscallno.
mod at {
    pub const PSTATE: usize = 33 * 8;
    pub const ORIG_X0: usize = 34 * 8;
    pub const NUMBER: usize = 35 * 8;
}

/// The saved user registers.
#[derive(Clone, Copy)]
pub struct Registers(*const c_void);

impl Registers {
    #[inline(always)]
    pub fn new(registers: *const c_void) -> Self {
        Self(registers)
    }

    #[inline(always)]
    fn load<T: Copy>(self, offset: usize) -> T {
        // SAFETY: the pointer comes from `bpf_task_pt_regs`; offsets and sizes are those of `struct pt_regs`.
        unsafe { ptr::read_volatile(self.0.wrapping_byte_add(offset).cast()) }
    }

    /// The call's result replaces argument 0 in `x0`; until then both agree. Weaker than on x86-64: they also agree
    /// after a call that returned its first argument.
    #[inline(always)]
    pub fn in_system_call(self) -> bool {
        self.load::<u64>(0) == self.load::<u64>(at::ORIG_X0)
    }

    #[inline(always)]
    pub fn is_compat(self) -> bool {
        self.load::<u64>(at::PSTATE) & MODE32 != 0
    }

    #[inline(always)]
    pub fn number(self) -> u64 {
        u64::from(self.load::<u32>(at::NUMBER))
    }

    /// Argument 0 to 4.
    #[inline(always)]
    pub fn argument(self, index: usize) -> u64 {
        if index == 0 {
            self.load(at::ORIG_X0)
        } else {
            self.load(index * 8)
        }
    }
}
