//! The hook's input: any state and any `config.json` give an announcement that fits the protocol, or an error.
//!
//! The input is a state, a zero byte, and a configuration.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pilotfish_hook::{spec, state};
use pilotfish_workload::annotations::relevant;
use pilotfish_workload::announcement::{Announcement, Request, encode, is_container_id};
use pilotfish_workload::{Identity, oci};

/// Longest warning, bytes: two texts of 64 characters, escaped, in a sentence.
const MAX_REASON: usize = 2048;

fuzz_target!(|bytes: &[u8]| {
    let mut parts = bytes.splitn(2, |byte| *byte == 0);
    let state = parts.next().unwrap_or_default();
    let configuration = spec::parse(parts.next().unwrap_or_default()).unwrap_or_default();
    let mut all = configuration.annotations;
    let Ok(state) = state::parse(state) else {
        return;
    };
    assert!(is_container_id(&state.id));
    all.extend(state.annotations.unwrap_or_default());
    let bundle = state.bundle.unwrap_or_default();
    let pid = state.pid.unwrap_or_default();
    if let Some(reason) = Announcement::unread_wish(&state.id, &all, &bundle) {
        assert!(!reason.is_empty() && reason.len() <= MAX_REASON);
    }
    // Most are not selected; the frame has to hold whatever could be.
    let (annotations, warnings) = relevant(&all);
    let announcement = Announcement {
        identity: Identity::from_annotations(&state.id, &all, &bundle),
        id: state.id,
        pid,
        annotations,
        labels: oci::labels(&all),
        warnings,
        program: None,
    }
    .about_to_execute(configuration.program.as_deref());
    encode(&Request::Attach(Box::new(announcement))).expect("an announcement fits a frame");
});
