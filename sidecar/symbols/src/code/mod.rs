//! The instructions at a function's entry and at its returns.

mod aarch64;
mod x86;

use std::ops::Range;

use crate::bounds;
use crate::error::within;
use crate::{Binary, Function, Machine, Source, SymbolError};

/// Where a uprobe goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Place in the file in bytes.
    pub offset: u64,
    /// Linux executes the probed instruction itself. Otherwise it single-steps a copy of it, which on x86-64 costs
    /// about ten times as much.
    pub is_emulated: bool,
}

/// An instruction within some code: its place in bytes from the start of the code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    inside: u64,
    is_emulated: bool,
}

impl<S: Source> Binary<S> {
    /// The first instruction of a function that does something: after landing pads (`endbr64`, `bti`), which Linux
    /// would have to single-step, and no-operations, where recent kernels place probes in another way.
    ///
    /// Return probes (uretprobes) belong to the function's entry and may share this place: nothing before it touches
    /// the stack.
    pub fn entry(&self, function: &Function) -> Result<Probe, SymbolError> {
        let code = self.start_of_code(function)?;
        let place = match self.machine() {
            Machine::X86_64 => x86::entry(&code, function.address),
            Machine::Aarch64 => aarch64::entry(&code, function.address),
        }?;
        Ok(probe(function, place))
    }

    /// As [`entry`](Self::entry) for a function that Go compiled: after the check for enough stack. A function whose
    /// stack has to grow starts again from its entry, so that a probe there would run twice; arguments are still in
    /// their registers after the check. A function without the check, or with the one for frames of several pages, has its
    /// probe at the entry.
    pub fn go_entry(&self, function: &Function) -> Result<Probe, SymbolError> {
        let code = self.start_of_code(function)?;
        let place = match self.machine() {
            Machine::X86_64 => x86::after_stack_check(&code, function.address),
            Machine::Aarch64 => aarch64::after_stack_check(&code, function.address),
        }?;
        Ok(probe(function, place))
    }

    /// Places in the file of all return instructions of a function. Refused if any of its bytes cannot be decoded, or
    /// if a direct jump leaves it. Linux single-steps return instructions of x86-64.
    pub fn returns(&self, function: &Function) -> Result<Vec<u64>, SymbolError> {
        if function.size == 0 {
            return Err(SymbolError::Unsupported("a function of unknown length"));
        }
        let size = within("bytes of a function", function.size, bounds::FUNCTION)?;
        let code = self.bytes.read(function.offset, size)?;
        let returns = match self.machine() {
            Machine::X86_64 => x86::returns(&code, function.address),
            Machine::Aarch64 => aarch64::returns(&code, function.address),
        }?;
        Ok(returns
            .into_iter()
            .map(|inside| function.offset.saturating_add(inside))
            .collect())
    }

    /// The first bytes of a function, up to its end or that of its segment.
    fn start_of_code(&self, function: &Function) -> Result<Vec<u8>, SymbolError> {
        let size = match function.size {
            0 => bounds::ENTRY,
            size => size.min(bounds::ENTRY),
        };
        let length = (1..=size)
            .rev()
            .find(|length| self.code_offset(function.address, *length).is_some())
            .unwrap_or(0);
        self.bytes.read(function.offset, length)
    }
}

fn probe(function: &Function, place: Place) -> Probe {
    Probe {
        offset: function.offset.saturating_add(place.inside),
        is_emulated: place.is_emulated,
    }
}

/// Notes a return instruction.
fn add_return(returns: &mut Vec<u64>, inside: u64) -> Result<(), SymbolError> {
    returns.push(inside);
    within(
        "return instructions of a function",
        returns.len() as u64,
        bounds::RETURNS,
    )?;
    Ok(())
}

/// An error if a jump's target is outside of the function.
fn stays_within(function: &Range<u64>, target: u64, address: u64) -> Result<(), SymbolError> {
    if function.contains(&target) {
        Ok(())
    } else {
        Err(SymbolError::LeavesByJump(address))
    }
}
