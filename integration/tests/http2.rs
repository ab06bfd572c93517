//! HTTP/2 with real servers: each exchange of many streams at a time is seen once, with its own path and status.

use anyhow::{Context, Result, ensure};
use integration::agent::Setup;
use integration::http2::load::{self, Concurrency};
use integration::http2::server::{Routes, SERVERS, ServerKind, Target, kind};
use integration::http2::{must_be_all, must_be_seen_whole, must_be_true};
use integration::nginx::Nginx;
use integration::scene::free_port;
use integration::tls::client::Gate;
use integration::tls::coverage::{family, losses, must_be_lossless, wait_until_probed};
use integration::{Agent, Kind, Process, Scene, Tally, Trials, place, tls};
use nix::sys::signal::Signal;
use std::fs;
use std::process::Command;

/// Streams at a time.
const STREAMS: [usize; 3] = [1, 10, 100];
/// Connections of h2load.
const CONNECTIONS: usize = 4;
/// Targets for which each asks.
const TARGETS: usize = 400;
/// Rounds of five requests of curl.
const ROUNDS: usize = 40;
/// The smallest ring buffer that the agent accepts.
const SMALLEST_RING: u32 = 64 << 10;

pub(crate) fn register(trials: &mut Trials) {
    trials.subject("http2");
    for kind in SERVERS {
        for streams in STREAMS {
            let tools = [kind.tools, &["h2load"]].concat();
            trials.add(
                &format!("{}_{streams}_streams", kind.name),
                &tools,
                move |scene| streams_of(kind, streams, scene),
            );
        }
        let tools = [kind.tools, &["h2load"]].concat();
        trials.add(&format!("{}_large_bodies", kind.name), &tools, |scene| {
            large_bodies(kind, scene)
        });
        if kind.routes == Routes::All {
            let tools = [kind.tools, &["curl"]].concat();
            trials.add(&format!("{}_curl", kind.name), &tools, |scene| {
                methods(kind, scene)
            });
        }
    }
    let nginx_and = |tool| [tool, "nginx"];
    for streams in STREAMS {
        let name = format!("client_h2load_{streams}_streams");
        trials.add(&name, &nginx_and("h2load"), move |scene| {
            h2load_as_client(streams, scene)
        });
    }
    trials.add("client_curl", &nginx_and("curl"), curl_as_client);
    for at_once in [1, 30] {
        let name = format!("client_curl_tls_{at_once}_streams");
        trials.add(&name, &nginx_and("curl"), move |scene| {
            curl_over_tls(at_once, scene)
        });
    }
    trials.add("client_nghttp", &nginx_and("nghttp"), nghttp_as_client);
    trials.add("client_node", &nginx_and("node"), node_as_client);
    for name in ["nginx", "nghttpd", "node", "nginx_tls"] {
        let tools = kind(name).map(|kind| kind.tools).unwrap_or_default();
        let tools = [tools, &["h2load"]].concat();
        trials.add(&format!("full_ring_buffer_{name}"), &tools, move |scene| {
            full_ring_buffer(name, scene)
        });
    }
    for name in ["nginx", "node", "nghttpd"] {
        let tools = kind(name).map(|kind| kind.tools).unwrap_or_default();
        let tools = [tools, &["node"]].concat();
        trials.add(
            &format!("joined_in_the_middle_{name}"),
            &tools,
            move |scene| joined_in_the_middle(name, scene),
        );
    }
}

/// An agent whose probes, if it needs any, are in place.
fn watch(kind: &ServerKind, target: &Target, scene: &Scene) -> Result<Agent> {
    let pid = target.server.pid();
    let Some(library) = kind.library else {
        return Agent::watch(scene, &[pid]);
    };
    let agent = tls::watch(scene, &[pid])?;
    wait_until_probed(&agent, &family(pid)?, library)?;
    Ok(agent)
}

fn streams_of(kind: &ServerKind, streams: usize, scene: &Scene) -> Result<()> {
    let target = kind.start(scene)?;
    let agent = watch(kind, &target, scene)?;
    let how = Concurrency {
        connections: CONNECTIONS,
        streams,
    };
    let targets = load::targets(kind.routes, TARGETS);
    let tally = load::h2load(scene, &target, &targets, how)?;
    let finished = agent.finish()?;
    must_be_all(&finished.spans, &tally, Kind::Server, target.scheme)
        .with_context(|| finished.losses())?;
    must_be_seen_whole(&finished)?;
    let mut lost = match kind.library {
        Some(_) => losses(&finished.metrics)?,
        None => Vec::new(),
    };
    if kind.library == Some("go") {
        // Some of these connections are counted as older than the agent, though nothing of them is missing.
        lost.retain(|(name, _)| *name != "flows_late_total");
    }
    ensure!(lost.is_empty(), "counters of losses: {lost:?}");
    let shown = serde_json::to_string(
        &finished
            .spans
            .iter()
            .map(|span| &span.attributes)
            .collect::<Vec<_>>(),
    )?;
    ensure!(!shown.contains("secret"), "a query value left the process");
    Ok(())
}

