//! The functions of OpenSSL that a request goes through, where the agent probes them, and empty programs at them.

use crate::Bench;
use crate::hooks::hold;
use anyhow::{Context, Result, ensure};
use integration::process::Process;
use integration::program;
use pilotfish_symbols::Binary;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;

/// nginx calls no other probed function for a request on a connection that is open.
pub(super) const OF_REQUEST: [&str; 2] = ["SSL_read", "SSL_write"];

/// The library under the name that processes have mapped it by.
pub(super) const LIBRARY: &str = "/libssl.so.3";

/// Which probes are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Probes {
    Entries,
    Both,
}

/// Places in the library of a process.
#[derive(Debug)]
pub(super) struct Places {
    pid: u32,
    file: PathBuf,
    offsets: Vec<u64>,
    /// The kernel has to single-step an instruction there.
    pub(super) is_stepped: bool,
}

impl Places {
    /// Finds the entries of functions as the agent does.
    pub(super) fn of(pid: u32, functions: &[&str]) -> Result<Self> {
        let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
        let file: PathBuf = maps
            .split_whitespace()
            .find(|word| word.ends_with(LIBRARY))
            .with_context(|| format!("process {pid} does not use {LIBRARY}"))?
            .into();
        let opened = File::open(&file).with_context(|| format!("no {}", file.display()))?;
        let binary = Binary::open(opened)?;
        let entries = binary
            .functions(functions)?
            .iter()
            .map(|function| binary.entry(function))
            .collect::<Result<Vec<_>, _>>()?;
        ensure!(
            entries.len() == functions.len(),
            "{} has not all of {functions:?}",
            file.display()
        );
        Ok(Self {
            pid,
            file,
            offsets: entries.iter().map(|entry| entry.offset).collect(),
            is_stepped: entries.iter().any(|entry| !entry.is_emulated),
        })
    }

    /// Empty programs there, for as long as the process that is given back lives.
    pub(super) fn hold(&self, bench: &Bench, probes: Probes) -> Result<Process> {
        let mut command = Command::new(program::c("empty_uprobes.c")?);
        command
            .arg(match probes {
                Probes::Entries => "entries",
                Probes::Both => "both",
            })
            .arg(self.pid.to_string())
            .arg(&self.file)
            .args(self.offsets.iter().map(u64::to_string));
        hold(bench, "empty_uprobes.c", command)
    }
}
