//! Histograms in the messages of `opentelemetry-proto`, cumulative or as deltas.

use crate::identity::Container;
use crate::metrics::{Histogram, Series};
use crate::otlp::encode::{SCHEMA_URL, attributes, resource, scope};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::metrics::v1 as proto;
use pilotfish_pipeline::Instrument;
use std::collections::{HashMap, HashSet};

/// Points per request: about a megabyte, below the 4 MiB that gRPC receivers accept.
pub(crate) const MAX_POINTS: usize = 2_000;

/// Names one histogram: container, series, instrument.
type Key = (u64, u32, &'static str);

/// What the collector has of one histogram, and since when.
#[derive(Clone, Debug)]
struct Sent {
    time: u64,
    histogram: Histogram,
}

/// The state of delta temporality; nothing is kept when cumulative.
///
/// A histogram moves on only when its request was accepted, so a failed export is part of the next delta.
#[derive(Debug, Default)]
pub(crate) struct Baseline(HashMap<Key, Sent>);

impl Baseline {
    /// The collector accepted a request.
    pub(crate) fn accepted(&mut self, request: Request) {
        self.0.extend(request.pending);
    }

    /// Forgets all containers but these.
    pub(crate) fn keep(&mut self, containers: &HashSet<u64>) {
        self.0
            .retain(|(container, _, _), _| containers.contains(container));
    }
}

/// A request under construction.
#[derive(Debug, Default)]
pub(crate) struct Request {
    pub(crate) message: ExportMetricsServiceRequest,
    pub(crate) points: usize,
    last_container: Option<u64>,
    pending: Vec<(Key, Sent)>,
}

/// One metric of one container, ready to go into a request.
#[derive(Debug)]
pub(crate) struct Metric {
    message: proto::Metric,
    pub(crate) points: usize,
    pending: Vec<(Key, Sent)>,
}

impl Request {
    pub(crate) fn push(&mut self, container: &Container, metric: Metric) {
        if self.last_container != Some(container.id) {
            self.last_container = Some(container.id);
            self.message.resource_metrics.push(proto::ResourceMetrics {
                resource: Some(resource(&container.resource)),
                scope_metrics: vec![proto::ScopeMetrics {
                    scope: Some(scope()),
                    metrics: Vec::new(),
                    schema_url: SCHEMA_URL.to_owned(),
                }],
                schema_url: SCHEMA_URL.to_owned(),
            });
        }
        let group = self
            .message
            .resource_metrics
            .last_mut()
            .and_then(|group| group.scope_metrics.last_mut());
        if let Some(group) = group {
            group.metrics.push(metric.message);
            self.points += metric.points;
            self.pending.extend(metric.pending);
        }
    }
}

/// The point of view of one export.
#[derive(Clone, Copy)]
pub(crate) struct Moment<'a> {
    pub(crate) now: u64,
    /// Present for delta temporality.
    pub(crate) baseline: Option<&'a Baseline>,
}

/// One instrument of a container; `None` when there is nothing to tell.
pub(crate) fn metric(
    container: &Container,
    series: &[Series],
    instrument: &'static Instrument,
    moment: Moment<'_>,
) -> Option<Metric> {
    let mut pending = Vec::new();
    let mut points = Vec::new();
    for one in series {
        let Some((_, histogram)) = one
            .histograms
            .iter()
            .find(|(known, _)| std::ptr::eq(*known, instrument))
        else {
            continue;
        };
        let Some(baseline) = moment.baseline else {
            points.push(point(
                one,
                instrument,
                histogram,
                container.start_unix_nano,
                moment.now,
            ));
            continue;
        };
        let key = (container.id, one.id, instrument.name);
        let (since, delta) = match baseline.0.get(&key) {
            Some(sent) => (sent.time, difference(histogram, &sent.histogram)),
            None => (container.start_unix_nano, histogram.clone()),
        };
        if delta.count() > 0 {
            points.push(point(one, instrument, &delta, since, moment.now));
            pending.push((
                key,
                Sent {
                    time: moment.now,
                    histogram: histogram.clone(),
                },
            ));
        }
    }
    let temporality = match moment.baseline {
        Some(_) => proto::AggregationTemporality::Delta,
        None => proto::AggregationTemporality::Cumulative,
    };
    let count = points.len();
    let data = proto::Histogram {
        data_points: points,
        aggregation_temporality: temporality.into(),
    };
    let message = proto::Metric {
        name: instrument.name.to_owned(),
        description: instrument.description.to_owned(),
        unit: instrument.unit.to_owned(),
        metadata: Vec::new(),
        data: Some(proto::metric::Data::Histogram(data)),
    };
    (count > 0).then_some(Metric {
        message,
        points: count,
        pending,
    })
}

