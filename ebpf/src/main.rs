//! pilotfish's eBPF programs: what the sockets of one container send and receive, and how its processes live.
//!
//! Every program first asks whether what it looks at is in scope and returns if not. No protocol is parsed here:
//! a record is a header and the bytes that moved.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod capture;
mod flow;
mod kernel;
mod maps;
mod output;
mod pieces;
mod process;
mod scope;
mod socket;
mod syscall;
mod tls;

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // Never reached: the programs contain no panicking path, or the verifier would refuse the endless loop.
    loop {}
}

/// Some helpers are reserved for programs under a licence compatible with the GPL.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
