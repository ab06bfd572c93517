//! x86-64: numbers of `arch/x86/entry/syscalls/syscall_64.tbl`, registers of `struct pt_regs`.

use core::{ffi::c_void, ptr};

pub const READ: u64 = 0;
pub const WRITE: u64 = 1;
pub const READV: u64 = 19;
pub const WRITEV: u64 = 20;
pub const SENDTO: u64 = 44;
pub const RECVFROM: u64 = 45;
pub const SENDMSG: u64 = 46;
pub const RECVMSG: u64 = 47;
pub const RECVMMSG: u64 = 299;
pub const SENDMMSG: u64 = 307;
pub const PREADV2: u64 = 327;
pub const PWRITEV2: u64 = 328;
pub const IO_URING_ENTER: u64 = 426;

/// Code segment of 32-bit tasks (`__USER32_CS`).
const USER32_CS: u16 = 0x23;

const ENOSYS: i64 = 38;

/// Byte offsets in `struct pt_regs`.
mod at {
    pub const R8: usize = 72;
    pub const R10: usize = 56;
    pub const AX: usize = 80;
    pub const DX: usize = 96;
    pub const SI: usize = 104;
    pub const DI: usize = 112;
    pub const ORIG_AX: usize = 120;
    pub const CS: usize = 136;
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

    /// The entry code stores -ENOSYS in `ax` and replaces it when the call is done.
    #[inline(always)]
    pub fn in_system_call(self) -> bool {
        self.load::<i64>(at::AX) == -ENOSYS
    }

    #[inline(always)]
    pub fn is_compat(self) -> bool {
        self.load::<u16>(at::CS) == USER32_CS
    }

    #[inline(always)]
    pub fn number(self) -> u64 {
        self.load(at::ORIG_AX)
    }

    /// Argument 0 to 4.
    #[inline(always)]
    pub fn argument(self, index: usize) -> u64 {
        self.load(match index {
            0 => at::DI,
            1 => at::SI,
            2 => at::DX,
            3 => at::R10,
            _ => at::R8,
        })
    }
}
