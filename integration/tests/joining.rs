//! Connections that the agent sees only a part of: older than it, or broken off by the peer.

use anyhow::{Context, Result, ensure};
use integration::server::{Server, kind};
use integration::span::with_path;
use integration::wire::Wire;
use integration::{Agent, Kind, Outcome, Scene, Span, Tally, Trials, load};

pub(crate) fn register(trials: &mut Trials) {
    trials.subject("joining");
    for name in ["go", "python_http_server", "nginx", "node"] {
        let tools: &[&str] = match name {
            "go" => &["go"],
            "nginx" => &["nginx"],
            "node" => &["node"],
            _ => &["python3"],
        };
        trials.add(
            &format!("idle_connection_older_than_the_agent_{name}"),
            tools,
            |scene| idle_connection(scene, name),
        );
    }
    trials.add(
        "joined_in_the_middle_of_a_response",
        &["go"],
        middle_of_a_response,
    );
    trials.add(
        "joined_in_the_middle_of_an_upload",
        &["go"],
        middle_of_an_upload,
    );
    trials.add("peer_closes_in_the_middle", &["go"], peer_closes);
    trials.add("server_killed_in_the_middle", &["go"], server_killed);
}

/// Asks for numbered items and tells what was answered.
fn items(wire: &mut Wire, name: &str, count: usize) -> Result<Tally> {
    let targets = (0..count).map(|number| format!("/items/{name}-{number}"));
    targets
        .map(|target| Ok(Outcome::new("GET", &target, wire.ask(&target)?.status)))
        .collect()
}

fn idle_connection(scene: &Scene, name: &str) -> Result<()> {
    let server = kind(name)?.start(scene)?;
    let mut wires: Vec<Wire> = (0..3)
        .map(|_| Wire::connect(server.port))
        .collect::<Result<_>>()?;
    for wire in &mut wires {
        items(wire, "unseen", 3)?;
    }
    let agent = Agent::watch(scene, &[server.pid()])?;
    let mut tally = Tally::default();
    for (number, wire) in wires.iter_mut().enumerate() {
        tally.merge(items(wire, &format!("seen-{number}"), 10)?);
    }
    agent.finish()?.must_match(&tally, Kind::Server)
}

/// The exchange under way at the attach may be missing; those after it may not.
fn middle_of_a_response(scene: &Scene) -> Result<()> {
    let server = kind("go")?.start(scene)?;
    let mut wire = Wire::connect(server.port)?;
    wire.get("/chunked-warm-up")?;
    wire.response()?;
    wire.get("/drip")?;
    let agent = Agent::watch(scene, &[server.pid()])?;
    ensure!(wire.response()?.status == 200, "the dripping response");
    let tally = items(&mut wire, "after", 10)?;
    let mut finished = agent.finish()?;
    ensure!(
        with_path(&finished.spans, Kind::Server, "/drip").len() <= 1,
        "one request, at most one span"
    );
    finished.spans.retain(|span| span.path() != "/drip");
    finished.must_match(&tally, Kind::Server)
}

fn middle_of_an_upload(scene: &Scene) -> Result<()> {
    let server = kind("go")?.start(scene)?;
    let mut wire = Wire::connect(server.port)?;
    items(&mut wire, "unseen", 1)?;
    wire.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 6000\r\n\r\n")?;
    wire.send([b'a'; 2000])?;
    let agent = Agent::watch(scene, &[server.pid()])?;
    // What follows looks like a request and is the rest of the body.
    let decoy = b"GET /decoy HTTP/1.1\r\nHost: a\r\n\r\n";
    wire.send([&[b'b'; 1000][..], decoy, &vec![b'c'; 3000 - decoy.len()]].concat())?;
    ensure!(wire.response()?.status == 200, "the upload");
    let tally = items(&mut wire, "after", 10)?;
    let mut finished = agent.finish()?;
    finished.spans.retain(|span| span.path() != "/echo");
    finished.must_match(&tally, Kind::Server)
}

/// Clients that go away in a head, in a body, before the response, and inside it.
fn peer_closes(scene: &Scene) -> Result<()> {
    let server = kind("go")?.start(scene)?;
    let agent = Agent::watch(scene, &[server.pid()])?;
    let abandoned: [(&str, &[u8]); 4] = [
        ("in the head", b"GET /broken-head HTTP/1.1\r\nHos"),
        (
            "in the body",
            b"POST /broken-body HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\npart",
        ),
        (
            "before the response",
            b"GET /slow/broken-wait HTTP/1.1\r\nHost: a\r\n\r\n",
        ),
        (
            "in the response",
            b"GET /large/broken-response HTTP/1.1\r\nHost: a\r\n\r\n",
        ),
    ];
    for (place, bytes) in abandoned {
        for _ in 0..5 {
            let mut wire = Wire::connect(server.port)?;
            wire.send(bytes)?;
            if place == "in the response" {
                wire.take()?;
            }
        }
    }
    let tally = load::run(server.port, &load::numbered(4, 20))?;
    // A request to the same handler started later, so those of the clients that went away have been answered.
    load::fetch(&format!("http://127.0.0.1:{}/slow/last", server.port))?;
    let mut finished = agent.finish()?;
    ensure!(
        with_path(&finished.spans, Kind::Server, "/broken-head").is_empty(),
        "half a head is no request"
    );
    let is_broken = |span: &mut Span| span.path().contains("broken");
    let broken: Vec<Span> = finished.spans.extract_if(.., is_broken).collect();
    for span in &broken {
        ensure!(
            matches!(span.status_code(), None | Some(200 | 400)),
            "a status that nobody sent: {span:?}"
        );
    }
    for path in [
        "/broken-body",
        "/slow/broken-wait",
        "/large/broken-response",
    ] {
        ensure!(
            with_path(&broken, Kind::Server, path).len() <= 5,
            "more spans than requests of {path}"
        );
    }
    finished.spans.retain(|span| span.path() != "/slow/last");
    finished.must_match(&tally, Kind::Server)
}

/// The observed process dies with requests in progress: the agent goes on and tells what was complete.
fn server_killed(scene: &Scene) -> Result<()> {
    let mut doomed: Server = kind("go")?.start(scene)?;
    let survivor = kind("go")?.start(scene)?;
    let agent = Agent::watch(scene, &[doomed.pid(), survivor.pid()])?;
    let mut tally = load::run(doomed.port, &load::numbered(2, 10))?;
    let mut waiting: Vec<Wire> = (0..5)
        .map(|_| Wire::connect(doomed.port))
        .collect::<Result<_>>()?;
    for wire in &mut waiting {
        wire.get("/slow/never-answered")?;
    }
    doomed
        .process
        .stop(
            nix::sys::signal::Signal::SIGKILL,
            std::time::Duration::from_secs(10),
        )
        .context("kill the server")?;
    for wire in &mut waiting {
        ensure!(wire.response().is_err(), "a dead server answered");
    }
    tally.merge(load::run(survivor.port, &load::numbered(2, 10))?);
    agent.finish()?.must_match(&tally, Kind::Server)
}
