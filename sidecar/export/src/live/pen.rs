//! Writing on the page: styles, and a row that is filled from the left to the right.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

pub(super) const TITLE: Style = Style::new().add_modifier(Modifier::BOLD);
pub(super) const DIM: Style = Style::new().add_modifier(Modifier::DIM);

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
    pub(super) fn word(&mut self, text: &str, style: Style) {
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
