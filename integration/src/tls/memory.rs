//! The text of a library in a process's memory, compared with its file: a breakpoint is a byte that differs.

use crate::process::wait_for;
use anyhow::{Context, Result, ensure};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::time::Duration;

/// Bound for the kernel's taking back of breakpoints.
const LIMIT: Duration = Duration::from_secs(10);

/// Number of bytes by which a process's text of the library with this name differs from the file.
pub fn differing_bytes(pid: u32, library: &str) -> Result<usize> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let memory = File::open(format!("/proc/{pid}/mem"))?;
    let (mut found, mut differing) = (false, 0);
    for line in maps.lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [range, permissions, offset, _, _, path] = fields[..] else {
            continue;
        };
        if !permissions.contains('x') || !path.ends_with(library) {
            continue;
        }
        found = true;
        let (start, end) = range.split_once('-').context("a range of addresses")?;
        let (start, end) = (
            u64::from_str_radix(start, 16)?,
            u64::from_str_radix(end, 16)?,
        );
        let size = usize::try_from(end - start)?;
        let (mut mapped, mut stored) = (vec![0; size], vec![0; size]);
        memory
            .read_exact_at(&mut mapped, start)
            .with_context(|| format!("cannot read the memory of process {pid}"))?;
        let file = File::open(path).with_context(|| format!("cannot open {path}"))?;
        let length = file.read_at(&mut stored, u64::from_str_radix(offset, 16)?)?;
        let both = mapped.iter().zip(&stored).take(length);
        differing += both.filter(|(mapped, stored)| mapped != stored).count();
    }
    ensure!(found, "process {pid} has no text of {library}");
    Ok(differing)
}

/// Waits until a process's text of the library is its file's again.
pub fn wait_until_untouched(pid: u32, library: &str) -> Result<()> {
    wait_for("that the text is the file's again", LIMIT, || {
        Ok((differing_bytes(pid, library)? == 0).then_some(()))
    })
}
