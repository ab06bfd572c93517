//! A dashboard as Grafana reads it: panels, variables, and what it puts in their place.

use super::prometheus::{Prometheus, Window};
use anyhow::{Context, Result, ensure};
use integration::place;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;

/// Width of Grafana's grid.
const COLUMNS: u64 = 24;

/// What `$__rate_interval` and `$__interval` become with a data source whose scrape interval is left at its default.
const RATE_INTERVAL: &str = "1m";
const INTERVAL: &str = "15s";

/// The data source as every panel and variable has to name it: the one that the user chooses.
const DATA_SOURCE: &str = "${datasource}";

/// Words of `PromQL` that stand in front of labels in parentheses.
const BEFORE_LABELS: &[&str] = &["by", "on", "group_left"];

/// Its other words that are no metric although no parenthesis follows.
const WORDS: &[&str] = &["and", "or", "sum", "count", "topk", "increase", "rate"];

/// One dashboard.
pub(super) struct Board {
    name: &'static str,
    json: Value,
}

/// One panel that asks something.
pub(super) struct Panel<'a> {
    pub(super) title: &'a str,
    pub(super) targets: Vec<Target<'a>>,
}

/// One query of a panel.
pub(super) struct Target<'a> {
    pub(super) reference: &'a str,
    pub(super) expression: &'a str,
    /// Asked for the end of the time range alone.
    pub(super) instant: bool,
}

/// A variable whose values are those of a label.
pub(super) struct Variable<'a> {
    name: &'a str,
    pub(super) selector: &'a str,
    label: &'a str,
    /// What "All" stands for; without it, for each value that there is.
    all: Option<&'a str>,
}

/// What stands for each variable.
pub(super) struct Values(BTreeMap<String, String>);

impl Board {
    /// A file of `manifests/grafana/`.
    pub(super) fn read(name: &'static str) -> Result<Self> {
        let file = place::workspace().join("manifests/grafana").join(name);
        let text =
            fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let json = serde_json::from_str(&text).with_context(|| format!("{name} is no JSON"))?;
        Ok(Self { name, json })
    }

    fn list(&self, pointer: &str) -> Result<&[Value]> {
        let list = self.json.pointer(pointer).and_then(Value::as_array);
        Ok(list.with_context(|| format!("{}: no list at {pointer}", self.name))?)
    }

    /// Every panel but the rows' titles.
    pub(super) fn panels(&self) -> Result<Vec<Panel<'_>>> {
        let asking = self.list("/panels")?.iter();
        asking
            .filter(|panel| panel["type"] != "row")
            .map(|panel| {
                let targets = panel["targets"].as_array().context("targets")?;
                Ok(Panel {
                    title: text(panel, "title")?,
                    targets: targets.iter().map(target).collect::<Result<_>>()?,
                })
            })
            .collect()
    }

    /// One query, by its panel's title and its letter.
    pub(super) fn expression(&self, title: &str, reference: &str) -> Result<&str> {
        let panels = self.panels()?;
        let panel = panels.into_iter().find(|panel| panel.title == title);
        let targets = panel
            .with_context(|| format!("no panel {title}"))?
            .targets
            .into_iter();
        targets
            .filter(|target| target.reference == reference)
            .map(|target| target.expression)
            .next()
            .with_context(|| format!("no query {reference} of {title}"))
    }

    /// Variables that are asked of Prometheus, in their order.
    pub(super) fn variables(&self) -> Result<Vec<Variable<'_>>> {
        let all = self.list("/templating/list")?.iter();
        all.filter(|variable| variable["type"] == "query")
            .map(variable)
            .collect()
    }

    /// Asks for the values of each variable, and takes the chosen one, else all of them.
    pub(super) fn resolve(
        &self,
        prometheus: &Prometheus,
        chosen: &[(&str, &str)],
    ) -> Result<Values> {
        let mut values = Values(BTreeMap::new());
        for variable in self.variables()? {
            let name = variable.name;
            let selector = values.put_into(variable.selector);
            let found = prometheus.label_values(&selector, variable.label)?;
            // A choice may leave none of another, as a job outside of Kubernetes leaves no namespace.
            ensure!(
                !found.is_empty() || !chosen.is_empty(),
                "{}: no value of {name}",
                self.name
            );
            let choice = chosen.iter().find(|(chosen, _)| *chosen == name);
            let text = match (choice, variable.all) {
                (Some((_, value)), _) => {
                    ensure!(
                        found.iter().any(|known| known == value),
                        "{value} is none of the values of {name}: {found:?}"
                    );
                    escaped(value)
                }
                (None, Some(all)) => all.to_owned(),
                (None, None) => alternatives(&found),
            };
            values.0.insert(name.to_owned(), text);
        }
        Ok(values)
    }

    /// Fails unless Grafana can show it as it is meant: one chosen data source everywhere, no panel on another, no name
    /// twice, and tables that rename columns which they have.
    pub(super) fn check_form(&self) -> Result<()> {
        let mut numbers = BTreeSet::new();
        let mut taken = BTreeSet::new();
        for panel in self.list("/panels")? {
            let title = text(panel, "title")?;
            ensure!(numbers.insert(panel["id"].as_u64()), "{title}: id twice");
            for cell in cells(&panel["gridPos"]).with_context(|| title.to_owned())? {
                ensure!(taken.insert(cell), "{title} lies on another panel");
            }
            if panel["type"] != "row" {
                check_queries(panel).with_context(|| title.to_owned())?;
            }
        }
        for variable in self.list("/templating/list")? {
            ensure!(
                variable["type"] == "datasource" || variable["datasource"]["uid"] == DATA_SOURCE,
                "{variable}"
            );
        }
        Ok(())
    }
}