/// Bodies of which most is not captured, each between requests whose every byte is.
fn large_bodies(kind: &ServerKind, scene: &Scene) -> Result<()> {
    let target = kind.start(scene)?;
    let agent = watch(kind, &target, scene)?;
    let mut targets = load::targets(kind.routes, 30);
    (0..30)
        .step_by(3)
        .for_each(|number| "/large".clone_into(&mut targets[number]));
    let how = Concurrency {
        connections: CONNECTIONS,
        streams: 1,
    };
    let tally = load::h2load(scene, &target, &targets, how)?;
    let finished = agent.finish()?;
    must_be_all(&finished.spans, &tally, Kind::Server, target.scheme)
        .with_context(|| finished.losses())
}

/// curl with every method that it has; over TLS it chooses HTTP/2 by ALPN.
fn methods(kind: &ServerKind, scene: &Scene) -> Result<()> {
    let target = kind.start(scene)?;
    let agent = watch(kind, &target, scene)?;
    let rounds = load::curl_rounds(&target, ROUNDS);
    let curl = load::curl(scene, &target, &rounds, 30)?;
    let log = Process::start("curl", curl, scene.folder())?.succeed(load::LIMIT)?;
    let tally = load::curl_tally(&log, &target);
    ensure!(tally.total() == 5 * ROUNDS as u64, "curl printed:\n{log}");
    let finished = agent.finish()?;
    must_be_all(&finished.spans, &tally, Kind::Server, target.scheme)
        .with_context(|| finished.losses())?;
    must_be_seen_whole(&finished)
}

/// nginx that speaks HTTP/2 in clear, whose access log is the tally of a client under observation.
fn nginx(scene: &Scene) -> Result<(Nginx, Target)> {
    let nginx = Nginx::new(free_port()?).http2();
    let target = integration::http2::server::start_nginx(&nginx, scene)?;
    Ok((nginx, target))
}

/// Runs a client under `pilotfish run` and holds its spans against nginx's log and its own tally.
fn observed(
    scene: &Scene,
    nginx: &Nginx,
    target: Target,
    command: &Command,
    own: impl FnOnce(&str, &Target) -> Result<Tally>,
) -> Result<()> {
    let (status, spans, log) = Setup::running(scene, command)?.complete(load::LIMIT)?;
    ensure!(status.success(), "{status}:\n{log}");
    let tally = own(&log, &target)?;
    target.server.finish()?;
    tally.must_equal(&nginx.access_log(scene)?, "the client", "the access log")?;
    must_be_all(&spans, &tally, Kind::Client, "http")
}

fn h2load_as_client(streams: usize, scene: &Scene) -> Result<()> {
    let (nginx, target) = nginx(scene)?;
    let how = Concurrency {
        connections: CONNECTIONS,
        streams,
    };
    let targets = load::targets(Routes::All, TARGETS);
    let command = load::h2load_command(scene, &target.base(), &targets, how)?;
    observed(scene, &nginx, target, &command, |log, _| {
        let tally = load::tally(&targets, CONNECTIONS);
        load::h2load_must_agree(log, &tally)?;
        Ok(tally)
    })
}

fn curl_as_client(scene: &Scene) -> Result<()> {
    let (nginx, target) = nginx(scene)?;
    let rounds = load::curl_rounds(&target, ROUNDS);
    let command = load::curl(scene, &target, &rounds, 1)?;
    observed(scene, &nginx, target, &command, |log, target| {
        Ok(load::curl_tally(log, target))
    })
}

/// One curl, one connection, as many streams at a time; it reads what to do once it is probed.
fn curl_over_tls(at_once: usize, scene: &Scene) -> Result<()> {
    let target = kind("nginx_tls")?.start(scene)?;
    let gate = Gate::new(scene, "gate")?;
    let command = load::curl_reading(gate.path(), at_once)?;
    let client = Process::start("curl", command, scene.folder())?;
    let agent = tls::watch(scene, &[client.pid()])?;
    wait_until_probed(&agent, &[client.pid()], "openssl")?;
    gate.open(&load::curl_rounds(&target, ROUNDS).join("next\n"))?;
    let tally = load::curl_tally(&client.succeed(load::LIMIT)?, &target);
    ensure!(
        tally.total() == 5 * ROUNDS as u64,
        "{} requests",
        tally.total()
    );
    let finished = agent.finish()?;
    must_be_all(&finished.spans, &tally, Kind::Client, "https")
        .with_context(|| finished.losses())?;
    must_be_lossless(&finished.metrics)
}

