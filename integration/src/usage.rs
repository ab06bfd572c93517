//! What a process uses: processor time, memory, and memory that its eBPF maps take in the kernel.

use crate::process::wait_for;
use anyhow::{Context, Result};
use nix::unistd::{SysconfVar, sysconf};
use std::fs;
use std::thread::sleep;
use std::time::Duration;

/// A process whose processor time stood still for this long has nothing left to do.
const CALM: Duration = Duration::from_millis(400);
/// Longest wait for that.
const CALM_LIMIT: Duration = Duration::from_secs(20);

/// User and system time of a process and its ended threads, in seconds; the kernel tells it in steps of 10 ms.
pub fn cpu_seconds(pid: u32) -> Result<f64> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    // proc_pid_stat(5): utime and stime are fields 14 and 15; the name, field 2, may contain spaces.
    let ticks: u64 = text
        .rsplit_once(") ")
        .with_context(|| format!("not the format of proc_pid_stat(5): {text:?}"))?
        .1
        .split(' ')
        .skip(11)
        .take(2)
        .map(str::parse::<u64>)
        .sum::<Result<u64, _>>()
        .with_context(|| format!("not a number of ticks in {text:?}"))?;
    let per_second = sysconf(SysconfVar::CLK_TCK)?.context("the system has no clock tick")?;
    Ok(ticks as f64 / per_second as f64)
}

/// The same once the process has come to rest.
pub fn cpu_seconds_at_rest(pid: u32) -> Result<f64> {
    let mut last = cpu_seconds(pid)?;
    wait_for("the end of the agent's work", CALM_LIMIT, || {
        sleep(CALM);
        let now = cpu_seconds(pid)?;
        // One tick: what an idle process does, and reading its pages, is no work.
        let rests = now - last < 0.015;
        last = now;
        Ok(rests.then_some(now))
    })
}

/// Bytes resident now.
pub fn resident(pid: u32) -> Result<u64> {
    status(pid, "VmRSS:")
}

/// Most bytes resident since the start, or since [`forget_peak`].
pub fn peak_resident(pid: u32) -> Result<u64> {
    status(pid, "VmHWM:")
}

/// Starts the peak anew, see `clear_refs` in `proc_pid_clear_refs(5)`.
pub fn forget_peak(pid: u32) -> Result<()> {
    let path = format!("/proc/{pid}/clear_refs");
    fs::write(&path, "5").with_context(|| format!("cannot write {path}"))
}

fn status(pid: u32, key: &str) -> Result<u64> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let kilobytes: u64 = text
        .lines()
        .find_map(|line| line.strip_prefix(key))
        .and_then(|value| value.trim().strip_suffix(" kB"))
        .with_context(|| format!("no {key} in {path}"))?
        .parse()?;
    Ok(kilobytes * 1024)
}

/// Bytes of kernel memory that the eBPF maps of a process hold.
pub fn map_memory(pid: u32) -> Result<u64> {
    let maps = descriptors(pid)?
        .into_iter()
        .filter(|text| number(text, "map_type:").is_some());
    Ok(maps.filter_map(|text| number(&text, "memlock:")).sum())
}

/// Runs and run time of the eBPF programs of a process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Runs {
    /// How often its programs ran.
    pub count: u64,
    /// Nanoseconds that they ran.
    pub nanoseconds: u64,
}

impl Runs {
    /// Reads the counters, which only move while the kernel's run time statistics are on.
    pub fn of(pid: u32) -> Result<Self> {
        let programs = descriptors(pid)?;
        Ok(Self {
            count: programs
                .iter()
                .filter_map(|text| number(text, "run_cnt:"))
                .sum(),
            nanoseconds: programs
                .iter()
                .filter_map(|text| number(text, "run_time_ns:"))
                .sum(),
        })
    }

    /// Nanoseconds of one run; not a number without any.
    pub fn mean(self) -> f64 {
        self.nanoseconds as f64 / self.count as f64
    }

    /// What was added since.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            count: self.count - earlier.count,
            nanoseconds: self.nanoseconds - earlier.nanoseconds,
        }
    }
}

/// What `/proc/PID/fdinfo` says of each descriptor, see `proc_pid_fdinfo(5)`.
pub fn descriptors(pid: u32) -> Result<Vec<String>> {
    let folder = format!("/proc/{pid}/fdinfo");
    let entries = fs::read_dir(&folder).with_context(|| format!("cannot list {folder}"))?;
    // A descriptor may be closed between listing and reading.
    Ok(entries
        .flatten()
        .filter_map(|entry| fs::read_to_string(entry.path()).ok())
        .collect())
}

fn number(fdinfo: &str, key: &str) -> Option<u64> {
    fdinfo
        .lines()
        .find_map(|line| line.strip_prefix(key))?
        .trim()
        .parse()
        .ok()
}
