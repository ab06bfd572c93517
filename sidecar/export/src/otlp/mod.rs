//! OTLP: spans in batches, metrics at intervals, with retry.
//!
//! Why the messages are built here and not by the exporters of `opentelemetry-otlp`: one agent speaks for many
//! containers, and an SDK exporter has one `Resource`, so every container would need its own exporter and its own
//! requests; metric data points cannot be made by hand in the SDK, so measurements would be aggregated a second
//! time per container; and an SDK batch processor does not say how many spans it lost. What that crate knows of
//! the specification (variable names, protocols, compressions, default timeout) is taken from it, and the
//! messages are those of `opentelemetry-proto`; spans are written in their binary form directly (`wire`).

pub(crate) mod config;
mod encode;
mod points;
#[cfg(test)]
mod tests;
pub(crate) mod tls;
pub(crate) mod transport;
mod wire;

use crate::complaint::Complaint;
use crate::config::{BatchConfig, ReaderConfig};
use crate::identity::{Container, Containers, now_unix_nano};
use crate::queue::{Accounts, InFlight, Queue};
use backon::{BackoffBuilder, ExponentialBuilder};
use bytes::Bytes;
use config::{GRPC_PORT, HTTP_PORT, protocol_name};
use hyper::Uri;
use opentelemetry_otlp::Protocol;
use points::{Baseline, MAX_POINTS, Moment, Request};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use transport::{Accepted, SendError, Transport};

/// Waits between attempts: from the first to the longest, doubling, with jitter.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_secs(16);

/// Delivers requests of one signal.
pub(crate) struct Delivery {
    transport: Transport,
    /// Longest time spent on one request, retries included.
    timeout: Duration,
    first_retry: Duration,
    /// Becomes true when the agent ends: then one more attempt is all a request gets.
    closing: watch::Receiver<bool>,
    unreachable: Complaint,
    rejected: Complaint,
}

impl Delivery {
    pub(crate) fn new(
        transport: Transport,
        timeout: Duration,
        closing: watch::Receiver<bool>,
    ) -> Self {
        Self {
            transport,
            timeout,
            first_retry: FIRST_RETRY,
            closing,
            unreachable: Complaint::default(),
            rejected: Complaint::default(),
        }
    }

    /// Sends, and sends again while that is allowed, useful and in time.
    async fn deliver(&mut self, body: Bytes, in_flight: InFlight<'_>) -> bool {
        match self.attempts(body).await {
            Ok(Accepted { rejected, message }) => {
                if self.unreachable.recovered() {
                    tracing::info!(endpoint = %self.transport.endpoint(), "the OTLP collector accepts data again");
                }
                if (rejected > 0 || !message.is_empty()) && self.rejected.due() {
                    tracing::warn!(rejected, message, "the OTLP collector accepted only a part");
                }
                in_flight.settle(rejected, &message);
                true
            }
            Err(error) => {
                in_flight.fail(&error.message);
                false
            }
        }
    }

    async fn attempts(&mut self, body: Bytes) -> Result<Accepted, SendError> {
        let deadline = Instant::now() + self.timeout;
        let mut waits = ExponentialBuilder::new()
            .with_min_delay(self.first_retry)
            .with_max_delay(LONGEST_RETRY)
            .with_jitter()
            .without_max_times()
            .build();
        loop {
            // A closed channel means that the owner is gone: as good as closing.
            let closing = *self.closing.borrow_and_update() || self.closing.has_changed().is_err();
            let error = match self.transport.send(body.clone()).await {
                Ok(accepted) => return Ok(accepted),
                Err(error) => error,
            };
            self.complain(&error);
            let wait = waits
                .next()
                .unwrap_or(LONGEST_RETRY)
                .max(error.after.unwrap_or_default());
            let in_time = deadline
                .checked_duration_since(Instant::now())
                .is_some_and(|left| wait < left);
            if closing || !error.retryable || !in_time {
                return Err(error);
            }
            let _ = tokio::time::timeout(wait, self.closing.changed()).await;
        }
    }

