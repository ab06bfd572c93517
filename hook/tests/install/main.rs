//! `pilotfish-hook install` and `uninstall`, the real program over roots in temporary directories.

mod containerd;
mod docker;
mod hooks_dir;
mod host;
mod manifests;
mod writes;