fn point(
    series: &Series,
    instrument: &Instrument,
    histogram: &Histogram,
    start: u64,
    now: u64,
) -> proto::HistogramDataPoint {
    proto::HistogramDataPoint {
        attributes: attributes(&series.attributes),
        start_time_unix_nano: start,
        time_unix_nano: now,
        count: histogram.count(),
        sum: Some(histogram.sum),
        bucket_counts: histogram.buckets.to_vec(),
        explicit_bounds: instrument.boundaries.to_vec(),
        ..proto::HistogramDataPoint::default()
    }
}

fn difference(now: &Histogram, before: &Histogram) -> Histogram {
    let buckets = now
        .buckets
        .iter()
        .zip(&before.buckets)
        .map(|(now, before)| now.saturating_sub(*before));
    Histogram {
        buckets: buckets.collect(),
        sum: now.sum - before.sum,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{DURATION, container, measurement};

    fn only_point(metric: &Metric) -> &proto::HistogramDataPoint {
        match metric.message.data.as_ref() {
            Some(proto::metric::Data::Histogram(histogram)) => &histogram.data_points[0],
            other => panic!("not a histogram: {other:?}"),
        }
    }

    #[test]
    fn cumulative_points_start_with_the_container() {
        let container = container();
        container.record(&measurement(1, "/", 0.05));
        let metric = metric(
            &container,
            &container.series(),
            &DURATION,
            Moment {
                now: 7,
                baseline: None,
            },
        )
        .unwrap();
        let point = only_point(&metric);
        assert_eq!((point.count, point.time_unix_nano), (1, 7));
        assert_eq!(point.start_time_unix_nano, container.start_unix_nano);
        assert_eq!(point.bucket_counts, [0, 0, 1, 0, 0, 0]);
        assert_eq!(point.explicit_bounds, DURATION.boundaries);
    }

    #[test]
    fn a_delta_moves_on_only_when_it_was_accepted() {
        let container = container();
        let mut baseline = Baseline::default();
        let export = |baseline: &Baseline, now| {
            metric(
                &container,
                &container.series(),
                &DURATION,
                Moment {
                    now,
                    baseline: Some(baseline),
                },
            )
        };
        container.record(&measurement(1, "/", 1.0));
        drop(export(&baseline, 10).unwrap());
        container.record(&measurement(1, "/", 2.0));
        let second = export(&baseline, 20).unwrap();
        assert_eq!(
            only_point(&second).count,
            2,
            "the first export failed, so both are new"
        );
        let mut request = Request::default();
        request.push(&container, second);
        baseline.accepted(request);
        assert!(export(&baseline, 30).is_none(), "nothing new");
        container.record(&measurement(1, "/", 4.0));
        let third = export(&baseline, 40).unwrap();
        assert_eq!(
            (only_point(&third).count, only_point(&third).sum),
            (1, Some(4.0))
        );
        assert_eq!(only_point(&third).start_time_unix_nano, 20);
        baseline.keep(&HashSet::new());
        assert!(baseline.0.is_empty());
    }
}
