//! Where in an ELF file uprobes have to be placed: functions by name, Go's own tables, the instructions at a function's
//! entry and its returns, and marks of libraries that were linked in and stripped.
//!
//! The files belong to containers and are hostile. Nothing is mapped or read whole: headers, tables and code are read
//! piece by piece, each within one of the [`bounds`], and an exceeded bound is an error that names it. No function here
//! panics, and none answers with a guess: a probe at a wrong offset breaks the program that it is placed in.
//!
//! ```text
//! Source -> Binary: headers -> functions, go_functions -> Function -> entry, returns -> file offsets for uprobes
//! ```
#![forbid(unsafe_code)]
#![warn(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]
#![cfg_attr(
    test,
    allow(
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic
    )
)]

mod binary;
pub mod bounds;
mod code;
mod dynamic;
mod error;
mod functions;
mod go;
mod markers;
mod source;

pub use binary::{Binary, Machine};
pub use code::Probe;
pub use error::SymbolError;
pub use functions::Function;
pub use go::Go;
pub use source::Source;
