//! The header fields that matter, out of a decoded block.

use crate::hpack;
use crate::protocol::grpc::Content;
use crate::protocol::http::target::MAX_PATH;
use compact_str::CompactString;
use smallvec::SmallVec;

/// Longest value that is kept of a field but the target and the trace context. Bytes.
const MAX_VALUE: usize = 512;
/// Longest target: path and query, each as long as is exported. Bytes.
const MAX_TARGET: usize = 2 * MAX_PATH;
/// Longest `traceparent`, and longest `tracestate` (W3C Trace Context, section 3.3.1.5). Bytes.
const MAX_TRACE_CONTEXT: usize = 512;

/// Names whose values are read, and so have to be kept in the dynamic table.
pub(super) fn is_wanted(name: &[u8]) -> bool {
    matches!(
        name,
        b":method"
            | b":path"
            | b":scheme"
            | b":authority"
            | b":status"
            | b"host"
            | b"content-type"
            | b"user-agent"
            | b"forwarded"
            | b"x-forwarded-for"
            | b"x-forwarded-proto"
            | b"traceparent"
            | b"tracestate"
            | b"grpc-status"
    )
}

/// A field of a known name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Field {
    #[default]
    Absent,
    Known(CompactString),
}

impl Field {
    fn take(&mut self, value: &[u8], limit: usize) {
        // The first counts; a repeated one is malformed, or a list whose first element is the one of interest.
        if *self == Self::Absent {
            let value = value.get(..limit).unwrap_or(value);
            *self = Self::Known(CompactString::from_utf8_lossy(value));
        }
    }

    fn heap(&self) -> Option<usize> {
        match self {
            Self::Known(text) if text.is_heap_allocated() => Some(text.capacity()),
            Self::Known(_) | Self::Absent => None,
        }
    }

    pub(super) fn known(&self) -> Option<&str> {
        match self {
            Self::Known(text) => Some(text),
            Self::Absent => None,
        }
    }
}

/// What a `content-type` says, if there is one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum ContentType {
    #[default]
    Absent,
    /// Of no call.
    Other,
    Call(Content),
}

impl ContentType {
    fn of(value: &[u8]) -> Self {
        Content::of(value).map_or(Self::Other, Self::Call)
    }

    pub(super) const fn call(self) -> Option<Content> {
        match self {
            Self::Call(content) => Some(content),
            Self::Absent | Self::Other => None,
        }
    }
}

/// The fields of a request.
#[derive(Clone, Debug, Default)]
pub(super) struct RequestFields {
    pub(super) method: Field,
    pub(super) path: Field,
    pub(super) scheme: Field,
    pub(super) authority: Field,
    pub(super) user_agent: Field,
    pub(super) forwarded: Field,
    pub(super) x_forwarded_for: Field,
    pub(super) x_forwarded_proto: Field,
    pub(super) content: ContentType,
    pub(super) traceparents: SmallVec<[SmallVec<[u8; 64]>; 1]>,
    pub(super) tracestate: SmallVec<[u8; 64]>,
    /// There are fields whose names are not known: each may be any of the above.
    pub(super) is_nameless: bool,
}

impl RequestFields {
    pub(super) fn take(&mut self, field: hpack::Field<'_>) {
        let (name, value) = match field {
            hpack::Field::Known { name, value } => (name, value),
            hpack::Field::Unwanted => return,
            hpack::Field::Unnamed { .. } | hpack::Field::Unknown => {
                self.is_nameless = true;
                return;
            }
        };
        let field = match name {
            b":method" => &mut self.method,
            b":scheme" => &mut self.scheme,
            b":authority" | b"host" => &mut self.authority,
            b"user-agent" => &mut self.user_agent,
            b"forwarded" => &mut self.forwarded,
            b"x-forwarded-for" => &mut self.x_forwarded_for,
            b"x-forwarded-proto" => &mut self.x_forwarded_proto,
            b":path" => return self.path.take(value, MAX_TARGET),
            b"content-type" => {
                self.content = ContentType::of(value);
                return;
            }
            b"traceparent" => return self.take_parent(value),
            b"tracestate" => return self.take_state(value),
            _ => return,
        };
        field.take(value, MAX_VALUE);
    }

    fn take_parent(&mut self, value: &[u8]) {
        if value.len() <= MAX_TRACE_CONTEXT && self.traceparents.len() < 2 {
            self.traceparents.push(SmallVec::from_slice(value));
        }
    }

    /// All fields as one list (RFC 9110, section 5.3).
    fn take_state(&mut self, value: &[u8]) {
        let length = self.tracestate.len().saturating_add(value.len());
        if length < MAX_TRACE_CONTEXT && !value.is_empty() {
            if !self.tracestate.is_empty() {
                self.tracestate.push(b',');
            }
            self.tracestate.extend_from_slice(value);
        }
    }

    /// Takes the only `traceparent` out; several contradict each other.
    pub(super) fn take_traceparent(&mut self) -> Option<SmallVec<[u8; 64]>> {
        let mut all = std::mem::take(&mut self.traceparents);
        all.pop().filter(|_| all.is_empty())
    }

    /// Takes `tracestate` out, if there is one.
    pub(super) fn take_tracestate(&mut self) -> Option<SmallVec<[u8; 64]>> {
        Some(std::mem::take(&mut self.tracestate)).filter(|state| !state.is_empty())
    }

    /// Bytes on the heap, with the box that it is in; without the trace context, which is to be taken out.
    pub(super) fn held_bytes(&self) -> usize {
        let fields = [
            &self.method,
            &self.path,
            &self.scheme,
            &self.authority,
            &self.user_agent,
            &self.forwarded,
            &self.x_forwarded_for,
            &self.x_forwarded_proto,
        ];
        fields
            .into_iter()
            .filter_map(Field::heap)
            .fold(size_of::<Self>(), usize::saturating_add)
    }

    /// True if something that a span tells may be missing because its name is not known.
    pub(super) fn is_incomplete(&self) -> bool {
        let told = [&self.method, &self.path, &self.authority];
        self.is_nameless && told.into_iter().any(|field| *field == Field::Absent)
    }

    /// True if it may be a call without this showing: every call is a POST with a content type.
    pub(super) fn may_be_call(&self) -> bool {
        self.is_nameless
            && self.content == ContentType::Absent
            && matches!(self.method.known(), None | Some("POST"))
    }
}

/// The fields of a response, or of its trailers.
#[derive(Clone, Debug, Default)]
pub(super) struct ResponseFields {
    pub(super) status: Option<u16>,
    pub(super) content: ContentType,
    pub(super) grpc_status: Option<u32>,
    /// There are fields whose names are not known: each may be any of the above.
    pub(super) is_nameless: bool,
}

impl ResponseFields {
    pub(super) fn take(&mut self, field: hpack::Field<'_>) {
        let (name, value) = match field {
            hpack::Field::Known { name, value } => (name, value),
            hpack::Field::Unwanted => return,
            hpack::Field::Unnamed { .. } | hpack::Field::Unknown => {
                self.is_nameless = true;
                return;
            }
        };
        match name {
            b":status" => {
                self.status = number(value)
                    .and_then(|status| u16::try_from(status).ok())
                    .filter(|status| (100..=999).contains(status));
            }
            b"grpc-status" => self.grpc_status = number(value),
            b"content-type" => self.content = ContentType::of(value),
            _ => {}
        }
    }
}

/// A decimal number of at most nine digits.
fn number(digits: &[u8]) -> Option<u32> {
    let digits = digits.trim_ascii();
    let all = (1..=9).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(digits)
        .ok()
        .filter(|_| all)?
        .parse()
        .ok()
}
