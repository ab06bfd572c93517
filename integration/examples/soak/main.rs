//! A bounded soak: HTTPS servers under load for a while, with the agent's probes in them. `cargo xtask soak` calls it.
//!
//! It fails if the kernel warned of anything, if the agent, its eBPF maps or the servers grew after a warm-up, if anything
//! was lost, if the spans are not exactly the requests that the clients had answered, or if anything is left attached.
//! Ctrl-C ends the load early; what was seen until then is judged all the same.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a report is for printing"
)]

mod growth;
mod kernel_log;
mod left;
mod load;
mod servers;
mod verdict;

use anyhow::{Context, Result};
use clap::Parser;
use growth::Growth;
use integration::agent::Setup;
use integration::tls::Certificate;
use integration::tls::coverage::{family, wait_until_probed};
use integration::{Agent, Scene};
use kernel_log::KernelLog;
use load::{Curls, Tally};
use servers::Served;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};
use verdict::Verdict;

/// Between two looks at what has grown.
const LOOK: Duration = Duration::from_secs(5);
/// Between two lines of progress.
const PROGRESS: Duration = Duration::from_mins(1);
/// How often an end of the load is looked for.
const POLL: Duration = Duration::from_millis(100);

/// Loads HTTPS servers under observation, and judges what became of them.
#[derive(Parser)]
struct Options {
    /// How long the load lasts; less than 5 minutes leave Node.js no time to fill its heap
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(5..=24 * 60))]
    minutes: u64,
}

fn main() -> ExitCode {
    match run(Duration::from_mins(Options::parse().minutes)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Soaks and prints; false when something did not hold.
fn run(length: Duration) -> Result<bool> {
    let mut kernel = KernelLog::from_now()?;
    let stop = Arc::new(AtomicBool::new(false));
    let on_signal = Arc::clone(&stop);
    ctrlc::set_handler(move || on_signal.store(true, Ordering::Relaxed))
        .context("cannot catch signals")?;

    let scene = Scene::new()?;
    let certificate = Certificate::new(&scene)?;
    let servers = servers::start(&scene, &certificate)?;
    let mut curls = Curls::start(&scene, &certificate, &servers)?;
    let agent = watch(&scene, &servers, &curls)?;
    kernel.own(agent.pid())?;
    let held = integration::holdings::Holdings::of(agent.pid())?;

    curls.begin()?;
    let begin = Instant::now();
    let mut growth = Growth::new(&agent, &servers)?;
    let mut tally = std::thread::scope(|scope| {
        let clients = scope.spawn(|| load::run(&scene, &servers, begin + length, &stop));
        let looked = look_on(begin, &agent, &mut growth, &mut kernel, || {
            clients.is_finished()
        });
        stop.store(true, Ordering::Relaxed);
        let tally = clients
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        looked.and(tally)
    })?;
    let lasted = begin.elapsed();
    let observed = curls.end()?;

    let mut verdict = Verdict::default();
    growth.judge(&mut verdict);
    let metrics = agent.settle()?;
    let made = observed.total();
    tally.merge(observed);
    verdict.servers(&tally, &servers, &metrics)?;
    verdict.clients(made, tally.broken, &metrics)?;
    left::judge_at_rest(&mut verdict, &agent, &held);
    left::judge_end(&mut verdict, agent);
    left::judge_after_end(&mut verdict, &scene, &servers);
    kernel.judge(&mut verdict)?;
    Ok(print(lasted, &tally, &verdict))
}

/// An agent with the probes in place. It writes every span as JSON, as one with an exporter does, but nobody keeps them.
fn watch(scene: &Scene, servers: &[Served], curls: &Curls) -> Result<Agent> {
    let mut pids: Vec<u32> = servers.iter().map(|served| served.server.pid()).collect();
    pids.push(curls.pid());
    let agent = Setup::watching(scene, &pids)?
        .print_file(Path::new("/dev/null"))
        .start()?;
    for served in servers {
        wait_until_probed(&agent, &family(served.server.pid())?, served.library)
            .with_context(|| format!("the server {}", served.name))?;
    }
    Ok(agent)
}

/// Takes figures until `ended`.
fn look_on(
    begin: Instant,
    agent: &Agent,
    growth: &mut Growth,
    kernel: &mut KernelLog,
    ended: impl Fn() -> bool,
) -> Result<()> {
    let (mut look, mut progress) = (begin + LOOK, begin + PROGRESS);
    while !ended() {
        sleep(POLL);
        if Instant::now() < look {
            continue;
        }
        look += LOOK;
        growth.look(begin.elapsed())?;
        kernel.own(agent.pid())?;
        kernel.read()?;
        if Instant::now() >= progress {
            progress += PROGRESS;
            eprintln!("{:>4} s  {}", begin.elapsed().as_secs(), growth.now());
        }
    }
    Ok(())
}

fn print(lasted: Duration, tally: &Tally, verdict: &Verdict) -> bool {
    println!(
        "{} s of load, {tally}\n\n{}",
        lasted.as_secs(),
        verdict.table()
    );
    verdict.holds()
}
