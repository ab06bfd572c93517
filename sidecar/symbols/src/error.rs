use std::io;

/// Why a file gives no answer. The caller knows which file it is.
#[derive(Debug, thiserror::Error)]
pub enum SymbolError {
    /// The file could not be read, or became shorter while it was read.
    #[error("cannot read the file: {0}")]
    Read(#[from] io::Error),
    /// The file starts with something else than the ELF magic, or is shorter than an ELF header.
    #[error("not an ELF file")]
    NotElf,
    /// An ELF file, or a table in it, of a kind that is not covered.
    #[error("not covered: {0}")]
    Unsupported(&'static str),
    /// The file contradicts itself.
    #[error("malformed ELF file: {0}")]
    Malformed(&'static str),
    /// One of the [`bounds`](crate::bounds) is exceeded.
    #[error("{what}: {found} is above the bound of {bound}")]
    TooLarge {
        /// What was counted or measured, with its unit.
        what: &'static str,
        /// How much the file has, as far as it was counted.
        found: u64,
        /// The bound.
        bound: u64,
    },
    /// The code of a function is not code, or uses instructions that the decoder does not know.
    #[error("cannot decode the instruction at address {0:#x}")]
    Undecodable(u64),
    /// A function can be left by a jump, so that its return instructions are not all of its ends.
    #[error("the instruction at address {0:#x} jumps out of the function")]
    LeavesByJump(u64),
}

/// `found`, if it is within `bound`.
pub(crate) fn within(what: &'static str, found: u64, bound: u64) -> Result<u64, SymbolError> {
    if found <= bound {
        Ok(found)
    } else {
        Err(SymbolError::TooLarge { what, found, bound })
    }
}
