//! Request targets (RFC 9112, section 3.2), authorities, and what of them may leave the process.

use compact_str::CompactString;
use std::borrow::Cow;
use std::net::IpAddr;

/// Stands for what is not exported.
const REDACTED: &str = "REDACTED";
/// Longest exported path, in bytes.
pub(in crate::protocol) const MAX_PATH: usize = 1024;
/// Longest exported query, in bytes.
pub(in crate::protocol) const MAX_QUERY: usize = 1024;
/// Longest host name (RFC 1035, section 2.3.4).
const MAX_HOST: usize = 255;

/// A request target, taken apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::protocol) struct Target<'a> {
    /// `http` or `https`, of the absolute form.
    pub(in crate::protocol) scheme: Option<&'static str>,
    /// Of the absolute and authority forms, user information included.
    pub(in crate::protocol) authority: Option<&'a str>,
    /// Of the origin and absolute forms; `*` of the asterisk form.
    pub(in crate::protocol) path: &'a str,
    /// Without its `?`.
    pub(in crate::protocol) query: Option<&'a str>,
}

impl<'a> Target<'a> {
    /// Takes a target apart; only CONNECT has the authority form.
    pub(in crate::protocol) fn parse(text: &'a str, is_connect: bool) -> Self {
        if is_connect {
            return Self {
                authority: Some(text),
                ..Self::default()
            };
        }
        let text = text.split_once('#').map_or(text, |(before, _)| before);
        let (before_query, query) = text
            .split_once('?')
            .map_or((text, None), |(path, query)| (path, Some(query)));
        let Some((scheme, rest)) = before_query
            .split_once("://")
            .filter(|_| !text.starts_with('/'))
        else {
            return Self {
                path: before_query,
                query,
                ..Self::default()
            };
        };
        let (authority, path) = rest
            .find('/')
            .and_then(|slash| rest.split_at_checked(slash))
            .unwrap_or((rest, "/"));
        Self {
            scheme: known_scheme(scheme.as_bytes()),
            authority: Some(authority),
            path,
            query,
        }
    }
}

/// `http` or `https`; anything else would be free text of the peer.
pub(in crate::protocol) fn known_scheme(text: &[u8]) -> Option<&'static str> {
    ["http", "https"]
        .into_iter()
        .find(|known| text.eq_ignore_ascii_case(known.as_bytes()))
}

/// Host and port of an authority (RFC 3986, section 3.2), brackets of IPv6 addresses removed.
pub(in crate::protocol) fn host_and_port(authority: &str) -> Option<(&str, Option<u16>)> {
    let authority = authority
        .rsplit_once('@')
        .map_or(authority, |(_, host)| host);
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => authority
            .find(':')
            .and_then(|colon| authority.split_at_checked(colon))
            .unwrap_or((authority, "")),
    };
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~%:".contains(&byte);
    if host.is_empty() || host.len() > MAX_HOST || !host.bytes().all(valid) {
        return None;
    }
    let port = match port.strip_prefix(':') {
        None if port.is_empty() => None,
        Some("") => None,
        Some(digits) => Some(digits.parse().ok()?),
        None => return None,
    };
    Some((host, port))
}

/// Every value replaced. A parameter without `=` may be a bare secret, so it counts as a value.
pub(in crate::protocol) fn redacted_query(query: &str) -> CompactString {
    let mut redacted = CompactString::default();
    for parameter in query.split('&') {
        let key = parameter.split_once('=').map_or("", |(key, _)| key);
        let added = key.len().saturating_add(REDACTED.len()).saturating_add(2);
        if redacted.len().saturating_add(added) > MAX_QUERY {
            break;
        }
        if !redacted.is_empty() {
            redacted.push('&');
        }
        if parameter.contains('=') {
            redacted.push_str(key);
            redacted.push('=');
        }
        if !parameter.is_empty() {
            redacted.push_str(REDACTED);
        }
    }
    redacted
}

/// The absolute URL with user information and query values redacted.
pub(in crate::protocol) fn full_url(
    scheme: &str,
    authority: &str,
    path: &str,
    query: Option<&str>,
) -> CompactString {
    let mut url = CompactString::with_capacity(
        scheme
            .len()
            .saturating_add(authority.len())
            .saturating_add(path.len()),
    );
    url.push_str(scheme);
    url.push_str("://");
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| {
        url.push_str("REDACTED:REDACTED@");
        host
    });
    url.push_str(bounded(host, MAX_HOST));
    if path != "*" {
        url.push_str(bounded(path, MAX_PATH));
    }
    if let Some(query) = query {
        url.push('?');
        url.push_str(&redacted_query(query));
    }
    url
}

/// Address of the first hop: `Forwarded` (RFC 7239), else `X-Forwarded-For`. Only an IP address is taken for one:
/// obfuscated identifiers and host names are the proxy's free text.
pub(in crate::protocol) fn first_hop(
    forwarded: Option<&[u8]>,
    x_forwarded_for: Option<&[u8]>,
) -> Option<CompactString> {
    let node = match forwarded {
        Some(value) => forwarded_parameter(value, b"for"),
        None => x_forwarded_for.and_then(|value| value.split(|&byte| byte == b',').next()),
    };
    let text = std::str::from_utf8(node?.trim_ascii()).ok()?;
    let address = text
        .parse::<IpAddr>()
        .ok()
        .or_else(|| host_and_port(text)?.0.parse().ok())?;
    Some(compact_str::format_compact!("{address}"))
}

