//! The whole pipeline: a stream of records, as the ring buffer and recorded files carry them, each padded to eight
//! bytes. Cookies and slots are folded onto a few, so that records meet in one flow; what folding takes away from a slot
//! decides whether its container's settings change before the record.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pilotfish_abi::Header;
use pilotfish_pipeline::{
    Config, Encrypted, Measurement, Pipeline, Record, Sampler, Sink, Slot, SlotConfig, Span,
};
use std::collections::{BTreeSet, HashSet};

/// Containers that records are folded onto.
const SLOTS: u32 = 3;

/// Fewer than there are cookies, so that eviction happens.
const MAX_FLOWS: usize = 3;

#[derive(Default)]
struct Checked {
    spans: u64,
    measurements: u64,
    encrypted: u64,
}

impl Sink for Checked {
    fn span(&mut self, span: Span) {
        assert!(span.end_unix_nano >= span.start_unix_nano);
        let keys: HashSet<_> = span
            .attributes
            .iter()
            .map(|attribute| attribute.key)
            .collect();
        assert_eq!(keys.len(), span.attributes.len(), "{:?}", span.attributes);
        self.spans += 1;
    }

    fn measurement(&mut self, measurement: Measurement) {
        assert!(
            measurement
                .values
                .iter()
                .all(|(_, value)| value.is_finite() && *value >= 0.0),
            "{measurement:?}"
        );
        self.measurements += 1;
    }

    fn encrypted(&mut self, _: Encrypted) {
        self.encrypted += 1;
    }
}

/// Settings of which each bit is one part.
fn change_settings(pipeline: &mut Pipeline, slot: Slot, bits: u32) {
    let bit = |index: u32| bits >> index & 1 == 1;
    let given = |is_given: bool, text: &str| is_given.then(|| text.to_owned()).into_iter();
    let config = SlotConfig {
        sampler: if bit(0) {
            Sampler::AlwaysOff
        } else {
            Sampler::TraceIdRatio(if bit(1) { 2.0 } else { 0.5 })
        },
        routes: given(bit(2), "/{id}")
            .chain(given(bit(3), "/{name}"))
            .collect(),
        ignore_paths: given(bit(4), "/a*").collect(),
        protocols: bit(5).then(Vec::new),
        ports: bit(6).then(|| BTreeSet::from([80, (bits >> 16) as u16])),
    };
    assert_eq!(
        pipeline.configure(slot, &config).is_ok(),
        config.check().is_ok()
    );
}

fuzz_target!(|bytes: &[u8]| {
    let Ok(mut pipeline) = Pipeline::new(Config {
        max_flows: MAX_FLOWS,
        ..Config::default()
    }) else {
        return;
    };
    let mut sink = Checked::default();
    let mut rest = bytes;
    while let Ok(mut record) = Record::parse(rest) {
        record.header.cookie %= 5;
        let change = record.header.slot / SLOTS;
        record.header.slot %= SLOTS;
        let slot = Slot(record.header.slot);
        match change % 8 {
            1 => pipeline.forget(slot, &mut sink),
            2..=7 => change_settings(&mut pipeline, slot, change / 8),
            _ => {}
        }
        pipeline.on_tick(record.header.time, 0, &mut sink);
        pipeline.on_record(&record, &mut sink);
        assert!(pipeline.flows_open() <= MAX_FLOWS);
        let length = (Header::SIZE + record.payload.len()).next_multiple_of(8);
        rest = rest.get(length..).unwrap_or_default();
    }
    pipeline.finish(&mut sink);
    let stats = pipeline.stats();
    assert_eq!((pipeline.flows_open(), pipeline.exchanges_open()), (0, 0));
    assert_eq!(pipeline.bytes_kept(), 0);
    assert_eq!(
        stats.exchanges_started,
        stats.exchanges_finished + stats.exchanges_abandoned
    );
    assert!(stats.heads_too_long <= stats.flows_lost_place);
    assert!(stats.flows_idle <= stats.flows_ended);
    assert!(stats.flows_tls_unassociated <= stats.flows_tls);
    assert_eq!(
        (stats.spans, stats.measurements, stats.flows_encrypted),
        (sink.spans, sink.measurements, sink.encrypted)
    );
});
