//! Every HTTPS server of the table: each exchange is seen in plaintext, on its own connection.

use anyhow::{Context, Result, ensure};
use integration::span::with_path;
use integration::tls::coverage::{family, must_be_lossless, wait_until_probed};
use integration::tls::server::{SERVERS, ServerKind, kind};
use integration::tls::{self, Certificate, load};
use integration::{Kind, Scene, Trials, load as plain};

/// Size of the fixtures' large body.
const LARGE: i64 = 1 << 20;

/// Connections of the standard load.
const CONNECTIONS: usize = 4;

pub(crate) fn register(trials: &mut Trials) {
    trials.subject("tls_servers");
    for kind in SERVERS {
        trials.add(kind.name, kind.tools, |scene| standard(kind, scene));
    }
    for name in [
        "aiohttp",
        "node",
        "go",
        "nginx",
        "rustls",
        "rustls_tokio",
        "rustls_tokio_without_tickets",
    ] {
        let tools = kind(name).map(|kind| kind.tools).unwrap_or_default();
        trials.add(&format!("many_connections_{name}"), tools, move |scene| {
            many_connections(name, scene)
        });
    }
}

fn standard(kind: &ServerKind, scene: &Scene) -> Result<()> {
    let certificate = Certificate::new(scene)?;
    let server = kind.start(scene, &certificate)?;
    let agent = tls::watch(scene, &[server.pid()])?;
    let family = family(server.pid())?;
    wait_until_probed(&agent, &family, kind.library)?;
    let exchanges = load::run(server.port, &plain::mix(CONNECTIONS, 15))?;
    let finished = agent.finish()?;

    exchanges.must_be_all(&finished, server.port)?;
    ensure!(
        finished.spans.len() as u64 == exchanges.total(),
        "spans beyond the client's tally"
    );
    must_be_lossless(&finished.metrics)?;
    for (name, expected) in [
        ("pilotfish_tls_attached_total", family.len()),
        ("pilotfish_flows_tls_total", CONNECTIONS),
    ] {
        let counted = finished.metrics.sum(name)?;
        ensure!(
            counted == expected as u64,
            "{name} is {counted}, not {expected}"
        );
    }
    ensure!(
        finished
            .metrics
            .sum("pilotfish_kernel_bytes_ciphertext_total")?
            > LARGE as u64,
        "ciphertext was captured though its plaintext is seen"
    );
    for span in with_path(&finished.spans, Kind::Server, "/large") {
        let size = span.integer("http.response.body.size");
        ensure!(size == Some(LARGE), "size of the large response: {span:?}");
    }
    let values = serde_json::to_string(
        &finished
            .spans
            .iter()
            .map(|span| &span.attributes)
            .collect::<Vec<_>>(),
    )
    .context("attributes")?;
    ensure!(!values.contains("secret"), "a query value left the process");
    Ok(())
}

/// Connections that come and go, 16 at a time: objects and sockets are freed and used again.
fn many_connections(name: &str, scene: &Scene) -> Result<()> {
    let certificate = Certificate::new(scene)?;
    let kind = kind(name)?;
    let server = kind.start(scene, &certificate)?;
    let agent = tls::watch(scene, &[server.pid()])?;
    wait_until_probed(&agent, &family(server.pid())?, kind.library)?;
    let mut exchanges = load::Exchanges::default();
    for round in 0..ROUNDS {
        let plan = (0..AT_A_TIME)
            .map(|number| {
                let path = format!("/items/{round}-{number}");
                vec![
                    plain::Ask::Get(path),
                    plain::Ask::Post(format!("/echo/{round}-{number}"), 20_000),
                ]
            })
            .collect();
        exchanges.merge(load::run(server.port, &plan)?);
    }
    let finished = agent.finish()?;
    exchanges.must_be_all(&finished, server.port)?;
    must_be_lossless(&finished.metrics)
}

const ROUNDS: usize = 20;
const AT_A_TIME: usize = 16;
