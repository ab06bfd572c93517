//! Rate, errors and duration of each route.

use std::collections::BTreeMap;

use super::face::{DIM, FAILURE, depth, duration, fit, paint, service};
use super::spans::Span;

/// What the server spans of one route add up to.
#[derive(Default)]
struct Route {
    durations: Vec<u64>,
    errors: usize,
}

/// The table, ready to print: one line per server and route.
pub(super) fn render(spans: &[Span]) -> String {
    let mut routes: BTreeMap<(usize, u16, String), Route> = BTreeMap::new();
    for span in spans.iter().filter(|span| span.server) {
        let name = format!(
            "{} {}",
            span.text("http.request.method"),
            span.text("http.route")
        );
        let route = routes
            .entry((depth(span.port()), span.port(), name))
            .or_default();
        route.durations.push(span.duration());
        route.errors += usize::from(span.status() >= 500);
    }
    let seconds = observed_seconds(spans);
    let mut lines = vec![paint(
        DIM,
        format!(
            "  {:<8}{:<26}{:>8}{:>8}{:>8}{:>9}{:>9}",
            "server", "route", "count", "per s", "errors", "p50", "p95"
        ),
    )];
    for ((_, port, name), mut route) in routes {
        route.durations.sort_unstable();
        let count = route.durations.len();
        let errors = format!("{:>8}", share(route.errors, count));
        lines.push(format!(
            "  {}{}{count:>8}{:>8.1}{}{:>9}{:>9}",
            fit(&service(port), 8),
            fit(&name, 26),
            count as f64 / seconds,
            if route.errors > 0 {
                paint(FAILURE, errors)
            } else {
                errors
            },
            duration(percentile(&route.durations, 50)),
            duration(percentile(&route.durations, 95)),
        ));
    }
    lines.join("\n")
}

fn share(part: usize, whole: usize) -> String {
    match part {
        0 => "-".to_owned(),
        _ => format!("{} %", (100 * part).div_ceil(whole.max(1))),
    }
}

/// From the first start to the last end.
fn observed_seconds(spans: &[Span]) -> f64 {
    let begin = spans.iter().map(|span| span.start).min().unwrap_or(0);
    let end = spans.iter().map(|span| span.end).max().unwrap_or(0);
    (end.saturating_sub(begin) as f64 / 1e9).max(0.001)
}

/// Nearest rank.
fn percentile(sorted: &[u64], percent: usize) -> u64 {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_the_nearest_rank() {
        let hundred: Vec<u64> = (1..=100).collect();
        assert_eq!(
            (percentile(&hundred, 50), percentile(&hundred, 95)),
            (50, 95)
        );
        assert_eq!(percentile(&[9], 95), 9);
        assert_eq!(percentile(&[], 95), 0);
    }

    #[test]
    fn a_share_is_never_rounded_to_nothing() {
        assert_eq!(share(0, 10), "-");
        assert_eq!(share(1, 1000), "1 %");
        assert_eq!(share(10, 10), "100 %");
    }
}
