//! Request and response heads: `httparse`, and the dozen header fields that matter here.
//!
//! A head that `httparse` takes as it stands is read in place. One that it refuses gets a second, lenient reading of
//! a copy (folded lines joined, invalid lines dropped), and only if nothing dropped could change the framing.

use super::body::{Framing, Malformed};
use httparse::{Header, ParserConfig, Request, Response, Status};
use smallvec::SmallVec;
use std::mem::MaybeUninit;

/// Header fields that are read without ado.
const USUAL_FIELDS: usize = 64;
/// Header fields of the largest head that is read at all.
const MOST_FIELDS: usize = 512;

/// What a request head says, as far as it is of use.
#[derive(Debug, Default)]
pub(super) struct RequestHead<'a> {
    pub(super) method: &'a str,
    pub(super) target: &'a str,
    /// The `x` of `HTTP/1.x`.
    pub(super) minor: u8,
    pub(super) host: Option<&'a [u8]>,
    pub(super) user_agent: Option<&'a [u8]>,
    pub(super) forwarded: Option<&'a [u8]>,
    pub(super) x_forwarded_for: Option<&'a [u8]>,
    pub(super) x_forwarded_proto: Option<&'a [u8]>,
    pub(super) traceparents: SmallVec<[&'a [u8]; 1]>,
    pub(super) tracestates: SmallVec<[&'a [u8]; 1]>,
    /// It asks for another protocol: what follows on the connection depends on the answer.
    pub(super) upgrade: bool,
    /// That is HTTP/2 (RFC 7540, section 3.2) and nothing else.
    pub(super) h2c: bool,
    /// `Expect: 100-continue`: the body may never be sent.
    pub(super) expects_continue: bool,
    delimiters: Delimiters,
}

/// What a response head says, as far as it is of use.
#[derive(Debug, Default)]
pub(super) struct ResponseHead {
    pub(super) status: u16,
    minor: u8,
    delimiters: Delimiters,
}

/// The fields that delimit a body.
#[derive(Clone, Copy, Debug, Default)]
struct Delimiters {
    length: Option<u64>,
    /// `Some(true)` when `chunked` is the last transfer coding.
    chunked: Option<bool>,
    malformed: bool,
    /// Fields seen, to prove that a lenient reading dropped none.
    count: usize,
}

/// A head and its length in bytes, or `None` if it has not ended yet.
type Parsed<T> = Result<Option<(T, usize)>, httparse::Error>;

/// Reads a request head from the beginning of `bytes`; `scratch` is where a lenient reading keeps its copy.
pub(super) fn request<'a>(
    bytes: &'a [u8],
    scratch: &'a mut Vec<u8>,
) -> Result<Option<(RequestHead<'a>, usize)>, Malformed> {
    match parse_request::<USUAL_FIELDS>(&ParserConfig::default(), bytes) {
        Err(httparse::Error::TooManyHeaders) => {
            parse_request::<MOST_FIELDS>(&ParserConfig::default(), bytes).map_err(|_| Malformed)
        }
        Err(_) => {
            let length = repair(bytes, scratch)?;
            let mut config = ParserConfig::default();
            config.ignore_invalid_headers_in_requests(true);
            let (head, _) = parse_request::<MOST_FIELDS>(&config, scratch)
                .ok()
                .flatten()
                .ok_or(Malformed)?;
            head.delimiters.prove_complete(scratch)?;
            Ok(Some((head, length)))
        }
        Ok(parsed) => Ok(parsed),
    }
}

/// Reads a response head from the beginning of `bytes`.
pub(super) fn response(bytes: &[u8]) -> Result<Option<(ResponseHead, usize)>, Malformed> {
    match parse_response::<USUAL_FIELDS>(&ParserConfig::default(), bytes) {
        Err(httparse::Error::TooManyHeaders) => {
            parse_response::<MOST_FIELDS>(&ParserConfig::default(), bytes).map_err(|_| Malformed)
        }
        Err(_) => {
            let mut scratch = Vec::new();
            let length = repair(bytes, &mut scratch)?;
            let mut config = ParserConfig::default();
            config
                .ignore_invalid_headers_in_responses(true)
                .allow_spaces_after_header_name_in_responses(true);
            let (head, _) = parse_response::<MOST_FIELDS>(&config, &scratch)
                .ok()
                .flatten()
                .ok_or(Malformed)?;
            head.delimiters.prove_complete(&scratch)?;
            Ok(Some((head, length)))
        }
        Ok(parsed) => Ok(parsed),
    }
}

