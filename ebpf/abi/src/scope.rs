//! Map values: what makes a task part of a container, and how that container is observed.

/// Value of the scope map (task storage), one per observed task.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(zerocopy::IntoBytes, zerocopy::Immutable))]
#[repr(C)]
pub struct Scope {
    /// The container's slot; 0 means not in scope (a withdrawn entry).
    pub slot: u32,
    /// Process id in the agent's pid namespace, 0 when unknown.
    pub tgid: u32,
}

/// Value of the settings array, one per slot: changed in one place, obeyed by every task of the container at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Settings {
    /// Non-zero while the slot is in use: for one that is not, no socket operation is captured.
    pub enabled: u32,
    /// Bytes captured per operation, at most [`crate::MAX_CAPTURE`].
    pub capture: u32,
}
