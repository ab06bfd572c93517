//! TLS libraries that are called in unusual ways: what is seen is exact, and what cannot be is counted.

use anyhow::{Context, Result, ensure};
use integration::scene::free_port;
use integration::tls::client::Gate;
use integration::tls::coverage::{must_be_lossless, wait_until_probed};
use integration::tls::load::{Connection, Exchanges};
use integration::tls::server::{kind, scripted, start};
use integration::tls::{self, Certificate, load};
use integration::{Finished, Kind, Process, Scene, Tally, Trials, load as plain, place, program};
use std::fs;
use std::process::Command;
use std::time::Duration;

/// Bound for a client and for whatever follows its end.
const LIMIT: Duration = Duration::from_mins(1);

/// Bytes of each body of the non-blocking client.
const BODY: i64 = 5_000_000;

/// Bytes of each file that the client with `GnuTLS` sends.
const FILE: i64 = 100_000;

/// Connections of the OpenSSL client in the modes that make several.
const CONNECTIONS: u64 = 20;

/// Goroutines beyond those that the kernel side keeps calls of, each with a connection, of which it keeps them all.
const CROWD: u32 = pilotfish_abi::MAX_GOROUTINES + pilotfish_abi::MAX_GOROUTINES / 2;

/// Connections that wait while the crowd comes, besides the one that asks for it.
const WAITING: usize = 8;

pub(crate) fn register(trials: &mut Trials) {
    trials.subject("tls_calls");
    for mode in ["sizes", "rekey", "reuse"] {
        trials.add(mode, &["gcc", "python3"], move |scene| {
            lossless(&OPENSSL, mode, scene)
        });
    }
    trials.add("renegotiate", &["gcc", "openssl"], renegotiate);
    trials.add("nonblocking", &["gcc", "python3"], nonblocking);
    trials.add("jump_out_of_a_read", &["gcc", "python3"], jump);
    trials.add("past_the_probes", &["gcc", "python3"], filter);
    trials.add("without_data", &["gcc", "python3"], silent);
    for mode in ["cork", "sizes"] {
        trials.add(
            &format!("gnutls_{mode}"),
            &["gcc", "python3"],
            move |scene| lossless(&GNUTLS, mode, scene),
        );
    }
    trials.add("gnutls_file", &["gcc", "python3"], file);
    trials.add("gnutls_packet", &["gcc", "python3"], packet);
    trials.add("interleaved_on_a_thread", &["python3"], interleaved);
    trials.add("goroutine_that_only_closes", &["go", "python3"], closes);
    trials.add("more_goroutines_than_are_kept", &["go"], crowd);
}

/// A client written in C.
struct Library {
    source: &'static str,
    linked: &'static [&'static str],
    name: &'static str,
}

const OPENSSL: Library = Library {
    source: "client_openssl.c",
    linked: &["libssl.so.3", "libcrypto.so.3"],
    name: "openssl",
};

const GNUTLS: Library = Library {
    source: "client_gnutls.c",
    linked: &["libgnutls.so.30"],
    name: "gnutls",
};

/// Observes a client alone, in one of its modes, until its end; gives back what it printed.
fn observed(library: &Library, mode: &str, scene: &Scene, port: u16) -> Result<(Finished, Tally)> {
    let gate = Gate::new(scene, "gate")?;
    let mut command = Command::new(program::c_linked(library.source, library.linked)?);
    command.args([mode, &port.to_string()]).arg(gate.path());
    until_end(command, mode, library.name, scene, &gate)
}

/// Observes a client, which waits at a gate, until its end.
fn until_end(
    command: Command,
    name: &str,
    library: &str,
    scene: &Scene,
    gate: &Gate,
) -> Result<(Finished, Tally)> {
    let client = Process::start(name, command, scene.folder())?;
    let agent = tls::watch(scene, &[client.pid()])?;
    wait_until_probed(&agent, &[client.pid()], library)?;
    gate.open("")?;
    let printed = Tally::of_lines(&client.succeed(LIMIT)?);
    ensure!(printed.total() > 0, "the client asked for nothing");
    Ok((agent.finish()?, printed))
}

