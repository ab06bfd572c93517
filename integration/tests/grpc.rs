//! gRPC with real servers and clients: every call is a span of each side, with its own method and status.

use anyhow::{Context, Result, ensure};
use integration::agent::Setup;
use integration::grpc::{self, CLIENTS, Plan, Program, SERVERS, must_be_all, must_be_true, named};
use integration::http2::must_be_seen_whole;
use integration::server::Server;
use integration::tls::client::Gate;
use integration::{Agent, Finished, Kind, Process, Scene, Span, Tally, Trials};
use nix::sys::signal::Signal;
use std::collections::BTreeMap;

/// Shapes of calls: unary, and streams of the server, the client and both.
const SHAPES: [&str; 4] = ["Unary", "Server", "Client", "Both"];
/// `OK`, `NOT_FOUND` and `INTERNAL`.
const CODES: [u16; 3] = [0, 5, 13];
/// The smallest ring buffer that the agent accepts.
const SMALLEST_RING: u32 = 64 << 10;

pub(crate) fn register(trials: &mut Trials) {
    trials.subject("grpc");
    for server in SERVERS {
        for client in CLIENTS {
            let tools = [server.tools, client.tools].concat();
            let pair = format!("{}_client_{}_server", client.name, server.name);
            trials.add(&pair, &tools, |scene| every_shape(client, server, scene));
            trials.add(&format!("{pair}_hundred_at_once"), &tools, |scene| {
                hundred_at_once(client, server, scene)
            });
            trials.add(&format!("{pair}_deadlines"), &tools, |scene| {
                deadlines(client, server, scene)
            });
            trials.add(&format!("{pair}_contexts"), &tools, |scene| {
                contexts(client, server, scene)
            });
            trials.add(&format!("{pair}_joined_in_the_middle"), &tools, |scene| {
                joined_in_the_middle(client, server, scene)
            });
        }
        let tools = [server.tools, &["go"]].concat();
        trials.add(
            &format!("full_ring_buffer_{}", server.name),
            &tools,
            |scene| full_ring_buffer(server, scene),
        );
    }
    trials.add("calls_in_the_course_of_calls", &["python3"], through);
}

/// A client that waits at a gate before its first call.
struct Pair {
    server: Server,
    client: Process,
    gate: Gate,
    plan: Plan,
}

impl Pair {
    /// Starts both; the client then makes the calls that `add` puts into its plan.
    fn start(
        client: &Program,
        server: &Program,
        scene: &Scene,
        at_once: usize,
        add: impl FnOnce(&mut Plan),
    ) -> Result<Self> {
        let server = server.serve(scene)?;
        let gate = Gate::new(scene, "gate")?;
        let mut plan = Plan::default();
        plan.wait(&gate);
        add(&mut plan);
        let command = client.client(scene, server.port, &plan, at_once)?;
        let client = Process::start("client", command, scene.folder())?;
        Ok(Self {
            server,
            client,
            gate,
            plan,
        })
    }

    fn pids(&self) -> [u32; 2] {
        [self.server.pid(), self.client.pid()]
    }

    /// Opens the gate, and waits for the client's end and the agent's. Fails unless the calls came to what was planned.
    fn finish(self, agent: Agent) -> Result<(Finished, Tally)> {
        let plan = self.plan.clone();
        let (finished, log) = self.ended(agent)?;
        Ok((finished, plan.agreed(&log)?))
    }

    /// The same, whatever the calls came to, with the client's log.
    fn ended(self, agent: Agent) -> Result<(Finished, String)> {
        self.gate.open("go on")?;
        let log = self.client.succeed(grpc::LIMIT)?;
        Ok((agent.finish()?, log))
    }
}

fn every_shape(client: &Program, server: &Program, scene: &Scene) -> Result<()> {
    let pair = Pair::start(client, server, scene, 8, |plan| {
        for number in 0..5 {
            for shape in SHAPES {
                for code in CODES {
                    plan.call(shape, code, number, 100 + 150 * number);
                }
            }
            plan.unknown(number);
        }
    })?;
    let agent = Agent::watch(scene, &pair.pids())?;
    let port = pair.server.port;
    let (finished, tally) = pair.finish(agent)?;
    both_sides_must_be_all(&finished, &tally, port)
}

fn both_sides_must_be_all(finished: &Finished, tally: &Tally, port: u16) -> Result<()> {
    for kind in [Kind::Server, Kind::Client] {
        must_be_all(&finished.spans, tally, kind, port)
            .with_context(|| format!("{kind:?} spans; {}", finished.losses()))?;
    }
    must_be_seen_whole(finished)
}