/// nghttp asks for everything at once; it has no tally but the list of its targets.
fn nghttp_as_client(scene: &Scene) -> Result<()> {
    let (nginx, target) = nginx(scene)?;
    let targets = load::targets(Routes::All, 90);
    let mut command = place::command("nghttp")?;
    command.args(["--null-out", "--no-dep"]);
    command.args(targets.iter().map(|path| target.base() + path));
    observed(scene, &nginx, target, &command, |_, _| {
        Ok(load::tally(&targets, 1))
    })
}

/// One of Node's connections: methods, statuses and bodies in turn.
fn plan(name: &str, count: usize) -> String {
    let of = |number: usize| match number % 4 {
        0 => format!("GET /items/{name}{number}\n"),
        1 => format!("GET /missing/{name}{number}\n"),
        2 => format!("HEAD /small?{name}{number}\n"),
        _ => format!("GET /missing/{name}/{number}\n"),
    };
    (0..count).map(of).collect()
}

fn node(scene: &Scene, target: &Target, plan: &str, at_once: usize) -> Result<Command> {
    let file = scene.folder().join("plan");
    fs::write(&file, plan)?;
    let mut command = place::command("node")?;
    command
        .arg(place::fixture("client_http2.js"))
        .arg(target.base())
        .arg(file)
        .arg(at_once.to_string());
    Ok(command)
}

fn node_as_client(scene: &Scene) -> Result<()> {
    let (nginx, target) = nginx(scene)?;
    let post = |number: usize| format!("POST /echo/{number} 1000\n");
    let posts: String = (0..20).map(post).collect();
    let command = node(scene, &target, &(plan("a", 200) + &posts), 100)?;
    observed(scene, &nginx, target, &command, |log, _| {
        Ok(Tally::of_lines(log))
    })
}

/// The agent is stopped while more is produced than the ring holds, several times over: spans are missing, none is wrong.
fn full_ring_buffer(name: &str, scene: &Scene) -> Result<()> {
    let kind = kind(name)?;
    let target = kind.start(scene)?;
    let pid = target.server.pid();
    let setup = Setup::watching(scene, &[pid])?.ring_bytes(SMALLEST_RING);
    let mut agent = setup.start()?;
    if let Some(library) = kind.library {
        wait_until_probed(&agent, &family(pid)?, library)?;
    }
    let how = Concurrency {
        connections: CONNECTIONS,
        streams: 100,
    };
    let targets = load::targets(kind.routes, TARGETS);
    let mut tally = Tally::default();
    for _ in 0..2 {
        agent.process().signal(Signal::SIGSTOP)?;
        tally.merge(load::h2load(scene, &target, &targets, how)?);
        agent.process().signal(Signal::SIGCONT)?;
        agent.settle()?;
    }
    // The agent keeps losing and catching up while connections go on.
    tally.merge(load::h2load(scene, &target, &targets, how)?);
    let finished = agent.finish()?;
    ensure!(finished.metrics.lost()? > 0, "no record was lost");
    let seen = Tally::of_spans(&finished.spans, Kind::Server)?;
    ensure!(seen.total() > 0, "nothing at all was seen");
    ensure!(seen.total() < tally.total(), "no span is missing");
    must_be_true(&finished.spans, &tally, Kind::Server).with_context(|| finished.losses())
}

/// An agent that comes later sees every exchange from then on. What refers to what was said before is not known and marked.
fn joined_in_the_middle(name: &str, scene: &Scene) -> Result<()> {
    let target = kind(name)?.start(scene)?;
    let gate = Gate::new(scene, "gate")?;
    let (before, after) = (plan("1", 40), plan("2", 100));
    let whole = format!("{before}wait {}\n{after}", gate.path().display());
    let command = node(scene, &target, &whole, 10)?;
    let client = Process::start("client", command, scene.folder())?;
    let mut open = gate.hold()?;
    let earlier = Tally::of_lines(&client.log());
    ensure!(earlier.total() == 40, "before the agent:\n{}", client.log());
    let agent = Agent::watch(scene, &[target.server.pid()])?;
    open.hand("go on")?;
    drop(open);
    let tally = Tally::of_lines(&client.succeed(load::LIMIT)?);
    let finished = agent.finish()?;
    let later = tally.without_path("/items/1").without_path("/missing/1");
    must_be_true(&finished.spans, &later, Kind::Server).with_context(|| finished.losses())?;
    ensure!(
        finished.spans.len() == 100,
        "{} spans of 100 exchanges; {}",
        finished.spans.len(),
        finished.losses()
    );
    let known = Tally::of_spans(&finished.spans, Kind::Server)?;
    let own_paths = later.total()
        - known
            .without_path("/items")
            .without_path("/missing")
            .total();
    ensure!(own_paths >= 75, "{own_paths} of 75 new paths were told");
    Ok(())
}
