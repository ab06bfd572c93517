//! The aggregate of one container: explicit-bucket histograms per attribute set, cumulative since the container
//! was added.
//!
//! One attribute set is one entry that carries every instrument measured with it, so a [`Measurement`] costs one
//! hash and one look-up however many values it has, and nothing is cloned when the set is known.

use crate::identity::same_attributes;
use hashbrown::{DefaultHashBuilder, HashTable};
use pilotfish_pipeline::{Attribute, Instrument, Measurement, Value};
use smallvec::SmallVec;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Most attribute sets per container; further ones share the overflow series.
pub const MAX_SERIES: usize = 2_000;

/// Most attribute sets of all containers together, about 20 MB; beyond it new sets go into overflow series, too.
pub const MAX_TOTAL_SERIES: usize = 20_000;

/// Attribute of the series that takes what exceeds the limits (OpenTelemetry metrics SDK, cardinality limits).
pub const OVERFLOW: &str = "otel.metric.overflow";

/// One explicit-bucket histogram.
#[derive(Clone, Debug, PartialEq)]
pub struct Histogram {
    /// Counts per bucket: one more than the instrument has boundaries.
    pub buckets: Box<[u64]>,
    /// Sum of all recorded values.
    pub sum: f64,
}

impl Histogram {
    fn new(instrument: &Instrument) -> Self {
        Self {
            buckets: vec![0; instrument.boundaries.len() + 1].into(),
            sum: 0.0,
        }
    }

    /// Boundaries are inclusive upper bounds, as OTLP and Prometheus have them.
    fn record(&mut self, instrument: &Instrument, value: f64) {
        let bucket = instrument
            .boundaries
            .partition_point(|bound| *bound < value);
        if let Some(count) = self.buckets.get_mut(bucket) {
            *count = count.saturating_add(1);
            self.sum += value;
        }
    }

