//! The OCI hook in a machine, and what a node agent there knows of containers.

use super::machine::Machine;
use crate::agent::Agent;
use crate::place;
use crate::process::wait_for;
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

/// Where the hook is in a machine.
pub const HOOK: &str = "/usr/local/bin/pilotfish-hook";

/// Where hook and agent meet unless they are told otherwise.
pub const SOCKET: &str = "/run/pilotfish/hook.sock";

/// Where an agent remembers containers unless it is told otherwise.
pub const STATE: &str = "/run/pilotfish/containers";

/// The annotation that selects a container.
pub const INSTRUMENT: &str = "pilotfish.dev/instrument";

/// Bound for what an agent does in milliseconds, or after a grace period of 30 s.
const LIMIT: Duration = Duration::from_secs(45);

/// Puts the hook into a machine, and gives back where.
pub fn install(machine: &Machine) -> Result<&'static str> {
    machine.copy_in(&place::hook_binary()?, HOOK, 0o755)?;
    Ok(HOOK)
}

/// The hook with these options, as one entry of a stage in a bundle's configuration.
pub fn entry(stage: &str, options: &[&str]) -> Value {
    let words = ["pilotfish-hook", "--stage", stage];
    let words: Vec<&str> = words.iter().chain(options).copied().collect();
    json!({ "path": HOOK, "args": words, "timeout": 30 })
}

/// Adds the hook to a bundle's configuration at both of its stages.
pub fn add(config: &mut Value, options: &[&str]) {
    for stage in ["createRuntime", "poststop"] {
        config["hooks"][stage] = json!([entry(stage, options)]);
    }
}

/// Adds the annotation that selects a container.
pub fn select(config: &mut Value) {
    config["annotations"][INSTRUMENT] = "true".into();
}

/// Ids of the containers that have a slot, one entry for each slot.
pub fn observed(agent: &Agent) -> Result<Vec<String>> {
    let status = agent.status()?;
    let containers = status["containers"].as_array().context("no containers")?;
    let mut ids: Vec<String> = containers
        .iter()
        .map(|container| {
            let id = container["resource"]["container.id"].as_str();
            id.unwrap_or_default().to_owned()
        })
        .collect();
    ids.sort_unstable();
    Ok(ids)
}

/// Waits until exactly these containers have a slot, each one, and a file in the state directory.
pub fn await_observed(agent: &Agent, machine: &Machine, ids: &[&str]) -> Result<()> {
    let mut wanted: Vec<String> = ids.iter().map(ToString::to_string).collect();
    wanted.sort_unstable();
    let mut last = (Vec::new(), BTreeSet::new());
    wait_for("the agent's notice", LIMIT, || {
        last = (observed(agent)?, remembered(machine)?);
        Ok((last.0 == wanted && last.1.iter().eq(&wanted)).then_some(()))
    })
    .with_context(|| format!("wanted {wanted:?}, last seen {last:?}"))
}

/// Ids of the containers in the state directory. Whatever else is there is told by its whole name.
pub fn remembered(machine: &Machine) -> Result<BTreeSet<String>> {
    let entries = fs::read_dir(machine.path(STATE)).context("no state directory")?;
    let name = |entry: fs::DirEntry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        name.strip_suffix(".json").unwrap_or(&name).to_owned()
    };
    Ok(entries.flatten().map(name).collect())
}

/// Processes of an observed container, as the agent knows them.
pub fn processes(agent: &Agent, id: &str) -> Result<usize> {
    let status = agent.status()?;
    let containers = status["containers"].as_array().context("no containers")?;
    let of_container = containers
        .iter()
        .find(|container| container["resource"]["container.id"] == id)
        .with_context(|| format!("{id} is not observed"))?;
    Ok(of_container["processes"].as_array().map_or(0, Vec::len))
}
