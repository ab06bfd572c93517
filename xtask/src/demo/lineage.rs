//! Are the parents right? A request's way through the servers is known from its path, so each chain of spans can be
//! compared with it. A missing parent is a new trace and no error, except where the client began the trace.

use std::collections::HashMap;

use super::face::service;
use super::pod::{NGINX, SHOP, STOCK};
use super::spans::Span;
use super::traffic::{Begun, stock_path};

/// Spans by id.
pub(super) struct Lineage<'a> {
    by_id: HashMap<&'a str, &'a Span>,
}

impl<'a> Lineage<'a> {
    /// Of these spans.
    pub(super) fn new(spans: &'a [Span]) -> Self {
        let by_id = spans.iter().map(|span| (span.id.as_str(), span)).collect();
        Self { by_id }
    }

    /// Parent, parent's parent and so on, as far as they were seen.
    fn ancestors(&self, span: &'a Span) -> impl Iterator<Item = &'a Span> {
        let parent = |child: &&'a Span| self.by_id.get(child.parent.as_deref()?).copied();
        std::iter::successors(parent(&span), parent).take(self.by_id.len())
    }

    /// How many server spans continue another server's span.
    pub(super) fn continued(&self) -> usize {
        self.by_id
            .values()
            .filter(|span| span.server && self.ancestors(span).any(|ancestor| ancestor.server))
            .count()
    }

    /// Parents that cannot be right.
    pub(super) fn wrong_parents(&self) -> Vec<String> {
        let mut wrong: Vec<String> = self
            .by_id
            .values()
            .flat_map(|span| self.ancestors(span).map(move |ancestor| (ancestor, *span)))
            .filter(|(ancestor, span)| !can_descend(ancestor, span))
            .map(|(ancestor, span)| {
                format!(
                    "wrong parent: {} cannot come from {}",
                    describe(span),
                    describe(ancestor)
                )
            })
            .collect();
        wrong.sort_unstable();
        wrong
    }

    /// Servers of a trace that the client began which are not in it, or not below the client's span.
    pub(super) fn breaks(&self, begun: &[Begun]) -> Vec<String> {
        begun
            .iter()
            .flat_map(|trace| trace.servers.iter().map(move |port| (trace, *port)))
            .filter(|(trace, port)| {
                !self
                    .by_id
                    .values()
                    .any(|span| self.reaches(span, trace, *port))
            })
            .map(|(trace, port)| {
                format!(
                    "{}: no server span below {} in trace {}",
                    service(port),
                    trace.span_id,
                    trace.trace_id
                )
            })
            .collect()
    }

    fn reaches(&self, span: &'a Span, trace: &Begun, port: u16) -> bool {
        let oldest = self.ancestors(span).last().unwrap_or(span);
        span.server
            && span.port() == port
            && span.trace_id == trace.trace_id
            && oldest.parent.as_ref() == Some(&trace.span_id)
    }
}

/// Whether a span can be part of the work of another: one trace, the same request, and no longer than it.
///
/// The two ends of one connection are timed on two processors after their bytes have moved, so between a client and
/// its server the request decides and not the time.
fn can_descend(ancestor: &Span, span: &Span) -> bool {
    let two_ends = !ancestor.server && span.server;
    let within = ancestor.start <= span.start && span.end <= ancestor.end;
    let same = match (ancestor.server, span.server) {
        (true, true) => same_request(ancestor, span),
        (false, true) if ancestor.port() == span.port() => {
            let asked = ancestor.text("url.full");
            let asked = asked.split_once('?').map_or(asked, |(url, _)| url);
            asked.ends_with(span.text("url.path"))
        }
        _ => true,
    };
    ancestor.trace_id == span.trace_id && (within || two_ends) && same
}

fn same_request(outer: &Span, inner: &Span) -> bool {
    let (outer_path, inner_path) = (outer.text("url.path"), inner.text("url.path"));
    match (outer.port(), inner.port()) {
        (NGINX, SHOP) => outer_path == inner_path,
        (NGINX | SHOP, STOCK) => stock_path(outer_path).as_deref() == Some(inner_path),
        _ => false,
    }
}

fn describe(span: &Span) -> String {
    let (side, url) = if span.server {
        ("server span", "url.path")
    } else {
        ("client span to", "url.full")
    };
    format!(
        "{side} {} {} ({})",
        service(span.port()),
        span.text(url),
        span.id
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn span(id: &str, parent: &str, port: u16, path: &str, times: (u64, u64)) -> Span {
        let attributes = json!({"server.port": port, "url.path": path});
        Span {
            trace_id: "0a".to_owned(),
            id: id.to_owned(),
            parent: Some(parent.to_owned()),
            server: true,
            start: times.0,
            end: times.1,
            attributes: attributes.as_object().cloned().unwrap_or_default(),
            ..Span::default()
        }
    }

    fn begun() -> Begun {
        Begun {
            trace_id: "0a".to_owned(),
            span_id: "client".to_owned(),
            servers: vec![NGINX, SHOP, STOCK],
        }
    }

    #[test]
    fn a_whole_chain_is_right() {
        let spans = [
            span("n", "client", NGINX, "/orders/17", (0, 9)),
            span("s", "n", SHOP, "/orders/17", (1, 8)),
            span("t", "s", STOCK, "/stock/7", (2, 3)),
        ];
        let lineage = Lineage::new(&spans);
        assert_eq!(lineage.wrong_parents(), Vec::<String>::new());
        assert_eq!(lineage.breaks(&[begun()]), Vec::<String>::new());
        assert_eq!(lineage.continued(), 2);
    }

    #[test]
    fn another_requests_parent_is_wrong() {
        let spans = [
            span("n", "client", NGINX, "/orders/17", (0, 9)),
            span("s", "n", SHOP, "/orders/18", (1, 8)),
        ];
        assert_eq!(
            Lineage::new(&spans).wrong_parents(),
            [
                "wrong parent: server span shop /orders/18 (s) cannot come from server span nginx /orders/17 (n)"
            ]
        );
    }

    #[test]
    fn a_child_that_outlives_its_parent_is_wrong() {
        let spans = [
            span("n", "client", NGINX, "/users/1", (0, 9)),
            span("s", "n", SHOP, "/users/1", (1, 10)),
        ];
        assert_eq!(Lineage::new(&spans).wrong_parents().len(), 1);
    }

    #[test]
    fn the_two_ends_of_a_connection_are_compared_by_their_request() {
        let client = |url: &str| Span {
            server: false,
            attributes: json!({"server.port": SHOP, "url.full": url})
                .as_object()
                .cloned()
                .unwrap_or_default(),
            ..span("c", "n", SHOP, "", (1, 8))
        };
        let server = span("s", "c", SHOP, "/users/1", (0, 9));
        let right = [client("http://shop:8000/users/1?x=1"), server.clone()];
        assert_eq!(Lineage::new(&right).wrong_parents(), Vec::<String>::new());
        let wrong = [client("http://shop:8000/users/2"), server];
        assert_eq!(Lineage::new(&wrong).wrong_parents().len(), 1);
    }

    #[test]
    fn a_broken_trace_is_named() {
        let spans = [span("n", "client", NGINX, "/orders/17", (0, 9))];
        assert_eq!(
            Lineage::new(&spans).breaks(&[begun()]),
            [
                "shop: no server span below client in trace 0a",
                "stock: no server span below client in trace 0a",
            ]
        );
    }
}
