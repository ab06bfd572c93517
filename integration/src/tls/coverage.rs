//! What the agent says of TLS: which process is probed, what is not covered, and what was lost.

use crate::agent::Agent;
use crate::metrics::Metrics;
use crate::process::{children, wait_for};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::collections::BTreeSet;
use std::time::Duration;

/// Bound for looking at a process; the last of the agent's own looks comes after some 6 seconds.
const LIMIT: Duration = Duration::from_secs(20);

/// What `/status` says of one process.
pub fn of_process(agent: &Agent, pid: u32) -> Result<Option<Value>> {
    let status = agent.status()?;
    let processes = status["tls"]["processes"]
        .as_array()
        .with_context(|| format!("no processes under tls: {status:#}"))?;
    let own = |process: &&Value| process["pid"] == pid;
    Ok(processes.iter().find(own).cloned())
}

/// Waits until each of these processes has probes in a library of this kind.
pub fn wait_until_probed(agent: &Agent, pids: &[u32], library: &str) -> Result<()> {
    for &pid in pids {
        let mut last = None;
        wait_for("that a process is probed", LIMIT, || {
            last = of_process(agent, pid)?;
            let Some(probed) = last
                .as_ref()
                .and_then(|process| process["probed"].as_array())
            else {
                return Ok(None);
            };
            let found = probed.iter().any(|file| file["library"] == library);
            Ok(found.then_some(()))
        })
        .with_context(|| format!("/status says of process {pid}: {last:?}"))?;
    }
    Ok(())
}

/// Waits until `/status` tells why a file of a process is not covered: of the first whose path contains `name`.
pub fn wait_for_reason(agent: &Agent, pid: u32, name: &str) -> Result<String> {
    let mut last = None;
    wait_for("that a file is told not to be covered", LIMIT, || {
        last = of_process(agent, pid)?;
        Ok(last.as_ref().and_then(|process| {
            let files = process["not_covered"].as_array()?;
            let own = |file: &&Value| {
                file["path"]
                    .as_str()
                    .is_some_and(|path| path.contains(name))
            };
            let file = files.iter().find(own)?;
            file["reason"].as_str().map(str::to_owned)
        }))
    })
    .with_context(|| format!("/status says of process {pid}: {last:?}"))
}

/// A process and its children.
pub fn family(pid: u32) -> Result<Vec<u32>> {
    let all: BTreeSet<u32> = [pid].into_iter().chain(children(pid)?).collect();
    Ok(all.into_iter().collect())
}

/// Counters that are above zero only when something was missed, guessed or given up. A server that answers before it has
/// read a body makes a parser look for the next message, with TLS and without, so that is not among them.
const LOSSES: &[&str] = &[
    "pilotfish_kernel_records_lost_ring_full_total",
    "pilotfish_kernel_tls_operations_unended_total",
    "pilotfish_kernel_tls_operations_without_room_total",
    "pilotfish_kernel_tls_storage_failures_total",
    "pilotfish_kernel_tls_untied_total",
    "pilotfish_kernel_flow_storage_failures_total",
    "pilotfish_kernel_operations_unreadable_total",
    "pilotfish_kernel_operations_without_buffer_total",
    "pilotfish_flows_encrypted_total",
    "pilotfish_flows_late_total",
    "pilotfish_flows_rejoined_total",
    "pilotfish_flows_evicted_total",
    "pilotfish_flows_unknown_total",
    "pilotfish_flows_tls_unassociated_total",
    "pilotfish_exchanges_abandoned_total",
    "pilotfish_bytes_duplicate_total",
    "pilotfish_bytes_after_end_total",
    "pilotfish_holes_total",
    "pilotfish_records_malformed_total",
    "pilotfish_tls_events_lost_total",
    "pilotfish_tls_failures_total",
    "pilotfish_tls_processes_beyond_bound_total",
];

/// The counters of losses that are above zero, by name without `pilotfish_`.
pub fn losses(metrics: &Metrics) -> Result<Vec<(&'static str, u64)>> {
    let mut above = Vec::new();
    for name in LOSSES {
        ensure!(metrics.has(name), "no counter {name}");
        let value = metrics.sum(name)?;
        if value > 0 {
            above.push((name.trim_start_matches("pilotfish_"), value));
        }
    }
    Ok(above)
}

/// Fails if a counter tells of a loss.
pub fn must_be_lossless(metrics: &Metrics) -> Result<()> {
    let above = losses(metrics)?;
    ensure!(above.is_empty(), "counters of losses: {above:?}");
    Ok(())
}
