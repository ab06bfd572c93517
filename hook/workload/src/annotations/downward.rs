//! The file that the Kubernetes Downward API makes of annotations or labels.

use std::collections::BTreeMap;

use super::warnings::{Warnings, shown};
use crate::text::{MAX_LINES, MAX_TEXT};

/// Reads a Downward API file: one `key="value"` per line, the value quoted as Go's `%q` does it (Kubernetes,
/// `pkg/fieldpath`, `FormatMap`).
///
/// A line that is not so is left out with a warning, as is everything beyond [`MAX_LINES`] lines or [`MAX_TEXT`]
/// bytes. What comes back is no longer than the text.
pub fn parse_downward(text: &str) -> (BTreeMap<String, String>, Vec<String>) {
    let mut pairs = BTreeMap::new();
    let mut warnings = Warnings::default();
    let mut bytes = 0;
    for (number, line) in text.lines().enumerate() {
        bytes += line.len() + 1;
        if number >= MAX_LINES || bytes > MAX_TEXT {
            warnings.push(|| {
                format!(
                    "line {} and what follows it are left out: more than {MAX_LINES} lines or {MAX_TEXT} bytes",
                    number + 1
                )
            });
            break;
        }
        if line.is_empty() {
            continue;
        }
        match pair(line) {
            Some((key, value)) => {
                pairs.insert(key.to_owned(), value);
            }
            None => warnings.push(|| {
                format!(
                    "line {} is left out: {} is not key=\"value\"",
                    number + 1,
                    shown(line)
                )
            }),
        }
    }
    (pairs, warnings.into_list())
}

fn pair(line: &str) -> Option<(&str, String)> {
    let (key, quoted) = line.split_once('=')?;
    let inner = quoted.strip_prefix('"')?.strip_suffix('"')?;
    if key.is_empty() {
        return None;
    }
    Some((key, unquote(inner)?))
}

/// Undoes Go's escapes (language specification, "String literals"; `strconv.Quote`). `\xHH` are bytes, which need
/// not be UTF-8; such ones are replaced.
fn unquote(quoted: &str) -> Option<String> {
    let mut plain = Vec::with_capacity(quoted.len());
    let mut rest = quoted;
    while let Some(at) = rest.find(['\\', '"']) {
        let (before, escape) = rest.split_at_checked(at)?;
        plain.extend_from_slice(before.as_bytes());
        let escape = escape.strip_prefix('\\')?;
        let mut letters = escape.chars();
        let letter = letters.next()?;
        rest = letters.as_str();
        let byte = match letter {
            'a' => 0x07,
            'b' => 0x08,
            'f' => 0x0c,
            'n' => b'\n',
            'r' => b'\r',
            't' => b'\t',
            'v' => 0x0b,
            '\\' => b'\\',
            '"' => b'"',
            'x' => u8::try_from(hexadecimal(&mut rest, 2)?).ok()?,
            'u' | 'U' => {
                let digits = if letter == 'u' { 4 } else { 8 };
                let character = char::from_u32(hexadecimal(&mut rest, digits)?)?;
                plain.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                continue;
            }
            _ => return None,
        };
        plain.push(byte);
    }
    plain.extend_from_slice(rest.as_bytes());
    Some(match String::from_utf8(plain) {
        Ok(text) => text,
        Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
    })
}

fn hexadecimal(rest: &mut &str, digits: usize) -> Option<u32> {
    let (number, after) = rest.split_at_checked(digits)?;
    *rest = after;
    let hexadecimal = number.bytes().all(|byte| byte.is_ascii_hexdigit());
    hexadecimal.then(|| u32::from_str_radix(number, 16).ok())?
}
