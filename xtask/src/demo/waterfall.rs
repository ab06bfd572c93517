//! Traces as indented trees with bars in proportion to time.

use super::face::{BOLD, CLIENT, DIM, FAILURE, SERVER, bar, duration, fit, paint, service};
use super::spans::Span;

const NAME: usize = 27;
const SERVICE: usize = 8;
const BAR: usize = 26;

/// One trace, ready to print: a title, then a line for each span.
pub(super) fn render(spans: &[&Span]) -> String {
    let begin = spans.iter().map(|span| span.start).min().unwrap_or(0);
    let end = spans.iter().map(|span| span.end).max().unwrap_or(begin);
    let trace_id = spans.first().map_or("", |span| span.trace_id.as_str());
    let remote = roots(spans).iter().any(|span| span.parent.is_some());
    let origin = if remote {
        " · continues the caller's trace"
    } else {
        ""
    };
    let mut lines = vec![format!(
        "{} {}",
        paint(BOLD, format!("trace {trace_id}")),
        paint(DIM, format!("{}{origin}", duration(end - begin))),
    )];
    for root in roots(spans) {
        render_tree(&mut lines, spans, root, 0, begin, end - begin);
    }
    lines.join("\n")
}

/// Spans whose parent is not among them, by start.
fn roots<'a>(spans: &[&'a Span]) -> Vec<&'a Span> {
    let mut roots: Vec<&Span> = spans
        .iter()
        .copied()
        .filter(|span| {
            let parent = span.parent.as_deref();
            !spans.iter().any(|other| Some(other.id.as_str()) == parent)
        })
        .collect();
    roots.sort_by_key(|span| span.start);
    roots
}

fn render_tree(
    lines: &mut Vec<String>,
    spans: &[&Span],
    span: &Span,
    depth: usize,
    begin: u64,
    total: u64,
) {
    // A tree has no more levels than spans; a cycle of wrong parents would have.
    if depth > spans.len() {
        return;
    }
    lines.push(line(span, depth, begin, total));
    let mut children: Vec<&Span> = spans
        .iter()
        .copied()
        .filter(|child| child.parent.as_deref() == Some(span.id.as_str()))
        .collect();
    children.sort_by_key(|child| child.start);
    for child in children {
        render_tree(lines, spans, child, depth + 1, begin, total);
    }
}

fn line(span: &Span, depth: usize, begin: u64, total: u64) -> String {
    let failed = span.status() >= if span.server { 500 } else { 400 };
    let style = match (failed, span.server) {
        (true, _) => FAILURE,
        (false, true) => SERVER,
        (false, false) => CLIENT,
    };
    let who = if span.server {
        service(span.port())
    } else {
        format!("→ {}", service(span.port()))
    };
    let status = match span.status() {
        0 => "-".to_owned(),
        code => code.to_string(),
    };
    format!(
        "  {} {} {} {} {:>8}",
        fit(&format!("{}{}", "  ".repeat(depth), span.name), NAME),
        paint(style, fit(&who, SERVICE)),
        paint(style, format!("{status:>3}")),
        paint(style, bar(span.start - begin, span.end - begin, total, BAR)),
        duration(span.duration()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(id: &str, parent: Option<&str>, start: u64, end: u64) -> Span {
        Span {
            id: id.to_owned(),
            parent: parent.map(str::to_owned),
            name: id.to_owned(),
            start,
            end,
            ..Span::default()
        }
    }

    #[test]
    fn children_are_indented_below_their_parent_in_order_of_time() {
        let spans = [
            span("late", Some("root"), 60, 90),
            span("root", Some("elsewhere"), 0, 100),
            span("early", Some("root"), 10, 50),
            span("inner", Some("early"), 20, 30),
        ];
        let text =
            anstream::adapter::strip_str(&render(&spans.iter().collect::<Vec<_>>())).to_string();
        let names: Vec<&str> = text
            .lines()
            .skip(1)
            .map(|line| line[2..].split_at(NAME).0.trim_end())
            .collect();
        assert_eq!(names, ["root", "  early", "    inner", "  late"]);
    }

    #[test]
    fn a_cycle_of_parents_ends() {
        let spans = [
            span("a", Some("b"), 0, 1),
            span("b", Some("a"), 0, 1),
            span("c", None, 0, 1),
        ];
        let text = render(&spans.iter().collect::<Vec<_>>());
        assert_eq!(text.lines().count(), 2, "only the root has a place");
    }

    #[test]
    fn lines_fit_eighty_columns() {
        let mut wide = span(
            "GET /a/very/long/route/of/many/parts/{id}",
            None,
            0,
            123_456_789,
        );
        wide.server = true;
        let text = anstream::adapter::strip_str(&render(&[&wide])).to_string();
        assert!(
            text.lines().all(|line| line.chars().count() <= 80),
            "{text}"
        );
    }
}
