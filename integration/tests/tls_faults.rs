//! TLS under bad input and bad luck: hostile files, replaced libraries, many idle connections.

use anyhow::{Context, Result, ensure};
use integration::holdings::Holdings;
use integration::nginx::Nginx;
use integration::process::wait_for;
use integration::scene::free_port;
use integration::server::Server;
use integration::tls::client::Gate;
use integration::tls::coverage::{
    family, must_be_lossless, of_process, wait_for_reason, wait_until_probed,
};
use integration::tls::load::{Connection, Exchanges};
use integration::tls::server::{kind, rustls_in, scripted, start};
use integration::tls::{self, Certificate, load};
use integration::{Process, Scene, Trials, load as plain, place, program};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Bound for a client and for whatever follows its end.
const LIMIT: Duration = Duration::from_mins(1);

/// Processes that end at once.
const SHORT: u32 = 200;

/// Connections on which nothing happens, and those that become active among them.
const IDLE: usize = 10_000;
const ACTIVE: usize = 100;

pub(crate) fn register(trials: &mut Trials) {
    trials.subject("tls_faults");
    trials.add(
        "hostile_files",
        &["python3", "gcc", "unshare"],
        hostile_files,
    );
    trials.add("names_that_are_no_text", &["python3", "gcc"], odd_names);
    trials.add("libraries_without_end", &["python3", "gcc"], many_libraries);
    trials.add("stripped_copy", &["gcc", "nginx"], stripped_copy);
    trials.add(
        "library_replaced_while_probed",
        &["python3", "gcc"],
        library_replaced,
    );
    trials.add("processes_that_end_at_once", &["python3", "curl"], short);
    trials.add("idle_connections", &["node"], idle_connections);
    trials.add(
        "rustls_stripped_is_not_covered",
        &["strip"],
        rustls_stripped,
    );
    trials.add("java_is_not_covered", &["java", "javac", "nginx"], java);
}

/// Without symbols nothing tells where the functions are: no span, and the reason.
fn rustls_stripped(scene: &Scene) -> Result<()> {
    let certificate = Certificate::new(scene)?;
    let program = program::rust_stripped("rustls_server", scene)?;
    let port = free_port()?;
    let command = rustls_in(&program, ["THREADS", "1.3", "2"], port, &certificate);
    let server = start("rustls_stripped", command, scene, port)?;
    let agent = tls::watch(scene, &[server.pid()])?;
    let reason = wait_for_reason(&agent, server.pid(), "rustls_server.stripped")?;
    ensure!(
        reason.contains("rustls") && reason.contains("stripped"),
        "the reason is {reason:?}"
    );
    load::run(port, &plain::mix(1, 2))?;
    let finished = agent.finish()?;
    ensure!(finished.spans.is_empty(), "spans out of ciphertext");
    let encrypted = finished.metrics.sum("pilotfish_flows_encrypted_total")?;
    ensure!(encrypted == 1, "{encrypted} encrypted flows, not 1");
    Ok(())
}

/// The installed OpenSSL library.
fn installed_library() -> Result<PathBuf> {
    let output = place::command("gcc")?
        .arg("-print-file-name=libssl.so.3")
        .output()?;
    let path = PathBuf::from(String::from_utf8(output.stdout)?.trim());
    path.canonicalize()
        .with_context(|| format!("no library at {}", path.display()))
}

/// A process that maps a file called `libssl.so.3`, in whose place there is something else afterwards.
fn mapping(scene: &Scene, name: &str, content: &[u8], then: &str) -> Result<Process> {
    let folder = scene.folder().join(name);
    fs::create_dir(&folder)?;
    let file = folder.join("libssl.so.3");
    fs::write(&file, content)?;
    let mut command = place::command("unshare")?;
    command
        .arg("--mount")
        .arg(place::tool("python3").context("python3")?)
        .arg(place::fixture("hostile_maps.py"))
        .arg(&file)
        .arg(then);
    let mut process = Process::start(name, command, scene.folder())?;
    wait_for("that the file is mapped", LIMIT, || {
        ensure!(process.is_running(), "{}", process.log_tail());
        Ok(process.log().contains("ready").then_some(()))
    })?;
    Ok(process)
}