/// The same against the Python server.
fn served(library: &Library, mode: &str, scene: &Scene) -> Result<(Finished, Tally)> {
    let certificate = Certificate::new(scene)?;
    let server = kind("python_http_server")?.start(scene, &certificate)?;
    observed(library, mode, scene, server.port)
}

fn exact(finished: &Finished, printed: &Tally) -> Result<()> {
    finished.must_match(printed, Kind::Client)?;
    ensure!(
        finished.spans.len() as u64 == printed.total(),
        "spans beyond the client's tally"
    );
    Ok(())
}

fn lossless(library: &Library, mode: &str, scene: &Scene) -> Result<()> {
    let (finished, printed) = served(library, mode, scene)?;
    exact(&finished, &printed)?;
    must_be_lossless(&finished.metrics)
}

/// Every body has been counted whole, once.
fn bodies(finished: &Finished, expected: i64) -> Result<()> {
    for span in &finished.spans {
        let size = span.integer("http.request.body.size");
        ensure!(size == Some(expected), "size of an upload: {span:?}");
    }
    Ok(())
}

/// Bodies that do not fit into the socket's buffer: writes are partial, or have to be made again.
fn nonblocking(scene: &Scene) -> Result<()> {
    let (finished, printed) = served(&OPENSSL, "nonblocking", scene)?;
    exact(&finished, &printed)?;
    bodies(&finished, BODY)?;
    must_be_lossless(&finished.metrics)
}

/// Files that the library sends itself, each in several records: their bytes are a gap of known length.
fn file(scene: &Scene) -> Result<()> {
    let (finished, printed) = served(&GNUTLS, "file", scene)?;
    exact(&finished, &printed)?;
    bodies(&finished, FILE)?;
    let lost = finished.metrics.sum("pilotfish_holes_total")?;
    ensure!(lost == 0, "{lost} holes");
    Ok(())
}

/// Responses that the library hands over in memory of its own, where nobody looks: each is told to be missing.
fn packet(scene: &Scene) -> Result<()> {
    let (finished, printed) = served(&GNUTLS, "packet", scene)?;
    ensure!(finished.spans.is_empty(), "spans without a response");
    let told = finished
        .metrics
        .sum("pilotfish_exchanges_abandoned_total")?;
    ensure!(
        told == printed.total(),
        "{told} exchanges given up, {} made",
        printed.total()
    );
    Ok(())
}

/// A second handshake on each connection of TLS 1.2, before its request.
fn renegotiate(scene: &Scene) -> Result<()> {
    let certificate = Certificate::new(scene)?;
    let port = free_port()?;
    fs::write(scene.folder().join("small"), "item\n")?;
    let mut command = place::command("openssl")?;
    command
        .args([
            "s_server",
            "-quiet",
            "-WWW",
            "-client_renegotiation",
            "-tls1_2",
        ])
        .args(["-accept", &format!("127.0.0.1:{port}")])
        .arg("-cert")
        .arg(&certificate.chain)
        .arg("-key")
        .arg(&certificate.key)
        .current_dir(scene.folder());
    let _server = start("openssl", command, scene, port)?;
    let (finished, printed) = observed(&OPENSSL, "renegotiate", scene, port)?;
    exact(&finished, &printed)?;
    must_be_lossless(&finished.metrics)
}

/// One read never returns; every later call is seen, though all are made deeper in the stack.
fn jump(scene: &Scene) -> Result<()> {
    let (finished, printed) = served(&OPENSSL, "jump", scene)?;
    exact(&finished, &printed)?;
    let unended = finished
        .metrics
        .sum("pilotfish_kernel_tls_operations_unended_total")?;
    ensure!(unended == 1, "{unended} calls without a return, not 1");
    Ok(())
}

/// The handshake is seen, the data are not: nothing is made up, and every connection is told.
fn filter(scene: &Scene) -> Result<()> {
    let (finished, printed) = served(&OPENSSL, "filter", scene)?;
    ensure!(finished.spans.is_empty(), "spans of what is not seen");
    let told = finished.metrics.sum("pilotfish_flows_encrypted_total")?;
    ensure!(
        (told, printed.total()) == (CONNECTIONS, CONNECTIONS),
        "{told} connections told, {} made",
        printed.total()
    );
    Ok(())
}