/// A parameter of the first element of `Forwarded`, its quotes removed.
pub(in crate::protocol) fn forwarded_parameter<'a>(
    value: &'a [u8],
    name: &[u8],
) -> Option<&'a [u8]> {
    let first = value.split(|&byte| byte == b',').next()?;
    first.split(|&byte| byte == b';').find_map(|pair| {
        let pair = pair.trim_ascii();
        let equals = pair.iter().position(|&byte| byte == b'=')?;
        let (key, value) = pair.split_at_checked(equals)?;
        let value = value.get(1..)?;
        let unquoted = value
            .strip_prefix(b"\"")
            .and_then(|rest| rest.strip_suffix(b"\""))
            .unwrap_or(value);
        key.eq_ignore_ascii_case(name).then_some(unquoted)
    })
}

/// The longest prefix of at most `limit` bytes that is whole characters.
pub(in crate::protocol) fn bounded(text: &str, limit: usize) -> &str {
    text.get(..text.floor_char_boundary(limit))
        .unwrap_or_default()
}

/// At most `limit` bytes of a header value as text.
pub(in crate::protocol) fn bounded_lossy(bytes: &[u8], limit: usize) -> Cow<'_, str> {
    match String::from_utf8_lossy(bytes.get(..limit).unwrap_or(bytes)) {
        Cow::Borrowed(text) => Cow::Borrowed(text),
        // A replacement character is longer than what it replaces.
        Cow::Owned(text) => Cow::Owned(bounded(&text, limit).to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets() {
        let target = |scheme, authority, path, query| Target {
            scheme,
            authority,
            path,
            query,
        };
        let cases = [
            ("/a/b?c=d#e", false, target(None, None, "/a/b", Some("c=d"))),
            ("/", false, target(None, None, "/", None)),
            (
                "/go?to=http://x/y",
                false,
                target(None, None, "/go", Some("to=http://x/y")),
            ),
            (
                "/http://x/y",
                false,
                target(None, None, "/http://x/y", None),
            ),
            ("*", false, target(None, None, "*", None)),
            (
                "http://u:p@h:1/x?q",
                false,
                target(Some("http"), Some("u:p@h:1"), "/x", Some("q")),
            ),
            (
                "HTTPS://h",
                false,
                target(Some("https"), Some("h"), "/", None),
            ),
            (
                "http://h?q=1",
                false,
                target(Some("http"), Some("h"), "/", Some("q=1")),
            ),
            ("ftp://h/f", false, target(None, Some("h"), "/f", None)),
            ("h:443", true, target(None, Some("h:443"), "", None)),
        ];
        for (text, is_connect, expected) in cases {
            assert_eq!(Target::parse(text, is_connect), expected, "{text}");
        }
    }

    #[test]
    fn authorities() {
        let cases = [
            ("example.org", Some(("example.org", None))),
            ("example.org:8080", Some(("example.org", Some(8080)))),
            ("example.org:", Some(("example.org", None))),
            ("u:p@example.org:1", Some(("example.org", Some(1)))),
            ("[::1]:443", Some(("::1", Some(443)))),
            ("[::1]", Some(("::1", None))),
            ("[::1", None),
            ("[::1]x", None),
            ("h:99999", None),
            ("", None),
            ("a b", None),
        ];
        for (text, expected) in cases {
            assert_eq!(host_and_port(text), expected, "{text}");
        }
    }

    #[test]
    fn redaction() {
        let cases = [
            ("", ""),
            ("a=1", "a=REDACTED"),
            (
                "a=1&b=&c&d=x=y",
                "a=REDACTED&b=REDACTED&REDACTED&d=REDACTED",
            ),
            ("s3cret", "REDACTED"),
            ("=v", "=REDACTED"),
        ];
        for (query, expected) in cases {
            assert_eq!(redacted_query(query), expected, "{query}");
        }
        let many = "key=value&".repeat(1000);
        assert!(
            redacted_query(&many).len() <= MAX_QUERY
                && redacted_query(&many).ends_with("key=REDACTED")
        );
        assert_eq!(
            full_url("https", "me:pw@h:8443", "/p", Some("t=1")),
            "https://REDACTED:REDACTED@h:8443/p?t=REDACTED"
        );
        assert_eq!(full_url("http", "h", "*", None), "http://h");
    }

    #[test]
    fn hops() {
        let forwarded = |value: &str| first_hop(Some(value.as_bytes()), None);
        assert_eq!(
            forwarded("for=192.0.2.60;proto=http, for=10.0.0.1").as_deref(),
            Some("192.0.2.60")
        );
        assert_eq!(
            forwarded("proto=https; For=\"[2001:db8::17]:4711\"").as_deref(),
            Some("2001:db8::17")
        );
        assert_eq!(forwarded("for=_hidden").as_deref(), None);
        assert_eq!(
            first_hop(None, Some(b" 203.0.113.7:99 , 10.0.0.1")).as_deref(),
            Some("203.0.113.7")
        );
        assert_eq!(
            first_hop(None, Some(b"2001:db8::1")).as_deref(),
            Some("2001:db8::1")
        );
        assert_eq!(first_hop(None, Some(b"\xff")).as_deref(), None);
        assert_eq!(first_hop(None, None), None);
    }

    #[test]
    fn bounds() {
        assert_eq!(bounded("aé", 2), "a");
        assert_eq!(bounded_lossy(b"ab\xffcd", 3), "ab");
        assert_eq!(bounded_lossy(b"abcd", 3), "abc");
    }
}
