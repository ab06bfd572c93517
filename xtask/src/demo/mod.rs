//! `cargo xtask demo`: a container with nginx and a Python application, pilotfish beside it, and what it saw.

mod container;
mod face;
mod footprint;
mod http;
mod interrupt;
mod lineage;
mod network;
mod pod;
mod red;
mod spans;
mod traffic;
mod verify;
mod waterfall;

use std::thread;
use std::time::{Duration, Instant};

use anstream::{eprintln, println};
use anyhow::{Context, Result, bail};
use clap::Args;

use crate::command;
use crate::setup::{self, Scope};
use crate::workspace::Workspace;
use face::{DIM, FAILURE, SUCCESS, heading, paint};
use footprint::Footprint;
use lineage::Lineage;
use pod::{METRICS, NGINX, Pod};
use spans::{Log, Span};
use traffic::Tally;

/// How long the last spans may take to arrive.
const PATIENCE: Duration = Duration::from_secs(10);

const DIFFERENCES_SHOWN: usize = 20;

/// Options of `demo`.
#[derive(Args)]
pub(crate) struct Options {
    /// End by itself; succeed only when every span and count is as the client's tally says
    #[arg(long)]
    pub(crate) once: bool,
}

/// The `demo` command; false when the agent's account differs from the client's.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<bool> {
    setup::ensure(workspace, Scope::Demo)?;
    if !setup::is_root() {
        bail!("the demo starts containers and needs root");
    }
    println!("building the release binary");
    command::run(&mut workspace.build_agent())?;

    interrupt::catch()?;
    let footprint = Footprint::claim()?;
    let pod = Pod::start(workspace, &footprint)?;
    introduce(&pod);
    let agrees = account(&pod)?;
    if options.once {
        pod.sidecar.stop(&footprint).context("stopping pilotfish")?;
    } else {
        stay(&pod)?;
    }
    Ok(agrees)
}

fn introduce(pod: &Pod) {
    println!();
    println!("{}", heading("one pod, two containers"));
    println!(
        "  app      {}  nginx → shop → stock",
        paint(DIM, &pod.app.id[..12])
    );
    println!(
        "  sidecar  {}  pilotfish: uid 65534, CAP_BPF CAP_PERFMON CAP_SYS_PTRACE",
        paint(DIM, &pod.sidecar.id[..12])
    );
}

/// Sends the traffic, shows what was seen and compares.
fn account(pod: &Pod) -> Result<bool> {
    let tally = traffic::send(pod.address)?;
    let mut log = Log::new(pod.spans.clone());
    let spans = collect(&mut log, &tally)?;
    let page = http::get(pod.address, METRICS, "/metrics")?.body;

    println!("\n{}", heading("traces"));
    for trace in &tally.begun {
        show_trace(&spans, &trace.trace_id);
    }
    println!("{}", heading("requests by route"));
    println!("{}\n", red::render(&spans));

    let differences = verify::differences(&tally, &spans, &page, &pod.app.id);
    let summary = summary(&tally, &spans);
    if differences.is_empty() {
        println!("{} {summary}", paint(SUCCESS, "✓"));
    } else {
        println!("{} {summary}", paint(FAILURE, "✗"));
        for difference in differences.iter().take(DIFFERENCES_SHOWN) {
            println!("  {difference}");
        }
        if differences.len() > DIFFERENCES_SHOWN {
            println!(
                "  and {} more differences",
                differences.len() - DIFFERENCES_SHOWN
            );
        }
        eprintln!("pilotfish: {}", pod.sidecar.last_words());
    }
    Ok(differences.is_empty())
}

fn summary(tally: &Tally, spans: &[Span]) -> String {
    let servers = spans.iter().filter(|span| span.server).count();
    let inner = tally.served.iter().filter(|served| served.port != NGINX);
    format!(
        "{} requests sent: {} server spans expected, {servers} seen, and {} client spans\n  \
         {} of {} inner server spans are below the request that caused them, the others\n  \
         begin a trace: with several requests under way, nginx's thread names no parent",
        tally.requests,
        tally.served.len(),
        spans.len() - servers,
        Lineage::new(spans).continued(),
        inner.count(),
    )
}

/// Reads spans until all are there, and a little longer: one too many would be wrong as well.
fn collect(log: &mut Log, tally: &Tally) -> Result<Vec<Span>> {
    let deadline = Instant::now() + PATIENCE;
    let mut spans = Vec::new();
    while Instant::now() < deadline && !verify::complete(tally, &spans) {
        interrupt::check()?;
        thread::sleep(Duration::from_millis(50));
        spans.extend(log.read()?);
    }
    thread::sleep(Duration::from_millis(500));
    spans.extend(log.read()?);
    Ok(spans)
}

fn show_trace(spans: &[Span], trace_id: &str) {
    let members: Vec<&Span> = spans
        .iter()
        .filter(|span| span.trace_id == trace_id)
        .collect();
    if !members.is_empty() {
        println!("{}\n", waterfall::render(&members));
    }
}

/// Keeps the pages up, and shows the traces of whatever the user sends, until Ctrl-C.
fn stay(pod: &Pod) -> Result<()> {
    let address = pod.address;
    println!();
    println!("  metrics   http://{address}:{METRICS}/metrics   (also /status)");
    println!("  try it    curl http://{address}:{NGINX}/orders/7");
    println!("  Ctrl-C ends the demo and removes everything it made\n");
    let mut log = Log::new(pod.spans.clone());
    log.read()?;
    while !interrupt::came() {
        pod.sidecar
            .check_alive()
            .with_context(|| pod.sidecar.last_words())?;
        thread::sleep(Duration::from_millis(300));
        let spans = log.read()?;
        let mut shown: Vec<&str> = Vec::new();
        for span in &spans {
            if !shown.contains(&span.trace_id.as_str()) {
                shown.push(&span.trace_id);
                show_trace(&spans, &span.trace_id);
            }
        }
    }
    println!("removing containers, network and files");
    Ok(())
}
