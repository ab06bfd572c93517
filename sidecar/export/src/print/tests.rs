use super::*;
use crate::sample::{container, observed, span};
use pilotfish_pipeline::SpanId;
use std::sync::Mutex;
use std::sync::atomic::Ordering;

fn line(format: PrintFormat, item: &Observed) -> String {
    let mut bytes = Vec::new();
    write_line(format, item, &mut bytes);
    String::from_utf8(bytes).unwrap()
}

#[test]
fn json_is_one_object_with_typed_values() {
    let mut child = span(1, "GET /users/{id}");
    child.parent_span_id = Some(SpanId([0xab; 8]));
    child.status = Status::Error;
    let json = line(
        PrintFormat::Json,
        &Observed {
            container: container(),
            span: child,
        },
    );
    assert_eq!(json.matches('\n').count(), 1);
    let value: serde_json::Value = serde_json::from_str(&json).unwrap();
    let expected = serde_json::json!({
        "trace_id": "30313233343536373839616263646566",
        "span_id": "4142434445464748",
        "parent_span_id": "abababababababab",
        "name": "GET /users/{id}",
        "kind": "server",
        "start_time_unix_nano": 1_700_000_000_000_000_000_u64,
        "end_time_unix_nano": 1_700_000_000_001_500_000_u64,
        "attributes": {"http.request.method": "GET", "url.path": "/users/17", "http.response.status_code": 200},
        "resource": {
            "service.name": "web", "container.id": "aaaa", "container.name": "web",
            "k8s.pod.name": "shop-1", "host.name": "node-1",
        },
        "status": "error",
    });
    assert_eq!(value, expected);
    let root: serde_json::Value =
        serde_json::from_str(&line(PrintFormat::Json, &observed("x"))).unwrap();
    assert!(root["parent_span_id"].is_null());
}

#[test]
fn text_shows_the_essentials_and_disarms_control_characters() {
    let text = line(PrintFormat::Text, &observed("GET /\u{1b}[31m\n"));
    assert_eq!(
        text.split_whitespace().collect::<Vec<_>>(),
        [
            "22:13:20.000",
            "web",
            "<-",
            "GET",
            "/\u{fffd}[31m\u{fffd}",
            "200",
            "1.50ms",
            "trace",
            "30313233"
        ]
    );
}

#[test]
fn a_client_says_where_within_the_columns() {
    let with = |pairs: &[(&'static str, &str)]| {
        let mut client = span(1, "GET");
        client.kind = Kind::Client;
        client.attributes = pairs
            .iter()
            .map(|&(key, value)| Attribute {
                key,
                value: Value::Str(value.into()),
            })
            .collect();
        column(&client)
    };
    let shop = ("server.address", "shop");
    let port = ("server.port", "8080");
    for (attributes, expected) in [
        (&[][..], "GET"),
        (&[shop], "GET shop"),
        (&[shop, port, ("url.path", "/a")], "GET shop:8080/a"),
        (
            &[shop, port, ("url.full", "http://shop:8080/a/b?c=REDACTED")],
            "GET shop:8080/a/b",
        ),
        (&[shop, ("url.full", "http://shop?c=/d")], "GET shop"),
        (&[("server.address", "::1"), port], "GET [::1]:8080"),
        (&[("url.path", "/\u{1b}[31m")], "GET /\u{fffd}[31m"),
    ] {
        assert_eq!(with(attributes), expected);
    }
    let long = format!("/{}é", "x".repeat(WHAT));
    let cut = with(&[shop, ("url.path", &long)]);
    assert_eq!(cut.chars().count(), WHAT);
    assert!(
        cut.starts_with("GET shop/xxx") && cut.ends_with('…'),
        "{cut}"
    );
    let fits = format!("/{}", "é".repeat(WHAT - "GET shop/".len()));
    assert!(with(&[shop, ("url.path", &fits)]).ends_with('é'));
}

#[derive(Clone, Default)]
struct Flaky(Arc<Mutex<(Vec<u8>, Vec<ErrorKind>)>>);

impl Write for Flaky {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let mut inner = self.0.lock().unwrap();
        if let Some(kind) = inner.1.pop() {
            return Err(kind.into());
        }
        inner.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_closed_output_ends_the_printer_and_everything_is_accounted_for() {
    let queue = Arc::new(Queue::new(16, 1, 2));
    let spans: Vec<_> = (0..8).map(|_| observed("GET /")).collect();
    queue.push(&spans);
    let output = Flaky::default();
    output.0.lock().unwrap().1 = vec![ErrorKind::BrokenPipe, ErrorKind::StorageFull];
    run(Arc::clone(&queue), PrintFormat::Json, Box::new(output)).await;
    queue.push(&spans[..1]);
    let accounts = &queue.accounts;
    assert_eq!(
        accounts.failed.load(Ordering::Relaxed),
        4,
        "a full disk and a closed pipe, two spans each"
    );
    assert_eq!(
        accounts.dropped.load(Ordering::Relaxed),
        5,
        "the rest, and what came later"
    );
}

#[test]
fn a_print_file_is_private_and_appended_to() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("spans.jsonl");
    for line in ["one\n", "two\n"] {
        open_file(&path)
            .unwrap()
            .write_all(line.as_bytes())
            .unwrap();
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "one\ntwo\n");
    assert_eq!(
        std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert!(open_file(directory.path()).is_err());
}
