//! Keep-alive HTTP/1.1: for servers, for the pair of a proxy (one inbound and one outbound exchange per request), and for
//! servers in a container each, with the same settings and with different ones.

use super::{Case, EXCHANGES_PER_FLOW, FLOWS, Moved, Place, slot};
use pilotfish_abi::Kind;
use std::borrow::Cow;

const REQUEST: &[u8] = b"GET /api/users/42?verbose=1 HTTP/1.1\r\nHost: shop.example:8080\r\n\
    User-Agent: curl/8.5.0\r\nAccept: */*\r\n\r\n";
const RESPONSE: &[u8] =
    b"HTTP/1.1 200 OK\r\nServer: nginx/1.26\r\nContent-Type: application/json\r\n\
    Content-Length: 28\r\nConnection: keep-alive\r\n\r\n{\"id\":42,\"name\":\"pilotfish\"}";

pub(super) const CASES: [Case; 4] = [
    Case {
        name: "http1 server",
        records: || records(false, false),
        per_request: 1,
        settings: false,
    },
    Case {
        name: "http1 proxy",
        records: || records(true, false),
        per_request: 2,
        settings: false,
    },
    Case {
        name: "http1 servers in 64 containers",
        records: || records(false, true),
        per_request: 1,
        settings: false,
    },
    Case {
        name: "http1 servers in 64 containers with different settings",
        records: || records(false, true),
        per_request: 1,
        settings: true,
    },
];

/// Flows on `FLOWS` threads; each exchange is one receive and one send, or in a proxy two of each.
fn records(is_proxied: bool, has_containers: bool) -> Vec<Moved> {
    let mut records = Vec::new();
    let mut time = 1_000_000;
    for exchange in 0..EXCHANGES_PER_FLOW {
        for flow in 1..=FLOWS {
            let mut push = |kind, upstream: bool, payload: &'static [u8]| {
                time += 1_000;
                let place = Place {
                    flow,
                    upstream,
                    offset: exchange * payload.len() as u64,
                    time,
                };
                let mut moved = place.moved(kind, Cow::Borrowed(payload));
                if has_containers {
                    moved.header.slot = slot(flow);
                }
                records.push(moved);
            };
            push(Kind::Receive, false, REQUEST);
            if is_proxied {
                push(Kind::Send, true, REQUEST);
                push(Kind::Receive, true, RESPONSE);
            }
            push(Kind::Send, false, RESPONSE);
        }
    }
    records
}
