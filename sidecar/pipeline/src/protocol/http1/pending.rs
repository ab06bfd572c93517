//! A request that waits for its response.

use super::head::RequestHead;
use crate::model::Kind;
use crate::protocol::ExchangeId;
use crate::protocol::http::exchange::{Open, Request};
use crate::protocol::http::target::Target;

/// A request whose exchange has not finished.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) open: Open,
    /// It asked for another protocol.
    pub(super) upgrade: bool,
    /// That is HTTP/2.
    pub(super) h2c: bool,
    /// It waits for a 100 before sending its body, and none has come.
    pub(super) awaits_continue: bool,
}

impl Pending {
    pub(super) fn new(id: ExchangeId, kind: Kind, head: &RequestHead<'_>, tls: bool) -> Self {
        let request = Request {
            method: head.method,
            target: Target::parse(head.target, head.method == "CONNECT"),
            host: head.host,
            version: if head.minor == 0 { "1.0" } else { "1.1" },
            user_agent: head.user_agent,
            forwarded: head.forwarded,
            x_forwarded_for: head.x_forwarded_for,
            x_forwarded_proto: head.x_forwarded_proto,
            incomplete: false,
        };
        Self {
            open: Open::new(id, kind, &request, tls),
            upgrade: head.upgrade,
            h2c: head.h2c,
            awaits_continue: head.expects_continue,
        }
    }

    pub(super) const fn id(&self) -> ExchangeId {
        self.open.id
    }
}
