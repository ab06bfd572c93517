//! What the message syntax allows and no ordinary client sends: each form gives its exact spans.

use anyhow::{Result, ensure};
use integration::agent::Setup;
use integration::server::{Server, kind};
use integration::span::with_path;
use integration::wire::Wire;
use integration::{Agent, Finished, Kind, Outcome, Scene, Tally, Trials};
use std::thread::sleep;
use std::time::Duration;

/// Long enough for the server to read what was sent so far, in a read of its own.
const PAUSE: Duration = Duration::from_millis(3);

pub(crate) fn register(trials: &mut Trials) {
    trials.subject("messages");
    trials.add("pipelined_requests", &["go"], |scene| {
        on_go(scene, &[], pipelined)
    });
    trials.add("heads_in_many_small_writes", &["go"], |scene| {
        on_go(scene, &[], small_writes)
    });
    trials.add("heads_of_many_reads", &["go"], |scene| {
        on_go(scene, &[], long_heads)
    });
    trials.add("expect_100_continue", &["go"], |scene| {
        on_go(scene, &[], expect_continue)
    });
    trials.add("upgrade_makes_the_flow_opaque", &["go"], |scene| {
        on_go(scene, &[], upgrade)
    });
    trials.add("bodies_beyond_the_capture_limit", &["go"], |scene| {
        on_go(scene, &["--capture-bytes", "512"], large_bodies)
    });
    trials.add("connect_makes_the_flow_opaque", &["go"], |scene| {
        on_go(scene, &[], connect)
    });
    trials.add("http_1_0", &["nginx"], old_clients);
    trials.add(
        "bodies_that_end_with_the_connection",
        &["nginx"],
        close_delimited,
    );
    trials.add("responses_without_a_body", &["nginx"], without_body);
    trials.add(
        "unknown_methods_and_absolute_targets",
        &["nginx"],
        odd_requests,
    );
    trials.add("routes_from_patterns", &["go"], routes);
}

/// A conversation with a server: gives back what the client knows to have happened.
type Conversation = fn(&mut Wire) -> Result<Tally>;

fn on_go(scene: &Scene, arguments: &[&str], conversation: Conversation) -> Result<()> {
    on(&kind("go")?.start(scene)?, scene, arguments, conversation).map(drop)
}

fn on(
    server: &Server,
    scene: &Scene,
    arguments: &[&str],
    conversation: Conversation,
) -> Result<Finished> {
    let setup = arguments
        .iter()
        .copied()
        .fold(Setup::watching(scene, &[server.pid()])?, Setup::arg);
    let agent = setup.start()?;
    let tally = conversation(&mut Wire::connect(server.port)?)?;
    let finished = agent.finish()?;
    finished.must_match(&tally, Kind::Server)?;
    ensure!(
        finished.spans.len() as u64 == tally.total(),
        "spans without a status: {:?}",
        finished.spans
    );
    Ok(finished)
}

