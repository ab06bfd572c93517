//! The user's registers at a uprobe, by the calling conventions of C and of Go.

#[cfg(bpf_target_arch = "x86_64")]
#[path = "registers/x86_64.rs"]
mod arch;
#[cfg(bpf_target_arch = "aarch64")]
#[path = "registers/aarch64.rs"]
mod arch;

pub use arch::{Registers, goroutine_in_system_call};
