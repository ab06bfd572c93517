//! What must be gone: when the load has ended, and when the agent has.

use crate::servers::Served;
use crate::verdict::Verdict;
use anyhow::{Context, Result};
use integration::holdings::{Holdings, dump};
use integration::process::wait_for;
use integration::tls::coverage::family;
use integration::tls::memory::wait_until_untouched;
use integration::{Agent, Scene};
use std::time::Duration;

/// Bound for what is taken back a little later: servers free a connection after its end.
const LIMIT: Duration = Duration::from_secs(20);
/// A client that is killed, or a server that leaves a connection to its garbage collector, frees nothing.
const CONNECTIONS: usize = 256;

/// Without load an agent has the descriptors of its start, and no state of connections that have ended.
pub(crate) fn judge_at_rest(verdict: &mut Verdict, agent: &Agent, held: &Holdings) {
    let outcome = held.await_no_more_descriptors(agent.pid());
    verdict.check(
        "descriptors after the load",
        told(&outcome, "those of the start"),
        "no more than before",
        outcome.is_ok(),
    );
    let mut entries = 0;
    let outcome = wait_for("that state of connections is freed", LIMIT, || {
        let dumped = dump(agent.pid(), "TLS_CONNECTIONS")?;
        entries = dumped.as_array().context("bpftool dumps a list")?.len();
        Ok((entries <= CONNECTIONS).then_some(()))
    });
    verdict.check(
        "TLS connections in the kernel's map after the load",
        entries.to_string(),
        &format!("at most {CONNECTIONS}"),
        outcome.is_ok(),
    );
}

/// It ends when it is asked to, and without a panic.
pub(crate) fn judge_end(verdict: &mut Verdict, agent: Agent) {
    let outcome = agent.finish().map(drop);
    verdict.check(
        "agent's end on SIGTERM",
        told(&outcome, "in order"),
        "in order",
        outcome.is_ok(),
    );
}

/// Nothing outlives the agent: no program, hence no link, and no breakpoint in a server that still runs.
pub(crate) fn judge_after_end(verdict: &mut Verdict, scene: &Scene, servers: &[Served]) {
    let outcome = scene.check_nothing_left();
    verdict.check(
        "eBPF programs and links after the end",
        told(&outcome, "none"),
        "none",
        outcome.is_ok(),
    );
    for served in servers {
        let outcome = untouched(served);
        verdict.check(
            &format!("breakpoints in {} after the end", served.name),
            told(&outcome, "none"),
            "none",
            outcome.is_ok(),
        );
    }
}

fn untouched(served: &Served) -> Result<()> {
    family(served.server.pid())?
        .into_iter()
        .try_for_each(|pid| wait_until_untouched(pid, served.probed))
}

fn told(outcome: &Result<()>, good: &str) -> String {
    match outcome {
        Ok(()) => good.to_owned(),
        Err(error) => format!("{error:#}")
            .lines()
            .next()
            .unwrap_or_default()
            .to_owned(),
    }
}
