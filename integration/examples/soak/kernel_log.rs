//! What the kernel says meanwhile, from `/dev/kmsg` (Documentation/ABI/testing/dev-kmsg).

use crate::verdict::Verdict;
use anyhow::{Context, Result};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;

/// Largest record of the kernel's log.
const RECORD: usize = 8192;
/// Priority of a warning; worse ones are smaller.
const WARNING: u32 = 4;
/// What makes a message serious, whoever caused it.
const SERIOUS: [&str; 9] = [
    "WARNING:",
    "BUG:",
    "Oops",
    "detected stall",
    "soft lockup",
    "hard LOCKUP",
    "blocked for more than",
    "general protection",
    "refcount_t:",
];

/// Messages since a moment.
pub(crate) struct KernelLog {
    device: File,
    /// Every thread that the agent had, by thread id: a message about probes names the thread.
    threads: BTreeSet<u32>,
    serious: Vec<String>,
    others: usize,
    tainted: String,
}

impl KernelLog {
    /// Begins with the next message.
    pub(crate) fn from_now() -> Result<Self> {
        let mut device = File::options()
            .read(true)
            .custom_flags(nix::libc::O_NONBLOCK)
            .open("/dev/kmsg")
            .context("cannot read the kernel's log")?;
        device.seek(SeekFrom::End(0))?;
        Ok(Self {
            device,
            threads: BTreeSet::new(),
            serious: Vec::new(),
            others: 0,
            tainted: tainted()?,
        })
    }

    /// Takes note of the threads of a process of ours.
    pub(crate) fn own(&mut self, pid: u32) -> Result<()> {
        for entry in fs::read_dir(format!("/proc/{pid}/task"))?.flatten() {
            let name = entry.file_name();
            self.threads
                .extend(name.to_str().and_then(|id| id.parse::<u32>().ok()));
        }
        Ok(())
    }

    /// Takes what has been said by now.
    pub(crate) fn read(&mut self) -> Result<()> {
        let mut record = vec![0; RECORD];
        loop {
            match self.device.read(&mut record) {
                Ok(length) => self.take(&String::from_utf8_lossy(&record[..length])),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                // Overwritten before it was read: what is missing may have been serious.
                Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                    self.serious
                        .push("messages were overwritten unread".to_owned());
                }
                Err(error) => return Err(error).context("cannot read the kernel's log"),
            }
        }
    }

    /// A record is `PRIORITY,NUMBER,TIME,FLAGS;TEXT`, the priority with the facility above its lowest three bits.
    fn take(&mut self, record: &str) {
        let Some((head, text)) = record.split_once(';') else {
            return;
        };
        let text = text.lines().next().unwrap_or_default();
        let priority = head
            .split(',')
            .next()
            .and_then(|word| word.parse::<u32>().ok());
        let warns = priority.is_some_and(|priority| priority & 7 <= WARNING && priority >> 3 == 0);
        if SERIOUS.iter().any(|word| text.contains(word)) || (warns && self.is_ours(text)) {
            self.serious.push(text.to_owned());
        } else {
            self.others += usize::from(warns);
        }
    }

    /// Such as `uprobe: NAME:THREAD failed to ...`.
    fn is_ours(&self, text: &str) -> bool {
        text.split([' ', ':'])
            .filter_map(|word| word.parse::<u32>().ok())
            .any(|id| self.threads.contains(&id))
    }

    /// No serious message, and no new taint.
    pub(crate) fn judge(&mut self, verdict: &mut Verdict) -> Result<()> {
        self.read()?;
        let now = tainted()?;
        verdict.check(
            "kernel's warnings",
            self.serious.first().map_or("none".to_owned(), |first| {
                format!("{} lines, the first: {first}", self.serious.len())
            }),
            &format!("none, but {} that name nothing of ours", self.others),
            self.serious.is_empty(),
        );
        verdict.check(
            "kernel's taint",
            now.clone(),
            &format!("{}, as before", self.tainted),
            now == self.tainted,
        );
        Ok(())
    }
}

fn tainted() -> Result<String> {
    let text = fs::read_to_string("/proc/sys/kernel/tainted").context("the kernel's taint")?;
    Ok(text.trim().to_owned())
}