/// Files that are no libraries, or have become something else: each is told with its reason, none harms the rest.
fn hostile_files(scene: &Scene) -> Result<()> {
    let whole = fs::read(installed_library()?)?;
    let empty = fs::read(program::c_library("no_functions.c")?)?;
    let cases: [(&str, &[u8], &str, &str); 6] = [
        ("without", &empty, "nothing", "does not export"),
        ("truncated", &whole[..3000], "nothing", "cannot be read"),
        ("garbage", &[0x7f; 5000], "nothing", "cannot be read"),
        ("fifo", &whole, "fifo", "not a regular file"),
        ("device", &whole, "device", "not a regular file"),
        ("link", &whole, "link", "cannot be opened"),
    ];
    let mut processes = Vec::new();
    for (name, content, then, _) in cases {
        processes.push(mapping(scene, name, content, then)?);
    }
    let certificate = Certificate::new(scene)?;
    let kind = kind("python_http_server")?;
    let server = kind.start(scene, &certificate)?;
    let mut pids: Vec<u32> = processes.iter().map(Process::pid).collect();
    pids.push(server.pid());
    let agent = tls::watch(scene, &pids)?;
    wait_until_probed(&agent, &[server.pid()], kind.library)?;
    for ((name, _, _, expected), process) in cases.iter().zip(&processes) {
        let reason = wait_for_reason(&agent, process.pid(), "libssl.so.3")?;
        ensure!(
            reason.contains(expected),
            "of the case {name} the reason is {reason:?}"
        );
    }
    let exchanges = load::run(server.port, &plain::numbered(4, 20))?;
    let finished = agent.finish()?;
    exchanges.must_be_all(&finished, server.port)?;
    let told = finished.metrics.sum("pilotfish_tls_not_covered_total")?;
    ensure!(told == cases.len() as u64, "{told} files not covered");
    must_be_lossless(&finished.metrics)
}

/// A server that has mapped copies of an empty library, under these names.
fn mapping_server(
    scene: &Scene,
    certificate: &Certificate,
    folder: &[u8],
    count: usize,
) -> Result<Server> {
    let empty = program::c_library("no_functions.c")?;
    let folder = scene.folder().join(OsStr::from_bytes(folder));
    fs::create_dir(&folder)?;
    for number in 0..count {
        fs::copy(&empty, folder.join(format!("libssl-{number}.so.3")))?;
    }
    let port = free_port()?;
    let mut command = scripted("python3", "many_maps.py", port, certificate)?;
    command.arg(&folder);
    start("server", command, scene, port)
}

/// Names are bytes: one that is no UTF-8 is told, and hides nothing else.
fn odd_names(scene: &Scene) -> Result<()> {
    let certificate = Certificate::new(scene)?;
    let server = mapping_server(scene, &certificate, b"\xff\xfe", 1)?;
    let agent = tls::watch(scene, &[server.pid()])?;
    wait_until_probed(&agent, &[server.pid()], "openssl")?;
    let reason = wait_for_reason(&agent, server.pid(), "\u{fffd}\u{fffd}/libssl-0.so.3")?;
    ensure!(reason.contains("cannot be opened"), "{reason:?}");
    let exchanges = load::run(server.port, &plain::numbered(4, 20))?;
    let finished = agent.finish()?;
    exchanges.must_be_all(&finished, server.port)?;
    must_be_lossless(&finished.metrics)
}

/// Libraries beyond the bound are counted, once each, and nothing more is kept of them.
fn many_libraries(scene: &Scene) -> Result<()> {
    const MANY: u64 = 150;
    // The 64th is the executable, which has no TLS.
    const KEPT: u64 = 63;
    let certificate = Certificate::new(scene)?;
    let server = mapping_server(scene, &certificate, b"libraries", MANY as usize)?;
    let agent = tls::watch(scene, &[server.pid()])?;
    let mut last = None;
    let mut looks = 0;
    // Looks that find nothing new change nothing.
    wait_for("several looks", LIMIT, || {
        last = of_process(&agent, server.pid())?;
        looks = agent.metrics()?.sum("pilotfish_tls_looks_total")?;
        Ok((looks >= 6).then_some(()))
    })?;
    let status = last.context("the process is not in /status")?;
    let told = status["not_covered"].as_array().map_or(0, Vec::len) as u64;
    ensure!(told == KEPT, "{told} libraries told: {status:#}");
    // The server's own library is behind the others, by its path.
    let others = status["others"].as_u64();
    ensure!(
        others == Some(MANY + 1 - KEPT),
        "{others:?} others of {MANY}"
    );
    let finished = agent.finish()?;
    let counted = finished
        .metrics
        .sum("pilotfish_tls_files_beyond_bound_total")?;
    ensure!(
        Some(counted) == others,
        "{counted} counted after {looks} looks"
    );
    let counted = finished.metrics.sum("pilotfish_tls_not_covered_total")?;
    ensure!(counted == KEPT, "{counted} counted after {looks} looks");
    Ok(())
}

