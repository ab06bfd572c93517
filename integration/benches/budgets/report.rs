//! The table, as Markdown for people and as JSON for programs.

use anyhow::Result;
use serde::Serialize;
use serde_json::Value;
use std::fmt::Write;

/// One line of the table.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    what: String,
    measured: String,
    budget: Option<String>,
    met: Option<bool>,
    how: String,
    figures: Value,
}

impl Row {
    /// A figure without a budget of its own: it explains another row.
    pub(crate) fn new(what: impl Into<String>, measured: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            measured: measured.into(),
            budget: None,
            met: None,
            how: String::new(),
            figures: Value::Null,
        }
    }

    /// Holds the figure against a budget.
    pub(crate) fn budget(mut self, budget: &str, met: bool) -> Self {
        self.budget = Some(budget.to_owned());
        self.met = Some(met);
        self
    }

    /// Says how the figure came about, and how far the rounds lie apart.
    pub(crate) fn how(mut self, how: impl Into<String>) -> Self {
        self.how = how.into();
        self
    }

    /// Keeps the figures of the rounds for the JSON file.
    pub(crate) fn figures(mut self, figures: Value) -> Self {
        self.figures = figures;
        self
    }
}

/// Everything that was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    machine: Vec<String>,
    rows: Vec<Row>,
    not_measured: Vec<String>,
}

impl Report {
    /// A report that starts with a description of the machine.
    pub(crate) fn new(machine: Vec<String>) -> Self {
        Self {
            machine,
            rows: Vec::new(),
            not_measured: Vec::new(),
        }
    }

    /// Adds the rows of a part, or why it has none.
    pub(crate) fn add(&mut self, part: &str, rows: Result<Vec<Row>>) {
        match rows {
            Ok(rows) => self.rows.extend(rows),
            Err(error) => {
                let reason = format!("{part}: {error:#}");
                eprintln!("not measured: {reason}");
                self.not_measured.push(reason);
            }
        }
    }

    /// True when every part was measured.
    pub(crate) fn is_complete(&self) -> bool {
        self.not_measured.is_empty()
    }

    /// The report as JSON.
    pub(crate) fn json(&self) -> Result<String> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }

    /// The report as Markdown.
    pub(crate) fn markdown(&self) -> String {
        let mut text = String::new();
        for line in &self.machine {
            let _ = writeln!(text, "- {line}");
        }
        text += "\n| what | measured | budget | met | how |\n|---|---|---|---|---|\n";
        for row in &self.rows {
            let met = match row.met {
                Some(true) => "yes",
                Some(false) => "**missed**",
                None => "",
            };
            let _ = writeln!(
                text,
                "| {} | {} | {} | {met} | {} |",
                row.what,
                row.measured,
                row.budget.as_deref().unwrap_or_default(),
                row.how
            );
        }
        for reason in &self.not_measured {
            let _ = writeln!(text, "\nNot measured: {}", reason.replace('\n', " "));
        }
        text
    }
}
