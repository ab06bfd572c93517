//! W3C Trace Context, Level 2: what `traceparent` and `tracestate` on the wire mean.
//! <https://www.w3.org/TR/trace-context-2/>

use crate::model::{SpanId, TraceId};
use compact_str::CompactString;

/// Length of a version 00 `traceparent`.
const TRACEPARENT_LENGTH: usize = 55;

/// The specification asks to propagate at least this much; longer states are dropped whole.
const MAX_TRACESTATE_LENGTH: usize = 512;

/// Most members of a `tracestate`.
const MAX_MEMBERS: usize = 32;

/// A context that arrived on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WireContext {
    /// The trace.
    pub(crate) trace_id: TraceId,
    /// The sender's span.
    pub(crate) span_id: SpanId,
    /// The sender's sampling decision.
    pub(crate) sampled: bool,
    /// Checked `tracestate`, or empty.
    pub(crate) trace_state: CompactString,
}

/// Reads a `traceparent` value; `None` if it breaks the rules.
pub(crate) fn parse_traceparent(value: &[u8]) -> Option<WireContext> {
    let (head, rest) = value.split_at_checked(TRACEPARENT_LENGTH)?;
    let mut fields = head.split(|&byte| byte == b'-');
    let [version] = hex(fields.next()?)?;
    let trace_id: [u8; 16] = hex(fields.next()?)?;
    let span_id: [u8; 8] = hex(fields.next()?)?;
    let [flags] = hex(fields.next()?)?;
    let length_fits = match version {
        0 => rest.is_empty(),
        0xff => false,
        _ => rest.first().is_none_or(|&byte| byte == b'-'),
    };
    let valid = length_fits && fields.next().is_none() && trace_id != [0; 16] && span_id != [0; 8];
    valid.then(|| WireContext {
        trace_id: TraceId(trace_id),
        span_id: SpanId(span_id),
        sampled: flags & 1 != 0,
        trace_state: CompactString::default(),
    })
}

/// Exactly `2 * N` lowercase hexadecimal digits.
fn hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    if text.len() != N.checked_mul(2)? {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.as_chunks::<2>().0) {
        let [high, low] = *pair;
        *byte = (hex_digit(high)? << 4) | hex_digit(low)?;
    }
    Some(bytes)
}

fn hex_digit(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit.wrapping_sub(b'0')),
        b'a'..=b'f' => Some(digit.wrapping_sub(b'a').wrapping_add(10)),
        _ => None,
    }
}

/// Reads a `tracestate` value; `None` if it breaks the rules, in which case the trace goes on without one.
pub(crate) fn parse_tracestate(value: &[u8]) -> Option<CompactString> {
    let text = str::from_utf8(value).ok()?.trim_matches([' ', '\t']);
    if text.len() > MAX_TRACESTATE_LENGTH {
        return None;
    }
    let mut keys: [&str; MAX_MEMBERS] = [""; MAX_MEMBERS];
    let mut free = keys.iter_mut();
    let mut previous = 0_usize;
    // Empty members are allowed by the grammar.
    for member in text
        .split(',')
        .map(|member| member.trim_matches([' ', '\t']))
        .filter(|member| !member.is_empty())
    {
        let (key, value) = member.split_once('=')?;
        if !(is_key(key) && is_value(value)) {
            return None;
        }
        *free.next()? = key;
        previous = previous.saturating_add(1);
    }
    let used = keys.get(..previous)?;
    let repeats = used
        .iter()
        .enumerate()
        .any(|(index, key)| used.iter().take(index).any(|earlier| earlier == key));
    (!repeats).then(|| CompactString::from(text))
}

/// `key = ( lcalpha / DIGIT ) 0*255 ( keychar )`, section 3.3.1.3.1.
fn is_key(key: &str) -> bool {
    let first = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let later = |byte: &u8| first(byte) || matches!(byte, b'_' | b'-' | b'*' | b'/' | b'@');
    key.len() <= 256
        && key.as_bytes().first().is_some_and(first)
        && key.bytes().all(|byte| later(&byte))
}

/// `value = 0*255(chr) nblk-chr`, printable without comma and equals sign; its end was trimmed before.
fn is_value(value: &str) -> bool {
    let allowed = |byte: u8| matches!(byte, b' '..=b'~') && byte != b',' && byte != b'=';
    (1..=256).contains(&value.len()) && value.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::{parse_traceparent, parse_tracestate};
    use proptest::prelude::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_good_context() {
        let context = parse_traceparent(GOOD.as_bytes()).unwrap();
        assert_eq!(context.trace_id.0[..2], [0x0a, 0xf7]);
        assert_eq!(
            context.span_id.0,
            [0xb7, 0xad, 0x6b, 0x71, 0x69, 0x20, 0x33, 0x31]
        );
        assert!(context.sampled);
        assert!(
            !parse_traceparent(GOOD.replace("-01", "-00").as_bytes())
                .unwrap()
                .sampled
        );
        // Other flags than "sampled" do not count as sampled: 02 is the random trace id flag.
        assert!(
            !parse_traceparent(GOOD.replace("-01", "-02").as_bytes())
                .unwrap()
                .sampled
        );
    }

    #[test]
    fn bad_contexts_are_refused() {
        let zero_trace = format!("00-{}-b7ad6b7169203331-01", "0".repeat(32));
        let zero_span = format!("00-0af7651916cd43dd8448eb211c80319c-{}-01", "0".repeat(16));
        let upper = GOOD.to_uppercase();
        let long_00 = format!("{GOOD}-00");
        let version_ff = GOOD.replacen("00", "ff", 1);
        let future_glued = format!("{}0", GOOD.replacen("00", "01", 1));
        let not_hex = GOOD.replace("0af7", "0ag7");
        let shifted = GOOD.replace("c80319c-b7", "c80319-cb7");
        for bad in [
            &zero_trace,
            &zero_span,
            &upper,
            &long_00,
            &version_ff,
            &future_glued,
            &not_hex,
            &shifted,
            "",
            &GOOD[..54],
        ] {
            assert_eq!(parse_traceparent(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn later_versions_are_read_by_their_prefix() {
        let future = GOOD.replacen("00", "cc", 1);
        assert!(parse_traceparent(future.as_bytes()).is_some());
        assert!(parse_traceparent(format!("{future}-what-the-future-holds").as_bytes()).is_some());
    }

    #[test]
    fn trace_states() {
        for good in [
            "congo=t61rcWkgMzE",
            "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE",
            "a=1, ,b=2",
            "fw529a3039@dt=x y",
            "0k=1",
        ] {
            assert_eq!(parse_tracestate(good.as_bytes()).as_deref(), Some(good));
        }
        let members: Vec<String> = (0..33).map(|index| format!("k{index}=v")).collect();
        let too_many = members.join(",");
        let too_long = format!("a={}", "x".repeat(511));
        for bad in [
            "a", "a=", "A=1", "a=1,a=2", "a=b=c", "a=\u{7f}", "=1", "a b=1", "ä=1", &too_many,
            &too_long,
        ] {
            assert_eq!(parse_tracestate(bad.as_bytes()), None, "{bad}");
        }
        assert!(parse_tracestate(members[..32].join(",").as_bytes()).is_some());
        assert_eq!(parse_tracestate(b"").as_deref(), Some(""));
    }

    proptest! {
        #[test]
        fn any_bytes_are_harmless(value in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = parse_tracestate(&value);
            if let Some(context) = parse_traceparent(&value) {
                prop_assert_ne!(context.trace_id.0, [0; 16]);
            }
        }
    }
}