/// OpenSSL in the executable without its symbols is told; a server that only names its version is not taken for that.
fn stripped_copy(scene: &Scene) -> Result<()> {
    let certificate = Certificate::new(scene)?;
    let port = free_port()?;
    let program = program::c_with_copies("server_openssl.c", &["libssl.a", "libcrypto.a"])?;
    let mut command = Command::new(program);
    command
        .arg(port.to_string())
        .arg(&certificate.chain)
        .arg(&certificate.key);
    let copy = start("server_openssl", command, scene, port)?;
    let kind = kind("nginx")?;
    let nginx = kind.start(scene, &certificate)?;
    let agent = tls::watch(scene, &[copy.pid(), nginx.pid()])?;
    let reason = wait_for_reason(&agent, copy.pid(), "server_openssl")?;
    ensure!(
        reason.contains("OpenSSL is linked into the executable"),
        "the reason is {reason:?}"
    );
    let family = family(nginx.pid())?;
    wait_until_probed(&agent, &family, kind.library)?;
    for pid in family {
        let status = of_process(&agent, pid)?.context("a process of nginx")?;
        let others = status["not_covered"].as_array().context("a list")?;
        ensure!(others.is_empty(), "nginx is taken for a copy: {status:#}");
    }
    let exchanges = load::run(nginx.port, &plain::numbered(2, 20))?;
    let mut unseen = Connection::open(copy.port)?;
    for number in 0..5 {
        unseen.get(&format!("/items/{number}"))?;
    }
    drop(unseen);
    let finished = agent.finish()?;
    exchanges.must_be_all(&finished, nginx.port)?;
    ensure!(
        finished.spans.len() as u64 == exchanges.total(),
        "spans of what is not covered"
    );
    let told = finished.metrics.sum("pilotfish_tls_not_covered_total")?;
    ensure!(told == 1, "{told} files not covered");
    let encrypted = finished.metrics.sum("pilotfish_flows_encrypted_total")?;
    ensure!(encrypted == 1, "{encrypted} of 1 flow told as encrypted");
    Ok(())
}

/// A package update: the process that has the former library is seen on if it was before; an agent that comes afterwards
/// says why it sees nothing.
fn library_replaced(scene: &Scene) -> Result<()> {
    let folder = scene.folder().join("libraries");
    fs::create_dir(&folder)?;
    let installed = installed_library()?;
    fs::copy(&installed, folder.join("libssl.so.3"))?;
    let certificate = Certificate::new(scene)?;
    let server = with_libraries(scene, &certificate, &folder)?;
    let agent = tls::watch(scene, &[server.pid()])?;
    wait_until_probed(&agent, &[server.pid()], "openssl")?;
    let status = of_process(&agent, server.pid())?.context("the process")?;
    let path = status["probed"][0]["path"].as_str().unwrap_or_default();
    ensure!(
        Path::new(path).starts_with(&folder),
        "the library is not the copy: {status}"
    );
    let mut exchanges = load::run(server.port, &plain::numbered(2, 20))?;
    fs::copy(&installed, folder.join("new"))?;
    fs::rename(folder.join("new"), folder.join("libssl.so.3"))?;
    exchanges.merge(load::run(server.port, &plain::numbered(2, 20))?);
    let finished = agent.finish()?;
    exchanges.must_be_all(&finished, server.port)?;
    must_be_lossless(&finished.metrics)?;

    let agent = tls::watch(scene, &[server.pid()])?;
    let reason = wait_for_reason(&agent, server.pid(), "libssl.so.3")?;
    ensure!(reason.contains("replaced"), "the reason is {reason:?}");
    load::run(server.port, &plain::numbered(2, 5))?;
    let finished = agent.finish()?;
    ensure!(finished.spans.is_empty(), "spans of what is not covered");
    let encrypted = finished.metrics.sum("pilotfish_flows_encrypted_total")?;
    ensure!(encrypted == 2, "{encrypted} of 2 flows told as encrypted");
    Ok(())
}

/// The Python server with libraries of its own.
fn with_libraries(scene: &Scene, certificate: &Certificate, folder: &Path) -> Result<Server> {
    let port = free_port()?;
    let mut command = scripted("python3", "server.py", port, certificate)?;
    command.env("LD_LIBRARY_PATH", folder);
    start("server", command, scene, port)
}

