//! Traces as indented trees with bars in proportion to time.

use super::figures::duration;
use super::model::Model;
use super::pen::{DIM, Pen, TITLE, Theme};
use super::routes::who;
use super::traces::{Bar, Trace};
use crate::print::{clock, hex, status_code, what};
use crate::visible::visible;
use pilotfish_pipeline::{Kind, Status};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;

/// Deepest indentation; what is deeper stands there too.
const DEEPEST: usize = 12;

const STATUS: u16 = 4;
const DURATION: u16 = 7;

/// The newest traces, as many as have a place; the last one may be cut.
pub(super) fn draw(model: &Model, theme: Theme, area: Rect, buffer: &mut Buffer) {
    let mut y = area.top();
    let title = match model.selection() {
        Some(route) => format!("TRACES of {} {}", route.service(), route.what()),
        None => "TRACES".to_owned(),
    };
    let mut pen = Pen::on(buffer, area, y);
    pen.left(&title, area.width, TITLE);
    y += 1;
    for trace in model.traces() {
        if y >= area.bottom() {
            return;
        }
        head(trace, &mut Pen::on(buffer, area, y));
        y += 1;
        for bar in trace.waterfall() {
            if y >= area.bottom() {
                return;
            }
            line(&bar, trace.extent(), theme, &mut Pen::on(buffer, area, y));
            y += 1;
        }
    }
}

fn head(trace: &Trace, pen: &mut Pen<'_>) {
    let (start, end) = trace.extent();
    let id = trace.id().map(|id| hex(&id.0[..4])).unwrap_or_default();
    let spans = match (trace.len(), trace.beyond) {
        (1, 0) => "1 span".to_owned(),
        (kept, 0) => format!("{kept} spans"),
        (kept, beyond) => format!("{kept} spans, {beyond} more not kept"),
    };
    let text = format!(
        "{} trace {id} {} {spans}",
        clock(start),
        duration(end - start)
    );
    let room = pen.room();
    pen.left(&text, room, DIM);
}

fn line(bar: &Bar<'_>, extent: (u64, u64), theme: Theme, pen: &mut Pen<'_>) {
    let span = &bar.observed.span;
    let (side, arrow) = match span.kind {
        Kind::Server => (theme.server(), "<-"),
        Kind::Client => (theme.client(), "->"),
    };
    let style = if span.status == Status::Error {
        theme.bad()
    } else {
        side
    };
    let width = pen.room();
    let service = if width < 100 { 13 } else { 19 };
    let rest = width.saturating_sub(service + STATUS + DURATION + 4);
    let name = rest / 9 * 5;
    let indent = "  ".repeat(bar.depth.min(DEEPEST) + 1);
    pen.left(&format!("{indent}{}", what(span)), name, Style::new());
    let who = visible(who(bar.observed));
    pen.left(&format!("{arrow} {who}"), service, side);
    pen.right(&status_code(span), STATUS, style);
    let columns = rest - name;
    let bars = bars(
        span.start_unix_nano,
        span.end_unix_nano,
        extent,
        columns.into(),
    );
    pen.left(&bars, columns, style);
    let took = span.end_unix_nano.saturating_sub(span.start_unix_nano);
    pen.right(&duration(took), DURATION, style);
}

/// A bar from start to end within the trace's extent, at least one column long.
fn bars(start: u64, end: u64, extent: (u64, u64), columns: usize) -> String {
    if columns == 0 {
        return String::new();
    }
    let total = (extent.1 - extent.0).max(1) as f64;
    let column = |moment: u64| {
        let share = moment.saturating_sub(extent.0) as f64 / total;
        (share * columns as f64) as usize
    };
    let from = column(start).min(columns - 1);
    let to = column(end).clamp(from + 1, columns);
    format!("{}{}", " ".repeat(from), "█".repeat(to - from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_stay_within_their_columns() {
        assert_eq!(bars(0, 100, (0, 100), 10), "██████████");
        assert_eq!(bars(50, 60, (0, 100), 10), "     █");
        assert_eq!(bars(100, 100, (0, 100), 10), "         █");
        assert_eq!(bars(5, 5, (5, 5), 3), "█");
        assert_eq!(bars(0, u64::MAX, (0, u64::MAX), 4), "████");
        assert_eq!(bars(0, 1, (0, 1), 0), "");
    }
}
