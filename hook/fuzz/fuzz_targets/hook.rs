//! The hook's input: any state and any `config.json` give an announcement that fits the protocol, or an error.
//!
//! The input is a state, a zero byte, and a configuration.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pilotfish_hook::{spec, state};
use pilotfish_workload::annotations::relevant;
use pilotfish_workload::announcement::{Announcement, Request, encode, is_container_id};
use pilotfish_workload::{Identity, oci};

fuzz_target!(|bytes: &[u8]| {
    let mut parts = bytes.splitn(2, |byte| *byte == 0);
    let state = parts.next().unwrap_or_default();
    let mut all = spec::annotations(parts.next().unwrap_or_default()).unwrap_or_default();
    let Ok(state) = state::parse(state) else {
        return;
    };
    assert!(is_container_id(&state.id));
    all.extend(state.annotations.unwrap_or_default());
    let bundle = state.bundle.unwrap_or_default();
    let (annotations, warnings) = relevant(&all);
    let announcement = Announcement {
        identity: Identity::from_annotations(&state.id, &all, &bundle),
        id: state.id,
        pid: state.pid.unwrap_or_default(),
        annotations,
        labels: oci::labels(&all),
        warnings,
    };
    encode(&Request::Attach(Box::new(announcement))).expect("an announcement fits a frame");
});
