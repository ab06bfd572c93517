//! Spans straight into protobuf, without the messages in between.
//!
//! A message of `opentelemetry-proto` owns a string for every key and text, thirty allocations for a usual span;
//! spans are by far the most of what the agent sends. Writing them directly halved the CPU time of a whole
//! export over http/protobuf (15 attributes per span). The bytes are those that the messages would give, which the
//! test below demands. Fields: `opentelemetry/proto/trace/v1/trace.proto`, `common/v1/common.proto`.

use super::encode::{SCHEMA_URL, by_container, flags, kind, resource, scope};
use crate::queue::Observed;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use pilotfish_pipeline::{Attribute, Span, Status, Value};
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};
use std::sync::Arc;

/// A usual span in bytes; a first guess for the buffer.
const USUAL_SPAN: usize = 640;

/// An `ExportTraceServiceRequest`.
pub(crate) fn spans(batch: &[Arc<Observed>]) -> Vec<u8> {
    let mut request = Vec::with_capacity(batch.len() * USUAL_SPAN);
    let scope = scope().encode_to_vec();
    let (mut one, mut scope_spans, mut resource_spans) = (Vec::new(), Vec::new(), Vec::new());
    for (container, spans) in by_container(batch) {
        scope_spans.clear();
        bytes(1, &scope, &mut scope_spans);
        for item in spans {
            one.clear();
            span(item, &mut one);
            bytes(2, &one, &mut scope_spans);
        }
        bytes(3, SCHEMA_URL.as_bytes(), &mut scope_spans);
        resource_spans.clear();
        bytes(
            1,
            &resource(&container.resource).encode_to_vec(),
            &mut resource_spans,
        );
        bytes(2, &scope_spans, &mut resource_spans);
        bytes(3, SCHEMA_URL.as_bytes(), &mut resource_spans);
        bytes(1, &resource_spans, &mut request);
    }
    request
}

fn span(span: &Span, out: &mut Vec<u8>) {
    bytes(1, &span.trace_id.0, out);
    bytes(2, &span.span_id.0, out);
    text(3, &span.trace_state, out);
    if let Some(parent) = span.parent_span_id {
        bytes(4, &parent.0, out);
    }
    text(5, &span.name, out);
    varint(6, kind(span.kind) as u64, out);
    fixed64(7, span.start_unix_nano, out);
    fixed64(8, span.end_unix_nano, out);
    for one in &span.attributes {
        attribute(one, out);
    }
    if span.status == Status::Error {
        let mut status = Vec::with_capacity(2);
        varint(3, StatusCode::Error as u64, &mut status);
        bytes(15, &status, out);
    }
    encode_key(16, WireType::ThirtyTwoBit, out);
    out.extend_from_slice(&flags(span).to_le_bytes());
}

fn attribute(Attribute { key, value }: &Attribute, out: &mut Vec<u8>) {
    let value_length = value_length(value);
    encode_key(9, WireType::LengthDelimited, out);
    encode_varint(
        (length_of_bytes(key.len()) + length_of_bytes(value_length)) as u64,
        out,
    );
    bytes(1, key.as_bytes(), out);
    encode_key(2, WireType::LengthDelimited, out);
    encode_varint(value_length as u64, out);
    match value {
        Value::Str(text) => bytes(1, text.as_bytes(), out),
        Value::Bool(truth) => varint(2, u64::from(*truth), out),
        Value::Int(number) => varint(3, *number as u64, out),
        Value::Float(number) => fixed64(4, number.to_bits(), out),
    }
}

/// Length of an `AnyValue` with this content; its field numbers are below 16, so a key is one byte.
fn value_length(value: &Value) -> usize {
    match value {
        Value::Str(text) => length_of_bytes(text.len()),
        Value::Bool(_) => 2,
        Value::Int(number) => 1 + encoded_len_varint(*number as u64),
        Value::Float(_) => 9,
    }
}

/// Length of a field of bytes whose number is below 16.
fn length_of_bytes(length: usize) -> usize {
    1 + encoded_len_varint(length as u64) + length
}

/// A string outside a `oneof`: absent when empty.
fn text(field: u32, text: &str, out: &mut Vec<u8>) {
    if !text.is_empty() {
        bytes(field, text.as_bytes(), out);
    }
}

fn bytes(field: u32, bytes: &[u8], out: &mut Vec<u8>) {
    encode_key(field, WireType::LengthDelimited, out);
    encode_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

fn varint(field: u32, value: u64, out: &mut Vec<u8>) {
    encode_key(field, WireType::Varint, out);
    encode_varint(value, out);
}

fn fixed64(field: u32, value: u64, out: &mut Vec<u8>) {
    encode_key(field, WireType::SixtyFourBit, out);
    out.extend_from_slice(&value.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{containers, span as sample_span};
    use pilotfish_pipeline::{Kind, Slot, SpanId};

    #[test]
    fn the_bytes_are_those_of_the_messages() {
        let containers = containers();
        let mut batch = Vec::new();
        for index in 0..64_usize {
            let slot = 1 + (index % 2) as u32;
            let mut span = sample_span(slot, &"n".repeat(index * 7));
            span.parent_span_id = (index % 3 == 0).then_some(SpanId([index as u8 + 1; 8]));
            span.remote_parent = index % 6 == 0;
            span.kind = if index % 5 == 0 {
                Kind::Client
            } else {
                Kind::Server
            };
            span.status = if index % 4 == 0 {
                Status::Error
            } else {
                Status::Unset
            };
            span.trace_state = "t".repeat(index).into();
            span.attributes.extend([
                Attribute {
                    key: "empty",
                    value: Value::Str("".into()),
                },
                Attribute {
                    key: "long",
                    value: Value::Str("x".repeat(index * 50).into()),
                },
                Attribute {
                    key: "negative",
                    value: Value::Int(-(index as i64)),
                },
                Attribute {
                    key: "large",
                    value: Value::Int(i64::MAX >> index),
                },
                Attribute {
                    key: "float",
                    value: Value::Float(index as f64 / 3.0),
                },
                Attribute {
                    key: "bool",
                    value: Value::Bool(index % 2 == 0),
                },
            ]);
            batch.push(Arc::new(Observed {
                container: containers.get(Slot(slot)).unwrap(),
                span,
            }));
        }
        assert_eq!(
            spans(&batch),
            super::super::encode::spans(&batch).encode_to_vec()
        );
        assert!(spans(&[]).is_empty());
    }
}