fn pipelined(wire: &mut Wire) -> Result<Tally> {
    let mut tally = Tally::default();
    for burst in 0..10 {
        let targets: Vec<String> = (0..20)
            .map(|n| {
                format!(
                    "/{}/{burst}-{n}",
                    if n % 4 == 0 { "missing" } else { "items" }
                )
            })
            .collect();
        let requests: Vec<String> = targets
            .iter()
            .map(|target| format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"))
            .collect();
        wire.send(requests.concat())?;
        for target in &targets {
            tally.add(Outcome::new("GET", target, wire.response()?.status));
        }
    }
    Ok(tally)
}

/// One write per byte for one request, per three bytes for the next.
fn small_writes(wire: &mut Wire) -> Result<Tally> {
    let mut tally = Tally::default();
    for (number, size) in [1, 3, 17].into_iter().enumerate() {
        let target = format!("/items/{number}");
        let request = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nX-Filler: abc\r\n\r\n");
        for piece in request.as_bytes().chunks(size) {
            wire.send(piece)?;
            sleep(PAUSE);
        }
        tally.add(Outcome::new("GET", &target, wire.response()?.status));
    }
    Ok(tally)
}

/// Heads larger than what the server reads at a time, sent in pieces so that every read is captured whole.
fn long_heads(wire: &mut Wire) -> Result<Tally> {
    let mut tally = Tally::default();
    for (number, size) in [3000, 9000, 14_000].into_iter().enumerate() {
        let target = format!("/items/{number}");
        let request = format!(
            "GET {target} HTTP/1.1\r\nHost: a\r\nX-Filler: {}\r\n\r\n",
            "f".repeat(size)
        );
        for piece in request.as_bytes().chunks(2000) {
            wire.send(piece)?;
            sleep(PAUSE);
        }
        tally.add(Outcome::new("GET", &target, wire.response()?.status));
        tally.add(Outcome::new("GET", "/small", wire.ask("/small")?.status));
    }
    Ok(tally)
}

fn expect_continue(wire: &mut Wire) -> Result<Tally> {
    let mut tally = Tally::default();
    for _ in 0..10 {
        wire.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5000\r\nExpect: 100-continue\r\n\r\n")?;
        ensure!(wire.response()?.status == 100, "the interim response");
        wire.send([b'b'; 5000])?;
        tally.add(Outcome::new("POST", "/echo", wire.response()?.status));
    }
    Ok(tally)
}

/// After the 101 both sides talk in what looks like HTTP and is not.
fn upgrade(wire: &mut Wire) -> Result<Tally> {
    let mut tally = Tally::default();
    tally.add(Outcome::new("GET", "/small", wire.ask("/small")?.status));
    wire.send("GET /upgrade HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")?;
    tally.add(Outcome::new("GET", "/upgrade", wire.response()?.status));
    for _ in 0..10 {
        wire.send("GET /no-request HTTP/1.1\r\nHost: a\r\n\r\n")?;
        ensure!(!wire.take()?.is_empty(), "the echo");
    }
    Ok(tally)
}

fn connect(wire: &mut Wire) -> Result<Tally> {
    let mut tally = Tally::default();
    wire.send("CONNECT far.example:443 HTTP/1.1\r\nHost: far.example:443\r\n\r\n")?;
    tally.add(Outcome::new("CONNECT", "", wire.response()?.status));
    for _ in 0..10 {
        wire.send("GET /no-request HTTP/1.1\r\nHost: a\r\n\r\n")?;
        ensure!(!wire.take()?.is_empty(), "the echo");
    }
    Ok(tally)
}

/// Bodies a thousand times the capture limit are skipped; the next message on the connection is found.
fn large_bodies(wire: &mut Wire) -> Result<Tally> {
    let mut tally = Tally::default();
    let body = vec![b'u'; 700_000];
    for number in 0..10 {
        let target = format!("/items/{number}");
        tally.add(Outcome::new("GET", "/large", wire.ask("/large")?.status));
        tally.add(Outcome::new("GET", &target, wire.ask(&target)?.status));
        wire.send(format!(
            "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n",
            body.len()
        ))?;
        wire.send(&body)?;
        tally.add(Outcome::new("POST", "/echo", wire.response()?.status));
    }
    Ok(tally)
}

/// HTTP/1.0 with and without keep-alive.
fn old_clients(scene: &Scene) -> Result<()> {
    let server = kind("nginx")?.start(scene)?;
    let finished = on(&server, scene, &[], |wire| {
        let mut tally = Tally::default();
        for number in 0..5 {
            let target = format!("/items/{number}");
            wire.send(format!(
                "GET {target} HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
            ))?;
            tally.add(Outcome::new("GET", &target, wire.response()?.status));
        }
        wire.send("GET /items/last HTTP/1.0\r\n\r\n")?;
        tally.add(Outcome::new("GET", "/items/last", wire.response()?.status));
        Ok(tally)
    })?;
    for span in &finished.spans {
        ensure!(span.text("network.protocol.version")? == "1.0", "{span:?}");
    }
    Ok(())
}

/// nginx cannot chunk for HTTP/1.0, so a body of unknown length ends with the connection.
fn close_delimited(scene: &Scene) -> Result<()> {
    let server = kind("nginx")?.start(scene)?;
    let agent = Agent::watch(scene, &[server.pid()])?;
    for _ in 0..5 {
        let mut wire = Wire::connect(server.port)?;
        wire.send("GET /chunked HTTP/1.0\r\n\r\n")?;
        let response = String::from_utf8(wire.until_close()?)?;
        ensure!(!response.contains("Content-Length"), "a length: {response}");
    }
    let spans = agent.finish()?.spans;
    ensure!(spans.len() == 5, "{} spans", spans.len());
    for span in &spans {
        ensure!(span.status_code() == Some(200), "{span:?}");
        ensure!(
            span.integer("http.response.body.size") == Some(14_000),
            "{span:?}"
        );
    }
    Ok(())
}

/// HEAD, 204 and 304 announce or imply a body that never comes.
fn without_body(scene: &Scene) -> Result<()> {
    let server = kind("nginx")?.start(scene)?;
    on(&server, scene, &[], |wire| {
        let mut tally = Tally::default();
        for _ in 0..10 {
            wire.send("HEAD /large HTTP/1.1\r\nHost: a\r\n\r\n")?;
            tally.add(Outcome::new(
                "HEAD",
                "/large",
                wire.response_without_body()?,
            ));
            tally.add(Outcome::new("GET", "/empty", wire.ask("/empty")?.status));
            wire.send("GET /small HTTP/1.1\r\nHost: a\r\nIf-None-Match: *\r\n\r\n")?;
            let unchanged = wire.response_without_body()?;
            ensure!(
                unchanged == 304,
                "a conditional request was answered with {unchanged}"
            );
            tally.add(Outcome::new("GET", "/small", unchanged));
            tally.add(Outcome::new(
                "GET",
                "/items/1",
                wire.ask("/items/1")?.status,
            ));
        }
        Ok(tally)
    })
    .map(drop)
}

fn odd_requests(scene: &Scene) -> Result<()> {
    let server = kind("nginx")?.start(scene)?;
    let finished = on(&server, scene, &[], |wire| {
        wire.send("BREW /items/pot HTTP/1.1\r\nHost: a\r\n\r\n")?;
        let brewed = wire.response()?.status;
        wire.send(
            "GET http://shop.example/items/absolute?a=b HTTP/1.1\r\nHost: shop.example\r\n\r\n",
        )?;
        let absolute = wire.response()?.status;
        Ok([
            Outcome::new("_OTHER", "/items/pot", brewed),
            Outcome::new("GET", "/items/absolute", absolute),
        ]
        .into_iter()
        .collect())
    })?;
    let unknown = with_path(&finished.spans, Kind::Server, "/items/pot");
    ensure!(
        unknown.len() == 1 && unknown[0].text("http.request.method_original")? == "BREW",
        "{unknown:?}"
    );
    let absolute = with_path(&finished.spans, Kind::Server, "/items/absolute");
    ensure!(
        absolute.len() == 1 && absolute[0].text("server.address")? == "shop.example",
        "{absolute:?}"
    );
    Ok(())
}

fn routes(scene: &Scene) -> Result<()> {
    let server = kind("go")?.start(scene)?;
    let finished = on(&server, scene, &["--route", "/items/{name}"], |wire| {
        let targets = (0..10).map(|number| format!("/items/{number}"));
        targets
            .map(|target| Ok(Outcome::new("GET", &target, wire.ask(&target)?.status)))
            .collect()
    })?;
    for span in &finished.spans {
        ensure!(
            span.name == "GET /items/{name}" && span.text("http.route")? == "/items/{name}",
            "{span:?}"
        );
    }
    let labels = [
        ("http_route", "/items/{name}"),
        ("http_response_status_code", "200"),
    ];
    let counted = finished
        .metrics
        .sum_where("http_server_request_duration_seconds_count", &labels)?;
    ensure!(counted == 10, "{counted} exchanges under the route");
    Ok(())
}