/// One connection, messages of 1 to 4 KB, several frames in one write.
fn hundred_at_once(client: &Program, server: &Program, scene: &Scene) -> Result<()> {
    let pair = Pair::start(client, server, scene, 100, |plan| {
        for number in 0..600 {
            plan.call("Unary", CODES[number % 3], number, 1000 + number * 5);
        }
    })?;
    let agent = Agent::watch(scene, &pair.pids())?;
    let port = pair.server.port;
    let (finished, tally) = pair.finish(agent)?;
    both_sides_must_be_all(&finished, &tally, port)?;
    let beyond = finished
        .metrics
        .sum("pilotfish_kernel_bytes_beyond_capture_total")?;
    ensure!(beyond == 0, "{beyond} bytes were not captured");
    Ok(())
}

/// Who ends a call whose deadline has passed is a race of the two sides: by a status, which is `CANCELLED` of some servers,
/// or by a reset of its stream. In neither case does it look as if it had succeeded.
fn deadlines(client: &Program, server: &Program, scene: &Scene) -> Result<()> {
    let pair = Pair::start(client, server, scene, 4, |plan| {
        (0..8).for_each(|number| plan.call("Late", 4, number, 100));
        // The connection lives on, so that the end of every call before is on the wire.
        plan.pause();
        (0..8).for_each(|number| plan.call("Unary", 0, number, 100));
    })?;
    let agent = Agent::watch(scene, &pair.pids())?;
    let finished = pair.ended(agent)?.0;
    for kind in [Kind::Server, Kind::Client] {
        let of = |prefix: &str| -> Vec<&Span> {
            let own = finished.spans.iter().filter(|span| span.kind == kind);
            own.filter(|span| {
                span.rpc_method()
                    .is_some_and(|name| name.starts_with(prefix))
            })
            .collect()
        };
        let (late, unary) = (of("trial.Calls/Late"), of("trial.Calls/Unary"));
        ensure!(
            (late.len(), unary.len()) == (8, 8),
            "{kind:?}: {} late, {} others; {}",
            late.len(),
            unary.len(),
            finished.losses()
        );
        for span in late {
            let error = span.text("error.type").unwrap_or("nothing");
            let code = grpc::code_of(span)?;
            let is_told = match code {
                Some(code) => matches!(code, 1 | 4),
                None => error == "CANCEL",
            };
            ensure!(is_told, "{code:?}, {error}: {span:?}");
            let lasted = span.end_time_unix_nano - span.start_time_unix_nano;
            ensure!(lasted > 0, "it took no time: {span:?}");
        }
    }
    Ok(())
}

/// Every call after the agent's start is a span of each side. A method that was named before is not known where the table
/// that has it was not seen, and is marked; what is named anew is right.
fn joined_in_the_middle(client: &Program, server: &Program, scene: &Scene) -> Result<()> {
    let server = server.serve(scene)?;
    let gate = Gate::new(scene, "gate")?;
    let mut plan = Plan::default();
    let familiar = |plan: &mut Plan| plan.call("Unary", 0, 0, 100);
    (0..10).for_each(|_| familiar(&mut plan));
    plan.wait(&gate);
    for number in 1..=30 {
        familiar(&mut plan);
        plan.call("Unary", CODES[number % 3], number, 100);
    }
    let command = client.client(scene, server.port, &plan, 4)?;
    let client = Process::start("client", command, scene.folder())?;
    let open = gate.hold()?;
    let agent = Agent::watch(scene, &[server.pid(), client.pid()])?;
    drop(open);
    let tally = plan.agreed(&client.succeed(grpc::LIMIT)?)?;
    let finished = agent.finish()?;
    for kind in [Kind::Server, Kind::Client] {
        let own: Vec<Span> = finished
            .spans
            .iter()
            .filter(|span| span.kind == kind)
            .cloned()
            .collect();
        let context = || format!("{kind:?}; {}", finished.losses());
        must_be_true(&own, &tally, kind).with_context(context)?;
        ensure!(
            own.len() == 60,
            "{} spans of 60 calls; {}",
            own.len(),
            context()
        );
        if kind == Kind::Client {
            continue;
        }
        // A call whose content type is not known is a POST to the path of its method.
        let new = own.iter().filter(|span| {
            let path = span.path().strip_prefix('/');
            let method = span.rpc_method().or(path).unwrap_or_default();
            method.starts_with("trial.Calls/") && !method.ends_with("_0_0")
        });
        let told = new.count();
        ensure!(
            told == 30,
            "{told} of 30 new methods are named; {}",
            context()
        );
    }
    Ok(())
}

