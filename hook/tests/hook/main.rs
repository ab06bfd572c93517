//! The hook as a runtime runs it: the real binary, a state on standard input, a bundle, and agents of every kind.

mod agents;
mod bundles;
mod launching;
mod rig;
mod stages;
mod states;
mod surroundings;