    /// Number of recorded values.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

/// One attribute set and its histograms.
#[derive(Clone, Debug)]
pub struct Series {
    /// Unique within the container; stays the same for the life of the series.
    pub id: u32,
    /// The attribute set, shared with snapshots.
    pub attributes: Arc<[Attribute]>,
    /// One histogram per instrument.
    pub histograms: SmallVec<[(&'static Instrument, Histogram); 4]>,
    hash: u64,
}

impl Series {
    fn record(&mut self, instrument: &'static Instrument, value: f64) {
        if !value.is_finite() {
            return;
        }
        let known = self
            .histograms
            .iter()
            .position(|(known, _)| std::ptr::eq(*known, instrument));
        let index = known.unwrap_or_else(|| {
            self.histograms
                .push((instrument, Histogram::new(instrument)));
            self.histograms.len() - 1
        });
        self.histograms[index].1.record(instrument, value);
    }
}

/// All series of one container.
#[derive(Debug)]
pub(crate) struct Table {
    series: HashTable<Series>,
    hasher: DefaultHashBuilder,
    limit: usize,
    /// Series of all tables.
    total: Arc<AtomicUsize>,
    next_id: u32,
    overflowed: u64,
}

impl Drop for Table {
    fn drop(&mut self) {
        self.total.fetch_sub(self.series.len(), Ordering::Relaxed);
    }
}

impl Table {
    pub(crate) fn new(limit: usize, total: Arc<AtomicUsize>) -> Self {
        let hasher = DefaultHashBuilder::default();
        Self {
            series: HashTable::new(),
            hasher,
            limit,
            total,
            next_id: 0,
            overflowed: 0,
        }
    }

    pub(crate) fn record(&mut self, measurement: &Measurement) {
        let series = self.series_of(&measurement.attributes);
        for (instrument, value) in &measurement.values {
            series.record(instrument, *value);
        }
    }

    /// Finds or makes the series of an attribute set; the overflow series when the table is full.
    fn series_of(&mut self, attributes: &[Attribute]) -> &mut Series {
        let hash = hash(&self.hasher, attributes);
        let known = self
            .series
            .find(hash, |series| {
                same_attributes(&series.attributes, attributes)
            })
            .is_some();
        let full = self.series.len() >= self.limit
            || self.total.load(Ordering::Relaxed) >= MAX_TOTAL_SERIES;
        // The overflow series has a place of its own beyond the limits.
        if !known && full && !is_overflow(attributes) {
            self.overflowed = self.overflowed.saturating_add(1);
            return self.series_of(&[Attribute {
                key: OVERFLOW,
                value: Value::Bool(true),
            }]);
        }
        let (next_id, total) = (&mut self.next_id, &self.total);
        self.series
            .entry(
                hash,
                |series| same_attributes(&series.attributes, attributes),
                |series| series.hash,
            )
            .or_insert_with(|| {
                *next_id = next_id.wrapping_add(1);
                total.fetch_add(1, Ordering::Relaxed);
                Series {
                    id: *next_id,
                    attributes: attributes.into(),
                    histograms: SmallVec::new(),
                    hash,
                }
            })
            .into_mut()
    }

    /// Measurements that went into the overflow series.
    pub(crate) fn overflowed(&self) -> u64 {
        self.overflowed
    }

    pub(crate) fn series(&self) -> impl ExactSizeIterator<Item = &Series> {
        self.series.iter()
    }
}

fn is_overflow(attributes: &[Attribute]) -> bool {
    matches!(attributes, [only] if only.key == OVERFLOW)
}

/// Keys are told apart by the comparison that follows; hashing their length is enough to spread sets.
fn hash(hasher: &DefaultHashBuilder, attributes: &[Attribute]) -> u64 {
    let mut state = hasher.build_hasher();
    for Attribute { key, value } in attributes {
        state.write_usize(key.len());
        match value {
            Value::Str(text) => {
                state.write_usize(text.len());
                state.write(text.as_bytes());
            }
            Value::Int(number) => state.write_i64(*number),
            Value::Float(number) => state.write_u64(number.to_bits()),
            Value::Bool(truth) => state.write_u8(u8::from(*truth)),
        }
    }
    state.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{DURATION, measurement};

    #[test]
    fn equal_sets_share_a_series_and_bounds_are_inclusive() {
        let mut table = Table::new(10, Arc::default());
        for seconds in [0.005, 0.0051, 99.0] {
            table.record(&measurement(1, "/a", seconds));
        }
        table.record(&measurement(1, "/b", 1.0));
        assert_eq!(table.series().len(), 2);
        let series = table
            .series()
            .find(|series| series.histograms[0].1.count() == 3)
            .unwrap();
        let histogram = &series.histograms[0].1;
        assert_eq!(
            histogram.buckets[0], 1,
            "0.005 belongs to the bucket that ends there"
        );
        assert_eq!(histogram.buckets[1], 1);
        assert_eq!(
            histogram.buckets[DURATION.boundaries.len()],
            1,
            "99 s is beyond the last bound"
        );
        assert!((histogram.sum - 99.0101).abs() < 1e-9);
    }

    #[test]
    fn sets_beyond_the_limit_share_the_overflow_series() {
        let mut table = Table::new(3, Arc::default());
        for index in 0..10 {
            table.record(&measurement(1, &format!("/{index}"), 1.0));
        }
        table.record(&measurement(1, "/0", 1.0));
        assert_eq!(table.series().len(), 4);
        assert_eq!(table.overflowed(), 7);
        let overflow = table
            .series()
            .find(|series| is_overflow(&series.attributes))
            .unwrap();
        assert_eq!(overflow.histograms[0].1.count(), 7);
        let total: u64 = table
            .series()
            .map(|series| series.histograms[0].1.count())
            .sum();
        assert_eq!(total, 11, "no measurement is lost to the limit");
    }

    #[test]
    fn all_tables_together_are_bounded_and_give_back_what_they_held() {
        let total = Arc::new(AtomicUsize::new(MAX_TOTAL_SERIES - 1));
        let mut table = Table::new(10, Arc::clone(&total));
        for route in ["/a", "/b", "/c", "/a"] {
            table.record(&measurement(1, route, 1.0));
        }
        assert_eq!((table.series().len(), table.overflowed()), (2, 2));
        drop(table);
        assert_eq!(total.load(Ordering::Relaxed), MAX_TOTAL_SERIES - 1);
    }

    #[test]
    fn values_that_are_no_number_leave_sums_finite() {
        let mut table = Table::new(3, Arc::default());
        for value in [f64::NAN, f64::INFINITY, 1.0] {
            table.record(&measurement(1, "/", value));
        }
        let series = table.series().next().unwrap();
        let duration = series
            .histograms
            .iter()
            .find(|(instrument, _)| instrument.name == DURATION.name)
            .unwrap();
        let mut one = Histogram::new(&DURATION);
        one.record(&DURATION, 1.0);
        assert_eq!(duration.1, one);
    }
}