fn target(target: &Value) -> Result<Target<'_>> {
    Ok(Target {
        reference: text(target, "refId")?,
        expression: text(target, "expr")?,
        instant: target["instant"] == true,
    })
}

fn text<'a>(value: &'a Value, key: &str) -> Result<&'a str> {
    value[key]
        .as_str()
        .with_context(|| format!("no {key} in {value}"))
}

fn cells(position: &Value) -> Result<Vec<(u64, u64)>> {
    let number = |key: &str| position[key].as_u64().context("a grid position");
    let (left, top) = (number("x")?, number("y")?);
    let (right, bottom) = (left + number("w")?, top + number("h")?);
    ensure!(right <= COLUMNS, "wider than the grid");
    Ok((left..right)
        .flat_map(|x| (top..bottom).map(move |y| (x, y)))
        .collect())
}

fn check_queries(panel: &Value) -> Result<()> {
    ensure!(panel["datasource"]["uid"] == DATA_SOURCE, "data source");
    let targets = panel["targets"].as_array().context("targets")?;
    ensure!(!targets.is_empty(), "asks nothing");
    let mut columns = BTreeSet::new();
    for target in targets {
        let column = format!("Value #{}", text(target, "refId")?);
        ensure!(columns.insert(column), "refId twice");
    }
    let steps = panel["transformations"].as_array();
    for step in steps.into_iter().flatten() {
        let renamed = step["options"]["renameByName"].as_object();
        for name in renamed.into_iter().flat_map(|names| names.keys()) {
            ensure!(
                !name.starts_with("Value #") || columns.contains(name),
                "renames {name}, which it has not"
            );
        }
    }
    Ok(())
}

/// Its query is `label_values(SELECTOR, LABEL)`.
fn variable(variable: &Value) -> Result<Variable<'_>> {
    let query = text(&variable["query"], "query")?;
    let inner = query.strip_prefix("label_values(");
    let parts = inner.and_then(|inner| inner.strip_suffix(')')?.rsplit_once(", "));
    let (selector, label) = parts.with_context(|| query.to_owned())?;
    Ok(Variable {
        name: text(variable, "name")?,
        selector,
        label,
        all: variable["allValue"].as_str(),
    })
}

/// Grafana's text for several values of a variable in a regular expression within a `PromQL` string.
fn alternatives(values: &[String]) -> String {
    let escaped: Vec<_> = values.iter().map(|value| escaped(value)).collect();
    match &escaped[..] {
        [only] => only.clone(),
        several => format!("({})", several.join("|")),
    }
}

fn escaped(value: &str) -> String {
    let mut text = String::new();
    for char in value.chars() {
        match char {
            '\\' => text.push_str(r"\\\\"),
            _ if "$^*{}[]'+?.()|".contains(char) => {
                text.push_str(r"\\");
                text.push(char);
            }
            _ => text.push(char),
        }
    }
    text
}

impl Values {
    /// The query that Grafana sends when the time range is this window.
    pub(super) fn query(&self, expression: &str, window: Window) -> Result<String> {
        let with_times = expression
            .replace("$__rate_interval", RATE_INTERVAL)
            .replace("$__range", &window.range())
            .replace("$__interval", INTERVAL);
        let query = self.put_into(&with_times);
        // `$1` and `${1}` belong to label_replace.
        let left = query
            .split('$')
            .skip(1)
            .find(|rest| !rest.trim_start_matches('{').starts_with('1'));
        ensure!(left.is_none(), "unknown variable in {query}");
        Ok(query)
    }

    fn put_into(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, (name, value)| {
            text.replace(&format!("${name}\""), &format!("{value}\""))
        })
    }
}

/// Names of the metrics in an expression.
pub(super) fn metrics(expression: &str) -> BTreeSet<String> {
    let unquoted: String = expression.split('"').step_by(2).collect();
    let mut names = BTreeSet::new();
    let mut rest = unquoted.as_str();
    while let Some(start) = rest.find(|char: char| !char.is_whitespace()) {
        rest = &rest[start..];
        let length = rest
            .find(|char: char| !char.is_ascii_alphanumeric() && !"_:".contains(char))
            .unwrap_or(rest.len());
        let (word, after) = rest.split_at(length);
        let next = after.trim_start();
        rest = match after.chars().next() {
            _ if BEFORE_LABELS.contains(&word) => behind(next, ')'),
            Some('{') => behind(after, '}'),
            Some('[') => behind(after, ']'),
            Some(char) if word.is_empty() => &after[char.len_utf8()..],
            _ => after,
        };
        let is_name = word.starts_with(|first: char| first.is_ascii_alphabetic());
        if is_name
            && !next.starts_with('(')
            && !WORDS.contains(&word)
            && !BEFORE_LABELS.contains(&word)
        {
            names.insert(word.to_owned());
        }
    }
    names
}

fn behind(text: &str, end: char) -> &str {
    text.split_once(end).map_or("", |(_, rest)| rest)
}
