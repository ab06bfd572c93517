//! Spans and identities in the messages of `opentelemetry-proto`.

use crate::identity::{Container, Resource, Typed};
use crate::queue::Observed;
use opentelemetry_otlp::Protocol;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue, any_value,
};
use opentelemetry_proto::tonic::resource::v1::Resource as ProtoResource;
use opentelemetry_proto::tonic::trace::v1 as proto;
use pilotfish_pipeline::{Attribute, Kind, Span, Status, Value};
use std::sync::Arc;

/// Version of the semantic conventions that keys and units follow.
pub(crate) const SCHEMA_URL: &str = opentelemetry_semantic_conventions::SCHEMA_URL;

/// The W3C flag that says "sampled": only sampled spans get here.
const SAMPLED: u32 = 1;

/// Spans by their containers, both in the order of first appearance.
pub(crate) fn by_container(batch: &[Arc<Observed>]) -> Vec<(&Container, Vec<&Span>)> {
    let mut groups: Vec<(&Container, Vec<&Span>)> = Vec::new();
    for item in batch {
        let known = groups
            .iter()
            .position(|(container, _)| container.id == item.container.id);
        let index = known.unwrap_or_else(|| {
            groups.push((&item.container, Vec::new()));
            groups.len() - 1
        });
        groups[index].1.push(&item.span);
    }
    groups
}

/// One request for spans of any number of containers.
pub(crate) fn spans(batch: &[Arc<Observed>]) -> ExportTraceServiceRequest {
    let resource_spans =
        by_container(batch)
            .into_iter()
            .map(|(container, spans)| proto::ResourceSpans {
                resource: Some(resource(&container.resource)),
                scope_spans: vec![proto::ScopeSpans {
                    scope: Some(scope()),
                    spans: spans.into_iter().map(span).collect(),
                    schema_url: SCHEMA_URL.to_owned(),
                }],
                schema_url: SCHEMA_URL.to_owned(),
            });
    ExportTraceServiceRequest {
        resource_spans: resource_spans.collect(),
    }
}

fn span(span: &Span) -> proto::Span {
    proto::Span {
        trace_id: span.trace_id.0.to_vec(),
        span_id: span.span_id.0.to_vec(),
        trace_state: span.trace_state.to_string(),
        parent_span_id: span
            .parent_span_id
            .map(|id| id.0.to_vec())
            .unwrap_or_default(),
        flags: flags(span),
        name: span.name.to_string(),
        kind: kind(span.kind).into(),
        start_time_unix_nano: span.start_unix_nano,
        end_time_unix_nano: span.end_unix_nano,
        attributes: attributes(&span.attributes),
        status: (span.status == Status::Error).then(|| proto::Status {
            message: String::new(),
            code: proto::status::StatusCode::Error.into(),
        }),
        ..proto::Span::default()
    }
}

/// W3C trace flags and whether the parent is known to be remote.
pub(crate) fn flags(span: &Span) -> u32 {
    let remote = if span.remote_parent {
        proto::SpanFlags::ContextIsRemoteMask as u32
    } else {
        0
    };
    SAMPLED | proto::SpanFlags::ContextHasIsRemoteMask as u32 | remote
}

pub(crate) fn kind(kind: Kind) -> proto::span::SpanKind {
    match kind {
        Kind::Server => proto::span::SpanKind::Server,
        Kind::Client => proto::span::SpanKind::Client,
    }
}

pub(crate) fn attributes(attributes: &[Attribute]) -> Vec<KeyValue> {
    attributes
        .iter()
        .map(|attribute| key_value(attribute.key, value(&attribute.value)))
        .collect()
}

fn value(value: &Value) -> any_value::Value {
    match value {
        Value::Str(text) => any_value::Value::StringValue(text.to_string()),
        Value::Int(number) => any_value::Value::IntValue(*number),
        Value::Float(number) => any_value::Value::DoubleValue(*number),
        Value::Bool(truth) => any_value::Value::BoolValue(*truth),
    }
}

fn key_value(key: &str, value: any_value::Value) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

pub(crate) fn resource(resource: &Resource) -> ProtoResource {
    let attributes = resource.iter().map(|(key, text)| {
        let string = |text: &str| any_value::Value::StringValue(text.to_owned());
        let value = match Resource::typed(key, text) {
            Typed::Text(text) => string(text),
            Typed::Integer(number) => any_value::Value::IntValue(number),
            Typed::List(texts) => any_value::Value::ArrayValue(ArrayValue {
                values: texts
                    .into_iter()
                    .map(|text| AnyValue {
                        value: Some(string(text)),
                    })
                    .collect(),
            }),
        };
        key_value(key, value)
    });
    ProtoResource {
        attributes: attributes.collect(),
        ..ProtoResource::default()
    }
}

pub(crate) fn scope() -> InstrumentationScope {
    InstrumentationScope {
        name: "pilotfish".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    }
}

/// The message in the encoding of a protocol.
pub(crate) fn body(
    protocol: Protocol,
    message: &(impl prost::Message + serde::Serialize),
) -> bytes::Bytes {
    match protocol {
        // Serialising a tree of strings and numbers into memory has no way to fail.
        Protocol::HttpJson => serde_json::to_vec(message).unwrap_or_default().into(),
        _ => message.encode_to_vec().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{containers, span as sample_span};
    use pilotfish_pipeline::{Slot, SpanId};

    #[test]
    fn spans_are_grouped_by_container_and_complete() {
        let containers = containers();
        let batch: Vec<_> = [1, 2, 1]
            .into_iter()
            .map(|slot| {
                let mut span = sample_span(slot, &format!("of {slot}"));
                span.parent_span_id = Some(SpanId([7; 8]));
                span.remote_parent = slot == 2;
                span.status = Status::Error;
                Arc::new(Observed {
                    container: containers.get(Slot(slot)).unwrap(),
                    span,
                })
            })
            .collect();
        let request = spans(&batch);
        let counts: Vec<_> = request
            .resource_spans
            .iter()
            .map(|group| group.scope_spans[0].spans.len())
            .collect();
        assert_eq!(counts, [2, 1]);
        let first = &request.resource_spans[0].scope_spans[0].spans[0];
        assert_eq!((first.name.as_str(), first.flags), ("of 1", 0x101));
        assert_eq!(first.parent_span_id, [7; 8]);
        assert_eq!(first.status.as_ref().unwrap().code, 2);
        assert_eq!(first.attributes.len(), 3);
        assert_eq!(
            request.resource_spans[1].scope_spans[0].spans[0].flags,
            0x301
        );
        let resource = request.resource_spans[0].resource.as_ref().unwrap();
        assert!(resource.attributes.contains(&key_value(
            "container.id",
            any_value::Value::StringValue("aaaa".into())
        )));
    }
}