/// Processes that map TLS libraries and are gone at once: nothing fails, nothing stays.
fn short(scene: &Scene) -> Result<()> {
    let certificate = Certificate::new(scene)?;
    let kind = kind("python_http_server")?;
    let server = kind.start(scene, &certificate)?;
    let gate = Gate::new(scene, "gate")?;
    let mut command = place::command("busybox")?;
    let script = format!(
        r#"busybox cat "$0"; i=0; while [ $i -lt {SHORT} ]; do "$1" --version > /dev/null; i=$((i+1)); done; echo done; busybox sleep 600"#
    );
    command
        .args(["sh", "-c", &script])
        .arg(gate.path())
        .arg(place::tool("curl").context("curl")?);
    let shell = Process::start("shell", command, scene.folder())?;
    let agent = tls::setup(scene, &[server.pid(), shell.pid()])?
        .env("PILOTFISH_LOG", "debug")
        .start()?;
    wait_until_probed(&agent, &[server.pid()], kind.library)?;
    let before = Holdings::of(agent.pid())?;
    gate.open("")?;
    let mut exchanges = Exchanges::default();
    wait_for("the end of short processes", LIMIT, || {
        exchanges.merge(load::run(server.port, &plain::numbered(2, 10))?);
        Ok(shell.log().contains("done").then_some(()))
    })?;
    wait_for("that only the server has TLS", LIMIT, || {
        let status = agent.status()?;
        let processes = status["tls"]["processes"].as_array();
        Ok(processes.is_some_and(|all| all.len() == 1).then_some(()))
    })?;
    before.await_no_more_descriptors(agent.pid())?;
    let finished = agent.finish()?;
    exchanges.must_be_all(&finished, server.port)?;
    let told = finished.log.lines();
    let told: Vec<&str> = told.filter(|line| line.contains("not seen")).collect();
    ensure!(told.is_empty(), "processes that are gone: {told:#?}");
    must_be_lossless(&finished.metrics)
}

/// Connections that did their handshake and one exchange and are kept: they cost nothing, and those that become active are
/// seen as any other.
fn idle_connections(scene: &Scene) -> Result<()> {
    allow_descriptors()?;
    let certificate = Certificate::new(scene)?;
    let kind = kind("node")?;
    let server = kind.start(scene, &certificate)?;
    let agent = tls::watch(scene, &[server.pid()])?;
    wait_until_probed(&agent, &[server.pid()], kind.library)?;
    let mut exchanges = Exchanges::default();
    let mut connections = Vec::new();
    for number in 0..IDLE {
        let mut connection = Connection::open(server.port)?;
        exchanges.add(
            connection.port,
            connection.get(&format!("/items/opening-{number}"))?,
        );
        connections.push(connection);
    }
    for number in 0..ACTIVE {
        // Spread over all of them.
        let connection = &mut connections[number * IDLE / ACTIVE];
        exchanges.add(
            connection.port,
            connection.get(&format!("/items/active-{number}"))?,
        );
    }
    let open = agent.settle()?.sum("pilotfish_flows_open")?;
    ensure!(
        (IDLE as u64..=2 * IDLE as u64).contains(&open),
        "{open} flows of {IDLE} connections"
    );
    let finished = agent.finish()?;
    drop(connections);
    exchanges.must_be_all(&finished, server.port)?;
    must_be_lossless(&finished.metrics)
}

/// This process and what it starts from now on may have as many descriptors as the connections need.
fn allow_descriptors() -> Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let wanted = (2 * IDLE as u64 + 1000).min(hard);
    setrlimit(Resource::RLIMIT_NOFILE, wanted, hard)?;
    Ok(())
}

/// The JDK has TLS of its own: `/status` says so, its flows are counted, and nothing is made up.
fn java(scene: &Scene) -> Result<()> {
    let certificate = Certificate::new(scene)?;
    let nginx = Nginx::new(free_port()?).tls(&certificate);
    let server = start("nginx", nginx.command(scene)?, scene, nginx.port())?;
    let gate = Gate::new(scene, "gate")?;
    let mut command = place::command("java")?;
    command
        .arg("-cp")
        .arg(program::java("HttpsClient.java")?)
        .arg("HttpsClient")
        .arg(format!("https://localhost:{}", nginx.port()))
        .arg(&certificate.chain)
        .arg(gate.path());
    let mut client = Process::start("java", command, scene.folder())?;
    let agent = tls::watch(scene, &[client.pid()])?;
    gate.open("")?;
    wait_for("the client's requests", LIMIT, || {
        ensure!(client.is_running(), "it ended:\n{}", client.log_tail());
        Ok(client.log().contains("done").then_some(()))
    })?;
    let reason = wait_for_reason(&agent, client.pid(), "libjvm.so")?;
    ensure!(reason.contains("Java"), "the reason is {reason:?}");
    let finished = agent.finish()?;
    drop(client);
    server.finish()?;
    let logged = nginx.access_log(scene)?.total();
    ensure!(logged == 5, "nginx served {logged}");
    ensure!(finished.spans.is_empty(), "spans of what is not covered");
    let encrypted = finished.metrics.sum("pilotfish_flows_encrypted_total")?;
    ensure!(encrypted > 0, "no flow is told as encrypted");
    Ok(())
}
