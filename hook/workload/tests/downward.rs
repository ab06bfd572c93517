//! Downward API files as the kubelet writes them, and others.

use std::collections::BTreeMap;

use pilotfish_workload::annotations::{MAX_WARNINGS, parse_downward};
use pilotfish_workload::{MAX_LINES, MAX_TEXT};
use proptest::prelude::*;

fn value(quoted: &str) -> Option<String> {
    let (mut pairs, warnings) = parse_downward(&format!("k={quoted}"));
    assert_eq!(pairs.len() + warnings.len(), 1, "{quoted}");
    pairs.remove("k")
}

/// Quotes as Go's `strconv.Quote` does.
fn quote(text: &str) -> String {
    let inner: String = text.chars().map(escape).collect();
    format!("\"{inner}\"")
}

fn escape(character: char) -> String {
    let number = u32::from(character);
    match character {
        '"' | '\\' => format!("\\{character}"),
        '\u{7}' => "\\a".to_owned(),
        '\u{8}' => "\\b".to_owned(),
        '\u{c}' => "\\f".to_owned(),
        '\n' => "\\n".to_owned(),
        '\r' => "\\r".to_owned(),
        '\t' => "\\t".to_owned(),
        '\u{b}' => "\\v".to_owned(),
        '\0'..' ' | '\u{7f}' => format!("\\x{number:02x}"),
        '\u{80}'..='\u{9f}' | '\u{2028}' => format!("\\u{number:04x}"),
        '\u{e0000}'.. => format!("\\U{number:08x}"),
        other => other.to_string(),
    }
}

#[test]
fn a_pods_annotations() {
    let text = "kubernetes.io/config.seen=\"2026-01-07T11:33:26.146624712Z\"\n\
        kubernetes.io/config.source=\"api\"\n\
        pilotfish.dev/routes=\"/users/{id};/say/\\\"hi\\\"\"\n\
        web.pilotfish.dev/instrument=\"true\\n\"";
    let expected = BTreeMap::from([
        (
            "kubernetes.io/config.seen",
            "2026-01-07T11:33:26.146624712Z",
        ),
        ("kubernetes.io/config.source", "api"),
        ("pilotfish.dev/routes", "/users/{id};/say/\"hi\""),
        ("web.pilotfish.dev/instrument", "true\n"),
    ]);
    let (pairs, warnings) = parse_downward(text);
    assert_eq!(warnings, [""; 0]);
    assert!(
        pairs
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .eq(expected)
    );
}

#[test]
fn an_empty_file_has_nothing() {
    for text in ["", "\n", "\n\n\r\n"] {
        assert_eq!(parse_downward(text), (BTreeMap::new(), Vec::new()));
    }
}

#[test]
fn escapes() {
    for (quoted, plain) in [
        (r#""""#, ""),
        (r#""a=b""#, "a=b"),
        (r#""\a\b\f\n\r\t\v\\\"""#, "\u{7}\u{8}\u{c}\n\r\t\u{b}\\\""),
        (r#""\x41\u00fc\U0001f41f""#, "Aü🐟"),
        (r#""\xc3\xbc""#, "ü"),
        (r#""\xff""#, "\u{fffd}"),
        ("\"ü\"", "ü"),
    ] {
        assert_eq!(value(quoted).as_deref(), Some(plain), "{quoted}");
    }
    for quoted in [
        "",
        "\"",
        "a",
        "\"a",
        "a\"",
        r#""a"b""#,
        r#""\""#,
        r#""\q""#,
        r#""\x4""#,
        r#""\x+1""#,
        r#""\u12""#,
        r#""\ud800""#,
        r#""\U00110000""#,
        r#""\'""#,
        r#""\101""#,
        r#""\xü""#,
        r#""a" "#,
    ] {
        assert_eq!(value(quoted), None, "{quoted}");
    }
    assert_eq!(parse_downward("=\"a\"").1.len(), 1);
}

#[test]
fn a_bad_line_is_named_and_the_rest_read() {
    let (pairs, warnings) = parse_downward("a=\"1\"\nnonsense\nb=\"2\"\n");
    assert_eq!(pairs.len(), 2);
    assert_eq!(
        warnings,
        ["line 2 is left out: \"nonsense\" is not key=\"value\""]
    );
    let (_, warnings) = parse_downward(&"nonsense\n".repeat(100));
    assert_eq!(warnings.len(), MAX_WARNINGS + 1);
}

#[test]
fn lines_and_bytes_are_bounded() {
    let line = |number: usize| format!("k{number}=\"v\"\n");
    let whole: String = (0..MAX_LINES).map(line).collect();
    let (pairs, warnings) = parse_downward(&whole);
    assert_eq!((pairs.len(), warnings.len()), (MAX_LINES, 0));
    let (pairs, warnings) = parse_downward(&(whole + "more=\"v\""));
    assert_eq!((pairs.len(), warnings.len()), (MAX_LINES, 1));
    let long = format!("a=\"1\"\nb=\"{}\"", "v".repeat(MAX_TEXT));
    let (pairs, warnings) = parse_downward(&long);
    assert_eq!((pairs.len(), warnings.len()), (1, 1));
}

proptest! {
    #[test]
    fn what_go_quotes_comes_back(text: String) {
        prop_assert_eq!(value(&quote(&text)), Some(text));
    }

    #[test]
    fn any_text_is_survived(text in "([a-z=\"\\\\xuU0-9\n]|\\PC){0,60}") {
        let (pairs, _) = parse_downward(&text);
        let bytes: usize = pairs.iter().map(|(key, value)| key.len() + value.len()).sum();
        // Only a replaced byte grows: four bytes of escape into three.
        prop_assert!(bytes <= text.len());
    }
}
