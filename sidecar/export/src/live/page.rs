//! The model on a grid of cells, of whatever size.

use super::figures::{count, duration, elapsed, rate, share};
use super::model::Model;
use super::routes::{Route, WINDOW};
use super::waterfall;
use crate::visible::visible;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Rows from which on traces have a place beside the routes.
const BOTH: u16 = 10;

pub(super) const TITLE: Style = Style::new().add_modifier(Modifier::BOLD);
pub(super) const DIM: Style = Style::new().add_modifier(Modifier::DIM);
const SELECTED: Style = Style::new().add_modifier(Modifier::REVERSED);

/// How parts are told apart; without colours by weight alone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Theme {
    color: bool,
}

impl Theme {
    pub(super) fn new(color: bool) -> Self {
        Self { color }
    }

    fn colored(self, color: Color) -> Style {
        if self.color {
            Style::new().fg(color)
        } else {
            Style::new()
        }
    }

    pub(super) fn bad(self) -> Style {
        self.colored(Color::Red).add_modifier(Modifier::BOLD)
    }

    pub(super) fn server(self) -> Style {
        self.colored(Color::Green)
    }

    pub(super) fn client(self) -> Style {
        self.colored(Color::Cyan)
    }
}

/// A row of the page to write on from the left to the right.
pub(super) struct Pen<'a> {
    buffer: &'a mut Buffer,
    x: u16,
    y: u16,
    end: u16,
}

impl<'a> Pen<'a> {
    /// Row `y` of `area`; a row outside of it takes nothing.
    pub(super) fn on(buffer: &'a mut Buffer, area: Rect, y: u16) -> Self {
        let inside = (area.top()..area.bottom()).contains(&y);
        Self {
            buffer,
            x: area.left(),
            y,
            end: if inside { area.right() } else { area.left() },
        }
    }

    pub(super) fn room(&self) -> u16 {
        self.end.saturating_sub(self.x)
    }

    /// Text in a column of this width, cut with an ellipsis where it is longer, and a blank column after it.
    pub(super) fn left(&mut self, text: &str, width: u16, style: Style) {
        let width = width.min(self.room());
        if width > 0 {
            self.buffer.set_stringn(
                self.x,
                self.y,
                fitted(text, width.into()),
                width.into(),
                style,
            );
        }
        self.x = self.x.saturating_add(width).saturating_add(1).min(self.end);
    }

    /// The same at the right edge of the column.
    pub(super) fn right(&mut self, text: &str, width: u16, style: Style) {
        let blank = usize::from(width).saturating_sub(text.width());
        self.left(&format!("{:blank$}{text}", ""), width, style);
    }

    /// As many columns as the text has, and two blank ones; a word that does not fit ends the row.
    fn word(&mut self, text: &str, style: Style) {
        if text.width() > self.room().into() {
            self.x = self.end;
            return;
        }
        let width = text.width() as u16;
        self.left(text, width, style);
        self.x = self.x.saturating_add(1).min(self.end);
    }
}

/// The text in at most so many columns.
fn fitted(text: &str, columns: usize) -> String {
    if text.width() <= columns {
        return text.to_owned();
    }
    let mut left = columns.saturating_sub(1);
    let mut fitted: String = text
        .chars()
        .take_while(|char| {
            let width = char.width().unwrap_or(0);
            let fits = width <= left;
            left = left.saturating_sub(width);
            fits
        })
        .collect();
    fitted.push('…');
    fitted
}

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
    let table = if area.height >= BOTH {
        let wanted = rows.len().max(1) as u16 + 1;
        let most = (body.height / 2).max(3);
        wanted.min(most).min(body.height)
    } else {
        body.height
    };
    routes(
        model,
        &rows,
        theme,
        Rect {
            height: table,
            ..body
        },
        buffer,
    );
    let rest = Rect {
        y: body.y + table,
        height: body.height - table,
        ..body
    };
    waterfall::draw(model, theme, rest, buffer);
}