/// Connections on which nothing is asked have nothing that could be lost.
fn silent(scene: &Scene) -> Result<()> {
    lossless(&OPENSSL, "silent", scene)
}

/// An event loop that sends what two connections left in memory after it has dealt with both: each exchange is seen, and has
/// its own connection's address or none. One that is alone has its own.
fn interleaved(scene: &Scene) -> Result<()> {
    let certificate = Certificate::new(scene)?;
    let port = free_port()?;
    let command = scripted("python3", "server_turns.py", port, &certificate)?;
    let server = start("server", command, scene, port)?;
    let agent = tls::watch(scene, &[server.pid()])?;
    wait_until_probed(&agent, &[server.pid()], "openssl")?;
    let mut exchanges = Exchanges::default();
    for _ in 0..10 {
        exchanges.merge(load::run(port, &plain::numbered(2, 10))?);
    }
    let together = exchanges.total();
    // The second of a pair that asks on when the first is gone.
    let mut plan = plain::numbered(2, 20);
    plan[0].truncate(1);
    exchanges.merge(load::run(port, &plan)?);
    let finished = agent.finish()?;
    let known = exchanges.must_be_all_if_told(&finished)?;
    println!(
        "of {} exchanges {known} have an address, {together} of them were interleaved",
        exchanges.total()
    );
    ensure!(known > 0, "no exchange has an address");
    let wrong = finished
        .metrics
        .sum("pilotfish_kernel_tls_operations_unended_total")?;
    ensure!(wrong == 0, "{wrong} calls without a return");
    Ok(())
}

/// A goroutine that never called TLS before ends a connection: what that sends is no traffic of its own.
fn closes(scene: &Scene) -> Result<()> {
    let certificate = Certificate::new(scene)?;
    let server = kind("python_http_server")?.start(scene, &certificate)?;
    let gate = Gate::new(scene, "gate")?;
    let mut command = Command::new(program::go("client_closes.go")?);
    command
        .arg(format!("https://127.0.0.1:{}", server.port))
        .arg(gate.path())
        .env("SSL_CERT_FILE", &certificate.chain);
    let (finished, printed) = until_end(command, "closes", "go", scene, &gate)?;
    exact(&finished, &printed)?;
    must_be_lossless(&finished.metrics)
}

/// Goroutines that wait inside a read make room for others: what they then read is not seen, which is counted, and their
/// connections are seen again from their next read on.
fn crowd(scene: &Scene) -> Result<()> {
    let certificate = Certificate::new(scene)?;
    let port = free_port()?;
    let mut command = Command::new(program::go("server_crowd.go")?);
    command
        .arg(port.to_string())
        .arg(&certificate.chain)
        .arg(&certificate.key)
        .arg(CROWD.to_string());
    let server = start("server", command, scene, port)?;
    let agent = tls::watch(scene, &[server.pid()])?;
    wait_until_probed(&agent, &[server.pid()], "go")?;
    let mut exchanges = Exchanges::default();
    let mut waiting = Vec::new();
    for number in 0..WAITING {
        let mut connection = Connection::open(port)?;
        exchanges.add(
            connection.port,
            connection.get(&format!("/items/{number}"))?,
        );
        waiting.push(connection);
    }
    Connection::open(port)?.get("/crowd").context("the crowd")?;
    let mut after = Tally::default();
    for round in 0..5 {
        for (number, connection) in waiting.iter_mut().enumerate() {
            let outcome = connection.get(&format!("/items/{round}-{number}"))?;
            after.add(outcome);
        }
    }
    let finished = agent.finish()?;
    let unended = finished
        .metrics
        .sum("pilotfish_kernel_tls_operations_unended_total")?;
    let seen = Tally::of_spans(&finished.spans, Kind::Server)?.without_path("/crowd");
    let missed = exchanges.total() + after.total() - seen.total();
    println!(
        "of {} exchanges {missed} are missed, {unended} reads are told",
        after.total()
    );
    ensure!(unended > 0, "no goroutine had to make room");
    ensure!(
        missed <= unended,
        "{missed} exchanges missed, {unended} told"
    );
    ensure!(
        unended <= WAITING as u64 + 1,
        "{unended} reads told, {WAITING} and one connections waited"
    );
    Ok(())
}
