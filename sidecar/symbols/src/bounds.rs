//! The bounds of what is read out of one file. Each is well above what real programs have (in brackets: the largest
//! seen or the limit of the toolchain); whatever is above one is refused with [`TooLarge`](crate::SymbolError::TooLarge).

/// Program headers (about 15).
pub const SEGMENTS: u64 = 256;
/// Section headers (about 50; only object files have thousands).
pub const SECTIONS: u64 = 4096;
/// Bytes of the section names (about 600).
pub const SECTION_NAMES: u64 = 256 << 10;
/// Bytes of one symbol table: 2.8 million symbols (Node.js: 110,000).
pub const SYMBOL_TABLE: u64 = 64 << 20;
/// Bytes of one string table (Node.js: 7.5 million).
pub const STRING_TABLE: u64 = 128 << 20;
/// Bytes of one name; a longer one in a string table is passed over, since none that is looked for is as long.
pub const NAME: usize = 4 << 10;
/// Places in a string table where wanted names start.
pub const NAME_PLACES: u64 = 8 << 10;
/// Functions in one answer.
pub const FUNCTIONS: u64 = 4096;
/// Bytes of the dynamic section.
pub const DYNAMIC: u64 = 64 << 10;
/// Libraries that a file needs.
pub const NEEDED: u64 = 1024;
/// Bytes of a needed library's name, the limit of a path on Linux.
pub const NEEDED_NAME: u64 = 4096;
/// Bytes of the relocation table, which is only read in Go executables.
pub const RELOCATIONS: u64 = 64 << 20;
/// Bytes read in one search (Node.js: 99 million): for marker strings, for Go's tables where no section names them.
pub const SCAN: u64 = 256 << 20;
/// Bytes of writable memory searched for Go's build information where no section names it.
pub const BUILD_INFO_SCAN: u64 = 64 << 20;
/// Bytes of a Go version.
pub const GO_VERSION: u64 = 256;
/// Functions in Go's table (kubelet: about 150,000).
pub const GO_FUNCTIONS: u64 = 8 << 20;
/// Places that are tried for one of Go's tables when no section names it; later ones are not looked at.
pub const GO_CANDIDATES: usize = 8;
/// Bytes of a function whose returns are looked for.
pub const FUNCTION: u64 = 1 << 20;
/// Return instructions in one function.
pub const RETURNS: u64 = 1024;
/// Bytes that are decoded to find the place of an entry probe.
pub const ENTRY: u64 = 64;
