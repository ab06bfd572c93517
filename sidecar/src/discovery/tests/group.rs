//! Cgroups of tests; making them needs root and a cgroup v2 mount.

use super::*;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

/// A cgroup that is removed with the test; its name is a container's id.
pub(super) struct Group {
    directory: PathBuf,
    pub(super) id: String,
}

impl Group {
    pub(super) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let id = format!("pilotfish-test-{}-{number}", std::process::id());
        Self::make(unified_mount().join(&id), id)
    }

    pub(super) fn below(&self, name: &str) -> Self {
        Self::make(self.directory.join(name), name.to_owned())
    }

    fn make(directory: PathBuf, id: String) -> Self {
        std::fs::create_dir(&directory)
            .unwrap_or_else(|error| panic!("cannot make {}: {error}", directory.display()));
        Self { directory, id }
    }

    pub(super) fn take(&self, pid: i32) {
        std::fs::write(self.directory.join("cgroup.procs"), pid.to_string()).unwrap();
    }

    /// A process in the group that sleeps after the commands, and prints its pid last.
    pub(super) fn start(&self, commands: &str, lines: usize) -> Family {
        let procs = self.directory.join("cgroup.procs");
        let script = format!(
            "echo $$ > {}; {commands} echo $$; exec sleep 1000",
            procs.display()
        );
        Family::start(&script, lines)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Processes that were killed just now still hold it for a moment.
        while let Err(error) = std::fs::remove_dir(&self.directory) {
            if error.kind() != io::ErrorKind::ResourceBusy {
                return;
            }
            let text = std::fs::read_to_string(self.directory.join("cgroup.procs"));
            for pid in text.unwrap_or_default().lines() {
                let pid = nix::unistd::Pid::from_raw(pid.parse().unwrap());
                let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
            }
            std::thread::yield_now();
        }
    }
}

fn unified_mount() -> PathBuf {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let mut mounts = mounts.lines().map(|line| line.split(' '));
    let point = mounts.find_map(|mut fields| {
        let (point, kind) = (fields.nth(1)?, fields.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(point))
    });
    point.expect("a cgroup2 mount")
}
