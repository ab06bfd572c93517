//! Parsers: any conversation keeps the contract of events. The first byte of the input picks the protocol, the
//! second one role and place of entry; the rest are steps (`conversation::decode`).
#![no_main]

#[path = "../../tests/conversation/mod.rs"]
#[allow(dead_code, reason = "the protocol tests use more of it")]
mod conversation;

use conversation::{Player, decode};
use libfuzzer_sys::fuzz_target;
use pilotfish_pipeline::protocol::{Direction, FlowInfo, PROTOCOLS};

fuzz_target!(|input: &[u8]| {
    let [choice, setting, steps @ ..] = input else {
        return;
    };
    let Some(protocol) = PROTOCOLS.get(usize::from(*choice) % PROTOCOLS.len()) else {
        return;
    };
    let requests = if setting & 1 == 0 {
        Direction::Received
    } else {
        Direction::Sent
    };
    let info = FlowInfo {
        joined_late: setting & 2 != 0,
        tls: setting & 4 != 0,
        close_unseen: setting & 8 != 0,
    };
    (protocol.detect)(steps, info.joined_late);
    let mut player = Player::new(protocol, info, requests);
    player.play(&decode(steps));
    player.end();
});