fn head(model: &Model, theme: Theme, pen: &mut Pen<'_>) {
    let (recent, errors) = model.recent();
    pen.word("pilotfish", TITLE);
    if model.paused {
        let unseen = format!("PAUSED, {} spans not shown", count(model.unseen));
        pen.word(&unseen, theme.bad());
    }
    let per_second = recent as f64 / model.window() as f64;
    pen.word(&format!("{} spans/s", rate(per_second)), Style::new());
    let style = if errors > 0 {
        theme.bad()
    } else {
        Style::new()
    };
    pen.word(&format!("errors {} %", share(errors, recent)), style);
    pen.word(&plural(model.facts.containers, "container"), Style::new());
    pen.word(&plural(model.facts.processes, "process"), Style::new());
    pen.word(&format!("{} spans", count(model.spans)), DIM);
    pen.word(&elapsed(model.second()), DIM);
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
    const LINES: [(&str, &str); 14] = [
        (
            "↑ ↓ k j",
            "select a route: only its traces are shown, and rows stay in their order",
        ),
        ("esc", "show all traces again"),
        (
            "p space",
            "pause; spans that come meanwhile are counted, not shown",
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

/// Widths of the table's columns; zero for one that has no place.
struct Columns {
    service: u16,
    what: u16,
    count: u16,
    rate: u16,
    errors: u16,
    quantiles: [u16; 3],
    history: u16,
}

const ARROW: u16 = 2;
const LEAST_SERVICE: u16 = 10;
const LEAST_WHAT: u16 = 20;
const LEAST_HISTORY: u16 = 8;

impl Columns {
    /// The more important columns first, then the rest of the width for long names and a longer sparkline.
    fn new(width: u16) -> Self {
        let mut left = width.saturating_sub(ARROW + LEAST_SERVICE + LEAST_WHAT + 3);
        let mut place = |wanted: u16| {
            let fits = left > wanted;
            left -= if fits { wanted + 1 } else { 0 };
            if fits { wanted } else { 0 }
        };
        let rate = place(6);
        let errors = place(5);
        let p95 = place(6);
        let p50 = place(6);
        let p99 = place(6);
        let history = place(LEAST_HISTORY);
        let count = place(6);
        let longer = if history > 0 {
            (left / 4).min(WINDOW as u16 / 2 - LEAST_HISTORY)
        } else {
            0
        };
        let service = (left / 6).min(12);
        Self {
            service: LEAST_SERVICE + service,
            what: LEAST_WHAT + left - longer - service,
            count,
            rate,
            errors,
            quantiles: [p50, p95, p99],
            history: history + longer,
        }
    }
}

fn routes(model: &Model, rows: &[&Route], theme: Theme, area: Rect, buffer: &mut Buffer) {
    let columns = Columns::new(area.width);
    titles(&columns, &mut Pen::on(buffer, area, area.top()));
    let room = usize::from(area.height.saturating_sub(1));
    if rows.is_empty() && room > 0 {
        let mut pen = Pen::on(buffer, area, area.top() + 1);
        pen.left("no request yet", area.width, DIM);
    }
    let selected = model.selection().map(|route| route.id);
    let index = selected.and_then(|id| rows.iter().position(|route| route.id == id));
    let first = index.map_or(0, |index| (index + 1).saturating_sub(room));
    for (place, route) in rows.iter().skip(first).take(room).enumerate() {
        let y = area.top() + 1 + place as u16;
        row(model, route, &columns, theme, &mut Pen::on(buffer, area, y));
        if Some(route.id) == selected {
            let line = Rect {
                y,
                height: 1,
                ..area
            };
            buffer.set_style(line, SELECTED);
        }
    }
}

fn titles(columns: &Columns, pen: &mut Pen<'_>) {
    pen.left("", ARROW, Style::new());
    pen.left("SERVICE", columns.service, TITLE);
    pen.left("ROUTE", columns.what, TITLE);
    let figures = [
        ("COUNT", columns.count),
        ("RATE/S", columns.rate),
        ("ERR%", columns.errors),
        ("P50", columns.quantiles[0]),
        ("P95", columns.quantiles[1]),
        ("P99", columns.quantiles[2]),
    ];
    for (title, width) in figures.into_iter().filter(|(_, width)| *width > 0) {
        pen.right(title, width, TITLE);
    }
    pen.left(
        if columns.history < 11 {
            "MINUTE"
        } else {
            "LAST MINUTE"
        },
        columns.history,
        TITLE,
    );
}

fn row(model: &Model, route: &Route, columns: &Columns, theme: Theme, pen: &mut Pen<'_>) {
    let arrow = route.arrow();
    let side = if arrow == "<-" {
        theme.server()
    } else {
        theme.client()
    };
    pen.left(arrow, ARROW, side);
    pen.left(&route.service(), columns.service, Style::new());
    pen.left(&route.what(), columns.what, Style::new());
    let (recent, errors) = (route.recent(), route.recent_errors());
    let bad = if errors > 0 {
        theme.bad()
    } else {
        Style::new()
    };
    let mut figure = |text: &str, width, style| {
        if width > 0 {
            pen.right(text, width, style);
        }
    };
    let per_second = recent as f64 / model.window() as f64;
    figure(&count(route.total), columns.count, Style::new());
    figure(&rate(per_second), columns.rate, Style::new());
    figure(&share(errors, recent), columns.errors, bad);
    let quantiles = route.quantiles([0.5, 0.95, 0.99]);
    for (quantile, width) in quantiles.into_iter().zip(columns.quantiles) {
        let text = quantile.map_or_else(|| "-".to_owned(), duration);
        figure(&text, width, Style::new());
    }
    if columns.history > 0 {
        let bars = history(route, model.second(), columns.history.into());
        pen.left(&bars, columns.history, side);
    }
}

/// The last minute in so many columns, the newest at the right edge.
fn history(route: &Route, second: u64, columns: usize) -> String {
    let seconds = route.history(second);
    let each = seconds.len().div_ceil(columns.max(1)).max(1);
    let mut sums: Vec<u32> = seconds
        .rchunks(each)
        .map(|chunk| {
            chunk
                .iter()
                .fold(0_u32, |sum, one| sum.saturating_add(*one))
        })
        .collect();
    sums.reverse();
    super::figures::sparkline(&sums)
}