/// Length of the head at the beginning of `bytes`, its empty line included; the search begins at `from`.
pub(super) fn end_of_head(bytes: &[u8], from: usize) -> Option<usize> {
    let searched = bytes.get(from..)?;
    let end = searched.iter().enumerate().find_map(|(at, &byte)| {
        let next = at.checked_add(1)?;
        match (byte, searched.get(next..)?) {
            (b'\n', [b'\n', ..]) => next.checked_add(1),
            (b'\n', [b'\r', b'\n', ..]) => next.checked_add(2),
            _ => None,
        }
    })?;
    end.checked_add(from)
}

fn parse_request<'a, const FIELDS: usize>(
    config: &ParserConfig,
    bytes: &'a [u8],
) -> Parsed<RequestHead<'a>> {
    let mut fields = [const { MaybeUninit::<Header<'a>>::uninit() }; FIELDS];
    let mut parsed = Request::new(&mut []);
    let Status::Complete(length) =
        config.parse_request_with_uninit_headers(&mut parsed, bytes, &mut fields)?
    else {
        return Ok(None);
    };
    let mut head = RequestHead {
        method: parsed.method.unwrap_or_default(),
        target: parsed.path.unwrap_or_default(),
        minor: parsed.version.unwrap_or_default(),
        ..RequestHead::default()
    };
    for field in parsed.headers.iter() {
        head.take(field.name, field.value);
    }
    Ok(Some((head, length)))
}

fn parse_response<const FIELDS: usize>(
    config: &ParserConfig,
    bytes: &[u8],
) -> Parsed<ResponseHead> {
    let mut fields = [const { MaybeUninit::<Header<'_>>::uninit() }; FIELDS];
    let mut parsed = Response::new(&mut []);
    let Status::Complete(length) =
        config.parse_response_with_uninit_headers(&mut parsed, bytes, &mut fields)?
    else {
        return Ok(None);
    };
    let mut head = ResponseHead {
        status: parsed.code.unwrap_or_default(),
        minor: parsed.version.unwrap_or_default(),
        delimiters: Delimiters::default(),
    };
    for field in parsed.headers.iter() {
        head.delimiters.take(field.name, field.value);
    }
    Ok(Some((head, length)))
}

/// Copies a complete head: its first line as UTF-8, its folded lines joined (RFC 9112, section 5.2).
fn repair(bytes: &[u8], copy: &mut Vec<u8>) -> Result<usize, Malformed> {
    let length = end_of_head(bytes, 0).ok_or(Malformed)?;
    let head = bytes.get(..length).ok_or(Malformed)?;
    let line_end = head
        .iter()
        .position(|&byte| byte == b'\n')
        .ok_or(Malformed)?;
    let (first_line, fields) = head.split_at_checked(line_end).ok_or(Malformed)?;
    copy.clear();
    copy.extend_from_slice(String::from_utf8_lossy(first_line).as_bytes());
    for (position, &byte) in fields.iter().enumerate() {
        let next = position.checked_add(1).and_then(|next| fields.get(next));
        if byte == b'\n' && matches!(next, Some(b' ' | b'\t')) {
            if copy.last() == Some(&b'\r') {
                copy.pop();
            }
        } else {
            copy.push(byte);
        }
    }
    Ok(length)
}

impl<'a> RequestHead<'a> {
    fn take(&mut self, name: &str, value: &'a [u8]) {
        // The lengths of the names pick the few candidates: a head has a dozen fields that are none of them.
        let is = |candidate: &str| name.eq_ignore_ascii_case(candidate);
        match name.len() {
            4 if is("host") => self.host = Some(value),
            6 if is("expect") => {
                self.expects_continue |= value.eq_ignore_ascii_case(b"100-continue");
            }
            7 if is("upgrade") => {
                self.upgrade = true;
                self.h2c = value.trim_ascii().eq_ignore_ascii_case(b"h2c");
            }
            9 if is("forwarded") => _ = self.forwarded.get_or_insert(value),
            10 if is("user-agent") => self.user_agent = Some(value),
            10 if is("tracestate") => self.tracestates.push(value),
            11 if is("traceparent") => self.traceparents.push(value),
            15 if is("x-forwarded-for") => _ = self.x_forwarded_for.get_or_insert(value),
            17 if is("x-forwarded-proto") => _ = self.x_forwarded_proto.get_or_insert(value),
            14 | 17 => self.delimiters.take(name, value),
            _ => {}
        }
    }

    /// How the body is delimited (RFC 9112, section 6.3).
    pub(super) fn framing(&self) -> Result<Framing, Malformed> {
        match self.delimiters.checked(self.minor)? {
            Delimiters {
                chunked: Some(true),
                ..
            } => Ok(Framing::Chunked),
            Delimiters {
                chunked: Some(false),
                ..
            } => Err(Malformed),
            Delimiters {
                length: Some(length),
                ..
            } => Ok(Framing::Length(length)),
            _ => Ok(Framing::None),
        }
    }
}

impl ResponseHead {
    /// True for 1xx other than 101: the final response follows.
    pub(super) const fn is_interim(&self) -> bool {
        matches!(self.status, 100 | 102..200)
    }

    /// How the body is delimited (RFC 9112, section 6.3), `bodiless` being what the request's method decides.
    pub(super) fn framing(&self, bodiless: bool) -> Result<Framing, Malformed> {
        let delimiters = self.delimiters.checked(self.minor)?;
        if bodiless || matches!(self.status, 100..200 | 204 | 304) {
            return Ok(Framing::None);
        }
        Ok(match delimiters {
            Delimiters {
                chunked: Some(true),
                ..
            } => Framing::Chunked,
            Delimiters {
                chunked: Some(false),
                ..
            } => Framing::UntilClose,
            Delimiters {
                length: Some(length),
                ..
            } => Framing::Length(length),
            _ => Framing::UntilClose,
        })
    }
}

impl Delimiters {
    fn take(&mut self, name: &str, value: &[u8]) {
        if name.eq_ignore_ascii_case("content-length") {
            self.count = self.count.saturating_add(1);
            for item in value.split(|&byte| byte == b',') {
                let length = decimal(item.trim_ascii());
                self.malformed |=
                    length.is_none() || self.length.is_some_and(|known| Some(known) != length);
                self.length = length;
            }
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            self.count = self.count.saturating_add(1);
            for item in value.split(|&byte| byte == b',') {
                self.coding(item.trim_ascii());
            }
        }
    }

    fn coding(&mut self, coding: &[u8]) {
        // `identity` is gone from the standard and never changed a byte.
        if coding.eq_ignore_ascii_case(b"identity") {
            return;
        }
        // `chunked` is applied once and last; an empty name is a list that was cut.
        self.malformed |= coding.is_empty() || self.chunked == Some(true);
        self.chunked = Some(coding.eq_ignore_ascii_case(b"chunked"));
    }

    /// Transfer codings in HTTP/1.0 are faulty framing (RFC 9112, section 6.1).
    fn checked(&self, minor: u8) -> Result<Self, Malformed> {
        if self.malformed || (minor == 0 && self.chunked.is_some()) {
            Err(Malformed)
        } else {
            Ok(*self)
        }
    }

    /// A dropped line that looks like one of ours would leave the body's end to guesswork.
    fn prove_complete(&self, head: &[u8]) -> Result<(), Malformed> {
        let names = [
            b"content-length".as_slice(),
            b"transfer-encoding".as_slice(),
        ];
        let lines = head
            .split(|&byte| byte == b'\n')
            .map(<[u8]>::trim_ascii_start);
        let present = lines
            .filter(|line| {
                names.iter().any(|name| {
                    line.get(..name.len())
                        .is_some_and(|start| start.eq_ignore_ascii_case(name))
                })
            })
            .count();
        if present == self.count {
            Ok(())
        } else {
            Err(Malformed)
        }
    }
}

fn decimal(digits: &[u8]) -> Option<u64> {
    let all_digits = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(digits)
        .ok()
        .filter(|_| all_digits)?
        .parse()
        .ok()
}
