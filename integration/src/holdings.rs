//! What an agent holds on to: what must not grow with the number of containers that it has seen.

use crate::place;
use crate::process::wait_for;
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

/// Bound for closing what nobody uses any more.
const LIMIT: Duration = Duration::from_secs(20);

/// Maps with an entry for each container under observation. Scope and flows are in storage that the kernel keeps with
/// tasks and sockets, and frees with them.
const MAPS: &[&str] = &["SETTINGS", "CGROUPS"];

/// What one process holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holdings {
    /// Resident memory, bytes.
    pub resident: u64,
    /// What each open descriptor refers to, and how often.
    pub descriptors: BTreeMap<String, usize>,
    /// Entries with a value other than zero, by map.
    pub entries: BTreeMap<&'static str, usize>,
}

impl Holdings {
    /// Of an agent.
    pub fn of(pid: u32) -> Result<Self> {
        Ok(Self {
            resident: resident(pid)?,
            descriptors: descriptors(pid)?,
            entries: entries(pid)?,
        })
    }

    /// Waits until a process has no more descriptors of any kind than these. Connections of whoever reads its pages come
    /// and go.
    pub fn await_no_more_descriptors(&self, pid: u32) -> Result<()> {
        let mut more = BTreeMap::new();
        wait_for("that descriptors are closed", LIMIT, || {
            more = descriptors(pid)?;
            more.retain(|kind, count| *count > self.descriptors.get(kind).copied().unwrap_or(0));
            Ok(more.is_empty().then_some(()))
        })
        .with_context(|| format!("more than before are {more:?}"))
    }

    /// Number of open descriptors.
    pub fn descriptor_count(&self) -> usize {
        self.descriptors.values().sum()
    }
}

fn resident(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.context("VmRSS")?.trim().trim_end_matches(" kB");
    Ok(kibibytes.parse::<u64>()? * 1024)
}

fn descriptors(pid: u32) -> Result<BTreeMap<String, usize>> {
    let mut descriptors = BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))?.flatten() {
        // One may be closed between listing and reading.
        let Ok(target) = fs::read_link(entry.path()) else {
            continue;
        };
        let target = target.to_string_lossy();
        // The number of a socket or pipe says nothing.
        let kind = match target.split_once(":[") {
            Some((kind @ ("socket" | "pipe"), _)) => kind,
            _ => &target,
        };
        *descriptors.entry(kind.to_owned()).or_default() += 1;
    }
    Ok(descriptors)
}

fn entries(pid: u32) -> Result<BTreeMap<&'static str, usize>> {
    MAPS.iter()
        .map(|name| Ok((*name, in_use(&dump(pid, name)?)?)))
        .collect()
}

/// The entries of the map of this name that a process holds, as bpftool prints them.
pub fn dump(pid: u32, name: &str) -> Result<Value> {
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo"))?.flatten() {
        // One may be closed between listing and reading.
        let Ok(text) = fs::read_to_string(entry.path()) else {
            continue;
        };
        let Some(id) = text.lines().find_map(|line| line.strip_prefix("map_id:")) else {
            continue;
        };
        let id = id.trim();
        if bpftool(&["show", "id", id])?["name"] == name {
            return bpftool(&["dump", "id", id]);
        }
    }
    bail!("process {pid} has no map {name}")
}

/// Arrays have all their entries all the time; one in use has a byte other than zero.
fn in_use(dumped: &Value) -> Result<usize> {
    let entries = dumped.as_array().context("bpftool dumps a list")?;
    let used = entries.iter().filter(|entry| {
        let bytes = entry["value"].as_array();
        bytes.is_none_or(|bytes| bytes.iter().any(|byte| byte != "0x00"))
    });
    Ok(used.count())
}

fn bpftool(arguments: &[&str]) -> Result<Value> {
    let mut command = place::command("bpftool")?;
    let output = command.args(["--json", "map"]).args(arguments).output()?;
    ensure!(
        output.status.success(),
        "bpftool map {arguments:?}: {}",
        String::from_utf8_lossy(&output.stdout)
    );
    serde_json::from_slice(&output.stdout).context("bpftool's JSON")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_entry_of_zeros_is_not_in_use() {
        let dumped = json!([
            { "key": ["0x00"], "value": ["0x00", "0x00"] },
            { "key": ["0x01"], "value": ["0x00", "0x10"] },
        ]);
        assert_eq!(in_use(&dumped).expect("a list"), 1);
        assert_eq!(in_use(&json!([])).expect("a list"), 0);
    }
}
