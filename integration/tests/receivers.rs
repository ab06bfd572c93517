//! Real receivers: rotel takes OTLP, prometheus scrapes the metrics page, and both end up with the client's tally.

use anyhow::{Context, Result, ensure};
use integration::agent::Setup;
use integration::process::wait_for;
use integration::scene::free_port;
use integration::server::kind;
use integration::{Agent, Outcome, Process, Scene, Tally, Trials, load, place};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::net::TcpStream;
use std::time::Duration;

/// Bound for the start of a rotel and for what it does periodically.
const LIMIT: Duration = Duration::from_secs(30);

pub(crate) fn register(trials: &mut Trials) {
    trials.subject("receivers");
    trials.add("rotel_over_grpc", &["rotel", "go"], |scene| {
        rotel(scene, "grpc")
    });
    trials.add("rotel_over_http", &["rotel", "go"], |scene| {
        rotel(scene, "http/protobuf")
    });
    trials.add("prometheus", &["prometheus", "go"], prometheus);
}

/// rotel prints every span and metric that it accepted.
fn rotel(scene: &Scene, protocol: &str) -> Result<()> {
    let (grpc, http) = (free_port()?, free_port()?);
    let mut command = place::command("rotel")?;
    command.args([
        "start",
        "--exporter",
        "blackhole",
        "--debug-log",
        "traces",
        "--debug-log",
        "metrics",
    ]);
    command.args(["--debug-log-verbosity", "detailed"]);
    command.args([
        "--otlp-grpc-endpoint",
        &format!("127.0.0.1:{grpc}"),
        "--otlp-http-endpoint",
        &format!("127.0.0.1:{http}"),
    ]);
    command
        .arg("--pid-file")
        .arg(scene.folder().join("rotel.pid"));
    let rotel = Process::start("rotel", command, scene.folder())?;
    let port = if protocol == "grpc" { grpc } else { http };
    wait_for("rotel's start", LIMIT, || {
        Ok(TcpStream::connect(("127.0.0.1", port)).ok().map(drop))
    })?;

    let server = kind("go")?.start(scene)?;
    let agent = Setup::watching(scene, &[server.pid()])?
        .env(
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            &format!("http://127.0.0.1:{port}"),
        )
        .env("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
        .env("OTEL_SERVICE_NAME", "shop")
        .start()?;
    let tally = load::run(server.port, &load::mix(2, 15))?;
    agent.finish()?;
    // The agent has delivered before it ended; rotel prints from a task of its own.
    let received = wait_for("that rotel has printed every span", LIMIT, || {
        let printed = received_spans(&rotel.log())?;
        Ok((printed.total() >= tally.total()).then_some(printed))
    })
    .with_context(|| format!("rotel's log ends with:\n{}", rotel.log_tail()))?;
    tally.must_equal(&received, "the client", "rotel")?;
    let log = rotel.log();
    for expected in [
        "service.name: Str(shop)",
        "Name: http.server.request.duration",
        "SPAN_KIND_SERVER",
    ] {
        ensure!(log.contains(expected), "rotel did not print {expected:?}");
    }
    Ok(())
}

/// Spans in rotel's detailed log: blocks that start with `Span #N` and list attributes as `-> key: Type(value)`.
pub(crate) fn received_spans(log: &str) -> Result<Tally> {
    let mut tally = Tally::default();
    for block in log.split("\nSpan #").skip(1) {
        let attributes: BTreeMap<&str, &str> = block
            .lines()
            .filter_map(|line| line.trim().strip_prefix("-> ")?.split_once(": "))
            .filter_map(|(key, value)| Some((key, value.split_once('(')?.1.strip_suffix(')')?)))
            .collect();
        let attribute = |key: &str| attributes.get(key).copied();
        // The log may end in the middle of a block that is being written.
        let (Some(method), Some(path), Some(status)) = (
            attribute("http.request.method"),
            attribute("url.path"),
            attribute("http.response.status_code"),
        ) else {
            continue;
        };
        tally.add(Outcome::new(method, path, status.parse()?));
    }
    Ok(tally)
}

/// The sums over all series, asked through the query API of a prometheus that scrapes once a second.
fn prometheus(scene: &Scene) -> Result<()> {
    let server = kind("go")?.start(scene)?;
    let agent = Agent::watch(scene, &[server.pid()])?;
    let port = free_port()?;
    let configuration = scene.folder().join("prometheus.yml");
    fs::write(
        &configuration,
        format!(
            "global: {{scrape_interval: 1s}}\nscrape_configs:\n- job_name: pilotfish\n  static_configs: [{{targets: ['127.0.0.1:{}']}}]\n",
            agent.port()
        ),
    )?;
    let mut command = place::command("prometheus")?;
    command.arg(format!("--config.file={}", configuration.display()));
    command.arg(format!(
        "--storage.tsdb.path={}",
        scene.folder().join("tsdb").display()
    ));
    command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
    let _prometheus = Process::start("prometheus", command, scene.folder())?;

    let tally = load::run(server.port, &load::mix(2, 15))?;
    let counts = [
        ("http_response_status_code=~\"2..\"", 2),
        ("http_response_status_code=~\"4..\"", 4),
        ("http_response_status_code=~\"5..\"", 5),
    ];
    for (selector, class) in counts {
        let series = format!("http_server_request_duration_seconds_count{{{selector}}}");
        must_reach(port, &format!("sum({series})"), tally.of_class(class))?;
    }
    must_reach(
        port,
        "sum(http_server_request_duration_seconds_bucket{le=\"+Inf\"})",
        tally.total(),
    )?;
    must_reach(port, "count(target_info{service_name!=\"\"})", 1)?;
    agent.finish()?;
    Ok(())
}

/// Asks until the answer is the expected number; a scrape may still be under way.
fn must_reach(port: u16, query: &str, expected: u64) -> Result<()> {
    let mut last = None;
    let outcome = wait_for("the expected answer of prometheus", LIMIT, || {
        last = ask(port, query);
        Ok((last == Some(expected)).then_some(()))
    });
    outcome.with_context(|| format!("{query}: expected {expected}, last answer {last:?}"))
}

/// The value of an instant query with one result; nothing while prometheus starts or has no data.
fn ask(port: u16, query: &str) -> Option<u64> {
    let mut response = load::client()
        .get(format!("http://127.0.0.1:{port}/api/v1/query"))
        .query("query", query)
        .call()
        .ok()?;
    let answer: Value = serde_json::from_str(&response.body_mut().read_to_string().ok()?).ok()?;
    answer
        .pointer("/data/result/0/value/1")?
        .as_str()?
        .parse()
        .ok()
}
