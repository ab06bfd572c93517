//! Compares what the agent saw with what the client did: every difference is listed.

use std::collections::BTreeMap;

use super::face::service;
use super::lineage::Lineage;
use super::pod::NGINX;
use super::spans::Span;
use super::traffic::{Served, Tally};

/// Method, route and status: the part of a request that metrics keep.
type Series = (String, String, u16);

/// Every way in which spans and metrics differ from the client's tally; nothing when all is well.
pub(super) fn differences(
    tally: &Tally,
    spans: &[Span],
    metrics_page: &str,
    container_id: &str,
) -> Vec<String> {
    let mut differences = server_spans(&tally.served, spans);
    differences.extend(client_spans(&tally.served, spans));
    let lineage = Lineage::new(spans);
    differences.extend(lineage.breaks(&tally.begun));
    differences.extend(lineage.wrong_parents());
    differences.extend(metrics(&tally.served, metrics_page));
    differences.extend(identity(spans, container_id));
    differences
}

/// True once there are as many server spans as there must be.
pub(super) fn complete(tally: &Tally, spans: &[Span]) -> bool {
    spans.iter().filter(|span| span.server).count() >= tally.served.len()
}

fn server_spans(expected: &[Served], spans: &[Span]) -> Vec<String> {
    let mut balance: BTreeMap<Served, i64> = BTreeMap::new();
    for served in expected {
        *balance.entry(served.clone()).or_default() -= 1;
    }
    for span in spans.iter().filter(|span| span.server) {
        *balance.entry(span.served()).or_default() += 1;
    }
    balance
        .into_iter()
        .filter(|(_, count)| *count != 0)
        .map(|(served, count)| {
            let sort = if count < 0 { "missing" } else { "unexpected" };
            let Served {
                port,
                method,
                path,
                route,
                status,
            } = served;
            let count = count.abs();
            format!(
                "{count} {sort}: server span of {}: {method} {path} (route {route}) {status}",
                service(port)
            )
        })
        .collect()
}

/// One client span for each request that a server passed on.
fn client_spans(expected: &[Served], spans: &[Span]) -> Option<String> {
    // Everything but nginx is called from inside the container.
    let calls = expected
        .iter()
        .filter(|served| served.port != NGINX)
        .count();
    let seen = spans.iter().filter(|span| !span.server).count();
    (calls != seen).then(|| format!("{calls} client spans expected, {seen} seen"))
}

/// The histogram's counts against the tally. The servers share one container, and with it their series.
fn metrics(expected: &[Served], page: &str) -> Vec<String> {
    let mut balance: BTreeMap<Series, i64> = BTreeMap::new();
    for served in expected {
        let series = (served.method.clone(), served.route.clone(), served.status);
        *balance.entry(series).or_default() -= 1;
    }
    for (series, count) in page.lines().filter_map(parse_count) {
        *balance.entry(series).or_default() += count;
    }
    balance
        .into_iter()
        .filter(|(_, count)| *count != 0)
        .map(|((method, route, status), count)| {
            format!("metrics: {method} {route} {status}: off by {count:+}")
        })
        .collect()
}

/// `http_server_request_duration_seconds_count{...} 12`
fn parse_count(line: &str) -> Option<(Series, i64)> {
    let labels_and_value = line.strip_prefix("http_server_request_duration_seconds_count{")?;
    let (labels, value) = labels_and_value.rsplit_once("} ")?;
    let label = |name: &str| {
        let (_, rest) = labels.split_once(&format!("{name}=\""))?;
        Some(rest.split_once('"')?.0.to_owned())
    };
    let series = (
        label("http_request_method")?,
        label("http_route").unwrap_or_default(),
        label("http_response_status_code")?.parse().ok()?,
    );
    Some((series, value.trim().parse::<f64>().ok()? as i64))
}

fn identity(spans: &[Span], container_id: &str) -> Option<String> {
    let wrong = spans
        .iter()
        .filter(|span| {
            span.resource.get("container.id").and_then(|id| id.as_str()) != Some(container_id)
        })
        .count();
    (wrong > 0).then(|| format!("{wrong} spans without container.id {container_id}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::traffic::Begun;
    use super::*;

    const PAGE: &str = "# TYPE http_server_request_duration_seconds histogram\n\
        http_server_request_duration_seconds_count{container_id=\"c\",http_request_method=\"GET\",\
        http_route=\"/users/{id}\",http_response_status_code=\"200\"} 1\n";

    fn served() -> Served {
        Served {
            port: 8080,
            method: "GET".to_owned(),
            path: "/users/1".to_owned(),
            route: "/users/{id}".to_owned(),
            status: 200,
        }
    }

    fn span() -> Span {
        let attributes = json!({
            "server.port": 8080, "http.request.method": "GET", "url.path": "/users/1",
            "http.route": "/users/{id}", "http.response.status_code": 200,
        });
        Span {
            trace_id: "0a".to_owned(),
            id: "0c".to_owned(),
            parent: Some("0b".to_owned()),
            server: true,
            attributes: attributes.as_object().cloned().unwrap_or_default(),
            resource: json!({"container.id": "c"})
                .as_object()
                .cloned()
                .unwrap_or_default(),
            ..Span::default()
        }
    }

    fn tally() -> Tally {
        Tally {
            requests: 1,
            served: vec![served()],
            begun: vec![Begun {
                trace_id: "0a".to_owned(),
                span_id: "0b".to_owned(),
                servers: vec![8080],
            }],
        }
    }

    #[test]
    fn what_agrees_gives_nothing() {
        assert_eq!(
            differences(&tally(), &[span()], PAGE, "c"),
            Vec::<String>::new()
        );
    }

    #[test]
    fn a_missing_span_is_named_in_all_its_consequences() {
        let found = differences(&tally(), &[], "", "c");
        assert_eq!(
            found,
            [
                "1 missing: server span of nginx: GET /users/1 (route /users/{id}) 200",
                "nginx: no server span below 0b in trace 0a",
                "metrics: GET /users/{id} 200: off by -1",
            ]
        );
    }

    #[test]
    fn a_surplus_span_and_a_wrong_container_are_named() {
        let found = differences(&tally(), &[span(), span()], PAGE, "other");
        assert_eq!(
            found,
            [
                "1 unexpected: server span of nginx: GET /users/1 (route /users/{id}) 200",
                "2 spans without container.id other",
            ]
        );
    }
}
