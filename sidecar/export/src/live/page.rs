//! The model on a grid of cells, of whatever size.

use super::figures::{count, elapsed, rate, share};
use super::model::Model;
use super::pen::{DIM, Pen, TITLE, Theme};
use super::{table, waterfall};
use crate::visible::visible;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;

/// Rows from which on traces have a place beside the routes.
const BOTH: u16 = 10;

/// Draws the whole view.
pub(super) fn draw(model: &Model, theme: Theme, area: Rect, buffer: &mut Buffer) {
    let area = area.intersection(buffer.area);
    head(model, theme, &mut Pen::on(buffer, area, area.top()));
    let mut top = area.top().saturating_add(1);
    if has_losses(model) {
        losses(model, theme, &mut Pen::on(buffer, area, top));
        top = top.saturating_add(1);
    }
    let mut bottom = area.bottom();
    if area.height >= BOTH {
        bottom -= 1;
        keys(model, &mut Pen::on(buffer, area, bottom));
        if let Some(message) = &model.message {
            bottom -= 1;
            let mut pen = Pen::on(buffer, area, bottom);
            let room = pen.room();
            pen.left(&visible(message), room, DIM);
        }
    }
    let body = Rect {
        y: top.min(bottom),
        height: bottom.saturating_sub(top),
        ..area
    };
    if model.help {
        help(body, buffer);
        return;
    }
    let rows = model.rows();
    let of_routes = if area.height >= BOTH {
        let wanted = rows.len().max(1) as u16 + 1;
        let most = (body.height / 2).max(3);
        wanted.min(most).min(body.height)
    } else {
        body.height
    };
    let upper = Rect {
        height: of_routes,
        ..body
    };
    table::draw(model, &rows, theme, upper, buffer);
    let rest = Rect {
        y: body.y + of_routes,
        height: body.height - of_routes,
        ..body
    };
    waterfall::draw(model, theme, rest, buffer);
}

fn head(model: &Model, theme: Theme, pen: &mut Pen<'_>) {
    let (recent, errors) = model.recent();
    pen.word("pilotfish", TITLE);
    if model.paused {
        let unseen = format!("PAUSED, {} not shown", spans(model.unseen));
        pen.word(&unseen, theme.bad());
    }
    let per_second = recent as f64 / model.window() as f64;
    pen.word(&format!("{} spans/s", rate(per_second)), Style::new());
    let style = if errors > 0 {
        theme.bad()
    } else {
        Style::new()
    };
    let unit = if errors > 0 { " %" } else { "" };
    pen.word(&format!("errors {}{unit}", share(errors, recent)), style);
    pen.word(&plural(model.facts.containers, "container"), Style::new());
    pen.word(&plural(model.facts.processes, "process"), Style::new());
    pen.word(&spans(model.spans), DIM);
    pen.word(&elapsed(model.second()), DIM);
}

fn spans(number: u64) -> String {
    let unit = if number == 1 { "span" } else { "spans" };
    format!("{} {unit}", count(number))
}

fn plural(number: usize, what: &str) -> String {
    match (number, what.ends_with('s')) {
        (1, _) => format!("1 {what}"),
        (_, true) => format!("{number} {what}es"),
        (_, false) => format!("{number} {what}s"),
    }
}

fn has_losses(model: &Model) -> bool {
    model.dropped > 0 || model.beyond() > 0 || !model.facts.losses.is_empty()
}

fn losses(model: &Model, theme: Theme, pen: &mut Pen<'_>) {
    pen.word("lost:", theme.bad());
    let own = [
        ("spans not in this view", model.dropped),
        ("spans beyond the table of routes", model.beyond()),
    ];
    let losses = own.into_iter().filter(|(_, number)| *number > 0);
    for (what, number) in losses.chain(model.facts.losses.iter().copied()) {
        pen.word(&format!("{} {what}", count(number)), theme.bad());
    }
}

fn keys(model: &Model, pen: &mut Pen<'_>) {
    let pause = if model.paused { "p go on" } else { "p pause" };
    for key in ["q quit", "↑↓ select a route", "esc all", pause, "? help"] {
        pen.word(key, DIM);
    }
}

fn help(area: Rect, buffer: &mut Buffer) {
    const LINES: [(&str, &str); 15] = [
        (
            "↑ ↓ k j",
            "select a route: only its traces are shown, and rows stay in their order",
        ),
        ("esc", "show all traces again"),
        (
            "p space",
            "pause; spans that come meanwhile are counted, not shown",
        ),
        (
            "ctrl-l",
            "draw the page anew, after something else wrote on the terminal",
        ),
        ("? h", "this page"),
        (
            "q ctrl-c",
            "end pilotfish; nothing changes for what it observes",
        ),
        (
            "ctrl-z",
            "stop pilotfish until `fg`; records may be lost meanwhile",
        ),
        ("", ""),
        (
            "<- ->",
            "requests that the container answered, and that it made",
        ),
        (
            "rate/s err%",
            "of the last minute, as the sparkline, whose scale is each route's own",
        ),
        ("p50 p95 p99", "of the last 50 to 60 seconds, within 2 %"),
        ("count", "since the view began"),
        (
            "",
            "One trace may run through several containers; those observed here are shown.",
        ),
        (
            "",
            "With a sampler the view shows the spans that it keeps; /metrics count all.",
        ),
        ("", "Lines instead of this view: --print text"),
    ];
    for (index, (key, meaning)) in LINES.into_iter().enumerate() {
        let mut pen = Pen::on(buffer, area, area.top().saturating_add(index as u16));
        pen.left(key, 12, TITLE);
        let room = pen.room();
        pen.left(meaning, room, Style::new());
    }
}
