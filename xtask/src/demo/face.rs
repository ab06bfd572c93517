//! How the demo looks: colours (only on a terminal, never with `NO_COLOR`), bars, durations. At most 80 columns.

use std::fmt::Display;

use anstyle::{AnsiColor, Style};

use super::pod::{NGINX, SHOP, STOCK};

/// Width of everything.
pub(super) const WIDTH: usize = 78;

/// Headings.
pub(super) const BOLD: Style = Style::new().bold();
/// What matters less.
pub(super) const DIM: Style = Style::new().dimmed();
/// Work of a server.
pub(super) const SERVER: Style = AnsiColor::Cyan.on_default();
/// Waiting of a client.
pub(super) const CLIENT: Style = AnsiColor::Blue.on_default();
/// Failures.
pub(super) const FAILURE: Style = AnsiColor::Red.on_default();
/// Good news.
pub(super) const SUCCESS: Style = AnsiColor::Green.on_default();

/// Text in a style; `anstream` removes the style where it does not belong.
pub(super) fn paint(style: Style, text: impl Display) -> String {
    format!("{style}{text}{style:#}")
}

/// A line with a title.
pub(super) fn heading(title: &str) -> String {
    let rest = WIDTH.saturating_sub(title.chars().count() + 4);
    paint(BOLD, format!("── {title} {}", "─".repeat(rest)))
}

/// The programs of the demo by port, from the outside to the inside.
const SERVICES: [(u16, &str); 3] = [(NGINX, "nginx"), (SHOP, "shop"), (STOCK, "stock")];

/// The program behind a port of the demo.
pub(super) fn service(port: u16) -> String {
    SERVICES
        .iter()
        .find(|(known, _)| *known == port)
        .map_or_else(|| format!(":{port}"), |(_, name)| (*name).to_owned())
}

/// How far inside the program behind a port is.
pub(super) fn depth(port: u16) -> usize {
    SERVICES
        .iter()
        .position(|(known, _)| *known == port)
        .unwrap_or(SERVICES.len())
}

/// A duration in the unit that suits it, at most eight characters.
pub(super) fn duration(nanoseconds: u64) -> String {
    let microseconds = nanoseconds as f64 / 1e3;
    // Each limit is where the format before it would round to its next unit.
    match microseconds {
        ..999.5 => format!("{microseconds:.0} µs"),
        ..99_950.0 => format!("{:.1} ms", microseconds / 1e3),
        ..9_999_500.0 => format!("{:.0} ms", microseconds / 1e3),
        _ => format!("{:.0} s", microseconds / 1e6),
    }
}

/// Text of exactly this many columns.
pub(super) fn fit(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return format!("{text:<width$}");
    }
    let kept: String = text.chars().take(width.saturating_sub(1)).collect();
    format!("{kept}…")
}

/// A bar of `width` columns for the part `start..end` of `total`; never empty, in steps of half a column.
pub(super) fn bar(start: u64, end: u64, total: u64, width: usize) -> String {
    let halves = 2 * width as u64;
    let total = total.max(1);
    let scale =
        |time: u64| (u128::from(time) * u128::from(halves)).div_ceil(u128::from(total)) as u64;
    let first = (u128::from(start) * u128::from(halves) / u128::from(total)) as u64;
    let first = first.min(halves - 1);
    let last = scale(end).clamp(first + 1, halves);
    (0..width as u64)
        .map(|column| {
            let filled = |half: u64| (first..last).contains(&half);
            match (filled(2 * column), filled(2 * column + 1)) {
                (true, true) => '█',
                (true, false) => '▌',
                (false, true) => '▐',
                (false, false) => ' ',
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_cover_their_part() {
        assert_eq!(bar(0, 100, 100, 4), "████");
        assert_eq!(bar(50, 75, 100, 4), "  █ ");
        assert_eq!(bar(100, 100, 100, 4), "   ▐");
        assert_eq!(bar(0, 0, 0, 2), "▌ ");
    }

    #[test]
    fn text_fits() {
        assert_eq!(fit("abc", 5), "abc  ");
        assert_eq!(fit("abcdef", 5), "abcd…");
    }

    #[test]
    fn durations_take_a_suitable_unit() {
        assert_eq!(duration(640), "1 µs");
        assert_eq!(duration(999_600), "1.0 ms");
        assert_eq!(duration(12_340_000), "12.3 ms");
        assert_eq!(duration(212_000_000), "212 ms");
    }
}
