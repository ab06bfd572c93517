//! What every version of HTTP has in common (RFC 9110): methods, targets, and the attributes of an exchange.

pub(super) mod exchange;
pub(super) mod method;
pub(super) mod target;