/// The agent is stopped while more is produced than the ring holds: spans are missing, none is wrong.
fn full_ring_buffer(server: &Program, scene: &Scene) -> Result<()> {
    let server = server.serve(scene)?;
    let mut agent = Setup::watching(scene, &[server.pid()])?
        .ring_bytes(SMALLEST_RING)
        .start()?;
    let client = named(CLIENTS, "go")?;
    let mut tally = Tally::default();
    for (round, (count, at_once)) in [(400, 50), (400, 50), (400, 50), (20, 1)]
        .into_iter()
        .enumerate()
    {
        let mut plan = Plan::default();
        for number in 0..count {
            let shape = SHAPES[number % SHAPES.len()];
            plan.call(shape, CODES[number % 3], round * 1000 + number, 1000);
        }
        // In the third round the agent keeps losing and catching up; with the last it can keep pace.
        if round < 2 {
            agent.process().signal(Signal::SIGSTOP)?;
        }
        let command = client.client(scene, server.port, &plan, at_once)?;
        let log = Process::start("client", command, scene.folder())?.succeed(grpc::LIMIT)?;
        agent.process().signal(Signal::SIGCONT)?;
        tally.merge(plan.agreed(&log)?);
        agent.settle()?;
    }
    let finished = agent.finish()?;
    ensure!(finished.metrics.lost()? > 0, "no record was lost");
    let seen = grpc::tally_of(&finished.spans, Kind::Server)?;
    ensure!(seen.total() > 0, "nothing at all was seen");
    ensure!(seen.total() < tally.total(), "no span is missing");
    must_be_true(&finished.spans, &tally, Kind::Server).with_context(|| finished.losses())
}

/// A context in the metadata is the parent on both sides, whatever else is under way on the connection.
fn contexts(client: &Program, server: &Program, scene: &Scene) -> Result<()> {
    let own = |number: usize| {
        let (trace, span) = (0xabc0 + number, 0xdef0 + number);
        (format!("{trace:032x}"), format!("{span:016x}"))
    };
    let pair = Pair::start(client, server, scene, 20, |plan| {
        for number in 0..100 {
            let (trace, span) = own(number);
            let shape = SHAPES[number % SHAPES.len()];
            plan.traced(shape, number, &format!("00-{trace}-{span}-01"));
        }
    })?;
    let agent = Agent::watch(scene, &pair.pids())?;
    let port = pair.server.port;
    let (finished, tally) = pair.finish(agent)?;
    both_sides_must_be_all(&finished, &tally, port)?;
    let calls = by_number(&finished, Kind::Client)?;
    for (number, span) in &calls {
        let (trace, parent) = own(number.parse()?);
        ensure!(
            span.trace_id == trace && span.parent_span_id.as_deref() == Some(&parent),
            "another context than its own, {trace} {parent}: {span:?}"
        );
    }
    // The agent sees both ends of the connection, so that the client's span is between the context and the server's.
    for (number, span) in by_number(&finished, Kind::Server)? {
        let parent = calls.get(&number).context("the client's span")?;
        ensure!(span.is_child_of(parent), "not of {parent:?}: {span:?}");
    }
    Ok(())
}

/// The spans of one role by the number of their call.
fn by_number(finished: &Finished, kind: Kind) -> Result<BTreeMap<String, &Span>> {
    let own = finished.spans.iter().filter(|span| span.kind == kind);
    own.map(|span| {
        let name = span.rpc_method().context("a method")?;
        let number = name.rsplit('_').next().context("a number")?;
        Ok((number.to_owned(), span))
    })
    .collect()
}

/// A server that calls another one in the course of a call. Its threads do not tell which call belongs to which: gRPC's
/// core reads and writes on threads of its own. A parent that is told is the right one.
fn through(scene: &Scene) -> Result<()> {
    let python = named(SERVERS, "python")?;
    let behind = python.serve(scene)?;
    let shape = format!("Through-{}", behind.port);
    let pair = Pair::start(named(CLIENTS, "python")?, python, scene, 8, |plan| {
        (0..80).for_each(|number| plan.call(&shape, CODES[number % 3], number, 100));
    })?;
    let agent = Agent::watch(scene, &[pair.server.pid()])?;
    let (finished, tally) = pair.finish(agent)?;
    let (outer, inner) = (
        by_number(&finished, Kind::Server)?,
        by_number(&finished, Kind::Client)?,
    );
    ensure!(
        outer.len() == 80
            && inner.len() == 80
            && finished.spans.len() == 160
            && tally.total() == 80,
        "{} calls in the course of {}; {}",
        inner.len(),
        outer.len(),
        finished.losses()
    );
    for (number, span) in inner {
        let own = outer.get(&number).context("its own call")?;
        ensure!(
            span.parent_span_id.is_none() || span.is_child_of(own),
            "another parent than {own:?}: {span:?}"
        );
    }
    Ok(())
}
