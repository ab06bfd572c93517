//! Who the telemetry is about: the observed containers by slot, each with its OpenTelemetry resource and its metrics.

use crate::metrics::{Histogram, MAX_SERIES, Series, Table};
use pilotfish_abi::MAX_SLOTS;
use pilotfish_pipeline::{Attribute, Instrument, Measurement, Slot, Value};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockWriteGuard};
use std::time::{SystemTime, UNIX_EPOCH};

/// The OpenTelemetry resource of one container: attribute keys (`service.name`, `container.id`, `k8s.pod.name`,
/// ...) and values, ordered by key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resource(BTreeMap<String, String>);

impl Resource {
    /// The value of one attribute.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// Attributes in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// The value in the type that the semantic conventions define for the key.
    pub(crate) fn typed<'a>(key: &str, text: &'a str) -> Typed<'a> {
        match key {
            "process.pid" | "process.parent_pid" => {
                text.parse().map_or(Typed::Text(text), Typed::Integer)
            }
            "container.image.tags" | "container.image.repo_digests" => {
                Typed::List(text.split(',').collect())
            }
            _ => Typed::Text(text),
        }
    }
}

/// A resource attribute's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Typed<'a> {
    Text(&'a str),
    Integer(i64),
    /// Kept as one text, joined by commas.
    List(Vec<&'a str>),
}

impl<K: Into<String>, V: Into<String>> FromIterator<(K, V)> for Resource {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(attributes: I) -> Self {
        Self(
            attributes
                .into_iter()
                .map(|(key, value)| (key.into(), value.into()))
                .collect(),
        )
    }
}

/// One observed container as the exporters see it. Its metrics live and end with it.
#[derive(Debug)]
pub struct Container {
    /// Unique in this process: a slot is used again, this is not.
    pub id: u64,
    /// Its identity, fixed for its life.
    pub resource: Resource,
    /// Start of its cumulative metrics, nanoseconds since the Unix epoch.
    pub start_unix_nano: u64,
    /// Shared with the same container under its former identity.
    table: Arc<Mutex<Table>>,
}

impl Container {
    fn new(resource: Resource, total_series: &Arc<AtomicUsize>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            resource,
            start_unix_nano: now_unix_nano(),
            table: Arc::new(Mutex::new(Table::new(MAX_SERIES, Arc::clone(total_series)))),
        }
    }

    /// The same container, better known: its metrics go on.
    fn with_resource(&self, resource: Resource) -> Self {
        Self {
            id: self.id,
            resource,
            start_unix_nano: self.start_unix_nano,
            table: Arc::clone(&self.table),
        }
    }

    pub(crate) fn record(&self, measurement: &Measurement) {
        self.table().record(measurement);
    }

    /// Copies all series, oldest first. The lock is held for the copy alone: the ring reader may be waiting for it.
    pub fn series(&self) -> Vec<Series> {
        let mut series: Vec<_> = self.table().series().cloned().collect();
        series.sort_unstable_by_key(|series| series.id);
        series
    }

    /// The same for one instrument, which is less to hold at a time.
    pub fn histograms(
        &self,
        instrument: &'static Instrument,
    ) -> Vec<(u32, Arc<[Attribute]>, Histogram)> {
        let of = |series: &Series| {
            let found = series
                .histograms
                .iter()
                .find(|(known, _)| std::ptr::eq(*known, instrument));
            found.map(|(_, histogram)| {
                (series.id, Arc::clone(&series.attributes), histogram.clone())
            })
        };
        let mut histograms: Vec<_> = self.table().series().filter_map(of).collect();
        histograms.sort_unstable_by_key(|(id, _, _)| *id);
        histograms
    }

    /// Instruments that have been recorded, each once.
    pub fn instruments(&self) -> Vec<&'static Instrument> {
        let table = self.table();
        let mut found: Vec<&'static Instrument> = Vec::new();
        for (instrument, _) in table.series().flat_map(|series| &series.histograms) {
            if !found.iter().any(|known| std::ptr::eq(*known, *instrument)) {
                found.push(instrument);
            }
        }
        found
    }

    /// Measurements that exceeded the limit of series and went into the overflow series.
    pub fn overflowed(&self) -> u64 {
        self.table().overflowed()
    }

    /// Number of series.
    pub fn series_count(&self) -> usize {
        self.table().series().len()
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The observed containers by slot, at most [`MAX_SLOTS`]. A clone is a handle on the same table.
#[derive(Clone, Debug, Default)]
pub struct Containers(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    slots: RwLock<BTreeMap<u32, Arc<Container>>>,
    /// Removed containers whose last metrics are still to be exported.
    retired: Mutex<Vec<Arc<Container>>>,
    keep_retired: AtomicBool,
    total_series: Arc<AtomicUsize>,
}

impl Containers {
    /// An empty table.
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts the telemetry of a container. For a slot that has one, it is the same container, better known: its
    /// metrics go on under the new identity.
    ///
    /// Returns `false`, and does nothing, for a slot that the kernel side cannot name.
    pub fn insert(&self, slot: Slot, resource: Resource) -> bool {
        if slot.0 >= MAX_SLOTS {
            return false;
        }
        let mut slots = self.write();
        let container = match slots.get(&slot.0) {
            Some(known) => known.with_resource(resource),
            None => Container::new(resource, &self.0.total_series),
        };
        slots.insert(slot.0, Arc::new(container));
        true
    }

    /// Ends the telemetry of a container: its series leave the Prometheus page at once and go out by OTLP one
    /// last time. Spans that were already handed over keep their identity.
    pub fn remove(&self, slot: Slot) {
        let before = self.write().remove(&slot.0);
        self.retire(before);
    }

    /// The container in a slot.
    pub fn get(&self, slot: Slot) -> Option<Arc<Container>> {
        self.0
            .slots
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&slot.0)
            .cloned()
    }

    /// All containers in the order of their slots.
    pub fn all(&self) -> Vec<Arc<Container>> {
        self.0
            .slots
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .cloned()
            .collect()
    }

    /// From now on removed containers wait for [`Self::take_retired`]. Without an exporter that takes them they
    /// are dropped.
    pub(crate) fn keep_retired(&self) {
        self.0.keep_retired.store(true, Ordering::Relaxed);
    }

    pub(crate) fn take_retired(&self) -> Vec<Arc<Container>> {
        std::mem::take(&mut *self.retired())
    }

    fn retire(&self, container: Option<Arc<Container>>) {
        let Some(container) = container else { return };
        let mut retired = self.retired();
        // Under churn between two exports the newest are given up: the bound is the one of live containers.
        if self.0.keep_retired.load(Ordering::Relaxed) && retired.len() < MAX_SLOTS as usize {
            retired.push(container);
        }
    }

    fn write(&self) -> RwLockWriteGuard<'_, BTreeMap<u32, Arc<Container>>> {
        self.0.slots.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn retired(&self) -> MutexGuard<'_, Vec<Arc<Container>>> {
        self.0
            .retired
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Equality of attribute sets for which a NaN equals itself, so that no value can make endless new series.
pub(crate) fn same_attributes(left: &[Attribute], right: &[Attribute]) -> bool {
    left.len() == right.len()
        && left
            .iter()
            .zip(right)
            .all(|(left, right)| same_attribute(left, right))
}

fn same_attribute(left: &Attribute, right: &Attribute) -> bool {
    left.key == right.key
        && match (&left.value, &right.value) {
            (Value::Float(left), Value::Float(right)) => left.to_bits() == right.to_bits(),
            (left, right) => left == right,
        }
}

/// Wall-clock time, nanoseconds since the Unix epoch.
pub(crate) fn now_unix_nano() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::measurement;

    #[test]
    fn a_removed_container_is_handed_over_once_and_only_when_wanted() {
        let containers = Containers::new();
        assert!(containers.insert(Slot(1), Resource::from_iter([("service.name", "a")])));
        containers.remove(Slot(1));
        assert!(containers.take_retired().is_empty(), "nobody asked for it");

        containers.keep_retired();
        containers.insert(Slot(1), Resource::from_iter([("service.name", "b")]));
        containers
            .get(Slot(1))
            .unwrap()
            .record(&measurement(1, "/", 1.0));
        containers.remove(Slot(1));
        containers.insert(Slot(1), Resource::from_iter([("service.name", "c")]));
        let retired = containers.take_retired();
        assert_eq!(retired.len(), 1);
        assert_eq!(retired[0].resource.get("service.name"), Some("b"));
        assert_eq!(retired[0].series_count(), 1);
        assert!(containers.take_retired().is_empty());
        assert_eq!(containers.get(Slot(1)).unwrap().series_count(), 0);
    }

    #[test]
    fn a_container_that_changes_its_name_keeps_its_metrics() {
        let containers = Containers::new();
        containers.insert(Slot(1), Resource::from_iter([("service.name", "runc")]));
        let before = containers.get(Slot(1)).unwrap();
        before.record(&measurement(1, "/", 1.0));
        containers.insert(Slot(1), Resource::from_iter([("service.name", "nginx")]));
        let after = containers.get(Slot(1)).unwrap();
        before.record(&measurement(1, "/late", 1.0));
        assert_eq!(after.resource.get("service.name"), Some("nginx"));
        assert_eq!((after.series_count(), after.id), (2, before.id));
    }

    #[test]
    fn values_have_the_types_of_the_conventions() {
        assert_eq!(Resource::typed("process.pid", "7"), Typed::Integer(7));
        assert_eq!(Resource::typed("process.pid", "x"), Typed::Text("x"));
        assert_eq!(Resource::typed("container.id", "7"), Typed::Text("7"));
        let tags = Resource::typed("container.image.tags", "1.27,latest");
        assert_eq!(tags, Typed::List(vec!["1.27", "latest"]));
    }

    #[test]
    fn slots_that_the_kernel_cannot_name_are_refused() {
        let containers = Containers::new();
        assert!(!containers.insert(Slot(MAX_SLOTS), Resource::default()));
        assert!(containers.all().is_empty());
    }
}