    fn complain(&mut self, error: &SendError) {
        if self.unreachable.due() {
            tracing::warn!(
                endpoint = %self.transport.endpoint(), protocol = protocol_name(self.transport.protocol()),
                error = %error.message, hint = hint(self.transport.endpoint(), self.transport.protocol()),
                "OTLP export failed; what cannot be sent is counted. Is the collector there, and do \
                 OTEL_EXPORTER_OTLP_ENDPOINT and OTEL_EXPORTER_OTLP_PROTOCOL fit it?"
            );
        }
    }
}

/// What is most likely wrong: collectors listen on one port for each transport (OTLP specification 1.x, "OTLP/gRPC
/// Default Port", "OTLP/HTTP Default Port").
fn hint(endpoint: &Uri, protocol: Protocol) -> Option<&'static str> {
    match (endpoint.port_u16(), protocol == Protocol::Grpc) {
        (Some(GRPC_PORT), false) => {
            Some("4317 is usually gRPC: set OTEL_EXPORTER_OTLP_PROTOCOL=grpc, or use 4318")
        }
        (Some(HTTP_PORT), true) => {
            Some("4318 is usually HTTP: set OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf, or use 4317")
        }
        _ => None,
    }
}

/// Exports spans until the queue is closed and empty.
pub(crate) async fn export_spans(queue: Arc<Queue>, mut delivery: Delivery, batch: BatchConfig) {
    while let Some(spans) = queue.next(batch.delay).await {
        let in_flight = InFlight::new(&queue.accounts, spans.len());
        let body = match delivery.transport.protocol() {
            Protocol::HttpJson => encode::body(Protocol::HttpJson, &encode::spans(&spans)),
            _ => wire::spans(&spans).into(),
        };
        // The spans are in the body now; during retries only that is kept.
        drop(spans);
        delivery.deliver(body, in_flight).await;
    }
}

/// Exports all metrics at intervals. Accounts are in data points.
pub(crate) struct MetricsExport {
    containers: Containers,
    accounts: Arc<Accounts>,
    delivery: Delivery,
    interval: Duration,
    /// Present for delta temporality.
    baseline: Option<Baseline>,
}

impl MetricsExport {
    pub(crate) fn new(
        containers: Containers,
        accounts: Arc<Accounts>,
        delivery: Delivery,
        reader: ReaderConfig,
    ) -> Self {
        containers.keep_retired();
        let baseline = reader.delta.then(Baseline::default);
        Self {
            containers,
            accounts,
            delivery,
            interval: reader.interval,
            baseline,
        }
    }

    /// Exports at every interval, and once more when the agent ends.
    pub(crate) async fn run(mut self) {
        let mut closing = self.delivery.closing.clone();
        let mut ended = false;
        while !ended {
            let wait = closing.wait_for(|closing| *closing);
            // A closed channel ends the wait as a closing agent does.
            ended = tokio::time::timeout(self.interval, wait).await.is_ok();
            let live = self.containers.all();
            let retired = self.containers.take_retired();
            self.export(retired.iter().chain(&live)).await;
            if let Some(baseline) = &mut self.baseline {
                baseline.keep(&live.iter().map(|container| container.id).collect());
            }
        }
    }

    /// Fills requests with containers, as many as fit into one.
    async fn export(&mut self, containers: impl Iterator<Item = &Arc<Container>>) {
        let now = now_unix_nano();
        let mut request = Request::default();
        for container in containers {
            let series = container.series();
            for instrument in container.instruments() {
                let moment = Moment {
                    now,
                    baseline: self.baseline.as_ref(),
                };
                let Some(metric) = points::metric(container, &series, instrument, moment) else {
                    continue;
                };
                if request.points > 0 && request.points + metric.points > MAX_POINTS {
                    self.send(std::mem::take(&mut request)).await;
                }
                request.push(container, metric);
            }
        }
        if request.points > 0 {
            self.send(request).await;
        }
    }

    async fn send(&mut self, request: Request) {
        let in_flight = InFlight::new(&self.accounts, request.points);
        let body = encode::body(self.delivery.transport.protocol(), &request.message);
        let accepted = self.delivery.deliver(body, in_flight).await;
        if let Some(baseline) = self.baseline.as_mut().filter(|_| accepted) {
            baseline.accepted(request);
        }
    }
}
