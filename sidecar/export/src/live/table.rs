//! The routes as rows, in as many columns as the width has room for.

use super::figures::{count, duration, rate, share, sparkline};
use super::model::Model;
use super::pen::{DIM, Pen, TITLE, Theme};
use super::routes::{Route, WINDOW};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};

const SELECTED: Style = Style::new().add_modifier(Modifier::REVERSED);

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

/// Draws the rows; of more than there is room for, those that lead up to the selected one.
pub(super) fn draw(model: &Model, rows: &[&Route], theme: Theme, area: Rect, buffer: &mut Buffer) {
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
    sparkline(&sums)
}
