//! Reading manifests, as JSON values.

use super::NODE;
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value};

/// A variable's value.
pub(super) fn value_of(variable: &Value, object: &Value) -> Result<String> {
    match variable.get("value") {
        Some(value) => Ok(value.as_str().unwrap_or_default().to_owned()),
        None => field(&variable["valueFrom"]["fieldRef"], object),
    }
}

fn field(reference: &Value, object: &Value) -> Result<String> {
    let metadata = &object["metadata"];
    Ok(match text(reference, "fieldPath")? {
        "metadata.name" => text(metadata, "name")?.to_owned(),
        "metadata.namespace" => text(metadata, "namespace")?.to_owned(),
        "metadata.uid" => text(metadata, "uid")?.to_owned(),
        "spec.nodeName" => NODE.to_owned(),
        other => bail!("the field {other} is not known"),
    })
}

/// A file of a `downwardAPI` volume: one `key="value"` per line.
pub(super) fn downward(item: &Value, object: &Value) -> Result<String> {
    let path = text(&item["fieldRef"], "fieldPath")?;
    let key = path
        .strip_prefix("metadata.")
        .filter(|key| ["annotations", "labels"].contains(key))
        .with_context(|| format!("the field {path} is not known"))?;
    // As Go's %q, for the printable characters that trials use.
    let lines = pairs(&object["metadata"], key).map(|(key, value)| format!("{key}={value:?}\n"));
    Ok(lines.collect())
}

/// A quantity of bytes.
pub(super) fn bytes(quantity: &str) -> Result<i64> {
    let (number, unit) = match quantity.strip_suffix("Mi") {
        Some(number) => (number, 1 << 20),
        None => (quantity, 1),
    };
    let number: i64 = number.parse().context("a quantity of bytes")?;
    Ok(number * unit)
}

/// Fails if an object has other keys than these.
pub(super) fn must_know(object: &Value, known: &[&str]) -> Result<()> {
    let unknown: Vec<&String> = mapping(object, "manifest")?
        .keys()
        .filter(|key| !known.contains(&key.as_str()))
        .collect();
    ensure!(unknown.is_empty(), "not known to this kubelet: {unknown:?}");
    Ok(())
}

pub(super) fn mapping<'a>(value: &'a Value, what: &str) -> Result<&'a Map<String, Value>> {
    value
        .as_object()
        .with_context(|| format!("{what} is no mapping"))
}

pub(super) fn text<'a>(value: &'a Value, key: &str) -> Result<&'a str> {
    value[key]
        .as_str()
        .with_context(|| format!("no text {key} in {value}"))
}

pub(super) fn list(value: Option<&Value>) -> &[Value] {
    value
        .and_then(Value::as_array)
        .map_or(&[], |list| list.as_slice())
}

pub(super) fn words(value: &Value) -> Vec<String> {
    let words = list(Some(value)).iter().filter_map(Value::as_str);
    words.map(str::to_owned).collect()
}

pub(super) fn pairs<'a>(
    metadata: &'a Value,
    key: &str,
) -> impl Iterator<Item = (String, String)> + 'a {
    let pairs = metadata[key].as_object().into_iter().flatten();
    pairs.map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned()))
}
