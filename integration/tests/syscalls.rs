//! Every pair of system calls that moves a socket's bytes, over IPv4, IPv6 and unix stream sockets.

use anyhow::{Context, Result, ensure};
use integration::process::wait_for;
use integration::scene::free_port;
use integration::server::Server;
use integration::wire::Wire;
use integration::{Agent, Kind, Outcome, Process, Scene, Span, Tally, Trials, load, program};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// Requests on each connection.
const REQUESTS: usize = 8;

pub(crate) fn register(trials: &mut Trials) {
    trials.subject("syscalls");
    trials.add("ipv4", &["gcc"], |scene| {
        every_pair(scene, &Place::V4(free_port()?))
    });
    trials.add("ipv6", &["gcc"], |scene| {
        every_pair(scene, &Place::V6(free_port()?))
    });
    trials.add("unix", &["gcc"], |scene| {
        every_pair(scene, &Place::Unix(scene.folder().join("socket")))
    });
    trials.add("io_uring_is_counted", &["gcc"], io_uring);
}

/// The buffers of `io_uring` are out of sight: a named blind spot that is counted, and never a wrong span.
fn io_uring(scene: &Scene) -> Result<()> {
    let port = free_port()?;
    let mut command = Command::new(program::c("blind.c")?);
    command.arg(port.to_string());
    let server = Server::start("blind", command, scene, port)?;
    let agent = Agent::watch(scene, &[server.pid()])?;
    let tally = load::run(port, &vec![vec![load::Ask::Get("/items/1".to_owned()); 20]])?;
    let finished = agent.finish()?;
    let counted = finished
        .metrics
        .sum("pilotfish_kernel_operations_io_uring_total")?;
    ensure!(
        counted >= 2 * tally.total(),
        "{counted} operations of {} exchanges are counted",
        tally.total()
    );
    ensure!(
        finished.spans.is_empty(),
        "spans of unseen bytes: {:?}",
        finished.spans
    );
    Ok(())
}

/// Where the fixture listens.
enum Place {
    V4(u16),
    V6(u16),
    Unix(PathBuf),
}

impl Place {
    fn arguments(&self) -> [String; 2] {
        match self {
            Self::V4(port) => ["tcp4".to_owned(), port.to_string()],
            Self::V6(port) => ["tcp6".to_owned(), port.to_string()],
            Self::Unix(path) => ["unix".to_owned(), path.display().to_string()],
        }
    }

    fn connect(&self) -> Result<Wire> {
        match self {
            Self::V4(port) => Wire::connect_to(SocketAddr::from((Ipv4Addr::LOCALHOST, *port))),
            Self::V6(port) => Wire::connect_to(SocketAddr::from((Ipv6Addr::LOCALHOST, *port))),
            Self::Unix(path) => Wire::connect_unix(path),
        }
    }

    fn check(&self, span: &Span) -> Result<()> {
        let network = |kind: &str, address: &str| -> Result<()> {
            ensure!(
                span.text("network.type")
                    .ok()
                    .is_none_or(|found| found == kind),
                "network.type"
            );
            ensure!(span.text("client.address")? == address, "client.address");
            Ok(())
        };
        match self {
            Self::V4(_) => network("ipv4", "127.0.0.1"),
            Self::V6(_) => network("ipv6", "::1"),
            Self::Unix(_) => {
                ensure!(
                    span.text("network.transport")? == "unix",
                    "network.transport"
                );
                Ok(())
            }
        }
    }
}

fn every_pair(scene: &Scene, place: &Place) -> Result<()> {
    let mut command = Command::new(program::c("syscalls.c")?);
    command.args(place.arguments());
    let server = Process::start("syscalls", command, scene.folder())?;
    let pairs: usize = wait_for("the start of the server", Duration::from_secs(10), || {
        Ok(server
            .log()
            .strip_prefix("pairs ")
            .and_then(|rest| rest.trim().parse().ok()))
    })?;
    let agent = Agent::watch(scene, &[server.pid()])?;

    let mut names = Vec::new();
    for number in 0..pairs {
        let mut wire = place.connect()?;
        let mut name = String::new();
        for request in 0..REQUESTS {
            let response = wire
                .ask(&format!("/pair-{number}/{request}"))
                .with_context(|| format!("pair {number} ({name})"))?;
            name = String::from_utf8(response.body)?;
        }
        names.push(name.trim().to_owned());
    }

    let spans = agent.finish()?.spans;
    let seen = Tally::of_spans(&spans, Kind::Server)?;
    let missed = |number: &usize| {
        (0..REQUESTS).any(|request| {
            seen.count(&Outcome::new(
                "GET",
                &format!("/pair-{number}/{request}"),
                200,
            )) != 1
        })
    };
    let missed: Vec<&str> = (0..pairs)
        .filter(missed)
        .map(|number| names[number].as_str())
        .collect();
    ensure!(missed.is_empty(), "not traced exactly: {missed:?}");
    ensure!(
        spans.len() == pairs * REQUESTS,
        "{} spans of {} requests",
        spans.len(),
        pairs * REQUESTS
    );
    spans
        .iter()
        .try_for_each(|span| place.check(span).with_context(|| format!("{span:?}")))
}
